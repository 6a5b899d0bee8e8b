"""Measures that were kept, read back with names: of one head here, of a sample or a run in `aggregate`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import NotKept
from attnprobe.fields import STATISTICS, Field, Piece, Sample, Site
from attnprobe.held import HOW, MEAN, Held, is_measure
from attnprobe.labelled import Labelled, import_xarray
from attnprobe.labels import labels_of
from attnprobe.shapes import Float, Shaped
from attnprobe.store.base import Manifest, Reader
from attnprobe.store.reading import kept_rows, make_array, read_rows

if TYPE_CHECKING:
    import xarray

Labels = tuple[tuple[str, ...] | None, tuple[str, ...] | None]


@dataclass(frozen=True, eq=False)
class Values:
    """A measure of some heads of one site, ``[head, *axes]``, NaN or -1 where there is none.

    `rows` are the positions on the first of the axes.
    """

    field: Field
    values: Shaped[np.ndarray, "head ..."]
    rows: list[int]


def read_measure(reader: Reader, held: Held, heads: Sequence[int]) -> Values:
    """Read one measure of some heads of one site.

    Where several `keep` items kept it of one head, rows are united; of what has no rows, the first item's is read.
    """
    first = held[0][0]
    alike = [(field, pieces) for field, pieces in held if (field.axes, field.dtype) == (first.axes, first.dtype)]
    rows = sorted({row for _, pieces in alike for row in kept_rows(pieces)})
    width = max((piece.start + piece.shape[2] for _, pieces in alike for piece in pieces), default=0)
    dtype = np.dtype(np.int32 if first.dtype == "int32" else np.float32)
    values = make_array((len(heads), len(rows), width), -1 if dtype.kind == "i" else np.nan, dtype)
    for field, pieces in reversed(alike):  # what the first item kept is written last
        own = [head for head in heads if head in field.heads]
        its_rows = kept_rows(pieces)
        if not own or not its_rows:
            continue
        part = read_rows(reader, field, pieces, own, its_rows, range(width))
        into = np.array([heads.index(head) for head in own])
        values[np.ix_(into, np.searchsorted(rows, its_rows))] = part
    return Values(first, values[..., 0] if len(first.axes) == 1 else values, rows)


def pick(held: Held, name: str, where: str) -> Held:
    """The fields that hold a measure, or its mean (``"entropy.mean"``).

    Raises
    ------
    NotKept
        If it was not kept.
    """
    names = tuple(dict.fromkeys(field.what for field, _ in held if is_measure(field)))
    if name not in names:  # first_mass for the only first_mass(k)
        alike = [one for one in names if re.sub(r"\(\d+\)", "", one) == name]
        name = alike[0] if len(alike) == 1 else name
    found = [(field, pieces) for field, pieces in held if field.what == name and is_measure(field)]
    if found:
        return found
    if not names:
        raise NotKept(f"no measures were kept of {where}; {HOW}")
    if f"{name}{MEAN}" in names:
        raise NotKept(
            f'of {name} just the mean over rows was kept: write ["{name}{MEAN}"], or record measures=["{name}"]'
        )
    raise NotKept(f"the measure {name!r} was not kept of {where}; kept are {', '.join(names)}")


def label(
    found: Values,
    sample: Sample,
    manifest: Manifest,
    labels: Labels,
    outer: Mapping[str, Sequence[Any]],
    values: Shaped[np.ndarray, "..."],
) -> Labelled:
    """Give values their names: axes of `outer` first, those of the measure behind."""
    field = found.field
    coords: dict[str, Sequence[Any]] = dict(outer)
    names: dict[str, Sequence[Any]] = {}
    lengths: dict[str, int] = {}
    for number, axis in enumerate(field.axes):
        count = values.shape[len(outer) + number]
        places: Sequence[Any] = found.rows if number == 0 else range(count)
        if axis in ("query", "key"):
            sequence = sample.sequences[field.site.queries if axis == "query" else field.site.keys]
            strings = labels_of(sequence, labels[axis == "key"])
            names[axis] = [strings[place] for place in places]
            lengths[axis] = sequence.length
        elif axis == "statistic":
            places = STATISTICS[:count] if count <= len(STATISTICS) else range(count)
        elif axis == "distance":
            places = [0, *(1 << b for b in range(count - 1))][:count]
        elif axis.endswith("_cell"):
            sequence = sample.sequences[field.site.queries if axis == "query_cell" else field.site.keys]
            size = _cell_size(sequence.length, count)
            places = range(0, size * count, size)
        coords[axis] = places
    unit = units_of(manifest).get(field.what.removesuffix(MEAN), "")
    return Labelled(field.what, values, (*outer, *field.axes), coords, names, lengths, unit)


def units_of(manifest: Manifest) -> dict[str, str]:
    """The unit of each measure, as the manifest tells."""
    units: dict[str, str] = {}
    for item in manifest.keep:
        listed = item.get("measures")
        for one in listed if isinstance(listed, list | tuple) else ():
            if isinstance(one, Mapping):  # a run directory is untrusted
                units.setdefault(str(one.get("name")).removesuffix(MEAN), str(one.get("unit", "")))
    return units


def read_statistics(reader: Reader, held: Held) -> dict[str, tuple[list[int], Float[np.ndarray, "head 3"]]]:
    """Mean, standard deviation and count over rows of each measure of one site, by the heads that have them."""
    found: dict[str, list[tuple[Field, Any]]] = {}
    for field, pieces in held:
        if field.what.endswith(MEAN) and field.axes == ("statistic",):
            found.setdefault(field.what, []).append((field, pieces))
    result = {}
    for name, fields in found.items():
        field, pieces = fields[0]
        if len(fields) == len(pieces) == 1 and _is_whole(field, pieces[0]):  # as nearly all are: quicker
            heads, every = list(field.heads), slice(0, len(STATISTICS))
            values = reader.values(field, pieces[0], slice(0, len(heads)), every, slice(0, 1))[..., 0]
        else:
            heads = sorted({head for field, _ in fields for head in field.heads})
            values = read_measure(reader, fields, heads).values
        if values.shape[1:] == (len(STATISTICS),):
            result[name.removesuffix(MEAN)] = (heads, values)
    return {name: result[name] for name in in_order(result, reader.manifest)}


def _is_whole(field: Field, piece: Piece) -> bool:
    """Whether a piece has all statistics of all heads of a field."""
    return (
        piece.heads == field.heads and piece.rows == range(len(STATISTICS)) and (piece.start, piece.shape[2]) == (0, 1)
    )


def in_order(names: Iterable[str], manifest: Manifest) -> tuple[str, ...]:
    """Names of measures, each once, as the manifest lists them; those it does not list come last."""
    place = {name: number for number, name in enumerate(units_of(manifest))}
    every = dict.fromkeys(names)
    return tuple(sorted(every, key=lambda name: (name.endswith(MEAN), place.get(name.removesuffix(MEAN), len(place)))))


def _cell_size(length: int, cells: int) -> int:
    """The smallest power of two such that so many cells of this size cover a length."""
    size = 1
    while -(-length // size) > max(cells, 1):
        size *= 2
    return size


@dataclass(frozen=True, eq=False, repr=False)
class HeadMeasures:
    """The measures of one head in one sample: ``head.measures["entropy"]``. Nothing is read before it is asked for."""

    reader: Reader
    sample: Sample
    held: Held
    number: int
    labels: Labels = (None, None)

    @property
    def site(self) -> Site:
        """Where the head is."""
        return self.held[0][0].site

    @property
    def names(self) -> tuple[str, ...]:
        """What ``measures[name]`` reads: measures, and means over rows (``"entropy.mean"``)."""
        return in_order((field.what for field, _ in self.held if is_measure(field)), self.reader.manifest)

    def __contains__(self, name: object) -> bool:
        """Whether a measure was kept."""
        return name in self.names

    def __getitem__(self, name: str) -> Labelled:
        """One measure: a value a query row, a key, a distance (its lower edge), or a cell (its first positions).

        Raises
        ------
        NotKept
            If it was not kept.
        """
        found = read_measure(self.reader, pick(self.held, name, self._where), [self.number])
        return label(found, self.sample, self.reader.manifest, self.labels, {}, found.values[0])

    @property
    def _where(self) -> str:
        return f"{self.site.label} head {self.number}, sample {self.sample.id}"

    @cached_property
    def means(self) -> dict[str, tuple[float, float, float]]:
        """Mean, standard deviation and count over valid rows, by measure."""
        found = read_statistics(self.reader, [one for one in self.held if self.number in one[0].heads])
        return {
            name: (float(values[i, 0]), float(values[i, 1]), float(values[i, 2]))
            for name, (heads, values) in found.items()
            for i in [heads.index(self.number)]
        }

    def to_pandas(self) -> pd.DataFrame:
        """Mean, standard deviation and count over valid rows, and the unit: a measure a line."""
        units = units_of(self.reader.manifest)
        rows = [(*values, units.get(name, "")) for name, values in self.means.items()]
        index = pd.Index(list(self.means), name="measure")
        return pd.DataFrame(rows, index, [*STATISTICS, "unit"])

    def numpy(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """All that was kept of the head, by name."""
        return {name: self[name].values for name in self.names}

    def to_xarray(self) -> "xarray.Dataset":
        """All that was kept of the head (needs the ``xarray`` extra).

        An axis that is called like a measure (``distance``) is called ``distance_bin``.
        """
        xarray = import_xarray()
        arrays = [self[name].to_xarray() for name in self.names]
        apart = [array.rename({dim: f"{dim}_bin" for dim in array.dims if dim in self.names}) for array in arrays]
        whole = xarray.merge(apart, join="outer", compat="no_conflicts", combine_attrs="override")
        return whole.drop_attrs(deep=False)  # the first measure's

    def __repr__(self) -> str:
        """Say of which head, and which."""
        return f"<measures of {self._where}: {', '.join(self.names) or 'none'}>"
