"""What whole rows are folded into, in a second pass: mass by key and by distance, and a pooled map.

A program has a block of keys of one head, and goes through the rows from the first that sees them: it alone writes
what belongs to its keys, always in the same order.
"""

from typing import no_type_check

import triton.language as tl

from attnprobe.engines.triton.kernels.logits import load_queries, logits_tile, shares
from attnprobe.engines.triton.kernels.tuning import tuned

BINS = tl.constexpr(32)  # of distances; the measure has 26


@tuned
@no_type_check
def fold(
    query, query_batch, query_head, query_row, query_dim,
    key, key_batch, key_head, key_row, key_dim,
    mask, mask_batch, mask_head, mask_row, mask_column,
    bias, bias_batch, bias_head, bias_row, bias_column,
    heads, rows, head_count, row_count, keys, diagonal, window, scale, cap, lowest_mask,
    row_shift, column_shift, length, first, last_low, last_high,
    largest, total, received, pooled, distances, down_count, unit_count, block_count,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASK: tl.constexpr, BIAS: tl.constexpr,
    CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SIZE: tl.constexpr, DISTANCES: tl.constexpr,
    CELL: tl.constexpr, UNIT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Fold rows at positions `first` to ``first + row_count``, which follow each other, of one sample.

    ``received`` is ``[what, head, key]`` by position: sum and largest over these rows, and over those at positions
    `last_low` to `last_high`. ``pooled`` is ``[what, head, row cell, unit]``: sum and largest of a cell's `CELL` rows
    and `UNIT` columns. ``distances`` is ``[head, block of keys, bin]``.
    """
    keys_at = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # positions
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
    largest += head_number * row_count
    total += head_number * row_count
    begin = first
    end = first + row_count
    if CAUSAL:
        begin = tl.maximum(begin, tl.min(columns) - diagonal + row_shift)
    if WINDOW:
        begin = tl.maximum(begin, tl.min(columns) - diagonal - window + 1 + row_shift)
        end = tl.minimum(end, tl.max(columns) - diagonal + window + row_shift)
    STEP: tl.constexpr = CELL if CELL > BLOCK_M else BLOCK_M  # rows of a cell, or of several
    TALL: tl.constexpr = BLOCK_M if CELL > BLOCK_M else CELL
    DOWN: tl.constexpr = BLOCK_M // TALL
    ACROSS: tl.constexpr = BLOCK_N // UNIT
    earliest = begin // BLOCK_M * BLOCK_M
    all_sum = tl.zeros([BLOCK_N], tl.float32)
    all_max = tl.zeros([BLOCK_N], tl.float32)
    last_sum = tl.zeros([BLOCK_N], tl.float32)
    last_max = tl.zeros([BLOCK_N], tl.float32)
    bins = tl.arange(0, BINS)
    by_distance = tl.zeros([BINS], tl.float32)
    for cell in tl.range(begin // STEP * STEP, end, STEP):
        cell_sum = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        cell_max = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for low in tl.range(tl.maximum(cell, earliest), tl.minimum(cell + STEP, end), BLOCK_M):
            place = low + tl.arange(0, BLOCK_M)
            there = (place >= first) & (place < first + row_count)
            own = tl.where(there, place, first) - row_shift
            logits = logits_tile(
                load_queries(query, query_row, query_dim, own, HEAD_DIM, BLOCK_D),
                own, reached, keys, diagonal, window, scale, cap, lowest_mask,
                key, key_row, key_dim, mask, mask_row, mask_column, bias, bias_row, bias_column,
                MASK, BIAS, CAP, CAUSAL, WINDOW, HEAD_DIM, BLOCK_D,
            )  # fmt: skip
            peak = tl.load(largest + place - first, mask=there, other=0.0)
            mass = tl.load(total + place - first, mask=there, other=1.0)
            weights = shares(logits, peak) / tl.where(mass == 0.0, 1.0, mass)[:, None]
            weights = tl.where(there[:, None], weights, 0.0)
            cell_sum += weights
            cell_max = tl.maximum(cell_max, weights)
            if (low < last_high) & (low + BLOCK_M > last_low):
                last = tl.where(((place >= last_low) & (place < last_high))[:, None], weights, 0.0)
                last_sum += tl.sum(last, 0)
                last_max = tl.maximum(last_max, tl.max(last, 0))
            if DISTANCES:
                apart = tl.abs(place[:, None] - keys_at[None, :])
                # Bin b is distances from 2^(b-1) up; a block has some bins, far from the diagonal one or two.
                edge = tl.where(bins == 0, 0, 1 << tl.maximum(bins - 1, 0))
                nearest = tl.sum((edge <= tl.min(apart)).to(tl.int32)) - 1
                farthest = tl.sum((edge <= tl.max(apart)).to(tl.int32)) - 1
                for number in tl.range(nearest, farthest + 1):
                    low_edge = tl.sum(tl.where(bins == number, edge, 0))
                    high_edge = tl.maximum(2 * low_edge, 1)
                    part = tl.sum(tl.where((apart >= low_edge) & (apart < high_edge), weights, 0.0))
                    by_distance += tl.where(bins == number, part, 0.0)
        all_sum += tl.sum(cell_sum, 0)
        all_max = tl.maximum(all_max, tl.max(cell_max, 0))
        sums = tl.sum(tl.sum(tl.reshape(cell_sum, (DOWN, TALL, ACROSS, UNIT)), 3), 1)
        highest = tl.max(tl.max(tl.reshape(cell_max, (DOWN, TALL, ACROSS, UNIT)), 3), 1)
        down = cell // CELL + tl.arange(0, DOWN)
        across = tl.program_id(0) * ACROSS + tl.arange(0, ACROSS)
        at = (head_number * down_count + down.to(tl.int64)[:, None]) * unit_count + across[None, :]
        inside = (down < down_count)[:, None] & (across < unit_count)[None, :]
        tl.store(pooled + at, sums, mask=inside)
        tl.store(pooled + head_total * down_count * unit_count + at, highest, mask=inside)
    out = received + head_number * length + keys_at
    inside = keys_at < length
    tl.store(out, all_sum, mask=inside)
    tl.store(out + head_total * length, all_max, mask=inside)
    tl.store(out + 2 * head_total * length, last_sum, mask=inside)
    tl.store(out + 3 * head_total * length, last_max, mask=inside)
    if DISTANCES:
        tl.store(distances + (head_number * block_count + tl.program_id(0)) * BINS + bins, by_distance)
