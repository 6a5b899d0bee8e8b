"""What becomes of a tile: a keeper for each kind of `keep` item writes what that item keeps of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, GivenWeights
from attnprobe.codes import encode
from attnprobe.engines import Engine, Fused, Tile, fused_of, maker_of
from attnprobe.engines.fused import Place
from attnprobe.engines.given import given_tiles
from attnprobe.fields import HUGE, Block, Field, Rows, Site
from attnprobe.keep import Kept, Measures, TopK, Weights
from attnprobe.lineage import Forward, Lineage
from attnprobe.measures import Chosen
from attnprobe.measures.base import IDS
from attnprobe.measures.measurer import Measurer, RowValues
from attnprobe.measures.rows import SampleRows
from attnprobe.place import Places, check_stray, fused_rows, place, sample_rows
from attnprobe.profiling import each, note, profiled, stage
from attnprobe.samples import Growing
from attnprobe.scratch import Scratch
from attnprobe.shapes import Float, Int, Shaped
from attnprobe.store.base import Writer
from attnprobe.topk import largest

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
PADDED = "padding lies between the rows or the columns of a sample"
# Copies tensors to the host and calls back there, unless the lineage was refused meanwhile.
Put = Callable[[Lineage, Sequence[Tensor | None], Callable[..., None]], None]


@runtime_checkable
class Keeper(Protocol):
    """Takes the tiles of one `keep` item."""

    holds: bool  # whether it still looks at a tile when the next one is made
    waits: bool  # whether it needs to know which columns are padding when it takes a tile

    def take(self, forward: Forward, site: Site, tile: Tile, start: int) -> None:
        """Take a tile of a forward pass, whose first column is the slot `start`."""

    def fuse(
        self, forward: Forward, site: Site, call: AttentionCall, heads: tuple[int, ...], rows: Rows, by: Fused
    ) -> bool:
        """Take these heads and rows of a call at once, without tiles, if that can be; whether it was."""

    def finish(self, sample: Growing) -> Iterable[tuple[Field, Block]]:
        """What is to be written now that the sample has ended, on whatever device it is."""

    def discard(self, sample: int) -> None:
        """Forget a sample."""


def make_keeper(kept: Kept, numbers: dict[Site, int], store: Writer, put: Put, scratch: Scratch, budget: int) -> Keeper:
    """The keeper of an item; `numbers` are the sites' as in ``kept.heads``."""
    heads = {site: kept.heads[number] for site, number in numbers.items() if number in kept.heads}
    if isinstance(kept.item, Weights):
        return _WeightsKeeper(kept, kept.item, heads, store, put, budget)
    if isinstance(kept.item, TopK):
        return _TopKeeper(kept, kept.item, heads, store, put, scratch, budget)
    return _MeasuresKeeper(kept, kept.item, heads, store, put, scratch, budget)


def feed(
    keepers: Sequence[Keeper],
    forward: Forward,
    site: Site,
    call: AttentionCall | GivenWeights,
    heads: tuple[int, ...],
    rows: Rows,
    engine: Engine,
    budget: int,
    scratch: Scratch,
) -> None:
    """Give keepers some heads and rows of a call: at once where that can be, else tile by tile."""
    by = fused_of(engine, call)
    left = list(keepers)
    if by is not None and isinstance(call, AttentionCall) and len(rows):
        with stage("measure"):
            left = [keeper for keeper in keepers if not keeper.fuse(forward, site, call, heads, rows, by)]
    if not left:
        return
    if profiled():
        note("tiles", *maker_of(engine, call))
    memory = None if any(keeper.holds for keeper in left) else scratch
    if isinstance(call, GivenWeights):
        tiles = given_tiles(call, heads, rows, budget, memory)
    else:
        tiles = engine(call, heads, rows, budget, memory)
    for tile in each("logits", tiles):
        with stage("measure"):
            for keeper in left:
                keeper.take(forward, site, tile, tile.start + call.key_offset)


def _unfused(what: str, why: str) -> bool:
    """Say that something is made of tiles although the engine has fused kernels: it was not fused."""
    note(what, "tiles", why)
    return False


def _unfused_of(chosen: Sequence[Chosen], found: Sequence[tuple[Growing, Rows, Place]], by: Fused) -> bool:
    """Which of the measures have no fused form by themselves; the others are made of the same tiles."""
    alone = [one.name for one in chosen if not all(by.measures([one], *where[1:]) for where in found)]
    return _unfused("measures", f"no fused form for {', '.join(alone)} of these rows")


class _WeightsKeeper:
    holds, waits = True, False

    def __init__(
        self, kept: Kept, item: Weights, heads: dict[Site, tuple[int, ...]], store: Writer, put: Put, budget: int
    ) -> None:
        self._selection, self._store, self._put, self._budget = kept.selection, store, put, budget
        self._fields = {site: Field(-1, site, kept.group, own, item.dtype) for site, own in heads.items()}

    def take(self, forward: Forward, site: Site, tile: Tile, start: int) -> None:
        """The tile itself; it is cut to each sample on the host."""
        field = self._fields[site]
        known = tile.causal, tile.sink_mass is not None
        write = partial(place, self._store, forward, self._selection, field, tile.heads, tile.rows, start, *known)
        self._put(forward.lineage, [tile.weights], write)

    def fuse(
        self, forward: Forward, site: Site, call: AttentionCall, heads: tuple[int, ...], rows: Rows, by: Fused
    ) -> bool:
        """Weights in half precision come from the device as they are stored: half the bytes, and none to convert."""
        dtype = HALVES.get(self._fields[site].dtype)
        if dtype is None:
            return False
        note("weights", "fused kernels")
        for tile in each("logits", by.weights(call, heads, rows, dtype, self._budget)):
            self.take(forward, site, tile, tile.start + call.key_offset)
        return True

    def finish(self, sample: Growing) -> Iterable[tuple[Field, Block]]:
        """All is written."""
        return ()

    def discard(self, sample: int) -> None:
        """Nothing is held."""


class _TopKeeper:
    holds, waits = False, True

    def __init__(
        self,
        kept: Kept,
        item: TopK,
        heads: dict[Site, tuple[int, ...]],
        store: Writer,
        put: Put,
        scratch: Scratch,
        budget: int,
    ) -> None:
        self._selection, self._store, self._put = kept.selection, store, put
        self._item, self._scratch, self._budget = item, scratch, budget
        self._places = Places(kept.selection, False)
        self._fields = {site: Field(-1, site, kept.group, own, item.dtype, "top") for site, own in heads.items()}

    def take(self, forward: Forward, site: Site, tile: Tile, start: int) -> None:
        """The largest weights of each row."""
        field = self._fields[site]
        for sample, rows, stray in sample_rows(forward, self._selection, field, tile, start, self._scratch, False):
            values, keys, rest = largest(rows, self._item.k, self._selection.keys)
            write = partial(self._write, sample, replace(field, sample=sample.index), tile.heads, rows.rows)
            self._put(forward.lineage, [encode(values, field.dtype), keys, rest, stray], write)

    def fuse(
        self, forward: Forward, site: Site, call: AttentionCall, heads: tuple[int, ...], rows: Rows, by: Fused
    ) -> bool:
        """The largest weights in the engine's own way, where they are few."""
        if self._item.k > by.most:
            return _unfused("top-k", f"up to {by.most} of a row are fused, and k is {self._item.k}")
        found = self._places.find(forward, site, call, rows)
        if found is None:
            return _unfused("top-k", PADDED)
        note("top-k", "fused kernels")
        for sample, own, where in found:
            field = replace(self._fields[site], sample=sample.index)
            found_top = by.top(call, heads, own, where, self._item.k, self._selection.keys, self._budget)
            for top in each("logits", found_top):
                write = partial(self._write, sample, field, top.heads, where.shifted(own))
                self._put(forward.lineage, [encode(top.values, field.dtype), top.positions, top.rest, top.stray], write)
        return True

    def _write(
        self,
        sample: Growing,
        field: Field,
        heads: tuple[int, ...],
        rows: Any,
        values: Shaped[Tensor, "head query k"],
        keys: Int[Tensor, "head query k"],
        rest: Float[Tensor, "head query"],
        stray: Tensor | None,
    ) -> None:
        check_stray(stray)
        axes = ("query", "rank")
        self._store.write(replace(field, axes=axes), Block(heads, rows, 0, values))
        self._store.write(replace(field, what="top_keys", axes=axes, dtype="int32"), Block(heads, rows, 0, keys))
        of_rest = replace(field, what="top_rest", axes=("query",), dtype="float32")
        self._store.write(of_rest, Block(heads, rows, 0, rest[..., None]))
        sample.kept += values.numel()

    def finish(self, sample: Growing) -> Iterable[tuple[Field, Block]]:
        """All is written."""
        return ()

    def discard(self, sample: int) -> None:
        """Nothing is held."""


class _MeasuresKeeper:
    holds, waits = False, True

    def __init__(
        self,
        kept: Kept,
        item: Measures,
        heads: dict[Site, tuple[int, ...]],
        store: Writer,
        put: Put,
        scratch: Scratch,
        budget: int,
    ) -> None:
        self._selection, self._store, self._put, self._scratch = kept.selection, store, put, scratch
        self._chosen, self._budget = item.chosen, budget
        self._ids = any(IDS in one.measure.needs for one in item.chosen)
        self._fields = {site: Field(-1, site, kept.group, own) for site, own in heads.items()}
        self._places = Places(kept.selection, self._ids)
        self._held: dict[int, dict[Site, Measurer]] = {}

    def take(self, forward: Forward, site: Site, tile: Tile, start: int) -> None:
        """Measure the rows on their device; rows of numbers go to the host."""
        field = self._fields[site]
        for sample, rows, stray in sample_rows(forward, self._selection, field, tile, start, self._scratch, self._ids):
            self._update(forward, replace(field, sample=sample.index), sample, rows, stray)

    def fuse(
        self, forward: Forward, site: Site, call: AttentionCall, heads: tuple[int, ...], rows: Rows, by: Fused
    ) -> bool:
        """Measure the rows in the engine's own way, where every measure has one."""
        chosen = [one for one in self._chosen if one.fits(site)]
        found = self._places.find(forward, site, call, rows)
        if found is None:
            return _unfused("measures", PADDED)
        if not all(by.measures(chosen, *one[1:]) for one in found):
            return profiled() and _unfused_of(chosen, found, by)
        note("measures", "fused kernels")
        for sample, own, where in found:
            field = replace(self._fields[site], sample=sample.index)
            for measured in each("logits", by.measure(call, heads, own, where, chosen, self._budget)):
                fused = fused_rows(field, own, where, measured, self._scratch)
                self._update(forward, field, sample, fused, measured.stray)
        return True

    def _update(self, forward: Forward, own: Field, sample: Growing, rows: SampleRows, stray: Tensor | None) -> None:
        measurers = self._held.setdefault(sample.index, {})
        if own.site not in measurers:
            measurers[own.site] = Measurer(self._chosen, own)
        values = measurers[own.site].update(rows, forward.prompt_open())
        # Each measure of many rows by itself: what lands is kept as it lies then, and copied once.
        apart = values is not None and values.values.nbytes >= HUGE
        parts = [] if values is None else [*values.values] if apart else [values.values]
        self._put(forward.lineage, [stray, *parts], partial(self._write, sample, own, values, apart))

    def _write(
        self,
        sample: Growing,
        field: Field,
        found: RowValues | None,
        apart: bool,
        stray: Tensor | None,
        *values: Tensor,
    ) -> None:
        check_stray(stray)
        sample.kept += 1
        if found is not None:
            for of, block in found.blocks(field, values if apart else values[0]):
                self._store.write(of, block)

    def finish(self, sample: Growing) -> Iterable[tuple[Field, Block]]:
        """Means, and what rows were folded into."""
        for site, measurer in self._held.pop(sample.index, {}).items():
            with stage("measure", site):
                last = list(measurer.finish(*(sample.sequence(n).length for n in (site.queries, site.keys))))
            yield from last

    def discard(self, sample: int) -> None:
        """Forget its states."""
        self._held.pop(sample, None)
