"""Joins blocks into the rows and columns that a reader asks for, whatever store they lie in."""

from collections.abc import Sequence

import numpy as np

from attnprobe.errors import NotKept
from attnprobe.fields import Field, Piece, describe_rows
from attnprobe.shapes import Float
from attnprobe.store.base import Reader


def kept_rows(pieces: Sequence[Piece]) -> list[int]:
    """Positions of the kept rows."""
    return sorted({row for piece in pieces for row in piece.rows})


def read_rows(
    reader: Reader,
    field: Field,
    pieces: Sequence[Piece],
    heads: Sequence[int],
    rows: Sequence[int],
    columns: range,
) -> Float[np.ndarray, "head query key"]:
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
    dtype = np.float16 if field.dtype == "float16" else np.float32
    result = np.zeros((len(heads), len(rows), len(columns)), dtype)
    found = np.zeros((len(heads), len(rows)), bool)
    for piece in pieces:
        at_heads, at_rows = _offsets(piece.heads, heads), _offsets(piece.rows, rows)
        if not at_heads or not at_rows:
            continue
        into_heads, from_heads = np.array(at_heads).T
        into_rows, from_rows = np.array(at_rows).T
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
        target = np.ix_(into_heads, into_rows, np.arange(first, stop) - columns.start)
        result[target] = picked
    if not found.all():
        row = rows[int(np.flatnonzero(~found.all(0))[0])]
        raise NotKept(
            f"row {row} of {field.site.label}, sample {field.sample}, was not kept; kept are rows "
            f"{describe_rows(kept_rows(pieces))}"
        )
    return result


def _offsets(kept: Sequence[int], wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs (index in `wanted`, index in `kept`) of the rows that both have."""
    if isinstance(kept, range):
        return [(i, (row - kept.start) // kept.step) for i, row in enumerate(wanted) if row in kept]
    place = {row: i for i, row in enumerate(kept)}
    return [(i, place[row]) for i, row in enumerate(wanted) if row in place]
