"""A few rows of a call, times the values, against what the kernel returned."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from attnprobe.call import AttentionCall, GivenWeights, as_index
from attnprobe.engines import Engine, Tile
from attnprobe.engines.given import given_tiles
from attnprobe.engines.layout import SHARE
from attnprobe.shapes import Float

FLOAT, PART = 4, 1024
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
    nothing = torch.finfo(torch.float32).tiny
    make: Any = given_tiles if isinstance(call, GivenWeights) else engine
    most, some = [], []  # of each tile: what is the largest of all, and what is added up
    for tile in make(call, _spread(call.heads, HEADS), _spread(call.queries, ROWS), budget, None):
        sums = tile.weights.sum(-1)
        if tile.sink_mass is not None:
            sums = sums + tile.sink_mass
        valid = sums > 0 if tile.valid is None else tile.valid
        there = tile.weights > 0
        some.append(torch.stack([(there & (tile.weights < smallest)).sum(), there.sum()]))
        figures = [((sums - 1).abs() * valid).amax()]
        if value is not None and output is not None:
            made, own = _made(call, tile, value, budget // SHARE), valid[..., None]
            given = output[:, as_index(tile.heads, output.device)][:, :, as_index(tile.rows, output.device)].float()
            figures += [((made - given).abs() * own).amax(), (given.abs() * own).amax()]
        most.append(torch.stack(figures))
    figures = list(torch.stack(most).amax(0)) if len(most) > 1 else list(most[0])
    lost, count = torch.stack(some).sum(0) if len(some) > 1 else some[0]
    compared = len(figures) == 3
    difference = figures[1] / figures[2].clamp(min=nothing) if compared else figures[0] * torch.nan
    return torch.stack([difference, figures[0], lost / count.clamp(min=1)])


def _made(call: Any, tile: Tile, value: Tensor, most: int) -> Float[Tensor, "batch h r dim"]:
    """Weights times values; of so many heads at a time as have values of at most so many bytes in float32."""
    stop = tile.start + tile.weights.shape[3]
    several = max(1, most // (value.shape[0] * (stop - tile.start) * value.shape[3] * FLOAT))
    parts = []
    for first in range(0, len(tile.heads), several):
        heads = tuple(head * value.shape[1] // call.heads for head in tile.heads[first : first + several])
        of = value[:, as_index(heads, value.device), tile.start : stop].detach().float()
        parts.append(_product(tile.weights[:, first : first + several], of))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _product(weights: Float[Tensor, "batch h r k"], values: Float[Tensor, "batch h k dim"]) -> Tensor:
    """The product, on a device part by part of the keys: of few rows and many keys, that is work for all of it."""
    whole = weights.shape[3] // PART * PART
    if weights.device.type == "cpu" or whole <= PART:
        return torch.matmul(weights, values)
    left = rearrange(weights[..., :whole], "batch h r (part k) -> batch h part r k", k=PART)
    right = rearrange(values[:, :, :whole], "batch h (part k) dim -> batch h part k dim", k=PART)
    made = torch.matmul(left, right).sum(2)
    return made + torch.matmul(weights[..., whole:], values[:, :, whole:])
