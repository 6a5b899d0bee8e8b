"""The samples of a run as a PyTorch dataset, for a ``DataLoader``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnprobe.arrays import Positions, fill, least_first
from attnprobe.errors import BudgetError, NotKept, SelectionError
from attnprobe.fields import Field, Piece, Sample, describe_rows
from attnprobe.held import Held, is_measure
from attnprobe.measured import pick, read_measure
from attnprobe.run import Run
from attnprobe.selection import HeadsLike, Selection
from attnprobe.shapes import Shaped
from attnprobe.sizes import format_bytes, parse_bytes
from attnprobe.store.reading import kept_columns, kept_rows, make_array


class SampleDataset(Dataset[dict[str, Any]]):
    """One item a sample, read when it is asked for; may go to a ``DataLoader``'s processes, forked or spawned.

    An item is a dict of ``id``, ``index`` (place in the run), ``length``, ``prompt_length``, ``input_ids`` (int64,
    -1 where a token was never seen; absent where ids were not kept), and by module name ``weights``
    ``[head, query, key]`` in float32 with ``heads``, ``queries`` and ``keys``, the numbers of what its axes are: the
    heads, rows and columns that were kept, NaN where others were kept of another head. With `measures` it has, in
    place of weights, ``measures``: by name and module, ``[head, *axes]`` in float32 or int32, with ``heads`` and
    ``rows``, the numbers of what its first two axes are.

    Parameters
    ----------
    run
        What to read.
    layers, heads, kind
        Which modules, and which of their heads, in the words of `record`. With ``"all"``, what was kept; what is named
        has to be there.
    measures
        Names of measures, ``"all"`` for all that were kept.
    limit
        Bytes of an item at most.

    Raises
    ------
    SelectionError
        If a word has no valid form, or names what the model does not have; if `run` is a path and no run.
    """

    def __init__(
        self,
        run: Run,
        *,
        layers: HeadsLike = "all",
        heads: HeadsLike = "all",
        kind: str = "all",
        measures: str | Sequence[str] | None = None,
        limit: int | str = "1 GiB",
    ) -> None:
        if not isinstance(run, Run):
            raise SelectionError(f"SampleDataset({run!r}): give a run, as attnprobe.open(PATH) and rec.run are")
        self.run = run
        self.limit = parse_bytes(limit)
        self.measures = [measures] if isinstance(measures, str) else None if measures is None else list(measures)
        if self.measures is not None and not self.measures:
            raise SelectionError('measures is empty: nothing would be read; write measures=["entropy"], or None')
        selection = Selection.parse(layers=layers, heads=heads, kind=kind)
        self._layers_named = selection.pairs is not None or not selection.layers.everything
        self._heads_named = selection.pairs is not None or not selection.heads.everything
        self._layers: dict[str, int] = {}  # of each selected module
        self._heads: dict[str, tuple[int, ...]] = {}
        for site in run.sites:
            if kind in ("all", site.kind):
                count = 1 + max(one.layer for one in run.sites if one.kind == site.kind)  # as when recording
                if chosen := selection.heads_of(site.layer, count, site.heads):
                    self._layers[site.key], self._heads[site.key] = site.layer, chosen
        if not self._heads:
            raise SelectionError(f"the model has no {kind}-attention; write kind='all'")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.run)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One item after the other."""
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: SupportsIndex) -> dict[str, Any]:
        """The item of a sample, by its place.

        Raises
        ------
        NotKept
            If there is no such sample, or what was asked for was not kept of it.
        BudgetError
            If the item would be larger than `limit`.
        """
        place = index(place)
        sample = self.run.sample(place).sample
        item: dict[str, Any] = {
            "id": sample.id,
            "index": place % len(self),
            "length": sample.main.length,
            "prompt_length": sample.prompt_length,
        }
        ids = sample.main.ids if self.run.manifest.text else None  # without text they are no token ids
        if ids is not None:
            item["input_ids"] = torch.from_numpy(np.array(ids, np.int64))
        held: dict[str, list[tuple[Field, Sequence[Piece]]]] = {site: [] for site in self._heads}
        for field, pieces in self.run.reader.fields(sample.index).items():
            if field.site.key in held:
                held[field.site.key].append((field, pieces))
        return item | (self._weights(sample, held) if self.measures is None else self._measures(sample, held))

    def _weights(self, sample: Sample, held: Mapping[str, Held]) -> dict[str, Any]:
        weights = {site: [one for one in own if one[0].what == "weights"] for site, own in held.items()}
        axes = {
            site: self._axes(sample, weights[site], heads)
            for site, heads in self._chosen(sample, weights, "weights").items()
        }
        self._check(sample, sum(4 * prod(map(len, one)) for one in axes.values()))
        names = ("weights", "heads", "queries", "keys")
        item: dict[str, Any] = {name: {} for name in names}
        for site, own in axes.items():
            values = make_array(tuple(map(len, own)), np.nan, np.float32)
            for field, pieces in least_first(weights[site]):
                fill(values, own, self.run.reader, field, pieces, self._columns(sample, field))
            for name, array in zip(names, (values, *own), strict=True):
                item[name][site] = torch.from_numpy(array)
        return item

    def _axes(self, sample: Sample, held: Held, heads: Sequence[int]) -> tuple[Positions, Positions, Positions]:
        """Heads, and the rows and columns that were kept of any of them."""
        own = [(field, piece) for field, pieces in held for piece in pieces if set(heads) & set(piece.heads)]
        kept = [columns for field in {field for field, _ in own} if (columns := self._columns(sample, field))]
        first, stop = min((one.start for one in kept), default=0), max((one.stop for one in kept), default=0)
        rows = np.array(kept_rows([piece for _, piece in own]), np.int64)
        return np.array(heads, np.int64), rows, np.arange(first, stop)

    def _columns(self, sample: Sample, field: Field) -> range:
        return kept_columns(self.run.reader, field, sample.sequences[field.site.keys].length)

    def _measures(self, sample: Sample, held: Mapping[str, Held]) -> dict[str, Any]:
        found = [one for own in held.values() for one in own if is_measure(one[0])]
        everything = self.measures == ["all"] and found
        names = dict.fromkeys(field.what for field, _ in found) if everything else self.measures or ()
        item: dict[str, Any] = {"measures": {}, "heads": {}, "rows": {}}
        nbytes = 0
        for name in names:
            what = pick(found, name, f"sample {sample.id}")[0][0].what
            having = {site: [one for one in own if one[0].what == what] for site, own in held.items()}
            for site, heads in self._chosen(sample, having, what).items():
                nbytes += sum(4 * prod(piece.shape) for _, pieces in having[site] for piece in pieces)
                self._check(sample, nbytes)
                read = read_measure(self.run.reader, having[site], heads)
                for part, values in (("measures", read.values), ("heads", heads), ("rows", read.rows)):
                    item[part].setdefault(name, {})[site] = torch.from_numpy(np.asarray(values))
        return item

    def _chosen(self, sample: Sample, held: Mapping[str, Held], what: str) -> dict[str, list[int]]:
        """The heads to read of each module.

        Raises
        ------
        NotKept
            If there are none, or a layer or head that was named is not there.
        """
        kept = {site: {head for field, _ in own for head in field.heads} for site, own in held.items()}
        of_layer: dict[int, set[int]] = {}
        for site, own in kept.items():
            of_layer.setdefault(self._layers[site], set()).update(own)
        for site, heads in self._heads.items():
            absent, there = set(heads) - kept[site], of_layer[self._layers[site]]
            if absent and ((self._layers_named and not there) or (self._heads_named and kept[site])):
                raise NotKept(
                    f"{what} of {site}, head {min(absent)}, were not kept of sample {sample.id}; kept are heads "
                    f'{describe_rows(kept[site])} of it: name what is there, or "all", which means that'
                )
        found = {site: [head for head in heads if head in kept[site]] for site, heads in self._heads.items()}
        if not any(found.values()):
            others = dict.fromkeys(field.what for field in self.run.reader.fields(sample.index))
            raise NotKept(
                f"{what} of the selected heads were not kept of sample {sample.id}; kept are "
                f'{", ".join(others) or "none"}: SampleDataset(run, measures=["NAME"]) reads measures'
            )
        return {site: own for site, own in found.items() if own}

    def _check(self, sample: Sample, nbytes: int) -> None:
        if nbytes > self.limit:
            raise BudgetError(
                f"sample {sample.id} has {format_bytes(nbytes)} of what is selected, and the limit is "
                f"{format_bytes(self.limit)}; select fewer layers or heads, or give a larger limit="
            )

    @staticmethod
    def collate(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Put items of any lengths into one batch, for ``DataLoader(..., collate_fn=SampleDataset.collate)``.

        All is padded behind: ``input_ids`` and ``weights`` with 0 (``attention_mask`` tells which are tokens),
        ``heads``, ``queries``, ``keys`` and ``rows`` with -1, ``measures`` with NaN, those that are positions with -1.
        A module or measure that a sample lacks is all padding.
        """
        batch = list(items)
        result: dict[str, Any] = {"id": [item["id"] for item in batch]}
        for name in ("index", "length", "prompt_length"):
            result[name] = torch.tensor([item[name] for item in batch])
        if any("input_ids" in item for item in batch):
            result["input_ids"] = _pad([item.get("input_ids") for item in batch], 0)
            tokens = torch.arange(result["input_ids"].shape[1])
            result["attention_mask"] = (tokens < result["length"][:, None]).long()
        for name, padding in {
            "weights": 0,
            "heads": -1,
            "queries": -1,
            "keys": -1,
            "rows": -1,
            "measures": None,
        }.items():
            if any(name in item for item in batch):
                result[name] = _collate([item.get(name) for item in batch], padding)
        return result


def _collate(parts: Sequence[Any], padding: int | None) -> Any:
    """Stack tensors, or what dicts have of each name; None stands for one that is not there."""
    there = [part for part in parts if part is not None]
    if isinstance(there[0], Tensor):
        return _pad(parts, padding)
    names = dict.fromkeys(name for part in there for name in part)
    return {name: _collate([part and part.get(name) for part in parts], padding) for name in names}


def _pad(tensors: Sequence[Tensor | None], padding: int | None) -> Shaped[Tensor, "batch ..."]:
    """Stack tensors of different lengths; a padding of None is NaN, or -1 among ints."""
    there = [tensor for tensor in tensors if tensor is not None]
    shape = [max(lengths) for lengths in zip(*(tensor.shape for tensor in there), strict=True)]
    missing = float("nan") if there[0].is_floating_point() else -1
    result = torch.full((len(tensors), *shape), missing if padding is None else padding, dtype=there[0].dtype)
    for into, tensor in zip(result, tensors, strict=True):
        if tensor is not None:
            into[tuple(map(slice, tensor.shape))] = tensor
    return result
