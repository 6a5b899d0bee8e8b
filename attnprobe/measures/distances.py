"""How far away a head looks: a histogram over distances in powers of two."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.measures.base import POSITIONS
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float

BINS = 26  # distances 0, 1, 2 to 3, 4 to 7, ... 2^24 to 2^25 - 1


@dataclass
class Histogram:
    """Mass by distance, ``[head, bin]``, summed over as many valid rows, ``[head]``."""

    mass: Float[Tensor, "head bin"]
    rows: Float[Tensor, " head"]


@dataclass(frozen=True)
class Distances:
    """Mass by distance ``|i - j|`` in bins 0, 1, 2 to 3, 4 to 7, ..., averaged over valid rows.

    Bins sum to 1, less a learned sink's mass.
    """

    name: str = "distances"
    unit: str = "mass"
    formula: str = "mean_i sum_{j: |i - j| in bin} w_ij; bin 0 is distance 0, bin b is 2^(b-1) to 2^b - 1"
    source: str = "attention distance: Dosovitskiy et al. 2020 (arXiv:2010.11929), as a histogram"
    needs: frozenset[str] = frozenset({POSITIONS})
    axes: tuple[str, ...] = ("distance",)
    dtype: str = "float32"

    def init(self, heads: int, rows: SampleRows) -> Histogram:
        """No rows."""
        return Histogram(rows.weights.new_zeros(heads, BINS), rows.weights.new_zeros(heads))

    def update(self, state: Histogram, rows: SampleRows) -> Histogram:
        """Add rows."""
        state.mass[rows.at] += (
            _by_shear(rows) if rows.together and len(rows.rows) <= rows.weights.shape[2] else _by_mask(rows)
        )
        state.rows[rows.at] += len(rows.rows) if rows.valid is None else rows.valid.sum(-1)
        return state

    def absorb(self, state: Histogram, part: Float[Tensor, "some bin"], rows: SampleRows) -> Histogram:
        """Add what rows fold into."""
        state.mass[rows.at] += part
        state.rows[rows.at] += len(rows.rows) if rows.valid is None else rows.valid.sum(-1)
        return state

    def merge(self, first: Histogram, second: Histogram) -> Histogram:
        """Sums."""
        return Histogram(first.mass + second.mass, first.rows + second.rows)

    def finalize(self, state: Histogram, query_length: int, key_length: int) -> Float[Tensor, "head bin"]:
        """Means, of the bins that the sample has; NaN where no row is valid."""
        bins = 1 + max(query_length - 1, key_length - 1, 0).bit_length()
        return state.mass[:, :bins] / state.rows.masked_fill(state.rows == 0, torch.nan)[:, None]


def _by_shear(rows: SampleRows) -> Float[Tensor, "head bin"]:
    """Rows that follow each other: sheared by one column a row, a column is one distance, and sums go down columns.

    Read in lines that are one longer, the same memory is sheared, and what leaves a line on the left stands on the
    right of the one before: there, what belongs to the right corner is taken off again.
    """
    heads, count, width = rows.weights.shape
    if count == 1:  # as in generation: nothing to shear
        return _bins(rows.weights[:, 0], rows.rows[0] - rows.start)
    inner = width + 1 - count  # columns that every line has of its own
    flat = rows.weights.reshape(heads, count * width)
    sums = flat[:, : (count - 1) * (width + 1)].view(heads, count - 1, width + 1).sum(1)
    sums[:, :inner] += flat[:, (count - 1) * (width + 1) :]
    corner = rows.weights[:, :, inner:].triu().reshape(heads, count - 1, count).sum(1)[:, :-1]
    sums[:, inner:width] -= corner
    return _bins(torch.cat([sums[:, inner + 1 :], sums[:, :inner], corner], 1), rows.rows[0] - rows.start + count - 1)


def _bins(sums: Float[Tensor, "head distance"], farthest: int) -> Float[Tensor, "head bin"]:
    """Cut bins out of columns, of which column c holds distance farthest - c: on both sides of distance 0."""
    line = sums.shape[1]
    result = sums.new_zeros(len(sums), BINS)
    for number in range(max(farthest, line - 1 - farthest, 0).bit_length() + 1):
        low, high = (1 << number) >> 1, 1 << number
        for first, stop in {(farthest - high + 1, farthest - low + 1), (farthest + low, farthest + high)}:
            first, stop = max(first, 0), min(stop, line)
            if first < stop:
                result[:, number] += sums[:, first:stop].sum(-1)
    return result


def _by_mask(rows: SampleRows) -> Float[Tensor, "head bin"]:
    """Any rows: a pass for each bin."""
    away = (rows.positions[:, None] - rows.columns).abs()
    last = int(max(rows.rows[-1] - rows.start, rows.stop - 1 - rows.rows[0], 0)).bit_length()
    result = rows.weights.new_zeros(rows.weights.shape[0], BINS)
    for number in range(last + 1):
        low, high = (1 << number) >> 1, 1 << number
        result[:, number] = rows.masked_sum((away >= low) & (away < high)).sum(-1)
    return result
