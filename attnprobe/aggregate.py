"""Measures of a sample, a run or a corpus: a number a head, and their mean, spread and count over samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import STATISTICS, Field, Piece, Sample, Site
from attnprobe.held import HOW, MEAN, Held, is_measure
from attnprobe.labelled import Labelled, import_xarray
from attnprobe.labels import repeats_of
from attnprobe.measured import (
    Labels,
    Values,
    in_order,
    label,
    pick,
    read_measure,
    read_statistics,
    units_of,
)
from attnprobe.shapes import Float
from attnprobe.store.base import Reader
from attnprobe.store.reading import make_array
from attnprobe.summary import Summary

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False, repr=False)
class RunMeasures:
    """The measures of one sample, or of all samples of a run. Nothing is read before it is asked for.

    ``measures["entropy"]`` are one sample's values, ``[layer, head, query]``. Tables (`to_pandas`, `to_xarray`,
    `numpy`) have a number a head: each measure's mean over the valid rows of the sample, beside it ``NAME_std`` and
    ``NAME_count``, NaN where nothing was kept. Layers and heads are those of the model, so that places are numbers.

    Attributes
    ----------
    reader, samples
        What of.
    several
        Whether tables have an axis of samples.
    kind, part
        Of which attention; see `select`.
    labels
        Labels of the user's own.
    """

    reader: Reader
    samples: Sequence[Sample]
    several: bool
    kind: str | None = None
    part: str | None = None
    labels: tuple[str, ...] | None = None

    def select(self, kind: str | None = None, part: str | None = None) -> "RunMeasures":
        """The same of ``"self"`` or ``"cross"`` attention, or of one part of the model.

        Without it, tables in pandas have all sites, and arrays self-attention (cross-attention where that is all).

        Parameters
        ----------
        kind
            ``"self"`` or ``"cross"``.
        part
            ``"decoder"``, ``"encoder"``, ``"vision"`` or ``"text"``.
        """
        if kind not in (None, "self", "cross"):
            raise SelectionError(f'kind={kind!r}: write "self" or "cross"')
        parts = sorted({site.part for site in self.reader.manifest.sites})
        if part is not None and part not in parts:
            raise SelectionError(f"part={part!r}: the model has {', '.join(parts)}")
        return replace(self, kind=kind, part=part)

    # --- one measure -------------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What ``measures[name]`` reads: measures, and means over rows (``"entropy.mean"``)."""
        there = (field.what for _, _, held in self._walk(self.kind) for field, _ in held)
        return in_order(there, self.reader.manifest)

    def __contains__(self, name: object) -> bool:
        """Whether a measure was kept of some sample."""
        return name in self.names

    def __getitem__(self, name: str) -> Labelled:
        """One measure of all heads, ``[layer, head, *axes]``; of several samples a mean, ``[sample, layer, ...]``.

        Raises
        ------
        NotKept
            If it was not kept.
        SelectionError
            If several samples have it in different lengths, or several sites are in one layer.
        """
        if len(self.samples) > 1 and not name.endswith(MEAN):
            raise SelectionError(
                f"the run has {len(self.samples)} samples, of different lengths, so {name!r} is not one array; write "
                f'run.sample(i).measures["{name}"], or run.measures["{name}{MEAN}"] for the means'
            )
        found: list[tuple[int, Site, list[int], Values]] = []
        everything: list[tuple[Field, Sequence[Piece]]] = []
        for place, site, held in self._grid():
            everything += held
            own = [one for one in held if one[0].what == name]
            if own:
                heads = sorted({head for field, _ in own for head in field.heads})
                found.append((place, site, heads, read_measure(self.reader, own, heads)))
        if not found:
            pick(everything, name, self._where)
        rows = sorted({row for *_, one in found for row in one.rows})
        first = found[0][-1]
        if any((site.queries, site.keys) != (found[0][1].queries, found[0][1].keys) for _, site, *_ in found):
            raise SelectionError(f'the sites of {name} are of different sequences; write run["module name", head]')
        kinds = {(one.field.axes, one.values.shape[2:]) for *_, one in found}
        if len(kinds) > 1:
            raise SelectionError(
                f"sites have {name} on other axes, or of other lengths, than {first.field.site.label}, so it is not "
                f'one array; write run["module name", head].measures["{name}"]'
            )
        outer: dict[str, Sequence[Any]] = {"layer": range(self._layers), "head": range(self._heads)}
        shape = (len(self.samples), self._layers, self._heads, len(rows), *first.values.shape[2:])
        values = make_array(shape, -1 if first.values.dtype.kind == "i" else np.nan, first.values.dtype)
        for place, site, heads, one in found:
            values[place, site.layer][np.ix_(np.array(heads), np.searchsorted(rows, one.rows))] = one.values
        if self.several and len(self.samples) != 1:
            outer = {"sample": [sample.id for sample in self.samples], **outer}
        else:
            values = values[0]
        sample, site = self.samples[0], first.field.site
        names = self.labels
        if names is None and not self.reader.manifest.text:
            names = repeats_of(sample.main)
        custom: Labels = (names if site.queries == "main" else None, names if site.keys == "main" else None)
        return label(replace(first, rows=rows), sample, self.reader.manifest, custom, outer, values)

    # --- a number a head ---------------------------------------------------------------------------------------

    def numpy(self) -> dict[str, Float[np.ndarray, "..."]]:
        """Means, their ``_std`` and ``_count``: ``[sample, layer, head]`` each, of one sample ``[layer, head]``.

        Raises
        ------
        NotKept
            If no measures with means were kept.
        """
        arrays: dict[str, np.ndarray] = {}
        for place, site, held in self._grid():
            for name, (heads, values) in read_statistics(self.reader, held).items():
                for key, column in zip(columns(name), values.T, strict=True):
                    if key not in arrays:
                        arrays[key] = make_array((len(self.samples), self._layers, self._heads), np.nan, np.float32)
                    arrays[key][place, site.layer, heads] = column
        self._check(arrays)
        return arrays if self.several else {name: values[0] for name, values in arrays.items()}

    def to_xarray(self) -> "xarray.Dataset":
        """The same as `numpy`, with names for the axes (needs the ``xarray`` extra)."""
        xarray = import_xarray()
        arrays, units = self.numpy(), units_of(self.reader.manifest)
        dims = ("sample", "layer", "head") if self.several else ("layer", "head")
        coords: dict[str, Any] = {"layer": range(self._layers), "head": range(self._heads)}
        if self.several:
            coords["sample"] = [sample.id for sample in self.samples]
        data = {name: (dims, values, {"unit": units.get(name, "")}) for name, values in arrays.items()}
        return xarray.Dataset(data, coords, {"kind": self._kind})

    def to_pandas(self) -> pd.DataFrame:
        """A line a head that was kept, a column a mean, its ``_std`` and ``_count``; indexed by sample, layer, head.

        Where there is more than self-attention, columns ``site`` and ``kind`` tell which.
        """
        lines: list[tuple[Any, int, int, str, str]] = []
        parts: dict[str, dict[int, np.ndarray]] = {}
        chunks: list[int] = []
        for place, site, held in self._walk(self.kind):
            found = read_statistics(self.reader, held)
            heads = sorted({head for field, _ in held for head in field.heads})
            lines += [(self.samples[place].id, site.layer, head, site.key, site.kind) for head in heads]
            for name, (own, values) in found.items():
                at = np.searchsorted(heads, own)
                for key, column in zip(columns(name), values.T, strict=True):
                    whole = np.full(len(heads), np.nan, np.float32)
                    whole[at] = column
                    parts.setdefault(key, {})[len(chunks)] = whole
            chunks.append(len(heads))
        self._check(parts)
        table = pd.DataFrame(lines, columns=["sample", "layer", "head", "site", "kind"])
        for key, by_chunk in parts.items():
            empty = [by_chunk.get(i, np.full(count, np.nan, np.float32)) for i, count in enumerate(chunks)]
            table[key] = np.concatenate(empty)
        if set(table["kind"]) <= {"self"} and not table.duplicated(["sample", "layer", "head"]).any():
            table = table.drop(columns=["site", "kind"])
        return table.set_index(["sample", "layer", "head"] if self.several else ["layer", "head"]).drop(
            columns=[] if self.several else ["sample"]
        )

    def summary(self) -> Summary:
        """Each head over all samples: mean, standard deviation and count of all rows, and the samples' spread.

        Raises
        ------
        NotKept
            If no measures with means were kept.
        """
        result = Summary(self._layers, self._heads, self._kind, len(self.samples))
        for _, site, held in self._grid():
            alike: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
            for name, (heads, values) in read_statistics(self.reader, held).items():
                alike.setdefault(tuple(heads), {})[name] = values
            for own, statistics in alike.items():
                result.add(site.layer, own, statistics)
        self._check(result.names)
        result.units.update(units_of(self.reader.manifest))
        return result

    # --- where what is -----------------------------------------------------------------------------------------

    def _walk(self, kind: str | None) -> Iterator[tuple[int, Site, Held]]:
        """Sample (its place), site, and fields of measures, of the sites of a kind."""
        order = {site: number for number, site in enumerate(self.reader.manifest.sites)}
        for place, sample in enumerate(self.samples):
            by_site: dict[Site, list[tuple[Field, Sequence[Piece]]]] = {}
            for field, pieces in self.reader.fields(sample.index).items():
                site = field.site
                if is_measure(field) and kind in (None, site.kind) and self.part in (None, site.part):
                    by_site.setdefault(site, []).append((field, pieces))
            for site in sorted(by_site, key=lambda site: order[site]):
                yield place, site, by_site[site]

    def _grid(self) -> Iterator[tuple[int, Site, Held]]:
        """The same where one site a layer is meant."""
        of_layer: dict[int, Site] = {}
        for place, site, held in self._walk(self._kind):
            other = of_layer.setdefault(site.layer, site)
            if other != site:
                raise SelectionError(
                    f"layer {site.layer} has several sites, {other.key} ({other.part}) and {site.key} ({site.part}); "
                    f'write measures.select(kind="{site.kind}", part="{site.part}")'
                )
            yield place, site, held

    @cached_property
    def _kind(self) -> str:
        """The kind of attention that arrays are of."""
        if self.kind is not None:
            return self.kind
        there = next((site.kind for _, site, _ in self._walk("self")), None)
        return there or next((site.kind for _, site, _ in self._walk("cross")), "self")

    @property
    def _sites(self) -> list[Site]:
        sites = self.reader.manifest.sites
        return [site for site in sites if site.kind == self._kind and self.part in (None, site.part)]

    @property
    def _layers(self) -> int:
        return 1 + max((site.layer for site in self._sites), default=-1)

    @property
    def _heads(self) -> int:
        return max((site.heads for site in self._sites), default=0)

    @property
    def _where(self) -> str:
        whose = f"{len(self.samples)} samples" if len(self.samples) != 1 else f"sample {self.samples[0].id}"
        return f"{self._kind}-attention, {whose}"

    def _check(self, found: Any) -> None:
        if not len(found):
            there = f"; kept are {', '.join(self.names)}" if self.names else ""
            raise NotKept(f"no means of measures were kept of {self._where}{there}; {HOW}")

    def __repr__(self) -> str:
        """Say which."""
        return f"<measures of {self._where}: {', '.join(self.names) or 'none'}>"


def columns(name: str) -> tuple[str, ...]:
    """What the statistics of a measure are called in a table: ``entropy``, ``entropy_std``, ``entropy_count``."""
    return (name, *(f"{name}_{statistic}" for statistic in STATISTICS[1:]))
