"""Cells of a map, coarser than what is there: pooled again."""

import numpy as np

from attnprobe.levels import Levels
from attnprobe.shapes import Float, Shaped

Counts = Shaped[np.ndarray, " down"]


def pool(
    values: Float[np.ndarray, "down across"], counts: Counts, size: tuple[int, int], how: str
) -> Float[np.ndarray, "a b"]:
    """The largest, or the mean, of so many cells down and across each.

    Parameters
    ----------
    values
        Cells; NaN where nothing was kept. A mean is over all of a cell's columns, those behind the last included.
    counts
        Of how many rows of the map each row of cells is.
    size
        Cells down and across that become one; at the end there may be fewer.
    how
        ``"max"`` or ``"mean"``.
    """
    if size == (1, 1) or not values.size:
        return values
    down, across = (np.arange(0, length, step) for length, step in zip(values.shape, size, strict=True))
    if how == "max":  # NaN only of nothing but NaN
        largest: np.ndarray = np.fmax.reduceat(np.fmax.reduceat(values, down, axis=0), across, axis=1)
        return largest
    there = np.isfinite(values)
    weighted = np.where(there, values, 0) * counts[:, None]
    total = np.add.reduceat(np.add.reduceat(weighted, down, axis=0), across, axis=1)
    some = np.logical_or.reduceat(np.logical_or.reduceat(there, down, axis=0), across, axis=1)
    rows = np.maximum(np.add.reduceat(counts, down), 1)[:, None]
    return np.where(some, total / (rows * size[1]), np.nan).astype(np.float32)


def rows_in(levels: Levels, level: int, down: range) -> Counts:
    """How many rows were kept of each row of cells."""
    edges = np.searchsorted(levels.rows, np.arange(down.start, down.stop + 1) << level)
    counts: np.ndarray = np.diff(edges)
    return counts


def read_cells(levels: Levels, level: int, down: range, across: range, how: str) -> Float[np.ndarray, "down across"]:
    """Cells of any level; those above the coarsest that the run keeps are made of that one, and not of the weights."""
    kept = levels.kept_of(how)
    if not kept or level <= kept[-1]:
        return levels.read(level, slice(down.start, down.stop), slice(across.start, across.stop), how)
    more = level - kept[-1]
    height, width = levels.shape(kept[-1])
    rows = range(min(down.start << more, height), min(down.stop << more, height))
    columns = slice(across.start << more, min(across.stop << more, width))
    values = levels.read(kept[-1], slice(rows.start, rows.stop), columns, how)
    return pool(values, rows_in(levels, kept[-1], rows), (1 << more, 1 << more), how)
