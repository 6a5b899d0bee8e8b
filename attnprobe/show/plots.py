"""A map of weights as a figure, by matplotlib, which is imported only when something is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attnprobe.errors import AttnprobeError
from attnprobe.shapes import Float
from attnprobe.show.colors import MAP
from attnprobe.show.prepare import printable, shrink
from attnprobe.show.scales import SCALE, Scale, drawn, scale_of
from attnprobe.show.style import UNKNOWN, colormap, literal, new_figure, small, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.image import AxesImage

NAMED = 40  # up to this many rows and columns, every token is named; beyond, positions are
PIXELS = 1024  # a larger map is shrunk first, and further to what its axes show: drawing would lose thin diagonals
_SIDE = 4.2  # inches of a large map
_LABEL = 24  # characters of a token's name


def plot_map(
    values: Float[np.ndarray, "row column"],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "",
    ax: "Axes | None" = None,
    row_positions: Sequence[int] | None = None,
    column_positions: Sequence[int] | None = None,
    map: str = MAP,
    scale: str = SCALE,
) -> "Axes":
    """Draw a map of weights, queries downwards, keys to the right, light where there is little; zero is the paper.

    Up to `NAMED` tokens are named; of more, positions are.

    Parameters
    ----------
    values
        Weights, or cells of almost equally many positions each; NaN is grey.
    row_labels, column_labels
        One a row and one a column of the map.
    title
        Written above.
    ax
        Where to draw; a new figure of matplotlib's ``pyplot`` if None.
    row_positions, column_positions
        Positions in the sample of the rows and columns of the map; they count from 0 if None.
    map, scale
        Which colours, and from weights to these (`attnprobe.show.scales`).

    Raises
    ------
    AttnprobeError
        If matplotlib is not installed, or there is nothing to draw.
    """
    down = range(len(values)) if row_positions is None else row_positions
    across = range(values.shape[1]) if column_positions is None else column_positions
    with styled():
        if not len(down) or not len(across):
            raise AttnprobeError(f"there is nothing to plot: {len(down)} rows and {len(across)} columns")
        ax = new_axes(len(down), len(across)) if ax is None else ax
        image = draw_cells(ax, values, (len(down), len(across)), map, scale)
        for axis, labels, numbers in ((ax.xaxis, column_labels, across), (ax.yaxis, row_labels, down)):
            if len(numbers) <= NAMED:
                axis.set_ticks(range(len(numbers)), [_name(label) for label in labels])
            else:
                at = ticks(len(numbers))
                axis.set_ticks(at, [str(numbers[i]) for i in at])
        if len(across) <= NAMED:
            ax.tick_params(axis="x", labelrotation=90)
        ax.set(xlabel="key", ylabel="query", title=literal(printable(title)))
        small(ax)
        add_bar(ax, image, "attention weight" if scale != "row" else "weight over the row's largest")
    return ax


def draw_cells(
    ax: "Axes", values: Float[np.ndarray, "row column"], extent: tuple[int, int], map: str, scale: str
) -> "AxesImage":
    """Draw cells over so many rows and columns, as an image, also in vector files."""
    rows, columns = extent
    limits = scale_of(values, scale)
    shown = shrink((drawn(values, scale) if scale == "row" else values).astype(np.float32), *pixels(ax))
    options: Any = {
        "extent": (-0.5, columns - 0.5, rows - 0.5, -0.5),
        "interpolation": "none",  # a file has one pixel a cell, which its viewer makes larger
        "aspect": "equal" if 1 / 3 <= rows / columns <= 3 else "auto",
    }
    unknown = ~np.isfinite(shown)
    paper = np.ma.masked_where(unknown | (shown == 0), shown)
    image = ax.imshow(paper, norm=norm_of(limits), cmap=colormap(map), **options)
    if unknown.any():
        from matplotlib.colors import to_rgba

        ax.imshow(np.where(unknown[..., None], to_rgba(UNKNOWN), 0.0), **options)
    return image


def norm_of(scale: Scale) -> "Normalize":
    """The same scale for matplotlib; it clips, so that zero is at the lower end of a log scale."""
    from matplotlib.colors import LogNorm, Normalize, PowerNorm

    if scale.name == "linear":
        return Normalize(0, scale.high, clip=True)
    if scale.name == "sqrt":
        return PowerNorm(0.5, 0, scale.high, clip=True)
    return LogNorm(scale.low, scale.high, clip=True)


def add_bar(ax: "Axes", image: Any, label: str) -> None:
    """A slim colour bar beside the axes."""
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02, aspect=30)
    bar.set_label(label)
    bar.outline.set_visible(False)


def new_axes(rows: int, columns: int, pyplot: bool = True) -> "Axes":
    """Axes on a figure of a size that fits a map; call it inside of `styled`."""
    largest = max(rows, columns)
    side = _SIDE if largest > NAMED else max(1.8, 0.9 + 0.125 * largest)
    height = side * min(1.0, max(rows / columns, 0.35)) + 0.35
    return new_figure(side + 0.9, height, pyplot).subplots()


def pixels(ax: "Axes") -> tuple[int, int]:
    """Rows and columns that the axes have pixels for, once titles, labels and a colour bar have taken theirs."""
    box = ax.get_window_extent()
    return max(min(int(0.72 * box.height), PIXELS), NAMED), max(min(int(0.72 * box.width), PIXELS), NAMED)


def ticks(length: int) -> list[int]:
    """About eight round indices."""
    step = next(s for power in range(12) for s in (10**power, 2 * 10**power, 5 * 10**power) if length / s <= 8)
    return list(range(0, length, step))


def _name(label: str) -> str:
    whole = printable(label)
    return literal(whole if len(whole) <= _LABEL else f"{whole[: _LABEL - 1]}…")
