"""The state of one recording: what the hooks tell, and what becomes of it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnprobe.arguments import ForwardInputs, read_cache, read_inputs
from attnprobe.call import Rows, registry_call
from attnprobe.copies import Copies
from attnprobe.cut import cut
from attnprobe.engines import Engine
from attnprobe.errors import AttnprobeError, NothingRecorded, SelectionError, UnsupportedCall, UnsupportedModel
from attnprobe.fields import Field
from attnprobe.generation import read_generation
from attnprobe.keep import Kept
from attnprobe.lineage import Forward, Generation, Lineage, Tracker
from attnprobe.samples import Growing
from attnprobe.sites import Anatomy
from attnprobe.store.base import Writer
from attnprobe.strings import Strings


class Observer:
    """Turns forward passes and attention calls into blocks and samples; the hooks' `Watcher`.

    Parameters
    ----------
    anatomy, kept
        The model's sites, and what is kept of them.
    engine, budget
        Makes tiles, within this many bytes.
    store
        Where blocks and samples go.
    strings, text
        Looks token strings up, if there is a tokenizer; whether ids are kept at all.
    every_thread
        Whether calls of other threads than this one are seen.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        kept: list[Kept],
        engine: Engine,
        budget: int,
        store: Writer,
        strings: Strings | None,
        text: bool,
        every_thread: bool,
    ) -> None:
        self._anatomy = anatomy
        self._kept = kept
        self._engine = engine
        self._budget = budget
        self._store = store
        self._strings = strings
        self._text = text
        self._thread = None if every_thread else threading.get_ident()
        self._lock = threading.RLock()
        self._closed = False
        self._copies = Copies(budget // 2)
        self._tracker = Tracker(self._open_sample)
        self._forwards: dict[int, Forward] = {}
        self._generation: Generation | None = None
        self._grown: list[Lineage] | None = None
        self._name: tuple[str | None, int | None] = (None, None)
        self._named = 0
        self._count = 0
        self._pauses = 0
        self._paused_forwards = 0
        self._seen: set[int] = set()

    def _here(self) -> bool:
        return not self._closed and self._thread in (None, threading.get_ident())

    # --- what the user says --------------------------------------------------------------------------------------

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Make no weights inside of this block."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1

    @contextmanager
    def naming(self, name: str | None, prompt_length: int | None) -> Iterator[None]:
        """Name the samples that start inside of this block, and tell the length of their prompts."""
        before = self._name, self._named
        self._name, self._named = (name, prompt_length), 0
        try:
            yield
        finally:
            self._name, self._named = before

    def _open_sample(self, row: int, batch: int) -> Growing:
        name, length = self._name
        if name is not None and row == 0:
            self._named += 1
            if self._named > 1:
                raise UnsupportedCall(f"a second sample starts inside of rec.sample({name!r}); name each one")
        index, self._count = self._count, self._count + 1
        label = str(index) if name is None else name if batch == 1 else f"{name}/{row}"
        return Growing(index, label, length, length is not None)

    # --- what the hooks tell -------------------------------------------------------------------------------------

    def before_forward(self, arguments: Mapping[str, Any]) -> None:
        """Find out which samples this forward pass opens or continues."""
        if not self._here():
            return
        with self._lock:
            failed = self._forwards.pop(threading.get_ident(), None)
            if failed is not None:
                self._discard(failed.lineage)
            self._commit_ended()
            inputs = read_inputs(arguments, self._anatomy.backbone)
            if inputs is None:
                return  # the model itself says what is missing
            forward = self._tracker.begin(inputs.batch, inputs.count, inputs.cache, self._generation)
            self._forwards[threading.get_ident()] = forward
            if self._grown is not None:
                self._grown.append(forward.lineage)
            self._paused_forwards += bool(self._pauses)
            self._land(forward, inputs, bool(self._pauses))

    def _land(self, forward: Forward, inputs: ForwardInputs, paused: bool) -> None:
        def land(*copies: Tensor | None) -> None:
            forward.land(*(None if copy is None else copy.numpy().copy() for copy in copies))
            for sample in forward.lineage.samples:
                sample.paused |= paused

        self._copies.put(inputs.tensors(forward.start), land)

    def after_forward(self, output: Any) -> None:
        """The forward pass ended well."""
        if not self._here():
            return
        with self._lock:
            forward = self._forwards.pop(threading.get_ident(), None)
            if forward is not None:
                self._tracker.finish(forward, read_cache(output))
                self._commit_ended()

    def attention(
        self, site: int, implementation: str, query: Tensor, key: Tensor, mask: Any, extras: Mapping[str, Any]
    ) -> None:
        """Make the selected weights of a call, now: its cache may be overwritten later."""
        if self._pauses or not self._here():
            return
        with self._lock:
            try:
                self._record(site, implementation, query, key, mask, extras)
            except AttnprobeError as error:
                raise type(error)(f"{error}\n  at {self._anatomy.sites[site].label}") from error.__cause__

    def _record(
        self, site: int, implementation: str, query: Tensor, key: Tensor, mask: Any, extras: Mapping[str, Any]
    ) -> None:
        forward = self._forwards.get(threading.get_ident())
        if forward is None:
            raise UnsupportedCall(
                f"the attention module ran outside of {type(self._anatomy.backbone).__name__}.forward, "
                "so its tokens are not known; run the whole model"
            )
        call = registry_call(implementation, self._anatomy.modules[site], query, key, mask, extras)
        expected = len(forward.lineage.samples), forward.count
        if (call.batch, call.queries) != expected:
            raise UnsupportedCall(
                f"the call has batch {call.batch} and {call.queries} rows, and the forward pass has {expected[0]} and "
                f"{expected[1]}"
            )
        self._seen.add(site)
        for sample in forward.lineage.samples:
            sample.called = True
        for kept in self._kept:
            heads = kept.heads.get(site)
            if heads is None:
                continue
            for tile in self._engine(call, heads, self._rows(forward, kept), self._budget):
                write = partial(self._write, forward, kept, site, tile.heads, tile.rows, tile.start + call.key_offset)
                self._copies.put([tile.weights], write)

    def _rows(self, forward: Forward, kept: Kept) -> Rows:
        selection = kept.selection
        if selection.queries.everything and selection.generated == "all":
            return range(forward.count)
        prompt = forward.lineage.prompt_slots
        if selection.generated == "none" and prompt is not None and forward.start >= prompt:
            return range(0)
        if not forward.landed:  # which rows are meant depends on what is padding
            self._copies.land(wait=True)
        return forward.rows(selection)

    def _write(
        self, forward: Forward, kept: Kept, site: int, heads: tuple[int, ...], rows: Rows, start: int, weights: Tensor
    ) -> None:
        described = self._anatomy.sites[site]
        at, width = np.asarray(rows), weights.shape[3]
        for b, sample in enumerate(forward.lineage.samples):
            positions = forward.positions(b)[at]
            place = sample.place if described.keys == described.queries else sample.source
            columns = np.full(width, -1, np.int64)  # a static cache is wider than what it holds
            known = np.arange(start, start + width) if place is None else place[start : start + width]
            columns[: len(known)] = known
            wanted = sample.selected(kept.selection, positions)
            block = cut(weights[b], heads, positions, wanted, columns, kept.selection.keys, getattr(torch, kept.dtype))
            if block is not None:
                field = Field(sample.index, described, kept.group, kept.heads[site], kept.dtype)
                self._store.write(field, block)
                sample.rows += len(block.rows)

    def refuse_compiled(self) -> None:
        """A watched module ran inside of compiled code."""
        if self._here():
            raise UnsupportedModel(
                "the model runs inside of a function compiled by torch.compile, which is not recorded yet; "
                "run it uncompiled"
            )

    @contextmanager
    def generation(self, model: nn.Module, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Around `generate`: the prompt's length is known, and a failed generation leaves nothing half."""
        if not self._here():
            yield
            return
        before = self._generation, self._grown
        self._generation, self._grown = read_generation(model, arguments), []
        try:
            yield
        except BaseException:
            for lineage in self._grown:
                self._discard(lineage)
            raise
        finally:
            self._generation, self._grown = before

    # --- commit --------------------------------------------------------------------------------------------------

    def _discard(self, lineage: Lineage) -> None:
        self._tracker.discard(lineage)
        for sample in lineage.samples:
            self._copies.put([], partial(self._store.discard, sample.index))

    def _commit_ended(self) -> None:
        for lineage in self._tracker.take_ended():
            for sample in lineage.samples:
                self._copies.put([], partial(self._commit, sample))

    def _commit(self, sample: Growing) -> None:
        if sample.rows:
            self._store.commit(sample.finish(self._strings, self._text))
        elif sample.length and sample.called and not sample.paused:
            queries = ", ".join(repr(kept.selection.queries.text) for kept in self._kept)
            raise SelectionError(
                f"queries {queries} select no row of sample {sample.id}, which has {sample.length} tokens, "
                f"{sample.prompt_length} of the prompt"
            )

    def finish(self) -> None:
        """The block is over: commit what is whole, forget what is not."""
        self._closed = True
        try:
            for forward in self._forwards.values():
                self._discard(forward.lineage)
            for lineage in self._tracker.open:
                self._tracker.end(lineage)
            self._commit_ended()
            self._copies.land(wait=True)
        finally:
            self._copies.drop()

    def check_seen(self) -> None:
        """Refuse to end a block in which a selected site was never seen.

        Raises
        ------
        NothingRecorded
            If so; a block whose every forward pass was paused is fine.
        """
        if not self._count:
            where = "at all" if self._thread is None else 'in this thread (threads="all" sees others)'
            raise NothingRecorded(
                f"the model did not run inside of the block {where}, so nothing was recorded; run {self._ran} there"
            )
        watched = {number for kept in self._kept for number in kept.heads}
        absent = [self._anatomy.sites[number] for number in sorted(watched - self._seen)]
        if absent and (self._seen or not self._paused_forwards):
            cross = all(site.kind == "cross" for site in absent)
            fix = 'pass encoder_hidden_states, or select kind="self"' if cross else "select the layers that run"
            raise NothingRecorded(
                f"{len(absent)} of {len(watched)} selected sites were never seen, first {absent[0].label}; {fix}"
            )

    @property
    def _ran(self) -> str:
        return type(self._anatomy.backbone).__name__
