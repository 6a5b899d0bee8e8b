"""What a field of an untrusted run may be: its axes, dtype and blocks, checked before any of it is read."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnprobe import pyramid
from attnprobe.fields import DTYPES, LARGEST_K, MAP, STATISTICS, WEIGHT_DTYPES, Site, decode_rows

NUMBER = 1 << 40  # any number that has no other limit
LENGTH = 1 << 24  # tokens of a sequence
WIDEST = 4096  # of an axis whose length the sample does not tell, where it is the second,
LONGEST = 1 << 20  # and where it is the first
HOLES = 1 << 24  # values that an array may have beyond those of its blocks

WHAT = re.compile(r"[A-Za-z_]\w{0,63}(\(\d{1,9}\))?(\.mean)?")
_AXIS = re.compile(r"\w[\w .-]{0,63}")  # a measure of the user's own names its axes

# Axes and dtypes of what is no measure; measures have any, and their means those of `_MEAN`.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weights": (MAP, WEIGHT_DTYPES),
    "top": (("query", "rank"), WEIGHT_DTYPES),
    "top_keys": (("query", "rank"), ("int32",)),
    "top_rest": (("query",), ("float32",)),
}
_MEAN = ("statistic",), ("float32",)
_TOGETHER = ("top", "top_keys", "top_rest")  # of one site and group


class Wrong(Exception):
    """What of a record makes no sense."""


def is_int(value: object, low: int, high: int = NUMBER) -> bool:
    """Whether a value is an int, and no bool, in a range; the end counts."""
    return type(value) is int and low <= value <= high


def count(runs: object, limit: int, what: str) -> int:
    """How many positions runs of ``[start, stop, step]`` hold, which ascend and stay below a limit."""
    if not isinstance(runs, list):
        raise Wrong(f"{what} are {runs!r}")
    total, last = 0, -1
    for run in runs:
        if not isinstance(run, list) or len(run) != 3 or not all(map(is_int, run, (0, 0, 1))):
            raise Wrong(f"{what} hold {run!r}, which is no [start, stop, step]")
        start, stop, step = run
        number = max(0, -((start - stop) // step))
        if number:
            if start <= last:
                raise Wrong(f"{what} do not ascend at {run}")
            last = start + (number - 1) * step
            if last >= limit:
                raise Wrong(f"{what} hold {last}, and there are {limit}")
        total += number
    return total


def check_field(
    field: Mapping[str, Any], site: Site, lengths: Mapping[str, int], place: Callable[[object], int]
) -> tuple[int, int]:
    """Check a field's kind and blocks; no run of rows is expanded before it is known to be small enough.

    Parameters
    ----------
    field, site
        The record, and the site that it names.
    lengths
        Of the axes ``query`` and ``key``.
    place
        Checks where a block lies, and gives the bytes of the shard.

    Returns
    -------
    nbytes, width
        Bytes of all blocks, or of what tells their places, if that is more; columns of each, or of weights at most.
    """
    what, axes = _kind(field)
    heads = count(field["heads"], site.heads, "heads")
    blocks = field["blocks"]
    if not heads or not isinstance(blocks, list) or not blocks:
        raise Wrong(f"{what} has no heads or no blocks")
    rows, columns = _limits(what, axes, lengths)
    parts = what == "weights" or pyramid.level_of(what) is not None  # then blocks may have a part of a row
    itemsize = DTYPES[field["dtype"]]
    own: set[int] | None = None
    values, widths = 0, set()
    held = heads  # numbers that are held one by one where there are pieces of it, also of blocks without values
    for block in blocks:
        size = place(block)
        shape, start = block["shape"], block["start"]
        if not isinstance(shape, list) or len(shape) != 3 or not all(is_int(n, 0, LENGTH) for n in shape):
            raise Wrong(f"a shape is {shape!r}")
        if not shape[0] or count(block["heads"], site.heads, "heads") != shape[0]:
            raise Wrong(f"the shape {shape} has another number of heads")
        if count(block["rows"], rows, "rows") != shape[1] or shape[1] > size:
            raise Wrong(f"the shape {shape} has another number of rows")
        if not is_int(start, 0) or (shape[2] and start + shape[2] > columns):
            raise Wrong(f"columns {start!r} and {shape[2]} more do not lie in {columns}")
        if not parts and (start or not shape[2]):
            raise Wrong(f"{what} has columns {start} and {shape[2]} more, and only maps may have a part of a row")
        if what.endswith(".mean") and shape[1] != len(STATISTICS):
            raise Wrong(f"{what} has {shape[1]} statistics, and there are {', '.join(STATISTICS)}")
        if math.prod(shape) * itemsize > size:
            raise Wrong(f"the shape {shape} is larger than its shard")
        if block["heads"] != field["heads"]:
            own = set(decode_rows(field["heads"])) if own is None else own
            if not own.issuperset(decode_rows(block["heads"])):
                raise Wrong("a block has heads that its field lacks")
            held += shape[0]
        held += shape[1] if len(block["rows"]) > 1 else 0
        values += math.prod(shape)
        widths.add(shape[2])
    if not parts:
        if len(widths) > 1:
            raise Wrong(f"blocks of {what} are {sorted(widths)} columns wide")
        _check_holes(what, blocks, heads * max(widths), values)
    return max(values * itemsize, held), max(widths)


def _kind(field: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """What a field holds, and its axes."""
    what, dtype, axes = field["what"], field["dtype"], field.get("axes", list(MAP))
    known = isinstance(dtype, str) and dtype in DTYPES and isinstance(what, str)
    if not known or not WHAT.fullmatch(what):
        raise Wrong(f"values are {what!r} in {dtype!r}")
    words = isinstance(axes, list) and all(isinstance(axis, str) and _AXIS.fullmatch(axis) for axis in axes)
    if not words or len(axes) not in (1, 2) or len(set(axes)) != len(axes):
        raise Wrong(f"axes of {what} are {axes!r}")
    kind = _MEAN if what.endswith(".mean") else _KINDS.get(what)
    if what.startswith("pyramid_"):
        level = pyramid.level_of(what)
        if level is None or not pyramid.FIRST <= level[1] <= pyramid.LAST:
            raise Wrong(f"there is no level {what!r}")
        kind = pyramid.AXES, (pyramid.DTYPE,)
    if kind is not None and (tuple(axes) != kind[0] or dtype not in kind[1]):
        raise Wrong(f"{what} is {axes} in {dtype}, and should be {list(kind[0])} in {' or '.join(kind[1])}")
    return what, axes


def _limits(what: str, axes: Sequence[str], lengths: Mapping[str, int]) -> tuple[int, int]:
    """Positions on the first axis, and on the second."""
    if what.endswith(".mean"):
        return len(STATISTICS), 1
    if (level := pyramid.level_of(what)) is not None:
        return pyramid.cells(lengths["query"], level[1]), pyramid.cells(lengths["key"], level[1])
    # Lower edges of distances are powers of two: a million of these are no numbers to have.
    rows = lengths.get(axes[0], WIDEST if axes[0] == "distance" else LONGEST)
    if len(axes) == 1:
        return rows, 1
    return rows, lengths.get(axes[1], LARGEST_K if axes[1] == "rank" else WIDEST)


def _check_holes(what: str, blocks: Sequence[Any], row: int, values: int) -> None:
    """A measure is read as one array: refuse one that is much larger than its blocks, `row` values a row."""
    runs = {tuple(map(tuple, block["rows"])) for block in blocks}
    if row * sum(len(decode_rows(one)) for one in runs) <= values + HOLES:
        return
    rows = set().union(*map(decode_rows, runs))
    if row * len(rows) > values + HOLES:
        raise Wrong(f"{what} has {row * len(rows):,} values, and its blocks have {values:,}")


class Tops:
    """What belongs to the largest weights of each row: values, keys and the rest, by site and group."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], dict[str, tuple[object, int]]] = {}

    def take(self, site: str, group: int, what: str, heads: object, width: int) -> None:
        """Take a field that was checked."""
        if what in _TOGETHER:
            self._found.setdefault((site, group), {})[what] = heads, width

    def check(self) -> None:
        """Refuse one without the others, or of other heads or ranks."""
        for (site, group), parts in self._found.items():
            if len(parts) != len(_TOGETHER):
                raise Wrong(f"group {group} of site {site!r} has {', '.join(parts)} without the others")
            (heads, k), (of_keys, ranks), (of_rest, _) = (parts[what] for what in _TOGETHER)
            if not heads == of_keys == of_rest or k != ranks:
                raise Wrong(f"top, top_keys and top_rest of group {group} of site {site!r} differ in heads or ranks")
