"""Mass on repeats: on the same token earlier, and on what followed it then."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from attnprobe.measures.base import IDS, POSITIONS, row_measure
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float, Int

SHARE = 32  # one in so many of a tile's weights is picked at once, so that indices take less memory than the tile


@row_measure(
    unit="mass",
    formula="sum_{j < i, t_j = t_i} w_ij; only rows whose token came before",
    source="duplicate-token heads: Wang et al. 2022 (arXiv:2211.00593); TransformerLens, head_detector",
    needs=(POSITIONS, IDS),
)
def duplicate(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Mass on earlier occurrences of the same token."""
    return _mass(rows, 0)


@row_measure(
    unit="mass",
    formula="sum_{0 < j <= i, t_{j-1} = t_i, j-1 < i} w_ij; only rows whose token came before",
    source="prefix matching: Olsson et al. 2022 (arXiv:2209.11895); TransformerLens, head_detector",
    needs=(POSITIONS, IDS),
)
def induction(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Mass on the tokens that followed earlier occurrences of the same token."""
    return _mass(rows, 1)


def _mass(rows: SampleRows, shift: int) -> Float[Tensor, "head query"]:
    """Mass `shift` columns behind earlier occurrences of a row's token; these are few, and picked out, not masked."""
    tokens, weights, device = rows.tokens, rows.weights, rows.weights.device
    assert tokens is not None, "a measure that needs ids is not computed without them"
    counts = tokens.counts(rows.rows)
    mass = weights.new_zeros(weights.shape[:2])
    for first, stop in _runs(counts, max(1, weights.shape[1] * weights.shape[2] // SHARE)):
        which, positions = tokens.earlier(rows.rows[first:stop])
        columns = positions + (shift - rows.start)
        if rows.start:
            which, columns = which[columns >= 0], columns[columns >= 0]
        row, column = (torch.from_numpy(i).to(device, non_blocking=True) for i in (which + first, columns))
        mass.scatter_add_(1, row.expand(len(mass), -1), weights[:, row, column])
    return mass.masked_fill_(torch.from_numpy(counts == 0).to(device, non_blocking=True), torch.nan)


def _runs(counts: Int[np.ndarray, " query"], most: int) -> Iterator[tuple[int, int]]:
    """Runs of rows that have at most so many pairs together, or are single."""
    ends = np.concatenate([[0], np.cumsum(counts)])
    first = 0
    while first < len(counts):
        stop = max(first + 1, int(np.searchsorted(ends, ends[first] + most, "right")) - 1)
        yield first, stop
        first = stop
