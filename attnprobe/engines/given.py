"""Tiles of weights that a module built itself: cut, not computed."""

from collections.abc import Iterator

import torch

from attnprobe.call import GivenWeights, Rows, as_index
from attnprobe.engines.layout import CPU_TILE
from attnprobe.engines.tile import Tile
from attnprobe.scratch import Scratch


@torch.no_grad()
def given_tiles(
    given: GivenWeights, heads: tuple[int, ...], rows: Rows, budget: int, scratch: Scratch | None = None
) -> Iterator[Tile]:
    """Tiles of some heads and rows, copied to float32: the module's own tensor is the caller's."""
    weights = given.weights
    line = given.batch * given.keys * 4
    height = max(1, min(budget // 4, CPU_TILE) // (line * len(heads)))
    for first in range(0, len(rows), height):
        block = rows[first : first + height]
        part = weights[:, as_index(heads, weights.device)][:, :, as_index(block, weights.device)]
        yield Tile(part.to(torch.float32, copy=True), heads, block, 0, None, None)
