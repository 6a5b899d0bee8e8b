"""Where a tile belongs: its rows and columns in each sample of the batch, and so the blocks that the store gets."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from attnprobe.cut import cut
from attnprobe.fields import Field, Rows
from attnprobe.lineage import Forward
from attnprobe.selection import Selection
from attnprobe.shapes import Float
from attnprobe.store.base import Writer


def place(
    store: Writer,
    forward: Forward,
    selection: Selection,
    field: Field,
    heads: tuple[int, ...],
    rows: Rows,
    start: int,
    weights: Float[Tensor, "batch h r k"],
) -> None:
    """Write a tile's wanted rows, sample by sample.

    Parameters
    ----------
    store, forward, selection
        Where to, which forward pass made it, which rows and columns are wanted.
    field
        What it is part of, whatever the sample.
    heads, rows, start
        Heads and rows of the call, and the slot of the first column.
    weights
        The tile, on the CPU.
    """
    at, width = np.asarray(rows), weights.shape[3]
    for b, sample in enumerate(forward.lineage.samples):
        positions = forward.positions(b)[at]
        places = sample.place if field.site.keys == field.site.queries else sample.source
        columns = np.full(width, -1, np.int64)  # a static cache is wider than what it holds
        known = np.arange(start, start + width) if places is None else places[start : start + width]
        columns[: len(known)] = known
        wanted = sample.selected(selection, positions)
        block = cut(weights[b], heads, positions, wanted, columns, selection.keys, getattr(torch, field.dtype))
        if block is not None:
            store.write(replace(field, sample=sample.index), block)
            sample.kept += block.values.numel()
