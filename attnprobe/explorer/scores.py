"""Measures: a number a head, of one head by position, and of all heads by position."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from attnprobe.errors import NotKept, SelectionError
from attnprobe.explorer.asked import Asked
from attnprobe.explorer.frames import Answer
from attnprobe.fields import STATISTICS, Field, Site
from attnprobe.held import MEAN, Held, is_measure
from attnprobe.labelled import Names
from attnprobe.measured import Values, in_order, pick, read_measure, read_statistics, units_of
from attnprobe.shapes import Float, Shaped

MOST = 4 << 20  # values of an answer
READ = 64 << 20  # values of one site that are read


def scores(asked: Asked) -> Answer:
    """The mean of each measure over the rows of each head, by site."""
    reader, manifest = asked.view.run.reader, asked.view.run.manifest
    units = units_of(manifest)
    found: dict[str, dict[str, list[float | None]]] = {}
    for site, held in asked.view.held(asked.sample).items():
        for name, (heads, values) in read_statistics(reader, held).items():
            row: list[float | None] = [None] * site.heads
            for head, value in zip(heads, values[:, 0].tolist(), strict=True):
                row[head] = value
            found.setdefault(name, {})[site.key] = row
    order = in_order(found, manifest)
    return Answer({"scores": {name: {"unit": units.get(name, ""), "values": found[name]} for name in order}})


def measure(asked: Asked) -> Answer:
    """One measure of one head."""
    head, name = asked.head, asked.text("name")
    held = pick(head.fields, name, "this head")
    _refuse_large(held, [head.number], MOST)
    found = head.measures[name]
    coords = {axis: compact(places) for axis, places in found.coords.items()}
    return Answer({"name": found.name, "unit": found.unit, "axes": found.dims, "coords": coords}, _floats(found.values))


def stripes(asked: Asked) -> Answer:
    """One measure with one axis, of all heads, a line a head: `sites` and `heads` tell whose it is.

    Where that is more than four million values, each is the mean of `covers` neighbours (of positions, the first one).
    """
    name, manifest = asked.text("name"), asked.view.run.manifest
    everything = asked.view.held(asked.sample)
    own = {
        site: [one for one in held if one[0].what == name and is_measure(one[0]) and len(one[0].axes) == 1]
        for site, held in everything.items()
    }
    own = {site: held for site, held in own.items() if held}
    if not own:
        there = {field.what for held in everything.values() for field, _ in held if is_measure(field)}
        one_axis = [n for n in in_order(there, manifest) if any(len(f.axes) == 1 for f in _fields(everything, n))]
        raise NotKept(f"there is no measure {name!r} with one axis; there are {', '.join(one_axis) or 'none'}")
    first = next(iter(own.values()))[0][0]
    own = {site: held for site, held in own.items() if held[0][0].axes == first.axes}
    heads = {site: sorted({head for field, _ in held for head in field.heads}) for site, held in own.items()}
    rows = sorted({row for held in own.values() for _, pieces in held for piece in pieces for row in piece.rows})
    covers = 1
    while sum(map(len, heads.values())) * -(-len(rows) // covers) > MOST:
        covers *= 2
    parts = []
    for site, held in own.items():
        _refuse_large(held, heads[site], READ)
        found = read_measure(asked.view.run.reader, held, heads[site])
        parts.append(_coarser(_at(found, rows), covers, mean=found.values.dtype.kind == "f"))
    coords = {axis: compact(_places(axis, rows)[::covers]) for axis in first.axes}
    about = {"name": name, "unit": units_of(manifest).get(name.removesuffix(MEAN), ""), "axes": first.axes}
    lines = [(site.key, head) for site in own for head in heads[site]]
    who = {"sites": [site for site, _ in lines], "heads": [head for _, head in lines], "covers": covers}
    return Answer({**about, "coords": coords, **who}, np.concatenate(parts))


def _fields(everything: Mapping[Site, Held], name: str) -> list[Field]:
    return [field for held in everything.values() for field, _ in held if field.what == name]


def _refuse_large(held: Held, heads: Sequence[int], most: int) -> None:
    """What a run says of lengths is untrusted."""
    values = sum(prod(piece.shape[1:]) for _, pieces in held for piece in pieces if set(heads) & set(piece.heads))
    if values * len(heads) > most:
        raise SelectionError(
            f"{held[0][0].what} has {values * len(heads):,} values here, more than are shown; read it in Python"
        )


def _at(found: Values, rows: Sequence[int]) -> Float[np.ndarray, "head place"]:
    """Values at other rows, which have all of theirs."""
    values = np.full((len(found.values), len(rows)), np.nan, np.float32)
    values[:, np.searchsorted(rows, found.rows)] = _floats(found.values)
    return values


def _floats(values: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """float32; of integers, -1 stands for none."""
    floats = values.astype(np.float32)
    if values.dtype.kind == "i":
        floats[values < 0] = np.nan
    return floats


def _coarser(values: Float[np.ndarray, "head place"], covers: int, mean: bool) -> Float[np.ndarray, "head part"]:
    """Means, or the first, of so many neighbours; NaN is none."""
    if covers == 1 or not mean:
        return values[:, ::covers]
    starts = np.arange(0, values.shape[1], covers)
    there = np.isfinite(values)
    counts = np.add.reduceat(there, starts, axis=1, dtype=np.int64)
    sums = np.add.reduceat(np.where(there, values, 0), starts, axis=1, dtype=np.float64)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def _places(axis: str, rows: list[int]) -> Names:
    """What the places on an axis are: positions, statistics, lower edges of distances."""
    if axis == "statistic" and rows == list(range(len(STATISTICS))):
        return STATISTICS
    return [0 if row == 0 else 1 << (row - 1) for row in rows] if axis == "distance" else rows


def compact(places: Names) -> dict[str, int] | list[Any]:
    """Places on an axis: where they are evenly spaced, the first and the step."""
    if len(places) > 1 and all(isinstance(one, int) for one in places[:2]):
        start, step = places[0], places[1] - places[0]
        if step > 0 and list(places) == list(range(start, start + step * len(places), step)):
            return {"start": start, "step": step}
    return list(places)
