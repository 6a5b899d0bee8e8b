"""The kept weights of one head, in one field or several, read as one map."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index as as_int
from typing import Any, SupportsIndex

import numpy as np

from attnprobe.codes import as_float32
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import DTYPES, WEIGHT_DTYPES, Field, Piece, describe_rows
from attnprobe.held import Held
from attnprobe.shapes import Float, Int
from attnprobe.spans import Span, sums
from attnprobe.store.base import Reader
from attnprobe.store.reading import kept_columns, kept_rows, read_rows

TOGETHER = 256  # rows read at once
Axis = SupportsIndex | slice


@dataclass(frozen=True, eq=False)
class Map:
    """Weights of one head.

    Attributes
    ----------
    reader, fields
        Where they lie.
    number
        The head.
    shape
        Queries and keys of the sample.
    where
        Which head this is, for errors.
    """

    reader: Reader
    fields: Held
    number: int
    shape: tuple[int, int]
    where: str

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Positions of the rows that were kept (over all of `kept_keys`)."""
        whole = [rows for rows, columns in self._held if columns == self.kept_keys]
        return tuple(np.unique(np.concatenate(whole)).tolist())

    @cached_property
    def kept_keys(self) -> range:
        """Positions of the columns that were kept; the widest range, where a recording keeps several."""
        return max((columns for _, columns in self._held), key=len)

    @cached_property
    def _held(self) -> list[tuple[Int[np.ndarray, " row"], range]]:
        """The rows and columns of each field."""
        return [
            (np.array(kept_rows(own_pieces(pieces, self.number)), np.int64), self._columns(field))
            for field, pieces in self.fields
        ]

    def _columns(self, field: Field) -> range:
        return kept_columns(self.reader, field, self.shape[1])

    def __getitem__(self, index: Axis | tuple[Axis, Axis]) -> Any:
        """A slice of rows and columns, as numpy; an int drops its axis."""
        if isinstance(index, int | np.integer) and (one := self._row(int(index))) is not None:
            return one
        rows, columns = _axes(index)
        chosen_rows, chosen_columns = _range(rows, self.shape[0], "row"), _range(columns, self.shape[1], "column")
        span = chosen_columns if chosen_columns.step > 0 else chosen_columns[::-1]
        values = self.read(chosen_rows, range(span[0], span[-1] + 1) if span else range(0))
        values = values[:, :: chosen_columns.step] if span else values
        if not isinstance(rows, slice):
            values = values[0]
        return values if isinstance(columns, slice) else values[..., 0]

    @cached_property
    def _runs(self) -> tuple[list[int], list[tuple[Piece, int]]]:
        """First rows of the blocks of this head, ascending, and the blocks with the head's place in them.

        Empty unless one field holds whole rows in blocks without gaps: then a row lies in one place.
        """
        if len(self.fields) > 1 or self.kept_keys != range(self.shape[1]):
            return [], []
        own = own_pieces(self.fields[0][1], self.number)
        runs = [
            (rows.start, piece) for piece in own if isinstance(rows := piece.rows, range) and rows.step == 1 and rows
        ]
        if len(runs) < len(own):
            return [], []
        runs.sort(key=lambda run: run[0])
        return [start for start, _ in runs], [(piece, piece.heads.index(self.number)) for _, piece in runs]

    def _row(self, row: int) -> Float[np.ndarray, " key"] | None:
        """One whole row by the short way, since `read`, which takes any rows and columns, takes longer than the disk.

        None where the row does not lie in one place.
        """
        starts, pieces = self._runs
        row = row + self.shape[0] if row < 0 else row
        number = bisect_right(starts, row) - 1
        if number < 0:
            return None
        piece, head = pieces[number]
        at = row - starts[number]
        if at >= piece.shape[1]:
            return None
        field = self.fields[0][0]
        part = self.reader.values(field, piece, slice(head, head + 1), slice(at, at + 1), slice(0, piece.shape[2]))
        values = np.zeros(self.shape[1], np.float16 if field.dtype == "float16" else np.float32)
        values[piece.start : piece.start + piece.shape[2]] = part[0, 0]
        return values

    def read(self, rows: Sequence[int], columns: range) -> Float[np.ndarray, "query key"]:
        """Rows and columns, from the fields that kept them, the most precise where several did.

        Raises
        ------
        NotKept
            If a row or a column was not kept.
        """
        fitting = [
            (field, pieces, kept)
            for (field, pieces), (kept, wide) in zip(self.fields, self._held, strict=True)
            if not columns or (columns[0] in wide and columns[-1] in wide)
        ]
        fitting.sort(key=lambda one: WEIGHT_DTYPES.index(one[0].dtype))
        if not fitting:
            keys = self.kept_keys
            raise NotKept(
                f"columns {describe_rows(columns)} of {self.where} were not all kept; kept are columns "
                f"{describe_rows(keys)}: write head[:, {keys.start}:{keys.stop}]"
            )
        wanted = np.asarray(rows, np.int64)
        owner = np.full(len(wanted), -1)
        for number, (_, _, kept) in enumerate(fitting):
            owner[(owner < 0) & np.isin(wanted, kept)] = number
        if (owner < 0).any():
            rows = np.unique(np.concatenate([kept for _, _, kept in fitting])).tolist()
            raise NotKept(
                f"row {wanted[owner < 0][0]} of {self.where} was not kept; kept are rows {describe_rows(rows)} "
                "(head.to_pandas() is the table of all kept rows)"
            )
        parts = {
            number: read_rows(self.reader, field, pieces, [self.number], wanted[owner == number].tolist(), columns)[0]
            for number, (field, pieces, _) in enumerate(fitting)
            if (owner == number).any() or len(fitting) == 1
        }
        half = {field.dtype for field, _ in self.fields} == {"float16"}
        wide = np.dtype(np.float16 if half else np.float32)
        if len(parts) == 1:
            only: np.ndarray = next(iter(parts.values())).astype(wide, copy=False)
            return only
        result = np.zeros((len(wanted), len(columns)), wide)
        for number, part in parts.items():
            result[owner == number] = part
        return result

    def largest(self, k: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Rows, columns and values of the `k` largest of the kept rows, ties in order of position; NaN is largest."""
        keys = self.kept_keys
        queries, columns, weights = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        least = -np.inf
        for start in range(0, len(self.kept), TOGETHER):
            rows = self.kept[start : start + TOGETHER]
            values = as_float32(self.read(rows, keys)).reshape(-1)
            at = np.flatnonzero(
                ~(values <= least)
            )  # NaN too; of those that are as large as the last one, the first stay
            found = np.where(np.isnan(values[at]), np.float32(np.inf), values[at])
            if len(at) > k:  # ties with the last one stay in, and are settled by the stable sort
                large = found >= np.partition(found, len(at) - k)[len(at) - k]
                at, found = at[large], found[large]
            queries = np.concatenate([queries, np.asarray(rows)[at // len(keys)]])
            columns = np.concatenate([columns, at % len(keys) + keys.start])
            weights = np.concatenate([weights, found])
            best = np.argsort(-weights, kind="stable")[:k]
            queries, columns, weights = queries[best], columns[best], weights[best]
            least = float(weights[-1]) if len(weights) == k else -np.inf
        return queries, columns, np.where(np.isinf(weights), np.nan, weights)

    def group(self, down: Sequence[Span], across: Sequence[Span]) -> Float[np.ndarray, "down across"]:
        """Sums over the columns of each run of keys, averaged over the rows of each run of queries; in float64."""
        runs = np.array([(span.start, span.stop) for span in across])
        first = int(runs.min())
        columns = range(first, int(runs.max()))
        parts: list[np.ndarray] = []
        together: list[Span] = []
        for number, span in enumerate(down):  # as many runs at once as make up a good read
            together.append(span)
            if sum(map(len, together)) >= TOGETHER or number == len(down) - 1:
                summed = sums(
                    self.read([row for one in together for row in range(one.start, one.stop)], columns), runs - first
                )
                counts = np.array([len(one) for one in together])
                parts.append(np.add.reduceat(summed, np.cumsum(counts) - counts, axis=0) / counts[:, None])
                together = []
        return np.concatenate(parts)


def own_pieces(pieces: Sequence[Piece], number: int) -> list[Piece]:
    """The pieces that a head is in."""
    return [piece for piece in pieces if number in piece.heads]


def _axes(index: object) -> tuple[Axis, Axis]:
    axes = index if isinstance(index, tuple) else (index, slice(None))
    if len(axes) != 2 or not all(isinstance(axis, slice) or hasattr(axis, "__index__") for axis in axes):
        raise SelectionError(f"head[{index!r}]: write head[row, column], each an int or a slice")
    return axes


def _range(index: Axis, length: int, what: str) -> range:
    if isinstance(index, slice):
        return range(length)[index]
    number = as_int(index)
    if not -length <= number < length:
        raise SelectionError(f"{what} {number} is out of range: there are {length} (0 to {length - 1})")
    return range(number % length, number % length + 1)


def stored_bytes(fields: Held, number: int) -> int:
    """Bytes that one head takes in the store."""
    return sum(
        DTYPES[field.dtype] * len(piece.rows) * piece.shape[2]
        for field, pieces in fields
        for piece in own_pieces(pieces, number)
    )
