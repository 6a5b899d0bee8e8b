"""Levels of a map, each half as fine as the one before: which there are, and what they are called in a run.

A cell of level L is the largest, or the mean, of ``2**L x 2**L`` weights; level 0 is the map. Cells are kept in patches
of `PATCH` x `PATCH`, each of which lies in one piece, so that a picture of any part of any size is a few reads.
"""

import re

from attnprobe.fields import Field

PATCH = 256  # cells on a side
FIRST = (
    2  # the finest level that is kept: what is finer is quickly made of the weights, and would take as much as these
)
LAST = 10
SMALL = PATCH << FIRST  # maps of up to so many rows and columns are read as they are
HOWS = ("max", "mean")
AXES = ("query_cell", "key_cell")
# Means of long rows are below what float16 has; a picture needs range more than digits.
DTYPE = "bfloat16"

_NAME = re.compile(r"pyramid_(max|mean)\((\d+)\)")


def levels_of(queries: int, keys: int) -> range:
    """The levels that are kept of a map: up to the first that fits one patch; none of a small map."""
    longest = max(queries, keys)
    if longest <= SMALL:
        return range(0)
    top = (-(-longest // PATCH) - 1).bit_length()
    return range(FIRST, min(top, LAST) + 1)


def name_of(how: str, level: int) -> str:
    """What a field of a level holds: ``pyramid_max(3)``."""
    return f"pyramid_{how}({level})"


def level_of(what: str) -> tuple[str, int] | None:
    """How a field was pooled, and its level; None where it is none of a pyramid."""
    match = _NAME.fullmatch(what)
    return None if match is None else (match[1], int(match[2]))


def is_level(field: Field) -> bool:
    """Whether a field is a level of a map's pyramid."""
    return level_of(field.what) is not None


def cells(length: int, level: int) -> int:
    """How many cells of a level cover a length."""
    return -(-length >> level)
