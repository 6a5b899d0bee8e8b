"""Mass by position: on the first keys, on the token itself, on those just before it, and how far away on average."""

import torch
from torch import Tensor

from attnprobe.measures.base import POSITIONS, RowMeasure, row_measure
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float


def first_mass(k: int = 1) -> RowMeasure:
    """Mass on the first `k` keys of the sample, where many heads put what they do not need."""
    return RowMeasure(
        f"first_mass({k})",
        lambda rows: rows.clip(0, k).sum(-1),
        "mass",
        "sum_{j < k} w_ij",
        "attention sinks: Xiao et al. 2023 (arXiv:2309.17453)",
    )


def local_mass(w: int = 64) -> RowMeasure:
    """Mass on keys less than `w` positions away, before or after, the token itself included."""
    return RowMeasure(
        f"local_mass({w})",
        lambda rows: _near(rows, w),
        "mass",
        "sum_{|i - j| < w} w_ij",
        "sliding windows: Beltagy et al. 2020 (arXiv:2004.05150)",
        frozenset({POSITIONS}),
    )


@row_measure(
    unit="mass",
    formula="w_ii",
    source="current-token head: Nanda 2022, TransformerLens",
    needs=(POSITIONS,),
    name="self",
)
def own(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Weight on the token itself."""
    return _diagonal(rows, 0)


@row_measure(
    unit="mass",
    formula="w_{i,i-1}; the first token has none",
    source="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits",
    needs=(POSITIONS,),
)
def previous(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Weight on the token before."""
    return _diagonal(rows, 1).masked_fill(rows.positions == 0, torch.nan)


@row_measure(
    unit="tokens",
    formula="sum_j w_ij |i - j| / sum_j w_ij",
    source="Vig and Belinkov 2019 (arXiv:1906.04284)",
    needs=(POSITIONS,),
)
def distance(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Mean distance to the keys, in tokens, weighted by the row."""
    middle = rows.rows[0]  # distances are counted from here, so that large positions do not cancel
    back = rows.total * (rows.positions - middle) - rows.dot((rows.columns - middle).float())
    # Keys to the right count twice, once to undo the sign; under a causal rule there are none but in the tile's corner.
    ahead = rows.clip(middle + 1, rows.stop)
    if ahead.shape[2]:
        beyond = torch.arange(rows.stop - ahead.shape[2], rows.stop, device=ahead.device) - rows.positions[:, None]
        back = back + 2 * rows.weighted(ahead, beyond.clamp(min=0))
    return back / rows.total


def _diagonal(rows: SampleRows, back: int) -> Float[Tensor, "head query"]:
    """Weight of each row on the key `back` positions before its own; 0 where that column is not there."""
    wanted = rows.positions - rows.start - back
    inside = (wanted >= 0) & (wanted < rows.weights.shape[2])
    if not rows.weights.shape[2]:
        return torch.zeros_like(rows.peak)
    at = wanted.clamp(0, rows.weights.shape[2] - 1).expand(rows.weights.shape[0], -1)[..., None]
    return rows.weights.gather(2, at)[..., 0] * inside


def _near(rows: SampleRows, w: int) -> Float[Tensor, "head query"]:
    near = rows.clip(rows.rows[0] - w + 1, rows.rows[-1] + w)
    first = max(rows.rows[0] - w + 1, rows.start)
    columns = torch.arange(first, first + near.shape[2], device=near.device)
    mask = (columns - rows.positions[:, None]).abs() < w
    return rows.weighted(near, mask)
