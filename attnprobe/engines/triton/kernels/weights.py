"""Exact weights in two passes over keys: what normalises each row, then the weights themselves."""

from typing import no_type_check

import triton.language as tl

from attnprobe.engines.triton.kernels.logits import block_rows, finite, key_range, load_queries, logits_tile, shares
from attnprobe.engines.triton.kernels.tuning import tuned


@tuned
@no_type_check
def normalise(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    sinks, sinks_batch, sinks_head, sinks_row,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, cap, lowest_mask,
    largest, total, sink_mass, valid,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    SINKS: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Largest logit and sum of exponentials of each row, a sink's included; its share; and whether there is any key.

    A program has a block of rows of one batch row and head, and goes through the keys once. Results are
    ``[batch, head, row]``.
    """
    numbers, own = block_rows(rows, row_count, BLOCK_M)
    batch = (tl.program_id(1) // head_count).to(tl.int64)
    head = tl.load(heads + tl.program_id(1) % head_count).to(tl.int64)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + head // GROUP * key_head
    mask += batch * mask_batch + head * mask_head
    bias += batch * bias_batch + head * bias_head
    queries = load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D)
    start, stop = key_range(tl.min(own), tl.max(own), keys, diagonal, window, CAUSAL, WINDOW, BLOCK_N)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_M], tl.float32)
    for first in tl.range(start, stop, BLOCK_N):
        logits = logits_tile(
            queries, own, first + tl.arange(0, BLOCK_N), keys, diagonal, window, scale, cap, lowest_mask,
            key, key_row, key_dim, mask, mask_row, mask_column, bias, bias_row, bias_column,
            MASK, BIAS, CAP, CAUSAL, WINDOW, HEAD_DIM, BLOCK_D,
        )  # fmt: skip
        higher = tl.maximum(peak, tl.max(logits, 1))
        mass = mass * tl.exp(finite(peak) - finite(higher)) + tl.sum(shares(logits, higher), 1)
        peak = higher
    at = tl.program_id(1).to(tl.int64) * row_count + numbers
    inside = numbers < row_count
    tl.store(valid + at, (mass != 0.0).to(tl.int8), mask=inside)
    if SINKS:
        sink = tl.load(sinks + batch * sinks_batch + head * sinks_head + own.to(tl.int64) * sinks_row).to(tl.float32)
        higher = tl.maximum(peak, sink)
        beside = tl.exp(sink - higher)
        mass = mass * tl.exp(peak - higher) + beside
        peak = higher
        tl.store(sink_mass + at, beside / mass, mask=inside)
    tl.store(largest + at, peak, mask=inside)
    tl.store(total + at, mass, mask=inside)


@tuned
@no_type_check
def write(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, cap, lowest_mask,
    largest, total, weights, low, width,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Weights of the columns from `low` on, ``[batch, head, row, width]``; a block that no row sees is just zeroed.

    A program has a block of rows and a block of columns of one batch row and head.
    """
    numbers, own = block_rows(rows, row_count, BLOCK_M)
    columns = low + tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    start, stop = key_range(tl.min(own), tl.max(own), keys, diagonal, window, CAUSAL, WINDOW, 1)
    at = tl.program_id(1).to(tl.int64) * row_count + numbers
    out = weights + at[:, None] * width + (columns - low).to(tl.int64)[None, :]
    inside = (numbers < row_count)[:, None] & (columns < low + width)[None, :]
    if (tl.min(columns) < stop) & (tl.max(columns) >= start):
        batch = (tl.program_id(1) // head_count).to(tl.int64)
        head = tl.load(heads + tl.program_id(1) % head_count).to(tl.int64)
        query += batch * query_batch + head * query_head
        key += batch * key_batch + head // GROUP * key_head
        mask += batch * mask_batch + head * mask_head
        bias += batch * bias_batch + head * bias_head
        logits = logits_tile(
            load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D),
            own, columns, keys, diagonal, window, scale, cap, lowest_mask,
            key, key_row, key_dim, mask, mask_row, mask_column, bias, bias_row, bias_column,
            MASK, BIAS, CAP, CAUSAL, WINDOW, HEAD_DIM, BLOCK_D,
        )  # fmt: skip
        peak = tl.load(largest + at, mask=numbers < row_count, other=0.0)
        mass = tl.load(total + at, mask=numbers < row_count, other=1.0)
        # The sum is 0 only where no key is: 0 / 1 is 0, and NaN stays.
        tl.store(out, shares(logits, peak) / tl.where(mass == 0.0, 1.0, mass)[:, None], mask=inside)
    else:
        tl.store(out, tl.zeros([BLOCK_M, BLOCK_N], tl.float32), mask=inside)
