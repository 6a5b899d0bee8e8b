"""The state of one recording: what the hooks tell, and what becomes of it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.arguments import ForwardInputs, read_cache, read_inputs
from attnprobe.call import Rows, registry_call
from attnprobe.copies import Copies
from attnprobe.engines import Engine
from attnprobe.errors import AttnprobeError, SelectionError, UnsupportedCall, UnsupportedModel
from attnprobe.generation import read_generation
from attnprobe.keep import Kept, together
from attnprobe.keepers import make_keeper
from attnprobe.lineage import Forward, Lineage, Tracker
from attnprobe.samples import Growing
from attnprobe.scratch import Scratch
from attnprobe.seen import refuse_unrun, refuse_unseen
from attnprobe.sites import Anatomy
from attnprobe.store.base import Writer
from attnprobe.strings import Strings
from attnprobe.told import SampleName, Told


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
        check: Callable[[ForwardInputs, Forward], None],
    ) -> None:
        self._anatomy = anatomy
        self._kept = kept
        self._engine = engine
        self._budget = budget
        self._store = store
        self._strings = strings
        self._text = text
        self._check = check
        self._thread = None if every_thread else threading.get_ident()
        self._lock = threading.RLock()
        self._closed = False
        self._copies = Copies(budget // 2)
        self._scratch = Scratch()
        numbers = {site: number for number, site in enumerate(anatomy.sites)}
        keepers = {one.group: make_keeper(one, numbers, store, self._put, self._scratch) for one in kept}
        self._keepers = tuple(keepers.values())
        self._shared = [(group[0], [keepers[one.group] for one in group]) for group in together(kept)]
        self._tracker = Tracker(self._open_sample)
        self._forwards: dict[int, Forward] = {}
        self._told = Told()
        self._count = 0
        self._pauses = 0
        self._paused_forwards = 0
        self._seen: set[int] = set()

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
    def naming(self, name: str | None, prompt_length: int | None) -> Iterator[None]:
        """Name the samples that start inside of this block, and tell the length of their prompts."""
        before = self._told.name
        self._told.name = SampleName(name, prompt_length)
        try:
            yield
        finally:
            self._told.name = before

    def _open_sample(self, row: int, batch: int) -> Growing:
        told = self._told.name
        if told.name is not None and row == 0:
            if told.used:
                raise UnsupportedCall(f"a second sample starts inside of rec.sample({told.name!r}); name each one")
            told.used = True
        index, self._count = self._count, self._count + 1
        label = str(index) if told.name is None else told.name if batch == 1 else f"{told.name}/{row}"
        return Growing(index, label, told.prompt_length, told.prompt_length is not None)

    # --- what the hooks tell -------------------------------------------------------------------------------------

    def before_forward(self, arguments: Mapping[str, Any]) -> None:
        """Find out which samples this forward pass opens or continues."""
        with self._lock:
            if not self._watching:
                return
            failed = self._forwards.pop(threading.get_ident(), None)
            if failed is not None:
                self._discard(failed.lineage)
            self._commit_ended()
            inputs = read_inputs(arguments, self._anatomy.backbone)
            if inputs is None:
                return  # the model itself says what is missing
            window = inputs.window
            forward = self._tracker.begin(inputs.batch, inputs.count, inputs.cache, self._told.generation, window)
            self._forwards[threading.get_ident()] = forward
            if self._told.generation is not None:
                self._told.grown.append(forward.lineage)
            self._paused_forwards += bool(self._pauses)
            self._land(forward, inputs, bool(self._pauses))
            if not self._pauses:
                self._check(inputs, forward)

    def _land(self, forward: Forward, inputs: ForwardInputs, paused: bool) -> None:
        def land(*copies: Tensor | None) -> None:
            forward.land(*(None if copy is None else copy.numpy().copy() for copy in copies))
            for sample in forward.lineage.samples:
                sample.paused |= paused

        self._copies.put(inputs.tensors(forward.start), self._guarded(forward.lineage, land))

    def _guarded(self, lineage: Lineage, then: Callable[..., None]) -> Callable[..., None]:
        """What to do with copies that landed, unless their samples were refused; a refusal drops just these."""

        def work(*copies: Any) -> None:
            if lineage.failed:
                return
            try:
                then(*copies)
            except BaseException:
                self._discard(lineage)
                raise

        return work

    def after_forward(self, output: Any) -> None:
        """The forward pass ended well."""
        with self._lock:
            if not self._watching:
                return
            forward = self._forwards.pop(threading.get_ident(), None)
            if forward is not None:
                self._tracker.finish(forward, read_cache(output))
                self._commit_ended()

    def attention(
        self, site: int, implementation: str, query: Tensor, key: Tensor, mask: Any, extras: Mapping[str, Any]
    ) -> None:
        """Make the selected weights of a call, now: its cache may be overwritten later."""
        if self._pauses:
            return
        with self._lock:
            if not self._watching:
                return
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
        where = self._anatomy.sites[site]
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            for kept, keepers in self._shared:
                heads = kept.heads.get(site)
                if heads is None:
                    continue
                rows = self._rows(forward, kept)
                if len(rows) and not forward.landed and any(keeper.waits for keeper in keepers):
                    self._copies.land(wait=True)
                scratch = None if any(keeper.holds for keeper in keepers) else self._scratch
                for tile in self._engine(call, heads, rows, self._budget, scratch):
                    for keeper in keepers:
                        keeper.take(forward, where, tile, tile.start + call.key_offset)

    def _put(self, lineage: Lineage, tensors: Sequence[Tensor | None], then: Callable[..., None]) -> None:
        self._copies.put(tensors, self._guarded(lineage, then))

    def _rows(self, forward: Forward, kept: Kept) -> Rows:
        selection = kept.selection
        if selection.queries.everything and selection.generated == "all":
            return range(forward.count)
        prompt = forward.lineage.prompt_slots
        if prompt is not None and forward.start >= prompt:  # no need to wait: padding is cut after the copy
            return range(forward.count if selection.generated == "all" else 0)
        if not forward.landed:  # which rows are meant depends on what is padding
            self._copies.land(wait=True)
        return forward.rows(selection)

    def refuse_compiled(self) -> None:
        """A watched module ran inside of compiled code."""
        if self._watching:
            raise UnsupportedModel(
                "the model runs inside of a function compiled by torch.compile, which is not recorded yet; "
                "run it uncompiled"
            )

    @contextmanager
    def generation(self, model: nn.Module, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Around `generate`: the prompt's length is known, and a failed generation leaves nothing half."""
        if not self._watching:
            yield
            return
        told = self._told
        before = told.generation, told.grown
        told.generation, told.grown = read_generation(model, arguments), []
        try:
            yield
        except BaseException:
            with self._lock:
                for lineage in told.grown:
                    self._discard(lineage)
            raise
        finally:
            told.generation, told.grown = before

    # --- commit --------------------------------------------------------------------------------------------------

    def _discard(self, lineage: Lineage) -> None:
        lineage.failed = True  # what is in flight of it is dropped when it lands
        self._tracker.discard(lineage)
        for sample in lineage.samples:
            self._store.discard(sample.index)
            for keeper in self._keepers:
                keeper.discard(sample.index)

    def _commit_ended(self) -> None:
        ended = [(lineage, sample) for lineage in self._tracker.take_ended() for sample in lineage.samples]
        for lineage, sample in ended:
            self._copies.put([], partial(self._commit, lineage, sample), land=False)
        self._copies.land(wait=False)

    def _commit(self, lineage: Lineage, sample: Growing) -> None:
        if lineage.failed:
            return
        if sample.kept:
            try:
                for keeper in self._keepers:
                    keeper.finish(sample)
            except BaseException:
                self._store.discard(sample.index)
                raise
            self._store.commit(sample.finish(self._strings, self._text))
        elif sample.length and sample.called and not sample.paused:
            selections = [kept.selection.describe() for kept in self._kept]
            wanted = " and ".join(f"queries {one['queries']!r} of keys {one['keys']!r}" for one in selections)
            raise SelectionError(
                f"{wanted} select no row or no column of sample {sample.id}, which has {sample.length} tokens, "
                f"{sample.prompt_length} of the prompt"
            )

    def finish(self) -> None:
        """The block is over: commit what is whole, forget the rest; the first problem is raised when all is done."""
        problem: BaseException | None = None
        with self._lock:
            self._closed = True
            for forward in self._forwards.values():
                self._discard(forward.lineage)
            for lineage in self._tracker.open:
                self._tracker.end(lineage)
            work: list[Callable[[], None]] = [self._commit_ended]
            while work or self._copies:
                try:
                    if work:
                        work.pop()()
                    self._copies.land(wait=True)
                except BaseException as error:
                    problem = problem or error
        self._scratch.clear()
        if problem is not None:
            raise problem

    def check_seen(self) -> None:
        """Refuse to end a block in which a selected site was never seen.

        Raises
        ------
        NothingRecorded
            If so; a block whose every forward pass was paused is fine.
        """
        if not self._count:
            refuse_unrun(self._anatomy, every_thread=self._thread is None)
        if self._seen or not self._paused_forwards:
            refuse_unseen(self._anatomy, {number for kept in self._kept for number in kept.heads}, self._seen)
