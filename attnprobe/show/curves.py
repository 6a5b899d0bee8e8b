"""Measures as figures: curves over position, histograms of distance, heads by two numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from attnprobe.shapes import Float
from attnprobe.show.colors import table
from attnprobe.show.prepare import group_starts, printable
from attnprobe.show.style import FAINT, INK, LINES, literal, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 128  # of a curve: more positions are averaged in groups
_COLUMNS = 3
_WIDTH, _HEIGHT = 2.35, 1.75  # inches of a panel
_TITLED = 3  # heads at the outside of a scatter that are named


@dataclass(frozen=True, eq=False)
class Curve:
    """One head's values."""

    label: str
    values: Float[np.ndarray, " place"]


@dataclass(frozen=True, eq=False)
class Panel:
    """A measure with an axis.

    Attributes
    ----------
    name, axis, unit
        What; its axis is ``"query"``, ``"key"``, ``"distance"`` or another.
    places
        What the places of the axis are: positions, or lower edges of distances.
    values
        Of all heads; NaN where there is none.
    chosen
        Heads that are drawn by themselves.
    """

    name: str
    axis: str
    places: Float[np.ndarray, " place"]
    values: Float[np.ndarray, "head place"]
    unit: str = ""
    chosen: Sequence[Curve] = field(default_factory=tuple)


@dataclass(frozen=True, eq=False)
class Scatter:
    """Heads by two numbers; `chosen` are named, else those that are farthest outside."""

    names: tuple[str, str]
    x: Float[np.ndarray, "layer head"]
    y: Float[np.ndarray, "layer head"]
    chosen: Sequence[tuple[int, int]] = ()


def plot_panels(panels: Sequence[Panel], scatter: Scatter | None, pyplot: bool = True) -> "Figure":
    """Draw panels side by side on a new figure. Call it inside of `styled`."""
    count = len(panels) + (scatter is not None)
    across = min(count, _COLUMNS)
    down = -(-count // across)
    figure = new_figure(max(3.2, _WIDTH * across), max(2.2, _HEIGHT * down + 0.3), pyplot, "constrained")
    every = figure.subplots(down, across, squeeze=False).reshape(-1)
    for ax, panel in zip(every, panels, strict=False):
        (_bars if panel.axis == "distance" else _curve)(ax, panel)
    if scatter is not None:
        _points(every[count - 1], scatter)
    for ax in every[count:]:
        ax.remove()
    chosen = next((panel.chosen for panel in panels if panel.chosen), ())
    if panels:
        names = ["median of heads", "middle 80 % of heads", *(curve.label for curve in chosen)]
        handles = [handle for handle in every[0].lines[:1]] + every[0].collections[:1] + every[0].lines[1:]
        figure.legend(handles, names, loc="outside upper left", ncols=min(len(names), 5))
    return figure


def _curve(ax: "Axes", panel: Panel) -> None:
    """Median and middle of the heads over position, and chosen heads."""
    places, values = _averaged(panel.places[None], POINTS)[0], _averaged(panel.values, POINTS)
    low, middle, high = _quantiles(values)
    ax.plot(places, middle, color=INK)
    ax.fill_between(places, low, high, color=FAINT, alpha=0.3, linewidth=0)
    for number, curve in enumerate(panel.chosen):
        own = _averaged(curve.values[None], POINTS)[0]
        ax.plot(places, own, color=LINES[number % len(LINES)], linewidth=1)
    ax.set(xlabel=f"{panel.axis} position", **_names(panel))
    ax.margins(x=0)


def _bars(ax: "Axes", panel: Panel) -> None:
    """A histogram of distance, as steps over lower edges that double."""
    low, middle, high = _quantiles(panel.values)
    at = np.arange(len(panel.places))
    ax.plot(at, middle, color=INK, drawstyle="steps-mid")
    ax.fill_between(at, low, high, color=FAINT, alpha=0.3, linewidth=0, step="mid")
    for number, curve in enumerate(panel.chosen):
        ax.plot(at, curve.values, color=LINES[number % len(LINES)], linewidth=1, drawstyle="steps-mid")
    step = max(1, -(-len(at) // 7))
    ax.set_xticks(at[::step], [f"{int(edge):,}" for edge in panel.places[::step]])
    ax.set(xlabel="distance in tokens, from", **_names(panel))
    ax.margins(x=0)


def _points(ax: "Axes", scatter: Scatter) -> None:
    """A point a head, in the colour of its layer."""
    layers, heads = np.nonzero(np.isfinite(scatter.x) & np.isfinite(scatter.y))
    x, y = scatter.x[layers, heads], scatter.y[layers, heads]
    every = scatter.x.shape[0]
    colors = table("viridis")[np.linspace(0, 215, max(every, 1)).astype(int)][layers] / 255
    ax.scatter(x, y, c=colors, s=14, linewidths=0.3, edgecolors="white")
    named = [place for place in scatter.chosen]
    if not named and len(x):
        sides = [np.argmax(y), np.argmax(x), np.argmin(x), np.argmin(y)][:_TITLED]
        named = list(dict.fromkeys((int(layers[i]), int(heads[i])) for i in sides))
    for layer, head in named:
        at = (float(scatter.x[layer, head]), float(scatter.y[layer, head]))
        right = len(x) and at[0] > (float(x.min()) + float(x.max())) / 2
        offset, side = ((-4, 2), "right") if right else ((4, 2), "left")
        ax.annotate(f"L{layer}H{head}", at, offset, textcoords="offset points", fontsize=6.5, color=INK, ha=side)
    ax.set(xlabel=literal(printable(scatter.names[0])), ylabel=literal(printable(scatter.names[1])))
    ax.set_title("heads" + ", layers dark to light" * (every > 1))
    ax.margins(0.08)


def _names(panel: Panel) -> dict[str, str]:
    unit = {"mass": "share of the row"}.get(panel.unit, panel.unit)
    return {"title": literal(printable(panel.name)), "ylabel": literal(printable(unit))}


def _averaged(values: Float[np.ndarray, "head place"], points: int) -> Float[np.ndarray, "head point"]:
    """Means of groups of places, of the values that there are."""
    starts = np.array(group_starts(values.shape[1], points))
    known = np.isfinite(values)
    sums = np.add.reduceat(np.where(known, values, 0), starts, axis=1)
    counts = np.add.reduceat(known.astype(np.int64), starts, axis=1)
    averaged: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return averaged


def _quantiles(values: Float[np.ndarray, "head place"]) -> Float[np.ndarray, "3 place"]:
    """The 10th, 50th and 90th of 100 heads at each place, NaN where there is none."""
    some = np.isfinite(values).any(0)
    result = np.full((3, values.shape[1]), np.nan)
    if some.any():
        result[:, some] = np.nanquantile(values[:, some], [0.1, 0.5, 0.9], axis=0)
    return result
