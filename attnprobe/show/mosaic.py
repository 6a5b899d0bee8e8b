"""All heads of a model in one figure: small maps, or a number each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnprobe.errors import AttnprobeError
from attnprobe.shapes import Float
from attnprobe.show.plots import add_bar, norm_of, ticks
from attnprobe.show.prepare import group_starts, printable
from attnprobe.show.scales import drawn, scale_of
from attnprobe.show.style import UNKNOWN, colormap, literal, new_figure, small

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST, SMALLEST, PIXELS = 96, 8, 2048  # cells on the side of a small map, and of all together
_GAP = 1 / 12  # of a small map, between two
_INCHES = 0.62  # a small map, where there are few
_WIDTH = 7.0  # inches of a figure, as wide as a page's text
_NAMED = 24  # up to so many layers or heads, each has a number


def size_of(layers: int, heads: int) -> int:
    """Cells on the side of a small map."""
    return int(np.clip(PIXELS // max(layers, heads, 1), SMALLEST, LARGEST))


def plot_mosaic(
    pictures: Mapping[tuple[int, int], Float[np.ndarray, "down across"]],
    layers: Sequence[int],
    heads: Sequence[int],
    ax: "Axes | None",
    map: str,
    scale: str,
    pyplot: bool = True,
) -> "Axes":
    """Draw small maps, all on one scale, as one image; each fills its square. Call it inside of `styled`.

    Parameters
    ----------
    pictures
        Weights by layer and head; one that is not there is left out.
    layers, heads
        Rows and columns of the grid.
    ax, map, scale
        As of `attnprobe.show.plots.plot_map`.
    pyplot
        Whether a new figure is ``pyplot``'s.
    """
    size = max((max(one.shape) for one in pictures.values()), default=1)
    pitch = size + max(1, round(size * _GAP))
    shown = {place: drawn(values, scale).astype(np.float32) for place, values in pictures.items()}
    every = np.concatenate([values.reshape(-1) for values in shown.values()])[None]
    whole = np.zeros((len(layers) * pitch, len(heads) * pitch), np.float32)
    for (layer, head), values in shown.items():
        top, left = layers.index(layer) * pitch, heads.index(head) * pitch
        whole[top : top + size, left : left + size] = np.nan_to_num(_filled(values, size))
    if ax is None:
        width = min(_WIDTH, max(2.2, _INCHES * len(heads) + 1.0))
        cell = (width - 0.9) / len(heads)
        ax = new_figure(width, max(1.2, cell * len(layers) + 0.6), pyplot).subplots()
    limits = scale_of(every, "log" if scale == "row" else scale)
    share = pitch / size
    image = ax.imshow(
        np.ma.masked_equal(whole, 0),
        norm=norm_of(limits),
        cmap=colormap(map),
        extent=(-0.5, (len(heads) - 0.5), len(layers) - 0.5, -0.5),
        interpolation="none",
        aspect="equal",
    )
    middle = 0.5 / share - 0.5  # a map stands at the left of its place, its gap at the right
    _number(ax, layers, heads, middle)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="head", ylabel="layer")
    small(ax)
    add_bar(ax, image, "attention weight" if scale != "row" else "weight over the row's largest")
    return ax


def plot_cells(
    values: Float[np.ndarray, "layer head"], title: str, unit: str, ax: "Axes | None", map: str, pyplot: bool = True
) -> "Axes":
    """Draw a number a head; one without is grey. Call it inside of `styled`."""
    layers, heads = values.shape
    known = values[np.isfinite(values)]
    if not known.size:
        raise AttnprobeError(f"there is nothing to plot: no head has a number of {title}")
    low, high = float(known.min()), float(known.max())
    if map == "difference":
        high = max(abs(low), abs(high))
        low = -high
    elif unit == "mass":
        low = 0.0
    if ax is None:
        width = min(_WIDTH, max(2.4, 0.28 * heads + 1.2))
        ax = new_figure(width, max(1.4, (width - 1.2) / heads * layers + 0.8), pyplot).subplots()
    image = ax.imshow(
        np.ma.masked_invalid(values),
        cmap=colormap(map).with_extremes(bad=UNKNOWN),
        vmin=low,
        vmax=high if high > low else low + 1,
        interpolation="none",
        aspect="equal",
    )
    _number(ax, range(layers), range(heads), 0.0)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for axis, count in ((ax.xaxis, heads), (ax.yaxis, layers)):
        axis.set_ticks(np.arange(1, count) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="minor", length=0)
    ax.set(xlabel="head", ylabel="layer", title=literal(printable(title)))
    small(ax)
    add_bar(ax, image, literal(printable({"mass": "share of the row"}.get(unit, unit))))
    return ax


def _number(ax: "Axes", layers: Sequence[int], heads: Sequence[int], offset: float) -> None:
    for axis, numbers in ((ax.xaxis, heads), (ax.yaxis, layers)):
        at = range(len(numbers)) if len(numbers) <= _NAMED else ticks(len(numbers))
        axis.set_ticks([i + offset for i in at], [str(numbers[i]) for i in at])


def _filled(values: Float[np.ndarray, "down across"], size: int) -> Float[np.ndarray, "size size"]:
    """A map on a square, cells repeated."""
    down, across = (np.repeat(np.arange(count), np.diff([*group_starts(size, count), size])) for count in values.shape)
    filled: np.ndarray = values[np.ix_(down, across)]
    return filled
