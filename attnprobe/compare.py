"""A few rows of a call, times the values, against what the kernel returned."""

from typing import Any

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, GivenWeights, as_index
from attnprobe.engines import Engine, Tile
from attnprobe.engines.given import given_tiles
from attnprobe.engines.layout import SHARE
from attnprobe.shapes import Float

FLOAT = 4
ROWS, HEADS = 3, 8  # at most, of a call: the first, the last, and some between


def _spread(count: int, most: int) -> tuple[int, ...]:
    """At most so many of `count`, the first and the last among them."""
    return tuple(sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(most)}))


def compare(
    engine: Engine,
    call: AttentionCall | GivenWeights,
    value: Tensor | None,
    output: Tensor | None,
    smallest: float,
    budget: int,
) -> Tensor:
    """Difference (NaN without `value` and `output`), distance of row sums from 1, share of lost weights: ``[3]``.

    Parameters
    ----------
    engine, budget
        Makes the tiles.
    call
        What was given.
    value, output
        ``[batch, kv_head, key, dim]``, and what the kernel returned as ``[batch, head, query, dim]``.
    smallest
        Weights below this are lost when they are kept.
    """
    difference, row_sum, lost, largest, count = (call.query.new_zeros((), dtype=torch.float32) for _ in range(5))
    make: Any = given_tiles if isinstance(call, GivenWeights) else engine
    for tile in make(call, _spread(call.heads, HEADS), _spread(call.queries, ROWS), budget, None):
        sums = tile.weights.sum(-1) + (0.0 if tile.sink_mass is None else tile.sink_mass)
        valid = sums > 0 if tile.valid is None else tile.valid
        row_sum = torch.maximum(row_sum, ((sums - 1).abs() * valid).max())
        lost = lost + ((tile.weights > 0) & (tile.weights < smallest)).sum()
        count = count + (tile.weights > 0).sum()
        if value is not None and output is not None:
            made = _made(call, tile, value, budget // SHARE)
            given = output[:, as_index(tile.heads, output.device)][:, :, as_index(tile.rows, output.device)].float()
            own = valid[..., None]
            difference = torch.maximum(difference, ((made - given).abs() * own).max())
            largest = torch.maximum(largest, (given.abs() * own).max())
    relative = difference / largest.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.stack([relative if output is not None else relative * torch.nan, row_sum, lost / count.clamp(min=1)])


def _made(call: Any, tile: Tile, value: Tensor, most: int) -> Float[Tensor, "batch h r dim"]:
    """Weights times values; of so many heads at a time as have values of at most so many bytes in float32."""
    stop = tile.start + tile.weights.shape[3]
    several = max(1, most // (value.shape[0] * (stop - tile.start) * value.shape[3] * FLOAT))
    parts = []
    for first in range(0, len(tile.heads), several):
        heads = tuple(head * value.shape[1] // call.heads for head in tile.heads[first : first + several])
        of = value[:, as_index(heads, value.device), tile.start : stop].detach().float()
        parts.append(torch.matmul(tile.weights[:, first : first + several], of))
    return torch.cat(parts, 1)
