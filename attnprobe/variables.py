"""What a run holds, as variables over all samples: their names, axes and sizes. No value is read."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from attnprobe.arrays import SampleArray
from attnprobe.errors import SelectionError
from attnprobe.fields import STATISTICS, Field, Piece, Site
from attnprobe.held import MEAN
from attnprobe.measured import in_order, units_of
from attnprobe.shapes import Int
from attnprobe.store.base import Manifest, Reader

OUTER = ("sample", "layer", "head")
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
        By name, weights first.
    ids
        Of the samples.
    lengths
        Tokens of each sample: ``length`` and ``prompt_length``, and of each further sequence ``length_NAME``.
    layers, heads
        The numbers that axes are of: those of which something was kept.
    """

    variables: Mapping[str, Variable]
    ids: Sequence[str]
    lengths: Mapping[str, Int[np.ndarray, " sample"]]
    layers: Sequence[int]
    heads: Sequence[int]

    @property
    def chunks(self) -> dict[str, int]:
        """Lengths to cut each axis into, so that a part of any variable has at most `CHUNK` bytes.

        With weights, a part is of one sample and layer; rows are cut next, then heads.
        """
        pairs = (pair for one in self.variables.values() for pair in zip(one.dims, one.array.shape, strict=True))
        sizes = {dim: max(1, size) for dim, size in pairs}
        if any(one.array.what == "weights" for one in self.variables.values()):
            sizes.update(sample=1, layer=1)
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
    layers = sorted({scan.sites[key].layer for kept, _ in chosen.values() for key in kept.sites})
    heads = sorted({head for kept, _ in chosen.values() for head in kept.heads})
    dims = {
        name: tuple(scan.dim(axis, kept.first.site, names) for axis in kept.first.axes) if place is None else ()
        for name, (kept, place) in chosen.items()
    }
    widest: dict[str, int] = {}
    for name, (kept, _) in chosen.items():
        for dim, width in zip(dims[name], scan.widths(kept), strict=False):
            widest[dim] = max(widest.get(dim, 0), width)
    variables = {}
    for name, (kept, place) in chosen.items():
        first = kept.first
        modules = {scan.sites[key].layer: key for key in kept.sites}
        array = SampleArray(
            reader,
            first.what,
            first.axes,
            _array(scan.samples),
            scan.lengths[first.site.keys],
            tuple(modules.get(layer) for layer in layers),
            _array(heads),
            tuple(widest[dim] for dim in dims[name]),
            np.dtype(np.int32 if first.dtype == "int32" else np.float32),
            place,
        )
        attrs: dict[str, Any] = {"what": first.what, "kind": first.site.kind, "part": first.site.part}
        attrs["modules"] = [modules[layer] for layer in sorted(modules)]
        unit = "1" if first.what == "weights" else units_of(reader.manifest).get(first.what.removesuffix(MEAN))
        attrs |= {"unit": unit} if unit and place != STATISTICS.index("count") else {}
        variables[name] = Variable((*OUTER, *dims[name]), array, attrs)
    return Contents(variables, scan.ids, scan.tokens(), layers, heads)


@dataclass
class _Kept:
    """One kind of field of all samples, at all sites of one ending."""

    first: Field
    sites: set[str] = field(default_factory=set)
    heads: set[int] = field(default_factory=set)
    widths: tuple[int, int] = (0, 0)

    def take(self, one: Field, pieces: Sequence[Piece]) -> None:
        self.sites.add(one.site.key)
        self.heads.update(one.heads)
        first, second = self.widths
        for piece in pieces:
            first = max(first, piece.rows[-1] + 1 if len(piece.rows) else 0)
            second = max(second, piece.start + piece.shape[2])
        self.widths = first, second


class _Scan:
    """What all samples of a run have, gone through once."""

    def __init__(self, reader: Reader) -> None:
        self.manifest: Manifest = reader.manifest
        self.sites = {site.key: site for site in self.manifest.sites}
        self.endings = site_endings(self.manifest.sites)
        self.ids: list[str] = []
        self.samples: list[int] = []
        self._tokens: list[tuple[int, int]] = []
        self._kept: dict[tuple[str, str], _Kept] = {}  # by what and ending
        lengths: dict[str, list[tuple[int, int]]] = {}
        for place, sample in enumerate(reader.samples):
            self.ids.append(sample.id)
            self.samples.append(sample.index)
            self._tokens.append((sample.main.length, sample.prompt_length))
            for name, sequence in sample.sequences.items():
                lengths.setdefault(name, []).append((place, sequence.length))
            for one, pieces in reader.fields(sample.index).items():
                self._kept.setdefault((one.what, self.endings[one.site.key]), _Kept(one)).take(one, pieces)
        self.lengths = {name: np.zeros(len(self.ids), np.int64) for name in lengths}
        for name, pairs in lengths.items():
            self.lengths[name][[place for place, _ in pairs]] = [length for _, length in pairs]
        self._main = main_sequence(self.manifest.sites)
        further = [name for name in self.lengths if name != self._main]
        self._taken = {*OUTER, "query", "key", "length", "prompt_length"}
        self._taken |= {f"{word}_{name}" for word in ("query", "key", "length") for name in further}

    def tokens(self) -> dict[str, Int[np.ndarray, " sample"]]:
        """Lengths, by the names of their coordinates."""
        mains, prompts = zip(*self._tokens, strict=True) if self._tokens else ((), ())
        further = {f"length_{name}": own for name, own in self.lengths.items() if name != self._main}
        return {"length": _array(mains), "prompt_length": _array(prompts), **further}

    def names(self) -> dict[str, tuple[_Kept, int | None]]:
        """Names of all variables, and the place of the statistic that each is."""
        whats = in_order((what for what, _ in self._kept), self.manifest)
        endings = list(dict.fromkeys(self.endings.values()))
        found = sorted(self._kept, key=lambda one: (one[0] != "weights", whats.index(one[0]), endings.index(one[1])))
        names: dict[str, tuple[_Kept, int | None]] = {}
        for what, ending in found:
            places = enumerate(STATISTICS) if what.endswith(MEAN) else [(None, "")]
            for place, word in places:
                name = f"{what.removesuffix(MEAN)}{word and f'_{word}'}{ending}"
                names[_free(name, {*names, *self._taken})] = self._kept[what, ending], place
        return names

    def dim(self, axis: str, site: Site, variables: Collection[str]) -> str:
        """What an axis is called: those of tokens after their sequence, others not like a variable."""
        sequence = {"query": site.queries, "key": site.keys}.get(axis.removesuffix("_cell"), self._main)
        name = axis if sequence == self._main else f"{axis}_{sequence}"
        return name if axis in ("query", "key") else _free(name, {*variables, *self._taken}, "_bin")

    def widths(self, kept: _Kept) -> list[int]:
        """Lengths of the axes of a field, over all samples: of tokens, those of the sequence."""
        sequences = {"query": kept.first.site.queries, "key": kept.first.site.keys}
        return [
            int(self.lengths[sequences[axis]].max(initial=0)) if axis in sequences else width
            for axis, width in zip(kept.first.axes, kept.widths, strict=False)
        ]


def site_endings(sites: Sequence[Site]) -> dict[str, str]:
    """What stands behind the names of a module's variables, by the module's name: of the main attention, nothing.

    Variables have one module a layer. Where a part of the model has several, the second's end in ``_2``.
    """
    main = main_sequence(sites)
    parts: dict[str, str] = {}
    counts: Counter[tuple[str, int]] = Counter()
    whose: dict[str, tuple[str, ...]] = {}
    endings = {}
    for site in sites:
        if site.kind == "self" and site.queries == site.keys:
            words = [] if site.keys == main else [site.keys]
        else:
            words = [site.kind, *(name for name in (site.queries, site.keys) if name not in (main, "source"))]
        ending = "".join(f"_{word}" for word in words)
        if parts.setdefault(ending, site.part) != site.part:
            ending = f"{ending}_{site.part}"
        counts[ending, site.layer] += 1
        if (number := counts[ending, site.layer]) > 1:
            ending = f"{ending}_{number}"
        alike = (site.kind, site.queries, site.keys, site.part, str(number))
        while whose.setdefault(ending, alike) != alike:  # sequences may be called anything
            ending += "_"
        endings[site.key] = ending
    return endings


def main_sequence(sites: Sequence[Site]) -> str:
    """The sequence whose axes have plain names: ``main``, or the only one."""
    there = {sequence for site in sites for sequence in (site.queries, site.keys)}
    return there.pop() if len(there) == 1 else "main"


def _free(name: str, taken: Collection[str], more: str = "_") -> str:
    while name in taken:
        name += more
    return name


def _array(numbers: Sequence[int]) -> Int[np.ndarray, " n"]:
    return np.array(numbers, np.int64)
