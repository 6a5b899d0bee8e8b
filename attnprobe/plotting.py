"""What the figures of a head, a sample or a run are of: read from the run, and given to `attnprobe.show`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnprobe.aggregate import RunMeasures
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import Site
from attnprobe.head import Head
from attnprobe.held import HOW, MEAN
from attnprobe.labelled import Labelled
from attnprobe.pictures import Part, Picture, part_of, read_picture
from attnprobe.pyramid import HOWS
from attnprobe.sample_run import SampleRun
from attnprobe.selection import head_name
from attnprobe.shapes import Float
from attnprobe.show.curves import Curve, Panel, Scatter, plot_panels
from attnprobe.show.mosaic import plot_cells, plot_mosaic, size_of
from attnprobe.show.plots import NAMED, new_axes, pixels, plot_map
from attnprobe.show.style import styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HeadsLike = str | Sequence[str | tuple[int, int]]


def picture_of(
    head: Head, down: int, across: int, rows: Part = None, columns: Part = None, how: str = "max"
) -> Picture:
    """Cells of a head: of its weights, else of the pooled map among its measures.

    Raises
    ------
    NotKept
        If neither was kept.
    """
    name = f"pooled_{how}"
    if head.has_weights or how not in HOWS or name not in head.measures or rows is not None or columns is not None:
        return read_picture(head.levels, down, across, rows, columns, how)
    pooled = head.measures[name]
    covered = (len(at) * (at[1] - at[0] if len(at) > 1 else 1) for at in (pooled.coords[dim] for dim in pooled.dims))
    return Picture(pooled.values, *map(range, covered))


def plot_head(
    head: Head, ax: "Axes | None", map: str, scale: str, how: str, rows: Part, columns: Part, pyplot: bool = True
) -> "Axes":
    """Draw `Head.plot`."""
    with styled():
        if ax is None:
            kept, wide = part_of(head.levels, rows, columns) if head.has_weights else ((), range(0))
            shape = (len(kept), len(wide)) if head.has_weights else head.shape
            ax = new_axes(*shape, pyplot)
        picture = picture_of(head, *pixels(ax), rows, columns, how)
        title = f"layer {head.layer}, head {head.number}"
        if head.site.kind == "cross":
            title += f" ({head.site.key})"
        names = head.query_labels, head.key_labels
        down, across = (
            [own[at] for at in places]
            if len(places) <= NAMED and max(places) < len(own)
            else [str(at) for at in places]
            for own, places in zip(names, (picture.rows, picture.columns), strict=True)
        )
        return plot_map(picture.values, down, across, title, ax, picture.rows, picture.columns, map, scale)


# --- a grid of heads ---------------------------------------------------------------------------------------------


def sites_of(sample: SampleRun, kind: str | None, part: str | None) -> list[Site]:
    """The sites of one kind, self-attention where none is named, one a layer.

    Raises
    ------
    NotKept
        If there is none.
    SelectionError
        If several are in one layer.
    """
    wanted = kind or ("self" if any(site.kind == "self" for site in sample.sites) else "cross")
    found = [site for site in sample.sites if site.kind == wanted and part in (None, site.part)]
    if not found:
        there = ", ".join(sorted({f"{site.kind} ({site.part})" for site in sample.sites}))
        raise NotKept(f"no {wanted}-attention was kept of sample {sample.sample.id}; kept are {there or 'none'}")
    of_layer: dict[int, Site] = {}
    for site in found:
        other = of_layer.setdefault(site.layer, site)
        if other != site:
            raise SelectionError(
                f"layer {site.layer} has several sites, {other.key} ({other.part}) and {site.key} ({site.part}); "
                f'write kind="{site.kind}", part="{site.part}"'
            )
    return found


def plot_thumbnails(
    sample: SampleRun,
    ax: "Axes | None",
    map: str,
    scale: str,
    how: str,
    kind: str | None,
    part: str | None,
    pyplot: bool = True,
) -> "Axes":
    """Draw all heads of a sample as small maps, layers downwards, heads to the right."""
    kept = {
        (site.layer, number): head for site in sites_of(sample, kind, part) for number, head in sample[site.key].items()
    }
    layers, heads = (sorted({place[axis] for place in kept}) for axis in (0, 1))
    size = size_of(len(layers), len(heads))
    pictures: dict[tuple[int, int], Float[np.ndarray, "down across"]] = {}
    problem: NotKept | None = None
    for place, head in kept.items():
        try:
            pictures[place] = picture_of(head, size, size, how=how).values
        except NotKept as error:
            problem = error
    if problem is not None and not pictures:
        raise problem
    with styled():
        return plot_mosaic(pictures, layers, heads, ax, map, scale, pyplot)


def plot_measure_grid(measures: RunMeasures, name: str, ax: "Axes | None", map: str, pyplot: bool = True) -> "Axes":
    """Draw layers by heads, each in the colour of its mean of a measure over all samples."""
    summary = measures.summary()
    chosen = named(name, summary.names)
    unit = summary.units.get(chosen, "")
    of = "" if summary.size == 1 else f", mean over {summary.size:,} samples"
    with styled():
        return plot_cells(summary[chosen].values[..., 0], f"{chosen}{of}", unit, ax, map, pyplot)


def named(name: str, names: Sequence[str]) -> str:
    """The measure that is meant, with or without its number.

    Raises
    ------
    NotKept
        If there is none, or there are several.
    """
    fitting = [one for one in names if one == name] or [one for one in names if one.split("(")[0] == name]
    if len(fitting) == 1:
        return fitting[0]
    what = f"several measures are called {name!r}" if fitting else f"no mean of {name!r} was kept"
    raise NotKept(f'{what}; there are {", ".join(names)}; another is recorded with measures=["{name}"]')


# --- measures ----------------------------------------------------------------------------------------------------


def plot_run_measures(
    measures: RunMeasures,
    names: str | Sequence[str] | None,
    heads: HeadsLike | None,
    scatter: tuple[str, str] | None,
    pyplot: bool = True,
) -> "Figure":
    """Draw `SampleRun.plot_measures`."""
    chosen = chosen_heads(heads)
    means = measures.numpy() if any(name.endswith(MEAN) for name in measures.names) else {}
    asked = [names] if isinstance(names, str) else list(names) if names is not None else None
    panels = [_panel(one, chosen) for one in (map(measures.__getitem__, asked) if asked else _curves(measures))]
    pair = scatter if scatter is not None else _pair(means) if asked is None else None
    points = None if pair is None else _scatter(means, pair, chosen)
    if not panels and points is None:
        raise NotKept(f"no measures were kept; {HOW}")
    with styled():
        return plot_panels(panels, points, pyplot)


def _curves(measures: RunMeasures) -> Iterator[Labelled]:
    """The measures that have one axis beside layers and heads: positions, or distances."""
    for name in measures.names:
        if not name.endswith(MEAN) and not name.startswith("pooled_") and name != "argmax":
            measure = measures[name]
            if len(measure.dims) == 3:
                yield measure


def chosen_heads(heads: HeadsLike | None) -> list[tuple[int, int]]:
    """Layer and head of ``"L0H3,L1H6"``, of such names, or of pairs.

    Raises
    ------
    SelectionError
        If it is none of these.
    """
    if heads is None:
        return []
    parts = heads.split(",") if isinstance(heads, str) else list(heads)
    found = [head_name(one.strip()) if isinstance(one, str) else (int(one[0]), int(one[1])) for one in parts]
    places = [one for one in found if one is not None]
    if len(places) < len(found) or not found:
        raise SelectionError(f'heads={heads!r}: write "L0H3,L1H6", or pairs of layer and head')
    return places


def _panel(measure: Labelled, chosen: Sequence[tuple[int, int]]) -> Panel:
    if len(measure.dims) != 3:
        raise SelectionError(
            f"{measure.name} has the axes {', '.join(measure.dims)} and is no curve; plot_grid draws a number a head"
        )
    axis = measure.dims[-1]
    values = measure.values.astype(np.float32)
    if measure.values.dtype.kind == "i":  # positions, -1 where there is none
        values[values < 0] = np.nan
    _check(chosen, values.shape[0], values.shape[1])
    places = np.asarray(measure.coords[axis], np.float64)
    every = values.reshape(-1, values.shape[-1])
    own = [Curve(f"L{layer}H{head}", values[layer, head]) for layer, head in chosen]
    return Panel(measure.name, axis, places, every[~np.isnan(every).all(1)], measure.unit, own)


def _pair(means: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    names = [name for name in means if not name.endswith(("_std", "_count"))]
    wanted = [one for one in ("previous", "induction", "entropy", "first_mass(1)") if one in names]
    first = wanted if len(wanted) > 1 else names
    return (first[0], first[1]) if len(first) > 1 else None


def _scatter(means: Mapping[str, np.ndarray], pair: tuple[str, str], chosen: Sequence[tuple[int, int]]) -> Scatter:
    names = [name for name in means if not name.endswith(("_std", "_count"))]
    x, y = (named(name, names) for name in pair)
    if means[x].ndim > 2:
        raise SelectionError("a scatter is of one sample; write run.sample(i).plot_measures(), or sample=")
    _check(chosen, *means[x].shape)
    return Scatter((x, y), means[x], means[y], list(chosen))


def _check(chosen: Sequence[tuple[int, int]], layers: int, heads: int) -> None:
    for layer, head in chosen:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise SelectionError(
                f"there is no head L{layer}H{head}: layers are 0 to {layers - 1}, heads 0 to {heads - 1}"
            )
