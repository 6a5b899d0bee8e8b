"""The levels of some heads of one map, while its rows come: of each level a strip of patches waits to be whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from attnprobe.cut import as_runs
from attnprobe.fields import Block, Field
from attnprobe.pyramid import AXES, DTYPE, FIRST, HOWS, LAST, PATCH, levels_of, name_of
from attnprobe.shapes import Float, Int
from attnprobe.store.cells import Cells, joined


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of cells as they are stored, from a first column: the largest weight of each, and the mean."""

    index: Int[np.ndarray, " row"]
    start: int
    values: tuple[Float[Tensor, "head row cell"], Float[Tensor, "head row cell"]]

    @classmethod
    def of_cells(cls, cells: Cells, level: int) -> "_Rows":
        """The same; a mean is over the rows that were kept, and all columns."""
        area = (cells.count << level).astype(np.float32)[:, None]
        largest, mean = (torch.from_numpy(values).bfloat16() for values in (cells.largest, cells.total / area))
        return cls(cells.index, cells.start, (largest, mean))

    @property
    def nbytes(self) -> int:
        return sum(values.numel() * values.element_size() for values in self.values)

    @property
    def stop(self) -> int:
        return self.start + self.values[0].shape[2]


@dataclass
class _Level:
    """One level of some heads: a row of cells that is not whole yet, and the rows that wait for the strip's others."""

    number: int
    open: Cells | None = None
    waiting: list["_Rows"] = field(default_factory=list)

    def take(self, cells: Cells) -> Cells | None:
        """Add rows; those that are whole now."""
        if self.open is not None:
            cells, self.open = _with_first(self.open, cells), None
        if cells.count[-1] < 1 << self.number:
            last = len(cells.index) - 1
            self.open, cells = cells.part(slice(last, None)).alone(), cells.part(slice(0, last))
        return cells if len(cells.index) else None

    @property
    def open_bytes(self) -> int:
        """Bytes of the row that is not whole yet."""
        return 0 if self.open is None else self.open.nbytes


def _with_first(first: Cells, others: Cells) -> Cells:
    """One row, and others behind it, of which the first may be the rest of the same row."""
    both = joined([first, others])
    if first.index[0] != others.index[0]:
        return both
    largest, total = both.largest[:, 1:], both.total[:, 1:]
    np.maximum(both.largest[:, 0], largest[:, 0], out=largest[:, 0])
    total[:, 0] += both.total[:, 0]
    count = both.count[1:]
    count[0] += both.count[0]
    return Cells(both.index[1:], count, both.start, largest, total)


def _joined(parts: Sequence[_Rows], number: int, start: int, stop: int) -> Float[Tensor, "head row cell"]:
    """Rows that follow each other, over the same columns."""
    heads = parts[0].values[number].shape[0]
    values = torch.zeros(heads, sum(len(part.index) for part in parts), stop - start, dtype=torch.bfloat16)
    row = 0
    for part in parts:
        values[:, row : row + len(part.index), part.start - start : part.stop - start] = part.values[number]
        row += len(part.index)
    return values


class Fold:
    """The levels of some heads of one map.

    Attributes
    ----------
    heads
        Which.
    rows, columns
        Of the map, so far.
    nbytes
        Bytes of the rows that wait, whole or not.
    """

    def __init__(self, field: Field, heads: tuple[int, ...], forward: Callable[[Field, Block], None]) -> None:
        self.heads = heads
        self.rows = self.columns = self.nbytes = 0
        self._field = field
        self._forward = forward
        self._levels: dict[int, _Level] = {}

    def take(self, cells: Cells, number: int = FIRST) -> None:
        """Add rows of cells to a level, and what becomes whole by them to those above."""
        level = self._levels.setdefault(number, _Level(number))
        before = level.open_bytes
        whole = level.take(cells)
        self.nbytes += level.open_bytes - before
        if whole is not None:
            self._keep(level, whole)

    def _keep(self, level: _Level, cells: Cells) -> None:
        """Let whole rows wait for their strip, which goes when rows of the next one come; pool them further."""
        strips = cells.index // PATCH
        for strip in np.unique(strips).tolist():
            part = cells.part(slice(*np.searchsorted(strips, [strip, strip + 1]).tolist()))
            if level.waiting and level.waiting[0].index[0] // PATCH != strip:
                self._emit(level)
            stored = _Rows.of_cells(part, level.number)
            level.waiting.append(stored)
            self.nbytes += stored.nbytes
        if level.number < LAST:
            self.take(cells.pooled(2), level.number + 1)

    def _emit(self, level: _Level) -> None:
        """Write what waits, patch by patch; columns at the sides in which nothing is are left out."""
        parts, level.waiting = level.waiting, []
        self.nbytes -= sum(part.nbytes for part in parts)
        begin, stop = min(part.start for part in parts), max(part.stop for part in parts)
        rows = as_runs(np.concatenate([part.index for part in parts]))
        largest, mean = (_joined(parts, number, begin, stop) for number in range(len(HOWS)))
        there = np.flatnonzero(largest.any(1).any(0).numpy())
        first, end = (begin + int(there[0]), begin + int(there[-1]) + 1) if len(there) else (begin, begin + 1)
        for left, right in pairwise([first, *range((first // PATCH + 1) * PATCH, end, PATCH), end]):
            for how, values in zip(HOWS, (largest, mean), strict=True):
                of = replace(self._field, what=name_of(how, level.number), axes=AXES, dtype=DTYPE)
                self._forward(
                    of, Block(self.heads, rows, left, values[:, :, left - begin : right - begin].contiguous())
                )

    def spill(self) -> int:
        """Write what waits, in pieces of patches, of levels that are this map's for certain; bytes that this frees."""
        before = self.nbytes
        for number in levels_of(self.rows, self.columns):
            if number in self._levels and self._levels[number].waiting:
                self._emit(self._levels[number])
        return before - self.nbytes

    def finish(self, queries: int, keys: int) -> None:
        """Write the rest of a map of so many rows and columns."""
        for number in levels_of(queries, keys):
            if number not in self._levels:
                return
            level = self._levels[number]
            if level.open is not None:
                self.nbytes -= level.open_bytes
                cells, level.open = level.open, None
                self._keep(level, cells)
            if level.waiting:
                self._emit(level)

    def split(self, heads: Sequence[int]) -> tuple["Fold", "Fold"]:
        """Two folds of one: of the heads that are named, and of the others."""
        named = [at for at, head in enumerate(self.heads) if head in heads]
        others = [at for at, head in enumerate(self.heads) if head not in heads]
        return self._of(named), self._of(others)

    def _of(self, at: list[int]) -> "Fold":
        found = Fold(self._field, tuple(self.heads[one] for one in at), self._forward)
        found.rows, found.columns = self.rows, self.columns
        for number, level in self._levels.items():
            begun = None if level.open is None else level.open.of(at)
            rows = [replace(one, values=(one.values[0][at], one.values[1][at])) for one in level.waiting]
            found._levels[number] = _Level(number, begun, rows)
            found.nbytes += found._levels[number].open_bytes
            found.nbytes += sum(one.nbytes for one in rows)
        return found
