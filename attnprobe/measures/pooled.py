"""A small picture of every head: its map pooled to a grid of at most 256 x 256 cells, whatever the length."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from einops import reduce
from torch import Tensor

from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float

GRID = 256


def cell_size(length: int) -> int:
    """The smallest power of two such that at most `GRID` cells of this size cover a length."""
    return 1 << max(0, (-(-length // GRID) - 1).bit_length())


@dataclass
class Grid:
    """Cells pooled so far, ``[head, row cell, column cell]``, counts of valid rows, ``[head, row cell]``, and sizes."""

    cells: Float[Tensor, "head down across"]
    rows: Float[Tensor, "head down"]
    size: tuple[int, int]


@dataclass(frozen=True)
class Pooled:
    """Largest or mean weight of each cell; a mean is over the valid rows and all columns of the cell, zeros included.

    Cells are squares of a power of two (on a cross site, of one for rows and one for columns), aligned to position 0,
    and merge as the sample grows. A cell without a valid row is NaN.
    """

    name: str
    largest: bool
    unit: str = "mass"
    source: str = "max and mean pooling of maps: nothing a pixel wide is lost in the largest"
    needs: frozenset[str] = field(default_factory=frozenset)
    axes: tuple[str, ...] = ("query_cell", "key_cell")
    dtype: str = "float16"

    @property
    def formula(self) -> str:
        """What is computed."""
        return f"{'max' if self.largest else 'mean'} of w_ij over the cell's valid rows i and columns j"

    def init(self, heads: int, rows: SampleRows) -> Grid:
        """An empty grid for the lengths that are known so far."""
        size = cell_size(rows.query_length), cell_size(rows.key_length)
        down, across = (
            -(-length // cell) for length, cell in zip((rows.query_length, rows.key_length), size, strict=True)
        )
        zeros = rows.weights.new_zeros
        return Grid(zeros(heads, down, across), zeros(heads, down), size)

    def update(self, state: Grid, rows: SampleRows) -> Grid:
        """Pool rows into their cells."""
        state = self._fit(state, rows.query_length, rows.key_length)
        tall, wide = state.size
        for first, stop in _runs(rows, tall):
            weights = rows.weights[:, first:stop]
            position, count = rows.rows[first], stop - first
            # Down first: sums of whole rows are quick, and leave little for the narrow cells across.
            if count % tall == 0 and position % tall == 0:
                down = reduce(weights, "head (down tall) key -> head down key", self._how, tall=tall)
            else:
                down = reduce(weights, "head query key -> head 1 key", self._how)
            cells = self._across(down, rows.start, wide)
            top, left = position // tall, rows.start // wide
            part = state.cells[rows.at, top : top + cells.shape[1], left : left + cells.shape[2]]
            self._add(part, cells)
            valid = (
                torch.ones(1, count, device=weights.device) if rows.valid is None else rows.valid[:, first:stop].float()
            )
            counts = reduce(valid, "head (down tall) -> head down", "sum", down=cells.shape[1])
            state.rows[rows.at, top : top + cells.shape[1]] += counts
        return state

    def absorb(self, state: Grid, part: Float[Tensor, "some down across"], rows: SampleRows) -> Grid:
        """Add cells of rows that follow each other, of the size that the lengths so far ask for."""
        state = self._fit(state, rows.query_length, rows.key_length)
        tall = state.size[0]
        first, count = rows.rows[0], len(rows.rows)
        # A row of cells begins with the first row's, and ends with the last row's.
        top, before = divmod(first, tall)
        after = -(before + count) % tall
        valid = torch.ones(1, count, device=part.device) if rows.valid is None else rows.valid.float()
        counts = reduce(torch.nn.functional.pad(valid, (before, after)), "h (down tall) -> h down", "sum", tall=tall)
        stop = top + counts.shape[1]
        state.rows[rows.at, top:stop] += counts
        self._add(state.cells[rows.at, top:stop, : part.shape[2]], part[:, top:stop])
        return state

    def merge(self, first: Grid, second: Grid) -> Grid:
        """Cell by cell, at the larger lengths."""
        lengths = [max(g.cells.shape[1 + axis] * g.size[axis] for g in (first, second)) for axis in (0, 1)]
        first, second = self._fit(first, *lengths), self._fit(second, *lengths)
        down, across = (-(-length // cell) for length, cell in zip(lengths, first.size, strict=True))
        cells = first.cells[:, :down, :across].clone()
        self._add(cells, second.cells[:, :down, :across])
        return Grid(cells, first.rows[:, :down] + second.rows[:, :down], first.size)

    def finalize(self, state: Grid, query_length: int, key_length: int) -> Float[Tensor, "head down across"]:
        """The grid in float16."""
        state = self._fit(state, query_length, key_length)
        tall, wide = state.size
        down, across = -(-query_length // tall), -(-key_length // wide)
        cells, rows = state.cells[:, :down, :across], state.rows[:, :down, None]
        if not self.largest:
            starts = torch.arange(0, key_length, wide, device=cells.device)
            columns = (key_length - starts).clamp(max=wide)
            cells = cells / (rows * columns)
        return cells.masked_fill(rows == 0, torch.nan).half()

    @property
    def _how(self) -> str:
        return "max" if self.largest else "sum"

    def _add(self, into: Float[Tensor, "head a b"], cells: Float[Tensor, "head a b"]) -> None:
        if self.largest:
            torch.maximum(into, cells, out=into)
        else:
            into += cells

    def _across(self, values: Float[Tensor, "head row key"], start: int, wide: int) -> Float[Tensor, "head row cell"]:
        """Pool columns, the first of which is at position `start`."""
        if wide == 1:
            return values
        before = start % wide
        after = -(before + values.shape[2]) % wide
        if before or after:
            values = torch.nn.functional.pad(values, (before, after))
        return reduce(values, "head row (cell wide) -> head row cell", self._how, wide=wide)

    def _fit(self, state: Grid, query_length: int, key_length: int) -> Grid:
        """Merge cells until the lengths fit the grid, and make room for them."""
        size = max(state.size[0], cell_size(query_length)), max(state.size[1], cell_size(key_length))
        cells, rows = state.cells, state.rows
        if size != state.size:
            down, across = size[0] // state.size[0], size[1] // state.size[1]
            cells = torch.nn.functional.pad(cells, (0, -cells.shape[2] % across, 0, -cells.shape[1] % down))
            cells = reduce(cells, "h (a down) (b across) -> h a b", self._how, down=down, across=across)
            rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % down))
            rows = reduce(rows, "h (a down) -> h a", "sum", down=down)
        room = -(-query_length // size[0]) - cells.shape[1], -(-key_length // size[1]) - cells.shape[2]
        if max(room) > 0:
            # All of the grid at once: generation adds a cell at a time.
            more = [max(GRID - n, 0) if missing > 0 else 0 for n, missing in zip(cells.shape[1:], room, strict=True)]
            cells = torch.nn.functional.pad(cells, (0, more[1], 0, more[0]))
            rows = torch.nn.functional.pad(rows, (0, more[0]))
        return Grid(cells, rows, size)


def _runs(rows: SampleRows, tall: int) -> list[tuple[int, int]]:
    """Runs of rows that are pooled at once: whole cells together, else the part of one cell that is there."""
    positions, count = rows.rows, len(rows.rows)
    if rows.together:
        begin, end = positions[0], positions[-1] + 1
        inner, outer = -(-begin // tall) * tall, end // tall * tall
        cuts = sorted({begin, min(inner, end), max(min(outer, end), min(inner, end)), end})
        return [(a - begin, b - begin) for a, b in pairwise(cuts)]
    runs, first = [], 0
    for i in range(1, count + 1):
        if i == count or positions[i] // tall != positions[first] // tall:
            runs.append((first, i))
            first = i
    return runs


pooled_max = Pooled("pooled_max", largest=True)
pooled_mean = Pooled("pooled_mean", largest=False)
