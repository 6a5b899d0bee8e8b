"""What a run holds, as variables over all samples: their names, axes and sizes. No value is read."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from attnprobe.arrays import Positions, SampleArray
from attnprobe.errors import SelectionError
from attnprobe.fields import STATISTICS, Field, Piece, Site
from attnprobe.held import MEAN, is_measure
from attnprobe.measured import in_order, units_of
from attnprobe.store.base import Reader

OUTER = ("sample", "layer", "head")
NO_MEASURES = ("weights", "top", "top_keys", "top_rest")  # of a run's other fields, what are variables too
CHUNK = 64 << 20  # bytes of a chunk, at most


@dataclass(frozen=True, eq=False)
class Variable:
    """One array, and the names of its axes."""

    dims: tuple[str, ...]
    array: SampleArray
    attrs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Contents:
    """All variables of a run, and what they share.

    Attributes
    ----------
    variables
        By name, weights first, and of each thing that of the main attention.
    ids
        Of the samples.
    lengths
        Tokens of each sample: ``length`` and ``prompt_length``, and of each further sequence ``length_NAME``.
    layers, heads
        The numbers that axes are of: those of which something was kept.
    """

    variables: Mapping[str, Variable]
    ids: Sequence[str]
    lengths: Mapping[str, Positions]
    layers: Sequence[int]
    heads: Sequence[int]

    @property
    def chunks(self) -> dict[str, int]:
        """Lengths to cut each axis into, so that a part of any variable has at most `CHUNK` bytes.

        Variables share axes, and xarray wants an axis cut alike in all of them. With weights, a part is of one sample
        and layer; rows are cut next, then heads.
        """
        sizes = {"sample": max(1, len(self.ids))}
        for one in self.variables.values():
            sizes |= {dim: max(1, size) for dim, size in zip(one.dims, one.array.shape, strict=True)}
        if any(one.array.what == "weights" for one in self.variables.values()):
            sizes |= {"sample": 1, "layer": 1}
        for one in self.variables.values():
            sample, layer, head, *inner = one.dims
            for dim in (sample, layer, *inner[:1], head, *inner[1:]):
                nbytes = one.array.dtype.itemsize * prod(sizes[each] for each in one.dims)
                sizes[dim] = max(1, sizes[dim] // max(1, -(-nbytes // CHUNK)))
        return sizes


def contents(reader: Reader, only: Collection[str] | None = None, without: Collection[str] = ()) -> Contents:
    """List the variables of a run: all, `only` some, or all `without` some.

    Weights are called ``weights``; of cross-attention ``weights_cross``, of an encoder's own sequence
    ``weights_source``, of an image ``weights_image``. Measures go by their names, their means over rows by
    ``NAME_mean``, ``NAME_std`` and ``NAME_count``, each with the same ending.

    Raises
    ------
    SelectionError
        If there is no variable of a name in `only`.
    """
    scan = _Scan(reader)
    names = scan.names()
    wrong = [name for name in only or () if name not in names]
    if wrong:
        raise SelectionError(f"there is no variable {wrong[0]!r} in the run; there are {', '.join(names) or 'none'}")
    chosen = {name: one for name, one in names.items() if (only is None or name in only) and name not in without}
    layers = sorted({layer for kept, _ in chosen.values() for layer in kept.modules})
    heads = sorted({head for kept, _ in chosen.values() for head in kept.heads})
    dims = {
        name: scan.dims(kept.first, names) if statistic is None else () for name, (kept, statistic) in chosen.items()
    }
    widths: dict[str, int] = {}
    for name, (kept, _) in chosen.items():
        for dim, width in zip(dims[name], scan.widths(kept), strict=False):
            widths[dim] = max(widths.get(dim, 0), width)
    variables = {}
    for name, (kept, statistic) in chosen.items():
        first = kept.first
        array = SampleArray(
            reader,
            first.what,
            first.axes,
            np.array(scan.samples, np.int64),
            scan.lengths[first.site.keys],
            tuple(kept.modules.get(layer) for layer in layers),
            np.array(heads, np.int64),
            tuple(widths[dim] for dim in dims[name]),
            np.dtype(np.int32 if first.dtype == "int32" else np.float32),
            statistic,
        )
        variables[name] = Variable((*OUTER, *dims[name]), array, _describe(reader, kept, statistic))
    return Contents(variables, scan.ids, scan.tokens(), layers, heads)


@dataclass(frozen=True)
class Alike:
    """Modules that one variable is of: one a layer, of the same two sequences and part of the model.

    `ending` stands behind the variable's name; of the model's main attention it is empty. Where a layer has several,
    `number` counts them from 1.
    """

    kind: str
    part: str
    queries: str
    keys: str
    number: int
    ending: str


def alike(sites: Sequence[Site]) -> dict[str, Alike]:
    """Which modules belong together, by their names."""
    main = main_sequence(sites)
    parts: dict[tuple[str, ...], str] = {}
    counts: Counter[tuple[str | int, ...]] = Counter()
    found = {}
    for site in sites:
        if site.kind == "self" and site.queries == site.keys:
            words = [] if site.keys == main else [site.keys]
        else:
            words = [site.kind, *(name for name in (site.queries, site.keys) if name not in (main, "source"))]
        if parts.setdefault(tuple(words), site.part) != site.part:
            words.append(site.part)
        same = (site.kind, site.part, site.queries, site.keys)
        counts[*same, site.layer] += 1
        number = counts[*same, site.layer]
        words += [str(number)] if number > 1 else []
        found[site.key] = Alike(*same, number, "".join(f"_{word}" for word in words))
    return found


def main_sequence(sites: Sequence[Site]) -> str:
    """The sequence whose axes have plain names: ``main``, or the only one."""
    there = {sequence for site in sites for sequence in (site.queries, site.keys)}
    return there.pop() if len(there) == 1 else "main"


@dataclass
class _Kept:
    """One kind of field of all samples, at modules that are alike."""

    first: Field
    modules: dict[int, str] = field(default_factory=dict)  # by layer
    heads: set[int] = field(default_factory=set)
    widths: tuple[int, int] = (0, 0)

    def take(self, one: Field, pieces: Sequence[Piece]) -> None:
        self.modules[one.site.layer] = one.site.key
        self.heads.update(one.heads)
        first, second = self.widths
        for piece in pieces:
            first = max(first, piece.rows[-1] + 1 if len(piece.rows) else 0)
            second = max(second, piece.start + piece.shape[2])
        self.widths = first, second


class _Scan:
    """What all samples of a run have, gone through once."""

    def __init__(self, reader: Reader) -> None:
        samples, sites = reader.samples, reader.manifest.sites
        self._manifest = reader.manifest
        self._main = main_sequence(sites)
        self.ids: list[str] = []
        self.samples: list[int] = []
        self.lengths = {name: np.zeros(len(samples), np.int64) for site in sites for name in (site.queries, site.keys)}
        self._tokens = np.zeros((2, len(samples)), np.int64)
        self._kept: dict[tuple[str, Alike], _Kept] = {}
        groups = alike(sites)
        for place, sample in enumerate(samples):
            self.ids.append(sample.id)
            self.samples.append(sample.index)
            self._tokens[:, place] = sample.main.length, sample.prompt_length
            for name, sequence in sample.sequences.items():
                if name in self.lengths:
                    self.lengths[name][place] = sequence.length
            for one, pieces in reader.fields(sample.index).items():
                if one.what in NO_MEASURES or is_measure(one):
                    self._kept.setdefault((one.what, groups[one.site.key]), _Kept(one)).take(one, pieces)
        words = {f"{word}_{name}" for word in ("query", "key", "length") for name in self.lengths}
        self._taken = {*OUTER, "query", "key", "length", "prompt_length", *words}  # names of axes and of lengths

    def tokens(self) -> dict[str, Positions]:
        """Lengths, by the names of their coordinates."""
        further = {f"length_{name}": own for name, own in self.lengths.items() if name != self._main and own.any()}
        return {"length": self._tokens[0], "prompt_length": self._tokens[1], **further}

    def names(self) -> dict[str, tuple[_Kept, int | None]]:
        """Names of all variables, and the place of the statistic that each is."""
        whats = ("weights", *in_order((what for what, _ in self._kept if what != "weights"), self._manifest))
        groups = sorted(dict.fromkeys(alike(self._manifest.sites).values()), key=lambda one: one.ending != "")
        found = sorted(self._kept, key=lambda one: (whats.index(one[0]), groups.index(one[1])))
        names: dict[str, tuple[_Kept, int | None]] = {}
        for what, group in found:
            statistics = enumerate(STATISTICS) if what.endswith(MEAN) else [(None, "")]
            for place, word in statistics:
                name = f"{what.removesuffix(MEAN)}{word and f'_{word}'}{group.ending}"
                names[_free(name, {*names, *self._taken})] = self._kept[what, group], place
        return names

    def dims(self, of: Field, variables: Collection[str]) -> tuple[str, ...]:
        """What axes are called: those of tokens after their sequence, others not like a variable."""
        found = []
        for axis in of.axes:
            sequence = {"query": of.site.queries, "key": of.site.keys}.get(axis.removesuffix("_cell"), self._main)
            name = axis if sequence == self._main else f"{axis}_{sequence}"
            found.append(name if axis in ("query", "key") else _free(name, {*variables, *self._taken}, "_bin"))
        return tuple(found)

    def widths(self, kept: _Kept) -> list[int]:
        """Lengths of the axes of a field, over all samples: of tokens, those of the sequence."""
        sequences = {"query": kept.first.site.queries, "key": kept.first.site.keys}
        return [
            int(self.lengths[sequences[axis]].max(initial=0)) if axis in sequences else width
            for axis, width in zip(kept.first.axes, kept.widths, strict=False)
        ]


def _describe(reader: Reader, kept: _Kept, statistic: int | None) -> dict[str, Any]:
    what, site = kept.first.what, kept.first.site
    unit = "1" if what == "weights" else units_of(reader.manifest).get(what.removesuffix(MEAN))
    attrs: dict[str, Any] = {"what": what, "kind": site.kind, "part": site.part}
    attrs["modules"] = [kept.modules[layer] for layer in sorted(kept.modules)]
    return attrs | ({"unit": unit} if unit and statistic != STATISTICS.index("count") else {})


def _free(name: str, taken: Collection[str], more: str = "_") -> str:
    while name in taken:
        name += more
    return name
