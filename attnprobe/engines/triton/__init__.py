"""Fused kernels for CUDA, written in Triton; what they do not cover falls to the torch engine.

Triton comes with PyTorch's CUDA builds and is imported only when a kernel runs. With ``TRITON_INTERPRET=1`` in the
environment the same kernels run on CPU tensors, slowly: that is how they are tested where there is no GPU.
"""

from collections.abc import Iterator

import torch

from attnprobe.call import AttentionCall, Rows
from attnprobe.engines.tile import Tile
from attnprobe.engines.torch import tiles as torch_tiles
from attnprobe.engines.triton.covering import covers
from attnprobe.engines.triton.exact import kernel_tiles
from attnprobe.engines.triton.measuring import KernelMeasures
from attnprobe.scratch import Scratch


@torch.no_grad()
def tiles(
    call: AttentionCall, heads: tuple[int, ...], rows: Rows, budget: int, scratch: Scratch | None = None
) -> Iterator[Tile]:
    """Tiles of `heads` and `rows`, each of at most a quarter of `budget` bytes; no key is copied.

    Products are taken in float32 at IEEE precision, of half-precision numbers exactly. With `scratch`, a tile is valid
    until the next one. A call that `covers` gives a reason against gets the torch engine's tiles.

    Raises
    ------
    BudgetError
        If one row does not fit.
    """
    if not len(rows):
        return
    make = kernel_tiles if covers(call) is None else torch_tiles
    yield from make(call, heads, rows, budget, scratch)


def fused(call: AttentionCall) -> KernelMeasures | None:
    """The fused forms of measures for a call; None where the kernels do not cover it."""
    return KernelMeasures() if covers(call) is None else None


__all__ = ["covers", "fused", "tiles"]
