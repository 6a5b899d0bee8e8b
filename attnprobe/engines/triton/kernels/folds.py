"""What whole rows are folded into, in a second pass: mass by key and by distance, and a pooled map.

A program has a block of keys of one head, and goes through the rows from the first that sees them: it alone writes
what belongs to its keys, always in the same order. Weights are made as ``[key, row]``, so that sums over rows stay
within a warp; the first pass has told each row's log-sum-exp.
"""

from typing import no_type_check

import triton
import triton.language as tl

from attnprobe.engines.triton.kernels.logits import load_block, products, restricted
from attnprobe.engines.triton.kernels.tuning import NARROWEST, tuned_folds

BINS = tl.constexpr(32)  # of distances; the measure has 26
SMALLEST = tl.constexpr(NARROWEST)  # what distances are kept by, whatever the block


@triton.jit
@no_type_check
def _bin_of(distance):
    """0 for 0, else b for distances from 2^(b-1) up: the exponent of the number as a float32."""
    return tl.maximum((distance.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 126, 0)


@tuned_folds
@no_type_check
def fold(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, factor, cap, lowest_mask,
    row_shift, column_shift, length, first, last_low, last_high,
    lse, received, pooled, distances, down_count, unit_count, block_count,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr, DISTANCES: tl.constexpr,
    LAST: tl.constexpr, CELL: tl.constexpr, UNIT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Fold rows at positions `first` to ``first + row_count``, which follow each other, of one sample.

    ``received`` is ``[what, head, key]`` by position: sum and largest over these rows, and, with `LAST`, over those at
    positions `last_low` to `last_high`. ``pooled`` is ``[what, head, row cell, unit]``: sum and largest of a cell's
    `CELL` rows and `UNIT` columns. ``distances`` is ``[head, smallest block of keys, bin]``.
    """
    low_key = tl.program_id(0) * BLOCK_N
    high_key = low_key + BLOCK_N - 1
    keys_at = low_key + tl.arange(0, BLOCK_N)  # positions
    columns = keys_at - column_shift
    # Behind the last key, or in front of what a cache has dropped, is what is behind the last column: nothing.
    reached = tl.where((keys_at < length) & (columns >= 0), columns, keys)
    head_number = tl.program_id(1).to(tl.int64)
    head_total = tl.num_programs(1).to(tl.int64)
    head = tl.load(heads + tl.program_id(1)).to(tl.int64)
    query += head * query_head
    key += head // GROUP * key_head
    mask += head * mask_head
    bias += head * bias_head
    lse += head_number * row_count
    dims = tl.arange(0, BLOCK_D)
    own = tl.load(
        key + columns.to(tl.int64)[:, None] * key_row + dims.to(tl.int64)[None, :] * key_dim,
        mask=(reached < keys)[:, None] & (dims < HEAD_DIM)[None, :],
        other=0.0,
    )
    STEP: tl.constexpr = CELL if CELL > BLOCK_M else BLOCK_M  # rows of a cell, or of several
    TALL: tl.constexpr = BLOCK_M if CELL > BLOCK_M else CELL
    DOWN: tl.constexpr = BLOCK_M // TALL
    ACROSS: tl.constexpr = BLOCK_N // UNIT

    # Rows that see some of these keys; and of them whole cells of rows that see all of these keys.
    begin = first + low_key * 0
    end = begin + row_count
    low_row = begin
    high_row = end
    if CAUSAL:
        begin = tl.maximum(begin, low_key - column_shift - diagonal + row_shift)
        low_row = tl.maximum(low_row, high_key - column_shift - diagonal + row_shift)
    if WINDOW:
        begin = tl.maximum(begin, low_key - column_shift - diagonal - window + 1 + row_shift)
        low_row = tl.maximum(low_row, high_key - column_shift - diagonal - window + 1 + row_shift)
        end = tl.minimum(end, high_key - column_shift - diagonal + window + row_shift)
        high_row = tl.minimum(high_row, low_key - column_shift - diagonal + window + row_shift)
    begin = begin // BLOCK_M * BLOCK_M
    low_row = (low_row + STEP - 1) // STEP * STEP
    high_row = high_row // STEP * STEP
    missing = (high_key >= length) | (low_key < column_shift) | (high_key - column_shift >= keys)
    if missing | (high_row <= low_row):
        low_row = begin
        high_row = begin

    all_sum = tl.zeros([BLOCK_N], tl.float32)
    all_max = tl.zeros([BLOCK_N], tl.float32)
    last_sum = tl.zeros([BLOCK_N], tl.float32)
    last_max = tl.zeros([BLOCK_N], tl.float32)
    cell_sum = tl.zeros([BLOCK_N], tl.float32)
    cell_max = tl.zeros([BLOCK_N], tl.float32)
    bins = tl.arange(0, BINS)
    by_distance = tl.zeros([BINS], tl.float32)
    bin_sum = tl.zeros([BLOCK_N], tl.float32)  # of the bin that the last blocks were in as a whole
    bin_now = low_key * 0
    across = tl.program_id(0) * ACROSS + tl.arange(0, ACROSS)
    pooled += head_number * down_count * unit_count
    step = tl.arange(0, BLOCK_M)
    for part in tl.static_range(2):  # whole cells of rows that see all of the keys; then the others
        if part == 0:
            ahead = low_row * 0
            count = (high_row - low_row) // BLOCK_M
            start = low_row
        else:
            ahead = (low_row - begin) // BLOCK_M
            count = ahead + (end - high_row + BLOCK_M - 1) // BLOCK_M
            start = high_row
        for number in tl.range(0, count):
            low = tl.where(number < ahead, begin, start - ahead * BLOCK_M) + number * BLOCK_M
            row = low - row_shift
            place = low + step
            if part == 0:
                logits = products(
                    own, load_block(query, query_row, query_dim, row, keys, HEAD_DIM, BLOCK_D, BLOCK_M, True)
                )
                known = tl.load(lse + (low - first) + step)
                at = row + step
            else:
                there = (place >= first) & (place < first + row_count)
                at = tl.where(there, place - row_shift, first - row_shift)  # no row that is not there is read
                queries = tl.load(
                    query + (at.to(tl.int64)[None, :] * query_row + dims[:, None] * query_dim),
                    mask=(dims < HEAD_DIM)[:, None],
                    other=0.0,
                )
                logits = products(own, queries)
                known = tl.load(lse + place - first, mask=there, other=0.0)
            if part == 1 or MASK or BIAS or CAP:
                logits = restricted(
                    logits, at[None, :], reached[:, None], keys, diagonal, window, scale, cap,
                    lowest_mask, mask, mask_row, mask_column, bias, bias_row, bias_column,
                    MASK, BIAS, CAP, CAUSAL and part == 1, WINDOW and part == 1,
                )  # fmt: skip
            if part == 1:
                logits = tl.where(there[None, :], logits, float("-inf"))
            weights = tl.exp2(logits * factor - known[None, :])
            sums = tl.sum(weights, 1)
            all_sum += sums
            if DOWN == 1:
                cell_sum += sums
                cell_max = tl.maximum(cell_max, tl.max(weights, 1))
                if ((low + BLOCK_M) % STEP == 0) | (low + BLOCK_M >= end):
                    all_max = tl.maximum(all_max, cell_max)
                    to = pooled + (low // CELL).to(tl.int64) * unit_count + across
                    unit_sum = tl.sum(tl.reshape(cell_sum, (ACROSS, UNIT)), 1)
                    unit_max = tl.max(tl.reshape(cell_max, (ACROSS, UNIT)), 1)
                    tl.store(to, unit_sum, mask=across < unit_count)
                    tl.store(to + head_total * down_count * unit_count, unit_max, mask=across < unit_count)
                    cell_sum = tl.zeros([BLOCK_N], tl.float32)
                    cell_max = tl.zeros([BLOCK_N], tl.float32)
            else:
                parts = tl.reshape(weights, (BLOCK_N, DOWN, TALL))
                part_max = tl.max(parts, 2)
                all_max = tl.maximum(all_max, tl.max(part_max, 1))
                unit_sum = tl.sum(tl.reshape(tl.sum(parts, 2), (ACROSS, UNIT, DOWN)), 1)
                unit_max = tl.max(tl.reshape(part_max, (ACROSS, UNIT, DOWN)), 1)
                down = low // CELL + tl.arange(0, DOWN)
                to = pooled + (down.to(tl.int64)[None, :] * unit_count + across[:, None])
                inside = (down < down_count)[None, :] & (across < unit_count)[:, None]
                tl.store(to, unit_sum, mask=inside)
                tl.store(to + head_total * down_count * unit_count, unit_max, mask=inside)
            if LAST:  # noqa: SIM102 (a constant of the kernel, and a test at run time)
                if (low < last_high) & (low + BLOCK_M > last_low):
                    last = tl.where(((place >= last_low) & (place < last_high))[None, :], weights, 0.0)
                    last_sum += tl.sum(last, 1)
                    last_max = tl.maximum(last_max, tl.max(last, 1))
            if DISTANCES:
                # Bin b is distances from 2^(b-1) up; a block has some bins, far from the diagonal one or two.
                nearest = _bin_of(tl.maximum(tl.maximum(low - high_key, low_key - (low + BLOCK_M - 1)), 0))
                farthest = _bin_of(tl.maximum(low + BLOCK_M - 1 - low_key, high_key - low))
                if nearest == farthest:
                    if nearest != bin_now:
                        by_distance += tl.where(bins == bin_now, tl.sum(bin_sum), 0.0)
                        bin_sum = tl.zeros([BLOCK_N], tl.float32)
                        bin_now = nearest
                    bin_sum += sums
                else:
                    bin_of = _bin_of(tl.abs(place[None, :] - keys_at[:, None]))
                    for bin_number in tl.range(nearest, farthest + 1):
                        inside_bin = tl.sum(tl.where(bin_of == bin_number, weights, 0.0))
                        by_distance += tl.where(bins == bin_number, inside_bin, 0.0)

    out = received + head_number * length + keys_at
    inside_length = keys_at < length
    tl.store(out, all_sum, mask=inside_length)
    tl.store(out + head_total * length, all_max, mask=inside_length)
    if LAST:
        tl.store(out + 2 * head_total * length, last_sum, mask=inside_length)
        tl.store(out + 3 * head_total * length, last_max, mask=inside_length)
    if DISTANCES:
        by_distance += tl.where(bins == bin_now, tl.sum(bin_sum), 0.0)
        # The first of the smallest blocks that this one covers has all of it, the others nothing.
        blocks = tl.program_id(0) * (BLOCK_N // SMALLEST) + tl.arange(0, BLOCK_N // SMALLEST)
        found = tl.where((blocks == tl.program_id(0) * (BLOCK_N // SMALLEST))[:, None], by_distance[None, :], 0.0)
        to = (head_number * block_count + blocks[:, None]) * BINS + bins[None, :]
        tl.store(distances + to, found, mask=(blocks < block_count)[:, None])
