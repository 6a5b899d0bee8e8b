"""Cells of a map for a picture of so many pixels: of a long map, the level that fits is read, not all weights."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnprobe.errors import SelectionError
from attnprobe.fields import describe_rows
from attnprobe.levels import Levels
from attnprobe.pyramid import HOWS, LAST
from attnprobe.shapes import Bool, Float, Int
from attnprobe.show.prepare import group_starts

Part = slice | range | None  # of positions; None is all that was kept
_AT_ONCE = 4 << 20  # weights that are read together
_ROWS = 64  # at least; one row is one read


@dataclass(frozen=True, eq=False)
class Picture:
    """Cells, each the largest or the mean of the weights that it covers.

    Attributes
    ----------
    values
        NaN where nothing was kept.
    rows, columns
        Positions of the rows and columns that are covered, in almost equal shares a cell. Rows that were kept with gaps
        stand close together where each can have a cell.
    """

    values: Float[np.ndarray, "down across"]
    rows: Sequence[int]
    columns: range

    @property
    def row_starts(self) -> list[int]:
        """The first position of each row of cells."""
        return [self.rows[at] for at in group_starts(len(self.rows), len(self.values))]

    @property
    def column_starts(self) -> list[int]:
        """The first position of each column of cells."""
        return [self.columns[at] for at in group_starts(len(self.columns), self.values.shape[1])]


def read_picture(
    levels: Levels, down: int, across: int, rows: Part = None, columns: Part = None, how: str = "max"
) -> Picture:
    """Read at most ``down x across`` cells of a part of a map, in bounded memory.

    Parameters
    ----------
    levels
        The map.
    down, across
        The most cells.
    rows, columns
        Positions, without a step: ``slice(20_000, None)``; all that was kept if None.
    how
        ``"max"`` or ``"mean"`` of what a cell covers.

    Raises
    ------
    SelectionError
        If `rows` or `columns` is no such slice, or is empty, or `how` is neither.
    NotKept
        If some columns were not kept.
    """
    if how not in HOWS:
        raise SelectionError(f'how={how!r}: a cell shows the largest or the mean weight; write "max" or "mean"')
    kept, wide = part_of(levels, rows, columns)
    if len(kept) <= down:
        return Picture(_read_rows(levels, kept, wide, across, how), kept.tolist(), wide)
    return _read_level(levels, kept, wide, down, across, how)


def part_of(levels: Levels, rows: Part = None, columns: Part = None) -> tuple[Int[np.ndarray, " row"], range]:
    """The kept rows and the columns of a part; raises as `read_picture`."""
    kept = np.asarray(levels.map.kept, np.int64)
    within = _within("rows", rows, levels.map.shape[0])
    if within is not None:
        kept = kept[(kept >= within.start) & (kept < within.stop)]
    wide = _within("columns", columns, levels.map.shape[1])
    wide = levels.map.kept_keys if wide is None else wide
    if not len(kept) or not len(wide):
        have = f"rows {describe_rows(levels.map.kept)}, columns {describe_rows(levels.map.kept_keys)}"
        raise SelectionError(f"there is nothing to show of {levels.map.where}: kept are {have}")
    return kept, wide


def _within(name: str, part: Part, length: int) -> range | None:
    if part is None:
        return None
    numbers = range(length)[part] if isinstance(part, slice) else part
    if not isinstance(numbers, range) or numbers.step != 1:
        raise SelectionError(f"{name}={part!r}: write a part without a step, as slice(100, 200)")
    if not 0 <= numbers.start < numbers.stop <= length:
        raise SelectionError(f"{name}={part!r} is no part of the {length:,} that there are (0 to {length - 1})")
    return numbers


def _read_rows(
    levels: Levels, kept: Int[np.ndarray, " row"], columns: range, across: int, how: str
) -> Float[np.ndarray, "row across"]:
    """Each row, its columns pooled."""
    together = max(_ROWS, _AT_ONCE // len(columns))
    starts = np.array(group_starts(len(columns), across))
    parts = []
    for first in range(0, len(kept), together):
        values = levels.map.read(kept[first : first + together].tolist(), columns)
        parts.append(_pool(values, np.arange(len(values)), starts, how))
    return np.concatenate(parts)


def _read_level(
    levels: Levels, kept: Int[np.ndarray, " row"], columns: range, down: int, across: int, how: str
) -> Picture:
    """The coarsest level that is as fine as the picture, its cells pooled further to those that there is room for."""
    rows = range(int(kept[0]), int(kept[-1]) + 1)
    level = 0
    while (
        level < LAST
        and len(_cells(rows, level + 1)) >= min(down, len(rows))
        and len(_cells(columns, level + 1)) >= min(across, len(columns))
    ):
        level += 1
    tall, wide = _cells(rows, level), _cells(columns, level)
    groups = np.append(group_starts(len(tall), down), len(tall))
    starts = np.array(group_starts(len(wide), across))
    strip = max(1, _AT_ONCE // (len(wide) * int(np.diff(groups).max())))  # groups that are read together
    parts = []
    for first in range(0, len(groups) - 1, strip):
        own = groups[first : first + strip + 1]
        cells = tall[own[0] : own[-1]]
        values = levels.read(level, slice(cells.start, cells.stop), slice(wide.start, wide.stop), how)
        _cut_sides(values, levels, kept, cells, rows, columns, level, how)
        parts.append(_pool(values, own[:-1] - own[0], starts, how, np.isin(cells, kept >> level)))
    return Picture(np.concatenate(parts), rows, columns)


def _cells(positions: range, level: int) -> range:
    """The cells that cover positions."""
    return range(positions.start >> level, (positions.stop - 1 >> level) + 1)


def _cut_sides(
    values: Float[np.ndarray, "down across"],
    levels: Levels,
    kept: Int[np.ndarray, " row"],
    cells: range,
    rows: range,
    columns: range,
    level: int,
    how: str,
) -> None:
    """Make cells that reach out of the part anew, of its own weights: without the first key, none of it may be seen."""
    size, stored, every = 1 << level, levels.map.kept_keys, levels.map.kept
    wide = _cells(columns, level)
    for at, (start, stop) in enumerate(((wide[0] * size, columns.start), (columns.stop, (wide[-1] + 1) * size))):
        if range(max(start, stored.start), min(stop, stored.stop)):
            own = range(max(columns.start, wide[-at] * size), min(columns.stop, (wide[-at] + 1) * size))
            values[:, -at] = _side(levels, kept, cells, own, size, how)
    bounds = np.maximum(np.asarray(wide) * size, columns.start) - columns.start
    for place in {cells.index(cell) for cell in (rows.start >> level, rows[-1] >> level) if cell in cells}:
        first, last = cells[place] * size, (cells[place] + 1) * size
        inside = kept[(kept >= first) & (kept < last)].tolist()
        if len(inside) < bisect_left(every, last) - bisect_left(every, first):
            values[place] = _pool(levels.map.read(inside, columns), np.zeros(1, np.int64), bounds, how)[0]


def _side(
    levels: Levels, kept: Int[np.ndarray, " row"], cells: range, columns: range, size: int, how: str
) -> Float[np.ndarray, " down"]:
    """A column of cells, of some of its columns."""
    values = np.full(len(cells), np.nan, np.float32)
    together = max(1, _AT_ONCE // (size * len(columns)))
    for first in range(0, len(cells), together):
        part = cells[first : first + together]
        rows = kept[np.searchsorted(kept, part[0] * size) : np.searchsorted(kept, (part[-1] + 1) * size)]
        if len(rows):
            there, begins = np.unique(rows // size, return_index=True)
            weights = levels.map.read(rows.tolist(), columns)
            values[there - cells.start] = _pool(weights, begins, np.zeros(1, np.int64), how)[:, 0]
    return values


def _pool(
    values: Float[np.ndarray, "row column"],
    down: Int[np.ndarray, " down"],
    across: Int[np.ndarray, " across"],
    how: str,
    there: Bool[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, "down across"]:
    """The largest or the mean of groups, by their first rows and columns; rows that are not `there` do not count."""
    rows, columns = values.shape
    there = np.ones(rows, bool) if there is None else there
    pool, nothing = (np.maximum, -np.inf) if how == "max" else (np.add, 0.0)
    known = np.where(there[:, None], values, np.float32(nothing)).astype(np.float32)
    pooled: np.ndarray = pool.reduceat(pool.reduceat(known, across, axis=1), down, axis=0)
    counts = np.add.reduceat(there.astype(np.int64), down)
    if how == "mean":
        pooled /= (np.maximum(counts, 1)[:, None] * np.diff(np.append(across, columns))).astype(np.float32)
    pooled[counts == 0] = np.nan
    return pooled
