"""The map of one head, coarser and coarser: read where a run keeps it so, else made of the weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from attnprobe.arrays import fill
from attnprobe.codes import as_float32
from attnprobe.errors import SelectionError
from attnprobe.fields import Field, Piece
from attnprobe.held import Held
from attnprobe.maps import Map, own_pieces
from attnprobe.pyramid import HOWS, LAST, PATCH, cells, level_of
from attnprobe.shapes import Bool, Float, Int
from attnprobe.store.cells import pool

AT_ONCE = 1 << 20  # weights that are pooled together: what comes of them stays in cache


@dataclass(frozen=True, eq=False)
class Levels:
    """Cells of ``2**level`` x ``2**level`` weights, the largest or the mean of each; level 0 is the map.

    A mean is over the rows that were kept and all of a cell's columns, those behind the last token included, which have
    no weight. Cells of which no row or no column was kept are NaN. What a run keeps is within 2**-8 of the value; the
    rest is made of the weights when it is asked for, exactly.

    Attributes
    ----------
    map
        The weights.
    fields
        What a run keeps of levels.
    """

    map: Map
    fields: Held

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The levels that the run keeps, finest first."""
        return tuple(sorted({level for _, level in self._kept}))

    def kept_of(self, how: str) -> tuple[int, ...]:
        """Those of the largest (``"max"``), or of the means (``"mean"``)."""
        return tuple(sorted(level for one, level in self._kept if one == how))

    @cached_property
    def rows(self) -> Int[np.ndarray, " row"]:
        """Positions of the rows that were kept; a viewer asks for many patches."""
        return np.asarray(self.map.kept, np.int64)

    @cached_property
    def _kept(self) -> dict[tuple[str, int], list["_Patches"]]:
        found: dict[tuple[str, int], list[_Patches]] = {}
        for field, pieces in self.fields:
            level, own = level_of(field.what), own_pieces(pieces, self.map.number)
            if level is not None and own:
                found.setdefault(level, []).append(_Patches(field, own))
        return found

    def __repr__(self) -> str:
        """Which levels there are, of what, and which of them the run keeps."""
        queries, keys = self.map.shape
        kept = ", ".join(map(str, self.kept)) or "none"
        return f"levels 0 to {LAST} of {queries:,} x {keys:,} weights of {self.map.where}; kept: {kept}"

    def shape(self, level: int) -> tuple[int, int]:
        """Cells down and across."""
        queries, keys = self.map.shape
        return cells(queries, level), cells(keys, level)

    def read(
        self, level: int, rows: slice = slice(None), columns: slice = slice(None), how: str = "max"
    ) -> Float[np.ndarray, "down across"]:
        """Some cells of a level.

        Parameters
        ----------
        level
            0 to 10.
        rows, columns
            Of cells; without a step.
        how
            ``"max"`` or ``"mean"``.

        Raises
        ------
        SelectionError
            If there is no such level, or `rows` and `columns` are no slices of numbers without a step.
        """
        _check_level(level, how)
        for name, part in (("rows", rows), ("columns", columns)):
            _check_slice(name, part)
        down, across = (range(length)[part] for part, length in zip((rows, columns), self.shape(level), strict=True))
        if down.step != 1 or across.step != 1:
            raise SelectionError("a part of a level has no step; read it, and take every n-th of that")
        if (how, level) in self._kept:
            return self._stored(how, level, down, across)
        return self._made(how, level, down, across)

    def patch(self, level: int, down: int, across: int, how: str = "max") -> Float[np.ndarray, "down across"]:
        """The patch of 256 x 256 cells at a place in the grid of patches; at the sides of the map it is smaller.

        Raises
        ------
        SelectionError
            If there is no such level or patch.
        """
        _check_level(level, how)
        shape = self.shape(level)
        if not all(0 <= at < -(-length // PATCH) for at, length in zip((down, across), shape, strict=True)):
            raise SelectionError(f"level {level} has {shape[0]} x {shape[1]} cells, and no patch {down}, {across}")
        rows, columns = (slice(at * PATCH, (at + 1) * PATCH) for at in (down, across))
        return self.read(level, rows, columns, how)

    def _columns(self, level: int) -> range:
        """Cells that kept columns are in."""
        kept = self.map.kept_keys
        return range(kept.start >> level, cells(kept.stop, level)) if kept else range(0)

    def _stored(self, how: str, level: int, down: range, across: range) -> Float[np.ndarray, "down across"]:
        values: np.ndarray = np.full((1, len(down), len(across)), np.nan, np.float32)
        kept = self._columns(level)
        low, high = (min(max(one - across.start, 0), len(across)) for one in (kept.start, kept.stop))
        wanted = np.array([self.map.number]), np.arange(down.start, down.stop), np.arange(across.start, across.stop)
        missing = np.isin(wanted[1], self.rows >> level)
        for patches in reversed(self._kept[how, level]):  # what was named first is written last
            for rows in patches.rows(down):
                values[0, rows, low:high], missing[rows] = 0, False
            for piece in patches.near(down, across):
                fill(values, wanted, self.map.reader, patches.field, [piece], None)
        for first, stop in _runs(missing):  # memory was short
            values[0, first:stop] = self._made(how, level, down[first:stop], across)
        only: np.ndarray = values[0]
        return only

    def _made(self, how: str, level: int, down: range, across: range) -> Float[np.ndarray, "down across"]:
        values = np.full((len(down), len(across)), np.nan, np.float32)
        size = 1 << level
        kept = self._columns(level)
        own = range(max(across.start, kept.start), min(across.stop, kept.stop))
        every = self.rows
        if not own or not len(every):
            return values
        columns = range(max(own.start * size, self.map.kept_keys.start), min(own.stop * size, self.map.kept_keys.stop))
        ufunc = np.maximum if how == "max" else np.add
        # A row of cells that is of very many weights is pooled by and by.
        height, together = (max(1, AT_ONCE // (weights * len(columns))) for weights in (size, 1))
        for first in range(0, len(down), height):
            part = down[first : first + height]
            rows = every[np.searchsorted(every, part.start * size) : np.searchsorted(every, part.stop * size)]
            if not len(rows):
                continue
            there, counts = np.unique(rows // size, return_counts=True)
            pooled = reduce(ufunc, (self._pooled(some, columns, size, ufunc) for some in _split(rows, together)))
            if how == "mean":
                pooled /= (counts[:, None] * size).astype(np.float32)
            values[there - down.start, own.start - across.start : own.stop - across.start] = pooled
        return values

    def _pooled(
        self, rows: Int[np.ndarray, " row"], columns: range, size: int, ufunc: np.ufunc
    ) -> Float[np.ndarray, "down across"]:
        weights = as_float32(self.map.read(rows.tolist(), columns))
        pooled: np.ndarray = pool(weights[None], rows, columns.start, size, ufunc)[0]
        return pooled


def _split(rows: Int[np.ndarray, " row"], most: int) -> Iterator[Int[np.ndarray, " some"]]:
    return (rows[first : first + most] for first in range(0, len(rows), most))


def _check_level(level: object, how: object) -> None:
    number = not isinstance(level, bool) and isinstance(level, int | np.integer) and 0 <= level <= LAST
    if not number or how not in HOWS:
        raise SelectionError(f'level {level!r}, how={how!r}: levels are 0 to {LAST}, each by "max" or "mean"')


def _check_slice(name: str, part: object) -> None:
    ends = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
    if not isinstance(part, slice) or any(end is not None and not hasattr(end, "__index__") for end in ends):
        by = f"; how={part!r} is given by name" if isinstance(part, str) and part in HOWS else ""
        raise SelectionError(f"{name}={part!r}: give a slice of cells, as in slice(0, 256){by}")


def _runs(there: Bool[np.ndarray, " row"]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(there, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


class _Patches:
    """The patches of one level, by where they lie."""

    def __init__(self, field: Field, pieces: Sequence[Piece]) -> None:
        self.field = field
        self._pieces = pieces
        self._bounds: Int[np.ndarray, "side piece"] = np.array(
            [(piece.rows[0], piece.rows[-1], piece.start, piece.start + piece.shape[2]) for piece in pieces], np.int64
        ).T

    def rows(self, down: range) -> list[Int[np.ndarray, " row"]]:
        """Which of some rows are kept: places in `down`, for each strip that has some."""
        top, bottom, _, _ = self._bounds
        there = {self._pieces[at].rows for at in np.flatnonzero((bottom >= down.start) & (top < down.stop)).tolist()}
        places = [np.asarray(rows, np.int64) - down.start for rows in there]
        return [at[(at >= 0) & (at < len(down))] for at in places]

    def near(self, down: range, across: range) -> list[Piece]:
        """The patches that some rows and columns are in."""
        top, bottom, start, stop = self._bounds
        near = (bottom >= down.start) & (top < down.stop) & (stop > across.start) & (start < across.stop)
        return [self._pieces[at] for at in np.flatnonzero(near).tolist()]
