"""Where a row is largest, and how large."""

import torch
from torch import Tensor

from attnprobe.measures.base import row_measure
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float


@row_measure(unit="mass", formula="max_j w_ij", source="confidence of a head: Voita et al. 2019 (arXiv:1905.09418)")
def _max(rows: SampleRows) -> Float[Tensor, "head query"]:
    """The largest weight of a row."""
    return rows.peak


@row_measure(unit="position", formula="argmax_j w_ij, the lowest of equal ones", source="definition", dtype="int32")
def argmax(rows: SampleRows) -> Float[Tensor, "head query"]:
    """Position of the largest weight; as a float, which is exact below 2^24."""
    if not rows.weights.shape[2]:
        return torch.full_like(rows.peak, torch.nan)
    # Twice as fast on a CPU as argmax, and of equal weights surely the first.
    behind = torch.eq(rows.weights, rows.peak[..., None], out=rows.buffer())  # 1 where it is the largest
    found = behind.mul_(rows.stop - rows.columns).amax(-1).neg_().add_(rows.stop)
    return found.masked_fill_(rows.peak.isnan(), torch.nan)  # NaN equals nothing, and would be behind the last column
