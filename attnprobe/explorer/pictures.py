"""Pictures of maps: patches of any level, the largest of a strip's rows, and a small picture of every head."""

import numpy as np

from attnprobe.errors import SelectionError
from attnprobe.explorer.asked import Asked
from attnprobe.explorer.cells import read_cells
from attnprobe.explorer.frames import Answer, bfloat16
from attnprobe.pyramid import LAST, PATCH
from attnprobe.shapes import Float

AT_ONCE = 4 << 20  # cells of a strip that are read together


def patch(asked: Asked) -> Answer:
    """The patch at a place in the grid of patches of a level."""
    level, down, across = (asked.number(name) for name in ("level", "down", "across"))
    rows, columns = _place(asked, level, down, across)
    return Answer({}, bfloat16(read_cells(asked.head.levels, level, rows, columns, asked.text("how"))))


def strip(asked: Asked) -> Answer:
    """The largest of each row of the cells in a strip of patches; NaN where nothing was kept."""
    level, skip = asked.number("level"), asked.number("skip")
    if skip > 1:
        raise SelectionError(f"skip is {skip}; give 1 to leave the first key out, or 0")
    rows, _ = _place(asked, level, asked.number("down"), 0)
    across = asked.head.levels.shape(level)[1]
    largest: Float[np.ndarray, " row"] = np.full(len(rows), np.nan, np.float32)
    for first in range(skip, across, AT_ONCE // PATCH):
        columns = range(first, min(across, first + AT_ONCE // PATCH))
        part = read_cells(asked.head.levels, level, rows, columns, asked.text("how"))
        largest = np.fmax(largest, np.fmax.reduce(part, axis=1))
    return Answer({}, largest)


def _place(asked: Asked, level: int, down: int, across: int) -> tuple[range, range]:
    """The rows and columns of cells of a patch.

    Raises
    ------
    SelectionError
        If there is no such level or patch.
    """
    if level > LAST:
        raise SelectionError(f"there is no level {level}: there are 0 to {LAST}")
    shape = asked.head.levels.shape(level)
    starts = down * PATCH, across * PATCH
    if not all(start < length for start, length in zip(starts, shape, strict=True)):
        raise SelectionError(f"level {level} has {shape[0]:,} x {shape[1]:,} cells, and no patch {down}, {across}")
    rows, columns = (range(start, min(start + PATCH, length)) for start, length in zip(starts, shape, strict=True))
    return rows, columns
