"""The largest weights of each row, in one pass over keys.

A logit and its position are one whole number: the logit's bits in an order of whole numbers above, the position, least
first, below. The largest of these are kept, and a block of keys that has none larger is passed over.
"""

from typing import no_type_check

import triton
import triton.language as tl

from attnprobe.engines.triton.kernels.logits import (
    LOG2_E,
    block_rows,
    finite,
    key_range,
    load_block,
    load_queries,
    products,
    restricted,
)
from attnprobe.engines.triton.kernels.tuning import tuned

LAST = tl.constexpr(2**31 - 1)
LOWEST = tl.constexpr(-(2**63) + 1)


@triton.jit
@no_type_check
def _pack(logits, position):
    logits = tl.where(logits == 0.0, 0.0, logits)  # -0.0 is no less than 0.0
    bits = logits.to(tl.int32, bitcast=True)
    ordered = (bits ^ ((bits >> 31) & LAST)).to(tl.int64)
    return (ordered << 32) | (position ^ LAST).to(tl.int64)  # of positions, LAST less each


@tuned
@no_type_check
def largest(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    sinks, sinks_batch, sinks_head, sinks_row,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, factor, cap, lowest_mask,
    column_shift, length, first, last, values, positions, among, strays,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    SINKS: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The `K` largest weights of each row on keys at positions `first` to `last`, and where: ``[head, row, K]``.

    Column c of the call is at position ``c + column_shift`` of the sample, which has positions up to `length`.
    ``among`` is the mass on all keys of the range, ``strays`` the largest weight outside of the sample, both
    ``[head, row]``.
    """
    at, own = block_rows(rows, row_count, CAUSAL, BLOCK_M)
    head = tl.load(heads + tl.program_id(1)).to(tl.int64)
    query += head * query_head
    key += head // GROUP * key_head
    mask += head * mask_head
    bias += head * bias_head
    queries = load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D)
    start, stop = key_range(tl.min(own), tl.max(own), keys, diagonal, window, CAUSAL, WINDOW, BLOCK_N)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    stray = tl.full([BLOCK_M], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_M], tl.float32)
    inner = tl.zeros([BLOCK_M], tl.float32)
    best = tl.full([BLOCK_M, K], LOWEST, tl.int64)
    for begin in tl.range(start, stop, BLOCK_N):
        columns = begin + tl.arange(0, BLOCK_N)
        logits = restricted(
            products(queries, load_block(key, key_row, key_dim, begin, keys, HEAD_DIM, BLOCK_D, BLOCK_N, False)),
            own[:, None], columns[None, :], keys, diagonal, window, scale, cap, lowest_mask,
            mask, mask_row, mask_column, bias, bias_row, bias_column, MASK, BIAS, CAP, CAUSAL, WINDOW,
        )  # fmt: skip
        position = columns + column_shift
        inside = (position >= 0) & (position < length)
        wanted = inside & (position >= first) & (position < last)
        stray = tl.maximum(stray, tl.max(tl.where(inside[None, :], float("-inf"), logits), 1))
        higher = tl.maximum(peak, tl.max(logits, 1))
        down = tl.exp2((peak - finite(higher)) * factor)
        share = tl.exp2(logits * factor - (finite(higher) * factor)[:, None])
        mass = mass * down + tl.sum(share, 1)
        inner = inner * down + tl.sum(tl.where(wanted[None, :], share, 0.0), 1)
        peak = higher
        packed = tl.where(wanted[None, :], _pack(logits, position[None, :]), LOWEST)
        least = tl.min(best, 1)
        if tl.sum((tl.max(packed, 1) > least).to(tl.int32)) > 0:
            both = tl.join(best, tl.topk(packed, K))
            best = tl.topk(tl.reshape(both, (BLOCK_M, 2 * K)), K)
    if SINKS:
        sink = tl.load(sinks + head * sinks_head + own.to(tl.int64) * sinks_row).to(tl.float32) * LOG2_E
    else:
        sink = tl.full([BLOCK_M], float("-inf"), tl.float32)
    top = peak * factor
    higher = finite(tl.maximum(top, sink))
    down = tl.exp2(top - higher)
    beside = tl.exp2(sink - higher)
    total = mass * down + beside
    total = tl.where(total == 0.0, 1.0, total)
    there = at < row_count
    out = tl.program_id(1).to(tl.int64) * row_count + at
    tl.store(among + out, inner * down / total, mask=there)
    tl.store(strays + out, tl.exp2(stray * factor - higher) / total, mask=there)
    ordered = (best >> 32).to(tl.int32)
    logits = (ordered ^ ((ordered >> 31) & LAST)).to(tl.float32, bitcast=True)
    found = best > LOWEST
    weights = tl.where(found, tl.exp2(logits * factor - higher[:, None]) / total[:, None], 0.0)
    places = (best & LAST).to(tl.int32) ^ LAST
    ranks = out[:, None] * K + tl.arange(0, K)[None, :]
    tl.store(values + ranks, weights, mask=there[:, None])
    tl.store(positions + ranks, tl.where(weights == 0.0, -1, places), mask=there[:, None])
