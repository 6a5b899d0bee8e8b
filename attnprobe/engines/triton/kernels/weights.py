"""Exact weights in two passes over keys: what normalises each row, then the weights themselves."""

from typing import no_type_check

import triton.language as tl

from attnprobe.engines.triton.kernels.logits import (
    NO_MASK,
    block_rows,
    finite,
    key_range,
    load_block,
    load_queries,
    products,
    restricted,
)
from attnprobe.engines.triton.kernels.tuning import tuned


@tuned
@no_type_check
def normalise(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, factor, cap, lowest_mask,
    largest, total, split,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Largest base-2 logit, and sum of exponentials, of each row over each of `split` parts of the keys.

    A program has a block of rows of one batch row and head, and one part of the keys. Results are
    ``[part, batch, head, row]``, of a part without any key -inf and 0.
    """
    numbers, own = block_rows(rows, row_count, CAUSAL, BLOCK_M)
    batch = (tl.program_id(1) // head_count).to(tl.int64)
    head = tl.load(heads + tl.program_id(1) % head_count).to(tl.int64)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + head // GROUP * key_head
    mask += batch * mask_batch + head * mask_head
    bias += batch * bias_batch + head * bias_head
    queries = load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D)
    lowest = tl.min(own)
    start, stop = key_range(lowest, tl.max(own), keys, diagonal, window, CAUSAL, WINDOW, BLOCK_N)
    blocks = (stop - start + BLOCK_N - 1) // BLOCK_N
    each = (blocks + split - 1) // split * BLOCK_N
    start += tl.program_id(2) * each
    stop = tl.minimum(stop, start + each)
    RESTRICT: tl.constexpr = (MASK != NO_MASK) or BIAS or CAP or WINDOW
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK_M], tl.float32)
    for begin in tl.range(start, stop, BLOCK_N):
        logits = products(queries, load_block(key, key_row, key_dim, begin, keys, HEAD_DIM, BLOCK_D, BLOCK_N, False))
        edge = (begin + BLOCK_N > keys) | RESTRICT
        if CAUSAL:
            edge = edge | (begin + BLOCK_N - 1 > lowest + diagonal)
        if edge:
            logits = restricted(
                logits, own[:, None], (begin + tl.arange(0, BLOCK_N))[None, :], keys, diagonal, window, scale, cap,
                lowest_mask, mask, mask_row, mask_column, bias, bias_row, bias_column, MASK, BIAS, CAP, CAUSAL, WINDOW,
            )  # fmt: skip
        logits = logits * factor
        higher = tl.maximum(peak, tl.max(logits, 1))
        mass = mass * tl.exp2(peak - finite(higher)) + tl.sum(tl.exp2(logits - finite(higher)[:, None]), 1)
        peak = higher
    at = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * row_count + numbers
    tl.store(largest + at, peak, mask=numbers < row_count)
    tl.store(total + at, mass, mask=numbers < row_count)


@tuned
@no_type_check
def write(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, factor, cap, lowest_mask,
    lse, weights, low, width,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Weights of the columns from `low` on, ``[batch, head, row, width]``; a block that no row sees is just zeroed.

    A program has a block of rows and a block of columns of one batch row and head. ``lse`` is the base-2 logarithm of
    each row's sum of exponentials, ``[batch, head, row]``. Weights are rounded to the dtype of `weights`.
    """
    numbers, own = block_rows(rows, row_count, False, BLOCK_M)
    begin = low + tl.program_id(2) * BLOCK_N
    columns = begin + tl.arange(0, BLOCK_N)
    start, stop = key_range(tl.min(own), tl.max(own), keys, diagonal, window, CAUSAL, WINDOW, 1)
    at = tl.program_id(1).to(tl.int64) * row_count + numbers
    out = weights + at[:, None] * width + (columns - low).to(tl.int64)[None, :]
    inside = (numbers < row_count)[:, None] & (columns < low + width)[None, :]
    if (begin < stop) & (begin + BLOCK_N > start):
        batch = (tl.program_id(1) // head_count).to(tl.int64)
        head = tl.load(heads + tl.program_id(1) % head_count).to(tl.int64)
        query += batch * query_batch + head * query_head
        key += batch * key_batch + head // GROUP * key_head
        mask += batch * mask_batch + head * mask_head
        bias += batch * bias_batch + head * bias_head
        logits = products(
            load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D),
            load_block(key, key_row, key_dim, begin, keys, HEAD_DIM, BLOCK_D, BLOCK_N, False),
        )
        logits = restricted(
            logits, own[:, None], columns[None, :], keys, diagonal, window, scale, cap, lowest_mask,
            mask, mask_row, mask_column, bias, bias_row, bias_column, MASK, BIAS, CAP, CAUSAL, WINDOW,
        )  # fmt: skip
        known = tl.load(lse + at, mask=numbers < row_count, other=0.0)
        tl.store(out, tl.exp2(logits * factor - known[:, None]), mask=inside)
    else:
        tl.store(out, tl.zeros([BLOCK_M, BLOCK_N], tl.float32), mask=inside)
