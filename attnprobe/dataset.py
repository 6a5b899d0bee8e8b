"""The samples of a run as a PyTorch dataset, for a ``DataLoader``."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnprobe.arrays import fill
from attnprobe.errors import BudgetError, NotKept, SelectionError
from attnprobe.fields import WEIGHT_DTYPES, Field, Piece, Sample, Site, describe_rows
from attnprobe.held import Held, is_measure
from attnprobe.measured import pick, read_measure
from attnprobe.run import Run, SampleRun
from attnprobe.selection import HeadsLike, Selection
from attnprobe.shapes import Shaped
from attnprobe.sizes import format_bytes, parse_bytes
from attnprobe.store.reading import kept_columns, kept_rows


class SampleDataset(Dataset[Any]):
    """One item a sample, read when it is asked for; may go to a ``DataLoader``'s processes, forked or spawned.

    An item is a dict of ``id``, ``index`` (place in the run), ``length``, ``prompt_length``, ``input_ids`` (int64,
    -1 where a token was never seen; absent where ids were not kept), and by module name ``weights``
    ``[head, query, key]`` in float32 with ``heads``, ``queries`` and ``keys``, the numbers of what its axes are: the
    heads, rows and columns that were kept, NaN where others were kept of another head. With `measures` it has, in
    place of weights, ``measures``: by name and module, ``[head, *axes]``.

    Parameters
    ----------
    run
        What to read.
    read
        Makes the item of a sample instead: ``read(run.sample(i))``. For spawned processes it has to be a function of a
        module. The words below have no meaning beside it.
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
        If a word has no valid form, or names what the model does not have.
    """

    def __init__(
        self,
        run: Run,
        read: Callable[[SampleRun], Any] | None = None,
        *,
        layers: HeadsLike = "all",
        heads: HeadsLike = "all",
        kind: str = "all",
        measures: str | Sequence[str] | None = None,
        limit: int | str = "1 GiB",
    ) -> None:
        self.run = run
        self.read = read
        self.limit = parse_bytes(limit)
        self.measures = [measures] if isinstance(measures, str) else None if measures is None else list(measures)
        self._selection = Selection.parse(layers=layers, heads=heads, kind=kind)
        given = self._selection.pairs is not None or not self._selection.layers.everything
        if read is not None and (given or not self._selection.heads.everything or kind != "all" or measures):
            raise SelectionError(
                "layers, heads, kind and measures beside read= have no meaning: it reads what it likes"
            )
        if self.measures is not None and not self.measures:
            raise SelectionError('measures is empty: nothing would be read; write measures=["entropy"], or None')
        self._named = given  # then a layer that was not kept is an error
        self._heads = self._choose(run.sites)

    def _choose(self, sites: Sequence[Site]) -> dict[str, tuple[int, ...]]:
        """The selected heads of each module; of the layers of each part of the model, as when recording."""
        selection, chosen = self._selection, {}
        for site in sites:
            if selection.kind in ("all", site.kind):
                layers = 1 + max(other.layer for other in sites if (other.part, other.kind) == (site.part, site.kind))
                if found := selection.heads_of(site.layer, layers, site.heads):
                    chosen[site.key] = found
        if sites and not chosen:
            raise SelectionError(f"the model has no {selection.kind}-attention; write kind='all'")
        return chosen

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.run)

    def __iter__(self) -> Iterator[Any]:
        """One item after the other."""
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: SupportsIndex) -> Any:
        """The item of a sample, by its place.

        Raises
        ------
        NotKept
            If there is no such sample, or what was asked for was not kept of it.
        BudgetError
            If the item would be larger than `limit`.
        """
        place = index(place)
        sample = self.run.sample(place)
        if self.read is not None:
            return self.read(sample)
        return self._item(place % len(self), sample.sample)

    def _item(self, place: int, sample: Sample) -> dict[str, Any]:
        item: dict[str, Any] = {
            "id": sample.id,
            "index": place,
            "length": sample.main.length,
            "prompt_length": sample.prompt_length,
        }
        ids = sample.main.ids if self.run.manifest.text else None  # without text they are no token ids
        if ids is not None:
            item["input_ids"] = torch.from_numpy(np.array(ids, np.int64))
        held: dict[str, list[tuple[Field, Sequence[Piece]]]] = {}
        for field, pieces in self.run.reader.fields(sample.index).items():
            if field.site.key in self._heads:
                held.setdefault(field.site.key, []).append((field, pieces))
        return item | (self._weights(sample, held) if self.measures is None else self._measures(sample, held))

    # --- weights ------------------------------------------------------------------------------------------------

    def _weights(self, sample: Sample, held: Mapping[str, Held]) -> dict[str, Any]:
        of_weights = {site: [one for one in own if one[0].what == "weights"] for site, own in held.items()}
        parts = {}
        for site, chosen in self._chosen(sample, of_weights, "weights").items():
            own = sorted(of_weights[site], key=lambda one: (WEIGHT_DTYPES.index(one[0].dtype), one[0].group))
            parts[site] = own, self._axes(sample, own, chosen)
        self._check(sample, sum(4 * prod(map(len, axes)) for _, axes in parts.values()))
        names = ("weights", "heads", "queries", "keys")
        item: dict[str, Any] = {name: {} for name in names}
        for site, (own, axes) in parts.items():
            values = np.full(tuple(map(len, axes)), np.nan, np.float32)
            for field, pieces in reversed(own):  # the most precise is written last
                kept = kept_columns(self.run.reader, field, sample.sequences[field.site.keys].length)
                fill(values, self.run.reader, field, pieces, *axes, kept)
            for name, array in zip(names, (values, *axes), strict=True):
                item[name][site] = torch.from_numpy(array)
        return item

    def _axes(self, sample: Sample, own: Held, heads: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Heads, and the rows and columns that were kept of any of them."""
        pieces = [(field, piece) for field, pieces in own for piece in pieces if set(heads) & set(piece.heads)]
        rows = kept_rows([piece for _, piece in pieces])
        length = sample.sequences[own[0][0].site.keys].length
        kept = [kept_columns(self.run.reader, field, length) for field in {field for field, _ in pieces}]
        kept = [one for one in kept if one]
        columns = np.arange(min(one[0] for one in kept), max(one[-1] for one in kept) + 1) if kept else np.arange(0)
        return np.array(heads, np.int64), np.array(rows, np.int64), columns

    # --- measures -----------------------------------------------------------------------------------------------

    def _measures(self, sample: Sample, held: Mapping[str, Held]) -> dict[str, Any]:
        of_measures = {site: [one for one in own if is_measure(one[0])] for site, own in held.items()}
        there = dict.fromkeys(field.what for own in of_measures.values() for field, _ in own)
        item: dict[str, dict[str, Tensor]] = {}
        nbytes = 0
        for name in there if self.measures == ["all"] else self.measures or ():
            everything = [one for own in of_measures.values() for one in own]
            what = pick(everything, name, f"sample {sample.id}")[0][0].what
            having = {site: [one for one in own if one[0].what == what] for site, own in of_measures.items()}
            for site, heads in self._chosen(sample, having, what).items():
                nbytes += (
                    4 * len(heads) * max(piece.shape[1] * piece.shape[2] for _, ps in having[site] for piece in ps)
                )
                self._check(sample, nbytes)
                values = read_measure(self.run.reader, having[site], heads).values
                item.setdefault(name, {})[site] = torch.from_numpy(values)
        return {"measures": item}

    # --- what is there ------------------------------------------------------------------------------------------

    def _chosen(self, sample: Sample, held: Mapping[str, Held], what: str) -> dict[str, list[int]]:
        """The heads to read of each module.

        Raises
        ------
        NotKept
            If there are none, or one that was named is not there.
        """
        found = {}
        for site, chosen in self._heads.items():
            kept = {head for field, _ in held.get(site, ()) for head in field.heads}
            heads = [head for head in chosen if head in kept]
            absent = [head for head in chosen if head not in kept]
            named = self._selection.pairs is not None or not self._selection.heads.everything
            if absent and ((named and kept) or (self._named and not kept)):
                raise NotKept(
                    f"{what} of {site}, head {absent[0]}, were not kept of sample {sample.id}; kept are heads "
                    f'{describe_rows(kept)}: name these, or "all", which means what was kept'
                )
            if heads:
                found[site] = heads
        if not found:
            there = dict.fromkeys(field.what for field in self.run.reader.fields(sample.index))
            raise NotKept(
                f"{what} of the selected heads were not kept of sample {sample.id}; kept are "
                f'{", ".join(there) or "none"}: SampleDataset(run, measures=["NAME"]) reads measures'
            )
        return found

    def _check(self, sample: Sample, nbytes: int) -> None:
        if nbytes > self.limit:
            raise BudgetError(
                f"sample {sample.id} has {format_bytes(nbytes)} of what is selected, and the limit is "
                f"{format_bytes(self.limit)}; select fewer layers or heads, read what you need with read=, or give a "
                "larger limit="
            )

    @staticmethod
    def collate(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Put items of any lengths into one batch, for ``DataLoader(..., collate_fn=SampleDataset.collate)``.

        ``input_ids`` are padded with 0, and ``attention_mask`` tells which are tokens; ``weights`` with 0;
        ``heads``, ``queries`` and ``keys`` with -1; ``measures`` with NaN, and positions with -1. A module or measure
        that a sample lacks is all padding.

        Raises
        ------
        SelectionError
            If an item is none of this dataset's.
        """
        batch = list(items)
        if not batch or not all(isinstance(item, Mapping) and "index" in item for item in batch):
            raise SelectionError("there is no item, or one that read= made; collate these with a function of your own")
        result: dict[str, Any] = {"id": [item["id"] for item in batch]}
        for name in ("index", "length", "prompt_length"):
            result[name] = torch.tensor([item[name] for item in batch])
        ids = [item.get("input_ids") for item in batch]
        if any(one is not None for one in ids):
            result["input_ids"] = _pad(ids, 0)
            result["attention_mask"] = (
                torch.arange(result["input_ids"].shape[1])[None] < result["length"][:, None]
            ).long()
        for name, padding in (("weights", 0), ("heads", -1), ("queries", -1), ("keys", -1)):
            if any(name in item for item in batch):
                result[name] = _by_name([item.get(name, {}) for item in batch], padding)
        if any("measures" in item for item in batch):
            own = [item.get("measures", {}) for item in batch]
            names = dict.fromkeys(name for one in own for name in one)
            result["measures"] = {name: _by_name([one.get(name, {}) for one in own], None) for name in names}
        return result


def _by_name(parts: Sequence[Mapping[str, Tensor]], padding: int | None) -> dict[str, Tensor]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _pad([part.get(name) for part in parts], padding) for name in names}


def _pad(tensors: Sequence[Tensor | None], padding: int | None) -> Shaped[Tensor, "batch ..."]:
    """Stack tensors of different lengths, padded behind: with NaN, or -1 where they are ints, where `padding` is None."""
    there = [tensor for tensor in tensors if tensor is not None]
    shape = [max(lengths) for lengths in zip(*(tensor.shape for tensor in there), strict=True)]
    if padding is None:
        padding_value = float("nan") if there[0].is_floating_point() else -1
    else:
        padding_value = padding
    result = torch.full((len(tensors), *shape), padding_value, dtype=there[0].dtype)
    for into, tensor in zip(result, tensors, strict=True):
        if tensor is not None:
            into[tuple(map(slice, tensor.shape))] = tensor
    return result
