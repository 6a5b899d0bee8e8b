"""Joins blocks into the rows and columns that a reader asks for, whatever store they lie in."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from attnprobe.errors import BudgetError, NotKept
from attnprobe.fields import Field, Piece, Rows, describe_rows
from attnprobe.selection import Indices
from attnprobe.shapes import Int, Shaped
from attnprobe.sizes import format_bytes
from attnprobe.store.base import Reader

READ_AS: dict[str, type[np.generic]] = {"float16": np.float16, "int32": np.int32}  # all else is read as float32


def make_array(shape: tuple[int, ...], value: int | float, dtype: Any) -> Shaped[np.ndarray, "..."]:
    """An array to read into.

    Raises
    ------
    BudgetError
        If there is not so much memory: what a run says of its lengths is more than it may hold values of.
    """
    try:
        return np.full(shape, value, dtype) if value != 0 else np.zeros(shape, dtype)
    except (MemoryError, ValueError) as error:  # numpy has no array of more bytes than an address can tell
        size = format_bytes(prod(shape) * np.dtype(dtype).itemsize)
        raise BudgetError(
            f"an array of {' x '.join(map(str, shape))} values would take {size}, more than there is; read fewer "
            "samples, heads, rows or columns at once"
        ) from error


def kept_rows(pieces: Sequence[Piece]) -> list[int]:
    """Positions of the kept rows."""
    return sorted(set().union(*(piece.rows for piece in pieces)))


def kept_columns(reader: Reader, field: Field, length: int) -> range:
    """Positions of the kept columns, of `length`. What lies outside was not looked at, and is not zero."""
    keep = reader.manifest.keep
    text = keep[field.group].get("keys", "all") if field.group < len(keep) else "all"
    part = Indices.parse(text, "keys").parts[0]
    return range(length)[part] if isinstance(part, slice) else range(length)


def read_rows(
    reader: Reader,
    field: Field,
    pieces: Sequence[Piece],
    heads: Sequence[int],
    rows: Sequence[int],
    columns: range,
) -> Shaped[np.ndarray, "head query key"]:
    """Weights of `heads` (numbers of the model), `rows` and `columns` (positions), as stored.

    Raises
    ------
    NotKept
        If a head or row was not kept.
    """
    absent = [head for head in heads if head not in field.heads]
    if absent:
        raise NotKept(
            f"head {absent[0]} of {field.site.label} was not kept; kept are heads {describe_rows(field.heads)}"
        )
    result = make_array((len(heads), len(rows), len(columns)), 0.0, READ_AS.get(field.dtype, np.float32))
    found = np.zeros((len(heads), len(rows)), bool)
    wanted_heads, wanted_rows = Wanted(heads), Wanted(rows)
    low, high = min(rows, default=0), max(rows, default=-1)
    for piece in pieces:
        if isinstance(piece.rows, range) and piece.rows and (piece.rows[-1] < low or piece.rows[0] > high):
            continue
        into_rows, from_rows = wanted_rows.of(piece.rows)
        into_heads, from_heads = wanted_heads.of(piece.heads)
        if not len(into_rows) or not len(into_heads):
            continue
        found[np.ix_(into_heads, into_rows)] = True
        first, stop = max(columns.start, piece.start), min(columns.stop, piece.start + piece.shape[2])
        if first >= stop:
            continue
        part = reader.values(
            field,
            piece,
            slice(int(from_heads.min()), int(from_heads.max()) + 1),
            slice(int(from_rows.min()), int(from_rows.max()) + 1),
            slice(first - piece.start, stop - piece.start),
        )
        picked = part[np.ix_(from_heads - from_heads.min(), from_rows - from_rows.min())]
        target = result[:, :, first - columns.start : stop - columns.start]
        target[np.ix_(into_heads, into_rows)] = picked
    if not found.all():
        row = rows[int(np.flatnonzero(~found.all(0))[0])]
        raise NotKept(
            f"row {row} of {field.site.label}, sample {field.sample}, was not kept; kept are rows "
            f"{describe_rows(kept_rows([piece for piece in pieces if set(heads) <= set(piece.heads)]))}"
        )
    return result


class Wanted:
    """Positions that are asked for, in any order, sorted once: a map may lie in as many blocks as it has rows."""

    def __init__(self, positions: Sequence[int] | Int[np.ndarray, " position"]) -> None:
        wanted = np.asarray(positions, np.int64)
        self._order = np.argsort(wanted, kind="stable")
        self._sorted = wanted[self._order]

    def of(self, kept: Rows) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Indices into what is wanted, and into `kept`, of the positions that both have."""
        if not len(kept):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        if isinstance(kept, range):
            low, high = np.searchsorted(self._sorted, [kept[0], kept[-1] + 1])
            offsets = self._sorted[low:high] - kept.start
            there = offsets % kept.step == 0
            return self._order[low:high][there], (offsets // kept.step)[there]
        place = np.asarray(kept, np.int64)
        by_position = np.argsort(place, kind="stable")
        at = np.searchsorted(place, self._sorted, sorter=by_position).clip(max=len(place) - 1)
        there = place[by_position[at]] == self._sorted
        return self._order[there], by_position[at[there]]
