"""Measures of rows in one pass over keys: sums of exponentials are carried, and scaled down when a larger logit comes.

A sum over keys of ``w_ij f(i, j)`` is carried like the sum that normalises the row. Entropy is carried as the sum of
``p (x - m)`` over exponentials ``p`` of logits ``x`` below the largest so far, ``m``: nothing cancels in it.
"""

from typing import no_type_check

import triton.language as tl

from attnprobe.engines.triton.kernels.logits import block_rows, finite, key_range, load_queries, logits_tile, shares
from attnprobe.engines.triton.kernels.tuning import tuned

# The order of the numbers of a row.
LARGEST = tl.constexpr(0)  # largest logit and sum of exponentials, a sink's included
TOTAL = tl.constexpr(1)
KEYS = tl.constexpr(2)  # mass on keys: 1, or 1 less the sink's
SINK = tl.constexpr(3)
STRAY = tl.constexpr(4)  # largest weight on a column that is not of the sample
ENTROPY = tl.constexpr(5)
MAX = tl.constexpr(6)
ARGMAX = tl.constexpr(7)
FIRST = tl.constexpr(8)
SELF = tl.constexpr(9)
PREVIOUS = tl.constexpr(10)
LOCAL = tl.constexpr(11)
DISTANCE = tl.constexpr(12)
DUPLICATE = tl.constexpr(13)
INDUCTION = tl.constexpr(14)
NUMBERS = 15
NOWHERE = tl.constexpr(2**31 - 1)


@tuned
@no_type_check
def measure(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    sinks, sinks_batch, sinks_head, sinks_row,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, cap, lowest_mask,
    row_shift, column_shift, length, first, reach, ids, numbers,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    SINKS: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    POSITIONS: tl.constexpr, IDS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """All numbers of each row, ``[number, head, row]``, of one sample.

    Row r of the call is at position ``r + row_shift`` of the sample, column c at ``c + column_shift``; columns at
    positions from 0 to `length` are the sample's. `first` keys count as first, keys less than `reach` away as local.
    With `IDS`, ``ids[position + 1]`` is the token there, and ``ids[0]`` none.
    """
    at, own = block_rows(rows, row_count, BLOCK_M)
    head = tl.load(heads + tl.program_id(1)).to(tl.int64)
    query += head * query_head
    key += head // GROUP * key_head
    mask += head * mask_head
    bias += head * bias_head
    queries = load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D)
    start, stop = key_range(tl.min(own), tl.max(own), keys, diagonal, window, CAUSAL, WINDOW, BLOCK_N)
    place = own + row_shift
    lowest, highest = tl.min(place), tl.max(place)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    peak_at = tl.full([BLOCK_M], NOWHERE, tl.int32)
    stray = tl.full([BLOCK_M], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_M], tl.float32)
    spread = tl.zeros([BLOCK_M], tl.float32)
    on_first = tl.zeros([BLOCK_M], tl.float32)
    on_own = tl.zeros([BLOCK_M], tl.float32)
    on_previous = tl.zeros([BLOCK_M], tl.float32)
    on_local = tl.zeros([BLOCK_M], tl.float32)
    away = tl.zeros([BLOCK_M], tl.float32)
    repeated = tl.zeros([BLOCK_M], tl.float32)
    followed = tl.zeros([BLOCK_M], tl.float32)
    if IDS:
        token = tl.load(ids + place + 1)
    for begin in tl.range(start, stop, BLOCK_N):
        columns = begin + tl.arange(0, BLOCK_N)
        logits = logits_tile(
            queries, own, columns, keys, diagonal, window, scale, cap, lowest_mask,
            key, key_row, key_dim, mask, mask_row, mask_column, bias, bias_row, bias_column,
            MASK, BIAS, CAP, CAUSAL, WINDOW, HEAD_DIM, BLOCK_D,
        )  # fmt: skip
        position = columns + column_shift
        inside = (position >= 0) & (position < length)
        most = tl.max(logits, 1)
        found = tl.min(tl.where(logits == most[:, None], position[None, :], NOWHERE), 1)
        peak_at = tl.where(most > peak, found, peak_at)  # blocks ascend: of equal ones, the first stays
        stray = tl.maximum(stray, tl.max(tl.where(inside[None, :], float("-inf"), logits), 1))
        higher = tl.maximum(peak, most)
        lower = finite(higher) - finite(peak)
        down = tl.where(peak == float("-inf"), 0.0, tl.exp(-lower))
        share = shares(logits, higher)
        below = tl.where(logits == float("-inf"), 0.0, logits - finite(higher)[:, None])
        # Before `mass` itself is scaled: each of its exponentials is now `lower` further below the largest.
        spread = tl.where(down == 0.0, 0.0, down * (spread - lower * mass)) + tl.sum(share * below, 1)
        mass = mass * down + tl.sum(share, 1)
        on_first *= down
        if (begin + column_shift < first) & (begin + column_shift + BLOCK_N > 0):
            on_first += tl.sum(tl.where((inside & (position < first))[None, :], share, 0.0), 1)
        if POSITIONS:
            apart = tl.abs(place[:, None] - position[None, :])
            away = away * down + tl.sum(share * apart.to(tl.float32), 1)
            on_own *= down
            on_previous *= down
            on_local *= down
            near = tl.maximum(reach, 2)
            if (begin + column_shift < highest + near) & (begin + column_shift + BLOCK_N > lowest - near):
                on_own += tl.sum(tl.where(apart == 0, share, 0.0), 1)
                on_previous += tl.sum(tl.where(position[None, :] == place[:, None] - 1, share, 0.0), 1)
                on_local += tl.sum(tl.where(apart < reach, share, 0.0), 1)
        if IDS:
            earlier = position[None, :] < place[:, None]
            same = tl.load(ids + position + 1, mask=inside, other=-1)[None, :] == token[:, None]
            repeated = repeated * down + tl.sum(tl.where(same & earlier, share, 0.0), 1)
            before = tl.load(ids + position, mask=inside, other=-1)[None, :] == token[:, None]
            since = position[None, :] <= place[:, None]
            followed = followed * down + tl.sum(tl.where(before & since, share, 0.0), 1)
        peak = higher
    if SINKS:
        sink = tl.load(sinks + head * sinks_head + own.to(tl.int64) * sinks_row).to(tl.float32)
    else:
        sink = tl.full([BLOCK_M], float("-inf"), tl.float32)
    higher = tl.maximum(peak, sink)
    lower = finite(higher) - finite(peak)
    down = tl.where(peak == float("-inf"), 0.0, tl.exp(-lower))
    beside = tl.where(sink == float("-inf"), 0.0, tl.exp(sink - finite(higher)))
    total = mass * down + beside
    down = down / tl.where(total == 0.0, 1.0, total)  # from sums of exponentials to sums of weights
    on_keys = mass * down
    out = numbers + tl.program_id(1).to(tl.int64) * row_count + at
    step = tl.num_programs(1).to(tl.int64) * row_count
    there = at < row_count
    tl.store(out + LARGEST * step, higher, mask=there)
    tl.store(out + TOTAL * step, total, mask=there)
    tl.store(out + KEYS * step, on_keys, mask=there)
    tl.store(out + SINK * step, beside / tl.where(total == 0.0, 1.0, total), mask=there)
    highest_weight = tl.where(peak == float("-inf"), 0.0, down)
    tl.store(out + STRAY * step, tl.where(stray == float("-inf"), 0.0, tl.exp(stray - finite(peak))) * down, mask=there)
    # With weights w = p exp(m - M) / total: -sum w ln w = (ln total + M - m) sum w - sum w (x - m).
    entropy = on_keys * (tl.log(tl.where(total == 0.0, 1.0, total)) + lower) - spread * down
    tl.store(out + ENTROPY * step, entropy, mask=there)
    tl.store(out + MAX * step, highest_weight, mask=there)
    broken = mass != mass
    tl.store(out + ARGMAX * step, tl.where(broken, mass, peak_at.to(tl.float32)), mask=there)
    tl.store(out + FIRST * step, on_first * down, mask=there)
    tl.store(out + SELF * step, on_own * down, mask=there)
    tl.store(out + PREVIOUS * step, on_previous * down, mask=there)
    tl.store(out + LOCAL * step, on_local * down, mask=there)
    tl.store(out + DISTANCE * step, away / tl.where(mass == 0.0, 1.0, mass), mask=there)
    tl.store(out + DUPLICATE * step, repeated * down, mask=there)
    tl.store(out + INDUCTION * step, followed * down, mask=there)
