"""Mass on repeats: on the same token earlier, and on what followed it then."""

import torch
from torch import Tensor

from attnprobe.measures.base import IDS, POSITIONS, row_measure
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Bool, Float, Int


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
    tokens = rows.tokens
    assert tokens is not None, "a measure that needs ids is not computed without them"
    mass = rows.masked_sum(_matches(rows, tokens.ids, shift))
    return mass.masked_fill(~tokens.repeated[rows.positions], torch.nan)


def _matches(rows: SampleRows, ids: Int[Tensor, " tokens"], shift: int) -> Bool[Tensor, "query key"]:
    """Columns whose token `shift` positions before is the row's own token, at an earlier position than the row's."""
    before = rows.columns - shift
    theirs = torch.where(before >= 0, ids[before.clamp(min=0)], -1)
    mine = ids[rows.positions]
    mine = torch.where(mine < 0, -2, mine)  # an unknown token matches none
    mask = theirs == mine[:, None]
    # Only columns from the first row's own one on can be no earlier ones.
    late = max(rows.rows[0] + shift, rows.start) - rows.start
    if late < mask.shape[1]:
        mask[:, late:] &= before[late:] < rows.positions[:, None]
    return mask
