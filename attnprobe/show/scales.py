"""From weights to places on a colour map, from 0 to 1. The explorer's ``scales.js`` has the same formulas.

With `low` and `high`, the limits of a picture, a weight `w` is at

======  ==============================================================================
log     ``t = clip((ln w - ln low) / (ln high - ln low))``
linear  ``t = clip(w / high)``
sqrt    ``t = clip(sqrt(w / high))``
row     as log, of ``w / (largest weight of the row)``; `low` and `high` are of that too
======  ==============================================================================

``clip`` is to 0 and 1. A weight of zero is at 0, and what is not finite is NaN.
"""

from dataclasses import dataclass

import numpy as np

from attnprobe.errors import SelectionError
from attnprobe.shapes import Float

SCALES = ("log", "linear", "sqrt", "row")
SCALE = "log"
LOW, HIGH = 0.2, 0.9995  # quantiles of the weights above zero; a few outliers must not take the range of all others
_NARROWEST, _WIDEST = 10, 1e6  # ratios of `high` to `low`: all weights alike are bright, and rounding noise is dark


@dataclass(frozen=True)
class Scale:
    """How weights become colours.

    Attributes
    ----------
    name
        ``"log"``, ``"linear"``, ``"sqrt"`` or ``"row"``.
    low, high
        The weights at 0 and 1; `low` is of no meaning in linear and sqrt, which begin at zero.
    """

    name: str
    low: float
    high: float

    def levels(self, values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
        """Weights to levels, by the formulas above."""
        wide = drawn(values, self.name)
        if self.name == "linear":
            level = wide / self.high
        elif self.name == "sqrt":
            level = np.sqrt(np.maximum(wide, 0) / self.high)
        else:
            with np.errstate(divide="ignore"):
                level = np.log(np.maximum(wide, 0) / self.low) / np.log(self.high / self.low)
        clipped: np.ndarray = np.clip(level, 0, 1)
        return clipped

    def __str__(self) -> str:
        """In words, with its limits."""
        of = " of each row's largest" if self.name == "row" else ""
        first = 0.0 if self.name in ("linear", "sqrt") else self.low
        kind = {"sqrt": "square-root", "row": "log"}.get(self.name, self.name)
        return f"{kind} scale, {first:.2g} to {self.high:.2g}{of}"


def scale_of(values: Float[np.ndarray, "row column"], name: str = SCALE) -> Scale:
    """The scale of some weights, with limits from quantiles of those above zero.

    Raises
    ------
    SelectionError
        If there is no such scale.
    """
    if name not in SCALES:
        raise SelectionError(f"there is no scale {name!r}; there are {', '.join(SCALES)}")
    wide = drawn(values, name)
    positive = wide[wide > 0]
    if not positive.size:
        return Scale(name, 1 / _NARROWEST, 1.0)
    low, high = np.quantile(positive, [LOW, HIGH]).tolist()
    if name in ("linear", "sqrt"):
        high = float(positive.max())
    return Scale(name, min(max(low, high / _WIDEST), high / _NARROWEST), high)


def drawn(values: Float[np.ndarray, "row column"], name: str = SCALE) -> Float[np.ndarray, "row column"]:
    """What a scale's limits are of, in float64: weights, or shares of their row's largest; NaN where not finite."""
    wide = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    if name == "row" and wide.size:
        top = np.max(wide, axis=1, keepdims=True, initial=0, where=np.isfinite(wide))
        wide = wide / np.where(top > 0, top, 1)
    return wide


def largest(values: Float[np.ndarray, "..."]) -> float:
    """The largest finite weight, at least 0."""
    return float(values.max(initial=0, where=np.isfinite(values)))
