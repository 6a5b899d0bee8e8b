"""Viridis for terminals, without matplotlib."""

import numpy as np

from attnprobe.shapes import Float

# matplotlib's viridis at 0, 1/8, ..., 1.
_ANCHORS = np.array(
    [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ]
)
LEVELS = 32  # few enough that neighbouring cells share a style, which keeps the output short
_AT = np.linspace(0, 1, len(_ANCHORS))
_TABLE = tuple(
    "#{:02x}{:02x}{:02x}".format(*(round(np.interp(level, _AT, _ANCHORS[:, c])) for c in range(3)))
    for level in np.linspace(0, 1, LEVELS)
)


def viridis(level: float) -> str:
    """The colour of a level between 0 and 1, as ``#rrggbb``."""
    return _TABLE[round(float(np.clip(level, 0, 1)) * (LEVELS - 1))]


def levels(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """Weights to levels between 0 and 1 on a square-root scale, the largest weight being 1.

    Linear, all but a few weights of a long row would look like zero: uniform attention over 512 keys is 0.002.
    What is not finite is NaN.
    """
    wide = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    scaled: np.ndarray = np.sqrt(np.clip(wide, 0, None) / (largest(values) or 1.0))
    return scaled


def largest(values: Float[np.ndarray, "..."]) -> float:
    """The largest finite weight, at least 0."""
    return float(values.max(initial=0, where=np.isfinite(values)))
