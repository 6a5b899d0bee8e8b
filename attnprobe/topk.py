"""The largest weights of each row."""

import torch
from torch import Tensor

from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float, Int


def largest(
    rows: SampleRows, k: int, keys: slice
) -> tuple[Float[Tensor, "head query k"], Int[Tensor, "head query k"], Float[Tensor, "head query"]]:
    """The `k` largest weights of each row within a range of keys, largest first; their positions; the mass of the rest.

    Of equal weights the one at the lowest position comes first. Where a row has fewer than `k` weights above zero, the
    others are 0 at position -1.
    """
    start = max(rows.start, keys.start or 0)
    weights = rows.clip(start, rows.stop if keys.stop is None else keys.stop)
    width = weights.shape[2]
    count = min(k, width)
    values, at = weights.topk(count, dim=-1)
    if count:
        at = _settle_ties(weights, values, at)
    positions = torch.where(values == 0, -1, at + start)  # NaN is no zero
    rest = (weights.sum(-1) - values.sum(-1)).clamp(min=0)
    if count < k:
        values = torch.nn.functional.pad(values, (0, k - count))
        positions = torch.nn.functional.pad(positions, (0, k - count), value=-1)
    return values, positions.int(), rest


def _settle_ties(
    weights: Float[Tensor, "head query key"], values: Float[Tensor, "head query k"], at: Int[Tensor, "head query k"]
) -> Int[Tensor, "head query k"]:
    """`topk` takes any of equal weights, in any order: put the lowest positions there, in order."""
    last = values[..., -1:]
    # Where more weights equal the smallest taken one than were taken, it is open which; zeros are of no account.
    taken = (values == last).sum(-1)
    there = (weights == last).sum(-1)
    torn = (there > taken) & (last[..., 0] > 0)
    if bool(torn.any()):  # on an accelerator this waits, which costs less than sorting every row of every tile
        order = weights[torn].sort(dim=-1, descending=True, stable=True).indices
        at[torn] = order[:, : at.shape[-1]]
    by_position = at.argsort(dim=-1)
    by_weight = values.gather(-1, by_position).argsort(dim=-1, descending=True, stable=True)
    return at.gather(-1, by_position.gather(-1, by_weight))
