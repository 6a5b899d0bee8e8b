"""Tiles of exact weights: a pass that normalises rows, and a pass that writes them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, Rows
from attnprobe.engines.layout import GPU_TILE, SHARE, Layout
from attnprobe.engines.tile import Tile
from attnprobe.engines.triton.launch import launch
from attnprobe.engines.triton.operands import LOG2_E, Operands
from attnprobe.errors import BudgetError
from attnprobe.scratch import Scratch
from attnprobe.shapes import Bool, Float

FEW = 64  # rows of a head that make a good product
PROGRAMS = 1024  # that keep any device busy
PART = 256  # keys that are worth a program


class Normalised(NamedTuple):
    """Of each row, the base-2 logarithm of the sum of exponentials (0 without a key), a sink's share, and any key.

    The sum has the sink's exponential in it.
    """

    lse: Float[Tensor, "batch h r"]
    sink_mass: Float[Tensor, "batch h r"] | None
    valid: Bool[Tensor, "batch h r"]


def kernel_tiles(
    call: AttentionCall,
    heads: tuple[int, ...],
    rows: Rows,
    budget: int,
    scratch: Scratch | None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tile]:
    """Tiles of a call that the kernels cover, each of at most a quarter of `budget` bytes, in `dtype`.

    Raises
    ------
    BudgetError
        If one row does not fit.
    """
    layout = _lay_out(call, len(heads), len(rows), budget, dtype.itemsize)
    for head in range(0, len(heads), layout.heads):
        some = heads[head : head + layout.heads]
        height = layout.height(len(some))
        for row in range(0, len(rows), height):
            yield _tile(call, some, rows[row : row + height], scratch, dtype)


def _lay_out(call: AttentionCall, heads: int, rows: int, budget: int, itemsize: int) -> Layout:
    """As of the torch engine, but keys are read where they are."""
    line = call.batch * call.keys * itemsize
    if line > budget // SHARE:
        raise BudgetError(
            f"a row of one head, {call.keys} columns for a batch of {call.batch}, takes {line:,} bytes, and a quarter "
            f"of the budget is {budget // SHARE:,}; raise budget= (--budget) to at least {line * SHARE:,} (64 MiB and "
            "more are quick), or record smaller batches"
        )
    share = min(budget // SHARE, max(GPU_TILE, line))
    return Layout(max(1, min(heads, share // (line * min(rows, FEW)))), share, line, pack=False)


def _tile(call: AttentionCall, heads: tuple[int, ...], rows: Rows, scratch: Scratch | None, dtype: torch.dtype) -> Tile:
    from attnprobe.engines.triton.kernels.weights import write

    operands = Operands.of(call, heads, rows)
    sink = call.sink_logits(heads, rows)
    found = normalise(operands, call.keys, None if sink is None else sink[..., 0].float())
    start, stop = call.columns(rows)
    shape = *operands.shape, stop - start
    if scratch is None:
        weights = operands.empty(stop - start, dtype=dtype)
    else:
        weights = scratch.take("tile", shape, dtype, operands.device)
    launch(
        write,
        operands,
        lambda blocks: (*operands.blocks(blocks), -(-(stop - start) // blocks["BLOCK_N"])),
        lse=found.lse,
        weights=weights,
        low=start,
        width=stop - start,
    )
    valid = found.valid if call.may_empty else None
    return Tile(weights, heads, rows, start, found.sink_mass, valid, call.looks_back(rows, stop))


def normalise(operands: Operands, keys: int, sink: Float[Tensor, "#batch h #r"] | None) -> Normalised:
    """What normalises each row over `keys` columns, and a learned sink's logit.

    Of a few rows, keys are taken in several parts, so that there is work for the whole device.
    """
    from attnprobe.engines.triton.kernels.weights import normalise as kernel

    batch, heads, rows = operands.shape
    parts = max(1, min(PROGRAMS // (batch * heads * -(-rows // FEW)), keys // PART))
    largest, total = torch.empty(2, parts, *operands.shape, device=operands.device)
    launch(
        kernel,
        operands,
        lambda blocks: (*operands.blocks(blocks), parts),
        largest=largest,
        total=total,
        split=parts,
    )
    peak = largest.amax(0)
    base = peak.masked_fill(peak == -torch.inf, 0.0)
    mass = (total * torch.exp2(largest - base)).sum(0)
    valid = mass != 0
    lse = base + torch.log2(mass)
    if sink is not None:
        lse = torch.logaddexp2(lse, sink * LOG2_E)
    lse.masked_fill_(lse == -torch.inf, 0.0)
    return Normalised(lse, None if sink is None else torch.exp2(sink * LOG2_E - lse), valid)
