"""Cells of a map: the largest of some weights, and their sum, pooled further and further.

In numpy: these are many small operations, and each of torch's would wake its threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from attnprobe.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class Cells:
    """Some rows of cells, or of weights.

    Attributes
    ----------
    index
        Which rows, ascending.
    count
        How many rows of the map each is of: fewer than it has room for where not all were kept, or not yet.
    start
        The first column of cells.
    largest, total
        Of each cell, over the rows that are counted, in float32; columns that are not there add nothing.
    """

    index: Int[np.ndarray, " row"]
    count: Int[np.ndarray, " row"]
    start: int
    largest: Float[np.ndarray, "head row cell"]
    total: Float[np.ndarray, "head row cell"]

    @property
    def stop(self) -> int:
        """The column behind the last one."""
        return self.start + int(self.largest.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.largest.nbytes + self.total.nbytes

    def part(self, rows: slice) -> "Cells":
        """Some of the rows."""
        return Cells(self.index[rows], self.count[rows], self.start, self.largest[:, rows], self.total[:, rows])

    def of(self, heads: list[int]) -> "Cells":
        """Some of the heads."""
        return replace(self, largest=self.largest[heads], total=self.total[heads])

    def alone(self) -> "Cells":
        """The same in memory of its own: a view would keep all rows that came with it."""
        return replace(self, count=self.count.copy(), largest=self.largest.copy(), total=self.total.copy())

    def pooled(self, size: int) -> "Cells":
        """Cells of `size` x `size` of these, a power of two; the first and the last row may be of fewer."""
        first = _firsts(self.index // size)
        largest, total = (
            pool(values, self.index, self.start, size, ufunc)
            for values, ufunc in ((self.largest, np.maximum), (self.total, np.add))
        )
        index, count = self.index[first] // size, np.add.reduceat(self.count, first)
        return Cells(index, count, self.start // size, largest, total)


def pool(
    values: Float[np.ndarray, "head row cell"], index: Int[np.ndarray, " row"], start: int, size: int, ufunc: np.ufunc
) -> Float[np.ndarray, "head down across"]:
    """The largest (``np.maximum``) or the sum (``np.add``) of `size` x `size` weights or cells, a power of two.

    Parameters
    ----------
    values
        float32.
    index, start
        Which rows these are, ascending, and their first column. Cells begin at multiples of their size; rows that are
        not there do not count, and columns that are not there are zero.
    """
    first = _firsts(index // size)
    begin, stop = start // size * size, -(-(start + values.shape[2]) // size) * size
    # Down first: whole rows are quick, and leave little for the narrow cells across.
    down = np.empty((len(values), len(first), stop - begin), np.float32)
    inner, at = down[:, :, start - begin : start - begin + values.shape[2]], 0
    down[:, :, : start - begin] = down[:, :, start - begin + values.shape[2] :] = 0
    for rows in _runs([*first.tolist(), len(index)], size):
        tall = min(size, rows.stop - rows.start)
        part = values[:, rows].reshape(len(values), -1, tall, values.shape[2])
        ufunc.reduce(part, axis=2, out=inner[:, at : at + part.shape[1]])
        at += part.shape[1]
    for _ in range(size.bit_length() - 1):
        down = ufunc(down[:, :, 0::2], down[:, :, 1::2])
    return down


def _firsts(group: Int[np.ndarray, " row"]) -> Int[np.ndarray, " group"]:
    """Where each group of equal numbers begins."""
    return np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))


def _runs(bounds: list[int], size: int) -> Iterator[slice]:
    """Rows that are pooled at once: groups that are whole together, each other one by itself."""
    begin = bounds[0]
    for start, stop in pairwise(bounds):
        if stop - start != size:
            if begin < start:
                yield slice(begin, start)
            yield slice(start, stop)
            begin = stop
    if begin < bounds[-1]:
        yield slice(begin, bounds[-1])


def joined(parts: Sequence[Cells]) -> Cells:
    """Rows of several that follow each other, over the columns of all."""
    start, stop = min(part.start for part in parts), max(part.stop for part in parts)
    index = np.concatenate([part.index for part in parts])
    largest, total = (np.zeros((len(parts[0].largest), len(index), stop - start), np.float32) for _ in range(2))
    row = 0
    for part in parts:
        at = slice(row, row + len(part.index)), slice(part.start - start, part.stop - start)
        largest[:, at[0], at[1]], total[:, at[0], at[1]] = part.largest, part.total
        row += len(part.index)
    return Cells(index, np.concatenate([part.count for part in parts]), start, largest, total)
