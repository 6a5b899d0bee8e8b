"""Measures of rows in one pass over keys: sums of exponentials are carried, and scaled down when a larger logit comes.

A sum over keys of ``w_ij f(i, j)`` is carried like the sum that normalises the row. Entropy is carried as the sum of
``p t`` over exponentials ``p = 2^t`` of what logits are below the largest so far: nothing cancels in it.

Most blocks of columns are seen by all rows of a program, and are far from the places that some measure looks at (the
first keys, the row's own and its neighbours): these take the short way, about eight operations a weight.
"""

from typing import no_type_check

import triton.language as tl

from attnprobe.engines.triton.kernels.logits import (
    LN_2,
    LOG2_E,
    block_rows,
    finite,
    inner_range,
    key_range,
    load_block,
    load_queries,
    products,
    restricted,
    risen,
)
from attnprobe.engines.triton.kernels.tuning import tuned

# The order of the numbers of a row.
LSE = tl.constexpr(0)  # base-2 logarithm of the sum of exponentials, a sink's included; 0 where there is none
VALID = tl.constexpr(1)  # 1, or 0 of a row without any key
SINK = tl.constexpr(2)
STRAY = tl.constexpr(3)  # largest weight on a column that is not of the sample
ENTROPY = tl.constexpr(4)
MAX = tl.constexpr(5)
ARGMAX = tl.constexpr(6)
FIRST = tl.constexpr(7)
SELF = tl.constexpr(8)
PREVIOUS = tl.constexpr(9)
LOCAL = tl.constexpr(10)
DISTANCE = tl.constexpr(11)
DUPLICATE = tl.constexpr(12)
INDUCTION = tl.constexpr(13)
NOWHERE = tl.constexpr(2**31 - 1)


@tuned
@no_type_check
def measure(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    sinks, sinks_batch, sinks_head, sinks_row,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, factor, cap, lowest_mask,
    row_shift, column_shift, length, first, reach, ids, numbers,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    SINKS: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    POSITIONS: tl.constexpr, IDS: tl.constexpr, PLACE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """All numbers of each row, ``[number, head, row]``, of one sample.

    Row r of the call is at position ``r + row_shift`` of the sample, column c at ``c + column_shift``; columns at
    positions from 0 to `length` are the sample's. `first` keys count as first, keys less than `reach` away as local.
    With `IDS`, ``ids[position + 1]`` is the token there, and ``ids[0]`` none. With `PLACE`, it is found where a row's
    largest weight is: of all numbers the only one that makes a program's warps wait for each other.
    """
    at, own = block_rows(rows, row_count, CAUSAL, BLOCK_M)
    head = tl.load(heads + tl.program_id(1)).to(tl.int64)
    query += head * query_head
    key += head // GROUP * key_head
    mask += head * mask_head
    bias += head * bias_head
    queries = load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D)
    lowest = tl.min(own)
    highest = tl.max(own)
    start, stop = key_range(lowest, highest, keys, diagonal, window, CAUSAL, WINDOW, BLOCK_N)
    place = own + row_shift
    near = tl.maximum(reach, 2)
    low = tl.maximum(first - column_shift, 0)
    high = tl.minimum(keys, length - column_shift)
    if POSITIONS or IDS:
        high = tl.minimum(high, lowest + row_shift - near + 1 - column_shift)
    low, high = inner_range(lowest, highest, low, high, diagonal, window, CAUSAL, WINDOW, BLOCK_N)
    if high == low:  # no inner block: all are at an edge
        low = start
        high = start
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    peak_at = tl.full([BLOCK_M], NOWHERE, tl.int32)
    mass = tl.zeros([BLOCK_M], tl.float32)
    spread = tl.zeros([BLOCK_M], tl.float32)
    away = tl.zeros([BLOCK_M], tl.float32)
    repeated = tl.zeros([BLOCK_M], tl.float32)
    followed = tl.zeros([BLOCK_M], tl.float32)
    step = tl.arange(0, BLOCK_N)
    if IDS:
        token = tl.load(ids + place + 1)

    for begin in tl.range(low, high, BLOCK_N):
        logits = products(queries, load_block(key, key_row, key_dim, begin, keys, HEAD_DIM, BLOCK_D, BLOCK_N, True))
        if MASK or BIAS or CAP:
            logits = restricted(
                logits, own[:, None], (begin + step)[None, :], keys, diagonal, window, scale, cap, lowest_mask,
                mask, mask_row, mask_column, bias, bias_row, bias_column, MASK, BIAS, CAP, False, False,
            )  # fmt: skip
        most = tl.max(logits, 1)
        if PLACE:  # noqa: SIM102 (a constant of the kernel, and a test at run time)
            if tl.max((most > peak).to(tl.int32)) > 0:
                found = tl.min(tl.where(logits == most[:, None], step[None, :], BLOCK_N), 1)
                peak_at = tl.where(most > peak, begin + column_shift + found, peak_at)  # of equal ones, the first
        higher, base, lower, down = risen(peak, most, factor)
        below = logits * factor - base[:, None]
        share = tl.exp2(below)
        if MASK or BIAS:  # of what is excluded, -inf
            below = tl.where(share == 0.0, 0.0, below)
        held = tl.sum(share, 1)
        # Before `mass` itself is scaled: each of its exponentials is now `lower` further below the largest.
        spread = tl.where(down == 0.0, 0.0, down * (spread - lower * mass)) + tl.sum(share * below, 1)
        mass = mass * down + held
        if POSITIONS:
            since = (place - (begin + column_shift)).to(tl.float32)
            away = away * down + (since * held - tl.sum(share * step.to(tl.float32)[None, :], 1))
        if IDS:
            position = begin + column_shift + step
            same = tl.load(ids + position + 1)[None, :] == token[:, None]
            repeated = repeated * down + tl.sum(tl.where(same, share, 0.0), 1)
            before = tl.load(ids + position)[None, :] == token[:, None]
            followed = followed * down + tl.sum(tl.where(before, share, 0.0), 1)
        peak = higher

    stray = tl.full([BLOCK_M], float("-inf"), tl.float32)
    on_first = tl.zeros([BLOCK_M], tl.float32)
    on_own = tl.zeros([BLOCK_M], tl.float32)
    on_previous = tl.zeros([BLOCK_M], tl.float32)
    on_local = tl.zeros([BLOCK_M], tl.float32)
    ahead = (low - start) // BLOCK_N
    for number in tl.range(0, ahead + (stop - high + BLOCK_N - 1) // BLOCK_N):
        begin = tl.where(number < ahead, start + number * BLOCK_N, high + (number - ahead) * BLOCK_N)
        columns = begin + step
        logits = products(queries, load_block(key, key_row, key_dim, begin, keys, HEAD_DIM, BLOCK_D, BLOCK_N, False))
        logits = restricted(
            logits, own[:, None], columns[None, :], keys, diagonal, window, scale, cap, lowest_mask,
            mask, mask_row, mask_column, bias, bias_row, bias_column, MASK, BIAS, CAP, CAUSAL, WINDOW,
        )  # fmt: skip
        position = columns + column_shift
        inside = (position >= 0) & (position < length)
        most = tl.max(logits, 1)
        if PLACE:
            found = tl.min(tl.where(logits == most[:, None], position[None, :], NOWHERE), 1)
            better = (most > peak) | ((most == peak) & (most > float("-inf")) & (found < peak_at))
            peak_at = tl.where(better, found, peak_at)
        stray = tl.maximum(stray, tl.max(tl.where(inside[None, :], float("-inf"), logits), 1))
        higher, base, lower, down = risen(peak, most, factor)
        below = logits * factor - base[:, None]
        share = tl.exp2(below)
        below = tl.where(share == 0.0, 0.0, below)
        spread = tl.where(down == 0.0, 0.0, down * (spread - lower * mass)) + tl.sum(share * below, 1)
        mass = mass * down + tl.sum(share, 1)
        on_first = on_first * down + tl.sum(tl.where((inside & (position < first))[None, :], share, 0.0), 1)
        if POSITIONS:
            apart = tl.abs(place[:, None] - position[None, :])
            away = away * down + tl.sum(share * apart.to(tl.float32), 1)
            on_own = on_own * down + tl.sum(tl.where(apart == 0, share, 0.0), 1)
            on_previous = on_previous * down + tl.sum(tl.where(position[None, :] == place[:, None] - 1, share, 0.0), 1)
            on_local = on_local * down + tl.sum(tl.where(apart < reach, share, 0.0), 1)
        if IDS:
            earlier = position[None, :] < place[:, None]
            same = tl.load(ids + position + 1, mask=inside, other=-1)[None, :] == token[:, None]
            repeated = repeated * down + tl.sum(tl.where(same & earlier, share, 0.0), 1)
            before = tl.load(ids + position, mask=inside, other=-1)[None, :] == token[:, None]
            since = position[None, :] <= place[:, None]
            followed = followed * down + tl.sum(tl.where(before & since, share, 0.0), 1)
        peak = higher

    if SINKS:
        sink = tl.load(sinks + head * sinks_head + own.to(tl.int64) * sinks_row).to(tl.float32) * LOG2_E
    else:
        sink = tl.full([BLOCK_M], float("-inf"), tl.float32)
    top = peak * factor
    higher = tl.maximum(top, sink)
    lower = finite(higher) - finite(top)
    down = tl.where(peak == float("-inf"), 0.0, tl.exp2(-lower))
    beside = tl.where(sink == float("-inf"), 0.0, tl.exp2(sink - finite(higher)))
    total = mass * down + beside
    total = tl.where(total == 0.0, 1.0, total)
    down = down / total  # from sums of exponentials to sums of weights
    on_keys = mass * down
    out = numbers + tl.program_id(1).to(tl.int64) * row_count + at
    size = tl.num_programs(1).to(tl.int64) * row_count
    there = at < row_count
    tl.store(out + LSE * size, finite(higher) + tl.log2(total), mask=there)
    tl.store(out + VALID * size, tl.where(mass == 0.0, 0.0, 1.0), mask=there)
    tl.store(out + SINK * size, beside / total, mask=there)
    outside = tl.where(stray == float("-inf"), 0.0, tl.exp2((stray - finite(peak)) * factor))
    tl.store(out + STRAY * size, outside * down, mask=there)
    # With weights w = 2^t 2^-lower / total: -sum w ln w = ln 2 ((log2 total + lower) sum w - sum w t).
    entropy = LN_2 * (on_keys * (tl.log2(total) + lower) - spread * down)
    tl.store(out + ENTROPY * size, entropy, mask=there)
    tl.store(out + MAX * size, tl.where(mass == 0.0, 0.0, down), mask=there)
    if PLACE:
        broken = mass != mass
        tl.store(out + ARGMAX * size, tl.where(broken, mass, peak_at.to(tl.float32)), mask=there)
    tl.store(out + FIRST * size, on_first * down, mask=there)
    tl.store(out + SELF * size, on_own * down, mask=there)
    tl.store(out + PREVIOUS * size, on_previous * down, mask=there)
    tl.store(out + LOCAL * size, on_local * down, mask=there)
    tl.store(out + DISTANCE * size, away / tl.where(mass == 0.0, 1.0, mass), mask=there)
    tl.store(out + DUPLICATE * size, repeated * down, mask=there)
    tl.store(out + INDUCTION * size, followed * down, mask=there)
