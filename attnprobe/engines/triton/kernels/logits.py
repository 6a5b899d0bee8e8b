"""Logits of a block of rows and columns of one batch row and head: what every kernel begins with.

The meaning is `AttentionCall`'s, step by step as its `restrict_` has it: scaled products, soft cap, bias, mask, causal
rule and window. Everything that a call may or may not carry is a constant of the compiled kernel. Logits times the
operands' `factor` are base-2 logarithms: a call that only scales its products has the scale there, so that a product
becomes an exponent in one operation.
"""

import os
from typing import no_type_check

import triton
import triton.language as tl

# Set before triton is imported, kernels run on the CPU, in NumPy: the way they are tested where there is no GPU.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
# Kinds of masks.
NO_MASK = tl.constexpr(0)
BOOLEAN = tl.constexpr(1)
ADDITIVE = tl.constexpr(2)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
@no_type_check
def block_rows(rows, count, CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr):
    """Numbers of this program's rows in the list, and the rows; behind the end of the list, the last one again."""
    block = tl.program_id(0)
    if CAUSAL:  # late rows have most to do, and go first
        block = tl.num_programs(0) - 1 - block
    numbers = block * BLOCK_M + tl.arange(0, BLOCK_M)
    return numbers, tl.load(rows + tl.minimum(numbers, count - 1))


@triton.jit
@no_type_check
def key_range(
    lowest, highest, keys, diagonal, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BLOCK_N: tl.constexpr
):
    """The columns that rows `lowest` to `highest` can see: start, down to a whole block, and stop."""
    start = lowest * 0
    stop = start + keys
    if CAUSAL:
        stop = tl.minimum(stop, highest + diagonal + 1)
    if WINDOW:
        start = tl.maximum(start, lowest + diagonal - window + 1)
        stop = tl.minimum(stop, highest + diagonal + window)
    return start // BLOCK_N * BLOCK_N, stop


@triton.jit
@no_type_check
def inner_range(
    lowest, highest, low, high, diagonal, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Whole blocks of columns from `low` to `high` that each of the rows `lowest` to `highest` sees; maybe none."""
    if CAUSAL:
        high = tl.minimum(high, lowest + diagonal + 1)
    if WINDOW:
        low = tl.maximum(low, highest + diagonal - window + 1)
        high = tl.minimum(high, lowest + diagonal + window)
    low = (low + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    return low, tl.maximum(high // BLOCK_N * BLOCK_N, low)


@triton.jit
@no_type_check
def load_queries(query, stride_row, stride_dim, rows, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Queries of some rows, ``[row, dim]``, of the batch row and head that `query` points at."""
    dims = tl.arange(0, BLOCK_D)
    at = rows.to(tl.int64)[:, None] * stride_row + dims.to(tl.int64)[None, :] * stride_dim
    # No row is masked, but the width is: the head's, up to the next power of two.
    return tl.load(query + at, mask=(dims < HEAD_DIM)[None, :], other=0.0)


@triton.jit
@no_type_check
def load_block(
    base, stride, stride_dim, begin, stop,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Vectors `begin` to ``begin + BLOCK``, ``[dim, vector]``.

    Of a block that is not `WHOLE`, the last one before `stop` stands for those behind it.
    """
    dims = tl.arange(0, BLOCK_D)
    step = tl.arange(0, BLOCK)
    if WHOLE:
        at = base + tl.cast(begin, tl.int64) * stride + (step[None, :] * stride + dims[:, None] * stride_dim)
    else:
        at = base + (tl.minimum(begin + step, stop - 1).to(tl.int64)[None, :] * stride + dims[:, None] * stride_dim)
    if HEAD_DIM == BLOCK_D:
        return tl.load(at)
    return tl.load(at, mask=(dims < HEAD_DIM)[:, None], other=0.0)


@triton.jit
@no_type_check
def products(left, right):
    """``[row, dim]`` times ``[dim, column]``: of half-precision numbers exact in float32, else at IEEE precision."""
    if INTERPRETED:  # NumPy has no bfloat16, and the interpreter would multiply the integers that hold it
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee", out_dtype=tl.float32)


@triton.jit
@no_type_check
def restricted(
    logits, rows, columns, keys, diagonal, window, scale, cap, lowest_mask,
    mask, mask_row, mask_column, bias, bias_row, bias_column,
    MASK: tl.constexpr, BIAS: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Logits from products, -inf where a row does not attend; `rows` and `columns` broadcast to them.

    `mask` and `bias` point at the batch row and head. Columns from `keys` on are not there.
    """
    if CAP or BIAS or MASK == ADDITIVE:
        logits = logits * scale
    if CAP:
        logits = _tanh(logits / cap) * cap
    seen = (rows >= 0) & (columns < keys)
    if BIAS:
        at = rows.to(tl.int64) * bias_row + columns.to(tl.int64) * bias_column
        logits += tl.load(bias + at, mask=seen, other=0.0).to(tl.float32)
    if MASK:
        at = rows.to(tl.int64) * mask_row + columns.to(tl.int64) * mask_column
        given = tl.load(mask + at, mask=seen, other=0)
        if MASK == BOOLEAN:
            seen = seen & (given != 0)
        else:
            added = given.to(tl.float32)
            seen = seen & (added > lowest_mask)
            logits += tl.where(seen, added, 0.0)
    if CAUSAL or WINDOW:
        away = columns - (rows + diagonal)
        if CAUSAL:
            seen = seen & (away <= 0)
        if WINDOW:
            seen = seen & (tl.abs(away) < window)
    return tl.where(seen, logits, float("-inf"))


@triton.jit
@no_type_check
def _tanh(x):
    """Hyperbolic tangent to some 1e-7 of itself: near zero Cephes' polynomial (tanhf), since 1 - 2 / (...) cancels."""
    square = x * x
    near = ((-5.70498872745e-3 * square + 2.06390887954e-2) * square - 5.37397155531e-2) * square + 1.33314422036e-1
    near = (near * square - 3.33332819422e-1) * square * x + x
    size = tl.abs(x)
    far = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    return tl.where(size < 0.625, near, tl.where(x < 0.0, -far, far))


@triton.jit
@no_type_check
def finite(x):
    """The same, but 0 for -inf: the largest of no logits, from which others are taken off."""
    return tl.where(x == float("-inf"), 0.0, x)


@triton.jit
@no_type_check
def risen(peak, most, factor):
    """The larger of two largest logits; its exponent; how far that is above `peak`'s; and what sums are scaled by.

    Sums are scaled by the difference of two largest logits, times the factor. A difference of their products with it
    would be fused with one of these, and not be 0 where the largest logit stays: sums would lose some 1e-7 with every
    block.
    """
    higher = tl.maximum(peak, most)
    lower = tl.where(peak == float("-inf"), 0.0, (higher - peak) * factor)
    down = tl.where(peak == float("-inf"), 0.0, tl.exp2(-lower))
    return higher, finite(higher) * factor, lower, down
