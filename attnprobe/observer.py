"""The state of one recording: what the hooks tell, and what becomes of it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.arguments import ForwardInputs, read_cache, read_inputs, read_output
from attnprobe.call import AttentionCall, Rows
from attnprobe.checking import Checks, smallest_kept
from attnprobe.committing import Committer
from attnprobe.copies import Copies
from attnprobe.counted import CountedWriter
from attnprobe.direct import seen_columns
from attnprobe.engines import Engine
from attnprobe.errors import AttnprobeError, UnsupportedCall
from attnprobe.generation import read_generation
from attnprobe.keep import Kept, together
from attnprobe.keepers import feed, make_keeper
from attnprobe.lineage import Forward, Lineage
from attnprobe.place import align, refuse_wider
from attnprobe.profiling import at, carried, here
from attnprobe.routes import REGISTRY, SDPA, calls_of
from attnprobe.samples import MAIN, Growing
from attnprobe.scratch import Scratch
from attnprobe.seen import refuse_unrun, refuse_unseen
from attnprobe.sites import Anatomy
from attnprobe.store.base import Writer
from attnprobe.streams import Pass, Streams
from attnprobe.strings import Strings
from attnprobe.told import Numbers, Told
from attnprobe.watchers import Make


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
    every_thread, check
        Whether calls of other threads than this one are seen; what refuses forward passes that do not fit.
    counter, in_memory
        What samples are numbered by that are told no number; whether the store keeps what it is given in memory.
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
        check: Callable[[int, ForwardInputs, Forward], None],
        counter: Iterator[int],
        in_memory: bool,
    ) -> None:
        self._anatomy = anatomy
        self._kept = kept
        self._engine = engine
        self._budget = budget
        self._check = check
        self._thread = None if every_thread else threading.get_ident()
        self._lock = threading.RLock()
        self._closed = False
        self._profiler = here()
        self._copies = Copies(budget // 2, in_memory)
        self._scratch, store = Scratch(), CountedWriter(store)
        numbers = {site: number for number, site in enumerate(anatomy.sites)}
        keepers = {one.group: make_keeper(one, numbers, store, self._put, self._scratch, budget) for one in kept}
        self._shared = [(group[0], [keepers[one.group] for one in group]) for group in together(kept)]
        keys = [site.key for site in anatomy.sites]
        self.checks = Checks(engine, budget, self._put, smallest_kept(kept), keys)
        self._streams = Streams(anatomy, self._open_sample)
        self._numbers = Numbers(counter)
        own = tuple(keepers.values())
        self._committer = Committer(self._streams, self._copies, store, kept, own, strings, text, self._numbers)
        self._told = Told()
        self._count = 0
        self._pauses = 0
        self._paused_forwards = 0
        self._seen: set[int] = set()
        self._ran: set[int] = set()
        self._sourced: set[int] = set()

    @property
    def _watching(self) -> bool:
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
    def naming(
        self, name: str | Sequence[str] | None, prompt_length: int | None, index: int | Sequence[int] | None = None
    ) -> Iterator[None]:
        """Name the samples that start inside of this block, and tell the length of their prompts and their numbers."""
        with self._told.naming(name, prompt_length, index):
            yield

    def _open_sample(self, row: int, batch: int) -> Growing:
        self._count += 1
        return self._told.open(row, batch, self._numbers)

    # --- what the hooks tell -------------------------------------------------------------------------------------

    def before_forward(self, stream: int, arguments: Mapping[str, Any]) -> None:
        """Find out which samples this forward pass opens or continues."""
        with self._lock, self._profiler.stage("observe"):
            if not self._watching:
                return
            failed = self._streams.take(stream)
            if failed is not None and failed.forward is not None:
                self._committer.discard(failed.forward.lineage)
            self._committer.commit_ended()
            inputs = read_inputs(arguments, self._anatomy.streams[stream].backbone)
            own = self._streams.start(stream, inputs, self._told.generation)
            self._paused_forwards += bool(self._pauses)
            self._ran.add(stream)
            if inputs.states is not None:
                self._sourced.add(stream)
            if inputs.count:  # else an attention call will tell
                self._begin(stream, own, inputs.batch, inputs.count, inputs)

    def _begin(self, stream: int, own: Pass, batch: int, count: int, inputs: ForwardInputs) -> Forward:
        forward = self._streams.begin(stream, own, batch, count)
        if self._told.generation is not None:
            self._told.grown.append(forward.lineage)
        self._land(forward, inputs, bool(self._pauses))
        if not self._pauses:
            self._check(stream, inputs, forward)
        return forward

    def _land(self, forward: Forward, inputs: ForwardInputs, paused: bool) -> None:
        def land(*copies: Tensor | None) -> None:
            forward.land(*(None if copy is None else copy.numpy().copy() for copy in copies))
            for sample in forward.lineage.samples:
                sample.paused |= paused

        self._copies.put(inputs.tensors(forward.start), carried("observe", self._guarded(forward.lineage, land)))

    def _guarded(self, lineage: Lineage, then: Callable[..., None]) -> Callable[..., None]:
        """What to do with copies that landed, unless their samples were refused; a refusal drops just these."""

        def work(*copies: Any) -> None:
            if lineage.failed:
                return
            try:
                then(*copies)
            except BaseException:
                self._committer.discard(lineage)
                raise

        return work

    def after_forward(self, stream: int, output: Any) -> None:
        """The forward pass ended well."""
        with self._lock, self._profiler.stage("observe"):
            if not self._watching:
                return
            own = self._streams.take(stream)
            if own is not None:
                self._finish(stream, own, output)

    def _finish(self, stream: int, own: Pass, output: Any) -> None:
        if own.forward is not None:
            states = read_output(output) if self._streams.feeds(stream) else None
            self._streams.trackers[stream].finish(own.forward, read_cache(output), states)
            self._committer.commit_ended()

    def attention(self, sites: tuple[int, ...], make: Make, traced: bool = False) -> None:
        """Make the selected weights of a call, now: its cache may be overwritten later."""
        if self._pauses:
            return
        with self._lock, self._profiler.stage("observe", self._anatomy.sites[sites[0]]):
            if not self._watching:
                return
            try:
                self._record(sites, make)
            except AttnprobeError as error:
                raise type(error)(f"{error}\n  at {self._anatomy.sites[sites[0]].label}") from error.__cause__

    def _record(self, sites: tuple[int, ...], make: Make) -> None:
        stream = self._anatomy.stream_of[sites[0]]
        own = self._streams.get(stream)
        if own is None:
            backbone = type(self._anatomy.streams[stream].backbone).__name__
            raise UnsupportedCall(
                f"the attention module ran outside of {backbone}.forward, so its tokens are not known; run the whole "
                "model"
            )
        call = make()
        forward = own.forward
        if forward is None:
            seen = seen_columns(call) if isinstance(call, AttentionCall) else None
            mask = seen if seen is not None and seen.shape[-1] == call.queries else None
            inputs = replace(own.inputs, batch=call.batch, count=call.queries, mask=mask)
            forward = self._begin(stream, own, call.batch, call.queries, inputs)
        turn, again = divmod(forward.turns[sites[0]], calls_of(self._anatomy.modules[sites[0]]))
        forward.turns[sites[0]] += 1
        if again:
            return
        if turn >= len(sites):
            raise UnsupportedCall(
                f"it ran {turn + 1} times in one forward pass, not {len(sites)}, and which layer each is "
                "cannot be known; give each call a module of its own, or leave this one out (layers=)"
            )
        where = self._anatomy.sites[sites[turn]]
        if where.queries == where.keys and own.inputs.cache is None and not forward.start:
            refuse_wider(call, forward)
        at(where, call.query.device)
        self._tile(sites[turn], forward, align(call, where, forward))

    def _tile(self, site: int, forward: Forward, call: Any) -> None:
        self._seen.add(site)
        for sample in forward.lineage.samples:
            sample.called = True
        where = self._anatomy.sites[site]
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(call.query.device.type, enabled=False):
            for kept, keepers in self._shared:
                heads = kept.heads.get(site)
                if heads is None:
                    continue
                rows = self._rows(forward, kept)
                if len(rows) and not forward.landed and any(keeper.waits for keeper in keepers):
                    self._copies.land(wait=True)
                feed(keepers, forward, where, call, heads, rows, self._engine, self._budget, self._scratch)
        if any(site in kept.heads for kept in self._kept):
            self.checks.called(site, forward.lineage, call, told=where.route in (REGISTRY, SDPA))

    def returned(self, sites: tuple[int, ...], value: Tensor, output: Tensor, reason: str) -> None:
        """What the kernel made of the last call."""
        if not self._pauses and self._watching:
            with self._lock, self._profiler.stage("observe", self._anatomy.sites[sites[0]]):
                self.checks.returned(value, output, reason)

    def _put(self, lineage: Lineage, tensors: Sequence[Tensor | None], then: Callable[..., None]) -> None:
        self._copies.put(tensors, carried("write", self._guarded(lineage, then)), aside=True)

    def _rows(self, forward: Forward, kept: Kept) -> Rows:
        selection = kept.selection
        if selection.queries.everything and selection.generated == "all":
            return range(forward.count)
        prompt = forward.lineage.prompt_slots
        if (
            forward.name == MAIN and prompt is not None and forward.start >= prompt
        ):  # no need to wait: padding is cut after the copy
            return range(forward.count if selection.generated == "all" else 0)
        if not forward.landed:  # which rows are meant depends on what is padding
            self._copies.land(wait=True)
        return forward.rows(selection)

    @contextmanager
    def generation(self, model: nn.Module, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Around `generate`: the prompt's length is known, and a failed generation leaves nothing half."""
        if not self._watching:
            yield
            return
        with self._told.generating(read_generation(model, arguments)) as grown:
            try:
                yield
            except BaseException:
                with self._lock:
                    for lineage in grown:
                        self._committer.discard(lineage)
                raise

    def commit_ended(self) -> None:
        """Commit the samples that have ended, whatever has to be waited for."""
        with self._lock, self._profiler.stage("observe"):
            self._committer.commit_ended()
            self._copies.land(wait=True)

    # --- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The block is over: commit what is whole, forget the rest; the first problem is raised when all is done."""
        problem: BaseException | None = None
        with self._lock:
            self._closed = True
            for forward in list(self._streams.running):
                self._committer.discard(forward.lineage)
            self._streams.end_all()
            work: list[Callable[[], None]] = [self._committer.commit_ended]
            while work or self._copies:
                try:
                    if work:
                        work.pop()()
                    self._copies.land(wait=True)
                except BaseException as error:
                    problem = problem or error
        self._copies.close()
        self._scratch.clear()
        if problem is not None:
            raise problem

    def check_seen(self, compiled: bool) -> None:
        """Refuse to end a block in which a selected site was never seen.

        Raises
        ------
        NothingRecorded
            If so; a block whose every forward pass was paused is fine.
        """
        if not self._count:
            refuse_unrun(self._anatomy, self._thread is None, compiled)
        if self._seen or not self._paused_forwards:
            refuse_unseen(self._anatomy, self._kept, self._seen, self._ran, self._sourced, compiled)
