"""Maps and labels made ready for drawing: maps shrunk to what can be seen, labels freed of control characters."""

import numpy as np

from attnprobe.shapes import Float


def shrink(values: Float[np.ndarray, "query key"], rows: int, columns: int) -> Float[np.ndarray, "row column"]:
    """Shrink a map to at most ``rows x columns`` cells, each the largest weight that it covers.

    The largest and not the mean, because attention is sparse: a diagonal one weight wide must stay visible.
    """
    down, across = group_starts(values.shape[0], rows), group_starts(values.shape[1], columns)
    if not len(down) or not len(across):
        return values[: len(down), : len(across)]
    result: np.ndarray = np.maximum.reduceat(np.maximum.reduceat(values, down, axis=0), across, axis=1)
    return result


def group_starts(length: int, groups: int) -> list[int]:
    """First indices of `groups` runs of almost equal size that cover ``range(length)``."""
    groups = min(length, groups)
    return [i * length // groups for i in range(groups)]


def printable(label: str) -> str:
    r"""A label on one line, with what does not print (newlines, escapes, bidirectional marks) as ``\n``, ``\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in label)
