"""Weights as they are kept: a row, a column, a small box."""

from attnprobe.codes import as_float32
from attnprobe.errors import SelectionError
from attnprobe.explorer.asked import Asked
from attnprobe.explorer.frames import Answer
from attnprobe.explorer.heads import read_row, runs_of

MOST = 1 << 16  # weights of a box


def row(asked: Asked) -> Answer:
    """What one token attends to, over the kept columns."""
    query, head = asked.number("query"), asked.head
    _within("query", query, head.shape[0])
    return Answer({"start": head.kept_keys.start}, read_row(head, query))


def column(asked: Asked) -> Answer:
    """How much the kept rows attend to one token."""
    key, head = asked.number("key"), asked.head
    _within("key", key, head.shape[1])
    values = head.levels.map.read(head.kept, range(key, key + 1))[:, 0]
    return Answer({"rows": runs_of(head.kept)}, as_float32(values))


def weights(asked: Asked) -> Answer:
    """The weights of a small box; NaN where they were not kept."""
    rows, columns = asked.box()
    if len(rows) * len(columns) > MOST:
        raise SelectionError(f"{len(rows):,} x {len(columns):,} weights are more than {MOST:,}; ask for a smaller box")
    levels = asked.head.levels
    return Answer({}, levels.read(0, slice(rows.start, rows.stop), slice(columns.start, columns.stop)))


def _within(name: str, position: int, length: int) -> None:
    if position >= length:
        raise SelectionError(f"there is no {name} {position:,}: there are {length:,}, counted from 0")
