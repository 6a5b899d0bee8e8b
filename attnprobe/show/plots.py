"""Weights as figures, by matplotlib, which is imported only here and only when something is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnprobe.errors import AttnprobeError
from attnprobe.shapes import Float
from attnprobe.show.prepare import printable, shrink
from attnprobe.show.scales import largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 40  # up to this many rows and columns, every token is named; beyond, positions are
PIXELS = 1024  # a larger map is shrunk first, and further to what its axes show: drawing would lose thin diagonals
FLOOR = 1e-4  # lower end of the log scale; smaller weights are drawn like it


def plot_map(
    values: Float[np.ndarray, "query key"],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "",
    ax: "Axes | None" = None,
    row_positions: Sequence[int] | None = None,
    column_positions: Sequence[int] | None = None,
) -> "Axes":
    """Draw a map of weights, queries downwards, keys to the right.

    Up to `NAMED` tokens the scale is linear from 0 and tokens are named; beyond, it is logarithmic from `FLOOR`, and
    positions are named.

    Parameters
    ----------
    values
        Weights.
    row_labels, column_labels
        One a row and one a column.
    title
        Written above.
    ax
        Where to draw; a new figure of matplotlib's ``pyplot`` if None.
    row_positions, column_positions
        Positions in the sample of the rows and columns; they count from 0 if None.

    Raises
    ------
    AttnprobeError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm, Normalize
    except ImportError as error:
        raise AttnprobeError("plots need matplotlib: pip install attnprobe[plots]") from error
    rows, columns = values.shape
    if not rows or not columns:
        raise AttnprobeError(f"there is nothing to plot: {rows} rows and {columns} columns")
    large = max(rows, columns) > NAMED
    if ax is None:
        ax = _new_axes(rows, columns, large)
    top = largest(values) or 1.0
    cmap = colormaps["viridis"]
    image = ax.imshow(
        shrink(values.astype(np.float32), *_cells(ax)),
        norm=LogNorm(min(FLOOR, top / 10), top) if large else Normalize(0, top),
        cmap=cmap.with_extremes(bad=cmap(0.0)),  # a log scale has no zero
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        interpolation="nearest",
        aspect="equal" if 1 / 3 <= rows / columns <= 3 else "auto",
    )
    across = range(columns) if column_positions is None else column_positions
    down = range(rows) if row_positions is None else row_positions
    for axis, labels, numbers in ((ax.xaxis, column_labels, across), (ax.yaxis, row_labels, down)):
        if len(labels) <= NAMED:
            axis.set_ticks(range(len(labels)), [_label(label) for label in labels], fontsize=8)
        else:
            at = _ticks(len(labels))
            axis.set_ticks(at, [str(numbers[i]) for i in at], fontsize=8)
    if columns <= NAMED:
        ax.tick_params(axis="x", labelrotation=90)
    ax.tick_params(length=2)
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    if title:
        ax.set_title(_label(title), fontsize=10)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("attention weight", fontsize=8)
    bar.ax.tick_params(labelsize=8, length=2)
    return ax


def _new_axes(rows: int, columns: int, large: bool) -> "Axes":
    import matplotlib.pyplot as plt

    side = 6.0 if large else max(3.0, 1.5 + 0.22 * max(rows, columns))
    _, ax = plt.subplots(figsize=(side + 0.8, side), dpi=120, layout="constrained")
    return ax


def _cells(ax: "Axes") -> tuple[int, int]:
    """Rows and columns that the axes have pixels for, once titles, labels and a colour bar have taken theirs."""
    box = ax.get_window_extent()
    return max(min(int(0.6 * box.height), PIXELS), NAMED), max(min(int(0.6 * box.width), PIXELS), NAMED)


def _ticks(length: int) -> list[int]:
    """About eight round indices."""
    step = next(s for power in range(12) for s in (10**power, 2 * 10**power, 5 * 10**power) if length / s <= 8)
    return list(range(0, length, step))


def _label(label: str) -> str:
    r"""A label as it stands: ``$`` would start a formula."""
    return printable(label).replace("$", r"\$")
