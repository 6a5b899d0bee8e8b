"""How much of their attention rows give to some columns, for all heads of a site: the search for a pattern."""

import numpy as np

from attnprobe.codes import as_float32
from attnprobe.errors import SelectionError
from attnprobe.explorer.asked import Asked
from attnprobe.explorer.cells import rows_in
from attnprobe.explorer.frames import Answer
from attnprobe.head import Head
from attnprobe.levels import Levels
from attnprobe.pyramid import cells

READ = 8 << 20  # weights of a head that are read for what means can tell
MOST = 1 << 31  # weights of all heads that are read where there are no means
CELLS = 2 << 20  # cells that are read of a head, if a level has so few
AT_ONCE = 1 << 20


def mass(asked: Asked) -> Answer:
    """The mean, over the kept rows of a box, of the sum over its columns.

    Of a large box the inner cells are taken from the means that the run keeps, which are within 2**-8 of the value,
    and its edges from the weights; so the result is within 2**-8 of the value too, and ``exact`` is false. Of a head
    of which no row, or not every column of the box was kept, there is none.
    """
    rows, columns = asked.box()
    numbers = asked.view.heads(asked.sample, asked.site)
    key = "mass", rows, columns
    found = asked.once(
        lambda: [_mass(asked.sample[asked.site.key, n], rows, columns, len(numbers)) for n in numbers], *key
    )
    return Answer({"heads": numbers, "mass": [value for value, _ in found], "exact": all(exact for _, exact in found)})


def _mass(head: Head, rows: range, columns: range, heads: int) -> tuple[float | None, bool]:
    """Of one head, and whether it is of the weights."""
    kept = head.kept_keys if head.has_weights else range(0)
    if not (columns.start in kept and columns.stop - 1 in kept):
        return None, True
    count = _count(head.levels, rows)
    if not count:
        return None, True
    weights = count * len(columns)
    level = _level(head.levels, rows, columns) if weights > READ else None
    if level is not None:
        return _of_means(head.levels, level, rows, columns) / count, False
    if weights > READ and weights * heads > MOST:
        raise SelectionError(
            f"a box of {len(rows):,} x {len(columns):,} weights of {heads} heads takes too long to read, and the run "
            "keeps no means of it; draw a smaller box"
        )
    return _of_weights(head.levels, rows, columns) / count, True


def _count(levels: Levels, rows: range) -> int:
    return int(rows_in(levels, 0, rows).sum())


def _of_weights(levels: Levels, rows: range, columns: range) -> float:
    """The sum of the kept rows' weights, in float64."""
    if not rows or not columns:
        return 0.0
    own = levels.rows[slice(*np.searchsorted(levels.rows, [rows.start, rows.stop]).tolist())]
    together = max(1, AT_ONCE // len(columns))
    parts = (own[first : first + together] for first in range(0, len(own), together))
    return sum(float(as_float32(levels.map.read(part.tolist(), columns)).sum(dtype=np.float64)) for part in parts)


def _level(levels: Levels, rows: range, columns: range) -> int | None:
    """The finest kept level of means of which a box has few cells, if any of its cells lies inside."""
    fitting = [level for level in levels.kept_of("mean") if all(_inside(levels, level, rows, columns))]
    few = [level for level in fitting if np.prod([len(one) for one in _inside(levels, level, rows, columns)]) <= CELLS]
    return few[0] if few else fitting[-1] if fitting else None


def _inside(levels: Levels, level: int, rows: range, columns: range) -> tuple[range, range]:
    """The cells that lie in a box; at the end of the map a cell has no more than what the box has."""
    inside = []
    for span, length in zip((rows, columns), levels.map.shape, strict=True):
        stop = cells(length, level) if span.stop == length else span.stop >> level
        inside.append(range(cells(span.start, level), stop))
    return inside[0], inside[1]


def _of_means(levels: Levels, level: int, rows: range, columns: range) -> float:
    """The sum of the kept rows' weights, of means inside and of weights at the edges."""
    size = 1 << level
    down, across = _inside(levels, level, rows, columns)
    together = max(1, AT_ONCE // len(across))
    total = 0.0
    for first in range(down.start, down.stop, together):
        part = range(first, min(down.stop, first + together))
        means = levels.read(level, slice(part.start, part.stop), slice(across.start, across.stop), "mean")
        total += float(np.nan_to_num(means).sum(1, dtype=np.float64) @ rows_in(levels, level, part)) * size
    inner = range(down.start * size, min(down.stop * size, rows.stop))
    left, right = across.start * size, min(across.stop * size, columns.stop)
    edges = (
        (range(rows.start, inner.start), columns),
        (range(inner.stop, rows.stop), columns),
        (inner, range(columns.start, left)),
        (inner, range(right, columns.stop)),
    )
    return total + sum(_of_weights(levels, *edge) for edge in edges)
