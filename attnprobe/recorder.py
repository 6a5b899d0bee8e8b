"""`record`: ties sites, calls, engines, samples and stores together. The state of a run lives here."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor, nn

from attnprobe.arguments import ForwardInputs, read_cache, read_inputs
from attnprobe.call import MEANINGS, Rows, registry_call
from attnprobe.copies import Copies
from attnprobe.cut import cut
from attnprobe.engines import get_engine
from attnprobe.errors import AttnprobeError, NothingRecorded, NotKept, SelectionError, UnsupportedCall, UnsupportedModel
from attnprobe.fields import DTYPES, Field, Site
from attnprobe.generation import read_generation
from attnprobe.hooks import watching
from attnprobe.keep import Kept, Weights, resolve
from attnprobe.lineage import Forward, Generation, Lineage, Tracker
from attnprobe.provenance import describe_model, make_manifest
from attnprobe.run import Run
from attnprobe.samples import Growing
from attnprobe.sites import compiled_parts, find_sites
from attnprobe.sizes import parse_bytes
from attnprobe.store import DirectoryReader, DirectoryWriter, MemoryStore
from attnprobe.strings import Strings


class Recorder:
    """Records while its ``with`` block is open; `attnprobe.record` makes one.

    Attributes
    ----------
    sites
        The selected attention modules.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        keep: Sequence[Weights],
        to: Path | None,
        engine: str,
        budget: int | str,
        overwrite: bool,
        text: bool,
        threads: str,
    ) -> None:
        if threads not in ("own", "all"):
            raise SelectionError(f'threads={threads!r}: write "own" or "all"')
        self._anatomy = find_sites(model)
        self._kept = [resolve(item, group, self._anatomy.sites) for group, item in enumerate(keep)]
        self._watched = tuple(sorted({number for kept in self._kept for number in kept.heads}))
        self.sites: tuple[Site, ...] = tuple(self._anatomy.sites[number] for number in self._watched)
        self._refuse(model)
        self._model = model
        self._engine = get_engine(engine)
        self._budget = parse_bytes(budget)
        self._to = to
        self._overwrite = overwrite
        self._text = text
        self._strings = Strings(tokenizer) if tokenizer is not None and text else None
        self._threads = threads
        self._state = "new"
        self._lock = threading.RLock()
        self._thread = 0
        self._store: MemoryStore | DirectoryWriter
        self._copies = Copies(self._budget // 2)
        self._tracker = Tracker(self._open_sample)
        self._forwards: dict[int, Forward] = {}
        self._pauses = 0
        self._generation: Generation | None = None
        self._grown: list[Lineage] | None = None
        self._naming: dict[str, Any] = {}
        self._count = 0
        self._ran = 0
        self._seen: set[int] = set()

    def _refuse(self, model: nn.Module) -> None:
        compiled = list(compiled_parts(model))
        if compiled:
            raise UnsupportedModel(
                f"{compiled[0] or type(model).__name__} is compiled by torch.compile, which is not recorded yet; "
                "record the plain model (a compiled one holds it as model._orig_mod)"
            )
        for number in self._watched:
            implementation = self._anatomy.modules[number].config._attn_implementation  # type: ignore[union-attr]
            if implementation not in MEANINGS:
                raise UnsupportedModel(
                    f"the model runs attention as {implementation!r}, and {', '.join(MEANINGS)} are recorded exactly; "
                    'load it with attn_implementation="sdpa"'
                )

    # --- the block ---------------------------------------------------------------------------------------------

    def __enter__(self) -> "Recorder":
        """Open the store, then watch the model."""
        if self._state != "new":
            raise AttnprobeError("a recorder records one block; call record() again for another")
        with ExitStack() as undo:
            undo.enter_context(watching(self._model, self._anatomy, self._watched, self))
            manifest = make_manifest(describe_model(self._model), self._anatomy.sites, self._kept, self._text)
            if self._to is None:
                self._store = MemoryStore(manifest)
            else:
                self._store = DirectoryWriter(self._to, manifest, self._overwrite, self._budget // 4)
            self._undo = undo.pop_all()
        self._thread = threading.get_ident()
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the model as it was, commit what is whole, and say what is missing."""
        self._state = "closed"
        self._undo.close()
        try:
            try:
                for forward in self._forwards.values():
                    self._discard(forward.lineage)
                for lineage in self._tracker.open:
                    self._tracker.end(lineage)
                self._commit_ended()
                self._copies.land(wait=True)
            finally:
                self._copies.drop()
                self._store.close()
        except AttnprobeError as late:
            if error is None:
                raise
            error.add_note(f"attnprobe, while closing the recording: {late}")
        if error is None:
            self._check_seen()

    def _check_seen(self) -> None:
        if not self._ran and not self._pauses_used:
            where = "in this thread" if self._threads == "own" else "at all"
            raise NothingRecorded(
                f"{type(self._model).__name__} did not run inside of the block {where}, so nothing was recorded; run the "
                'model itself inside of the block (threads="all" sees other threads)'
            )
        absent = [self._anatomy.sites[n] for n in self._watched if n not in self._seen] if self._ran else []
        if absent:
            cross = all(site.kind == "cross" for site in absent)
            raise NothingRecorded(
                f"{len(absent)} of {len(self._watched)} selected sites were never seen, first {absent[0].label}; "
                + ('pass encoder_hidden_states, or select kind="self"' if cross else "select the layers that run")
            )

    @property
    def run(self) -> Run:
        """Everything that was recorded, once the block has ended."""
        if self._state != "closed":
            raise NotKept("the run is there once the block has ended; read rec.run after it")
        if isinstance(self._store, MemoryStore):
            return Run(self._store)
        return Run(DirectoryReader(self._store.path))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Make no weights inside of this block; tokens are still counted, so a sample may go on afterwards."""
        self._pauses += 1
        self._pauses_used = True
        try:
            yield
        finally:
            self._pauses -= 1

    _pauses_used = False

    @contextmanager
    def sample(self, id: str | None = None, prompt_length: int | None = None) -> Iterator[None]:
        """Name the samples that start inside of this block, and tell how long their prompts are.

        Parameters
        ----------
        id
            Name; in a batch, ``/0``, ``/1``, ... are added.
        prompt_length
            Tokens of the prompt, padding not counted, for prompts that come in several forward passes.
        """
        if prompt_length is not None and prompt_length < 1:
            raise SelectionError(f"prompt_length={prompt_length}: a prompt has at least one token")
        before, self._naming = self._naming, {"id": id, "prompt_length": prompt_length, "opened": 0}
        try:
            yield
        finally:
            self._naming = before

    def _open_sample(self, row: int, batch: int) -> Growing:
        index, self._count = self._count, self._count + 1
        name, length = self._naming.get("id"), self._naming.get("prompt_length")
        if name is not None and row == 0:
            self._naming["opened"] += 1
            if self._naming["opened"] > 1:
                raise UnsupportedCall(f"a second sample starts inside of rec.sample(id={name!r}); name each one")
        label = str(index) if name is None else name if batch == 1 else f"{name}/{row}"
        return Growing(index, label, length, length is not None)

    # --- what the hooks tell -----------------------------------------------------------------------------------

    def _here(self) -> bool:
        return self._state == "open" and (self._threads == "all" or threading.get_ident() == self._thread)

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
            self._land(forward, inputs)

    def _land(self, forward: Forward, inputs: ForwardInputs) -> None:
        def land(*copies: Tensor | None) -> None:
            forward.land(*(None if c is None else c.numpy().copy() for c in copies))
            if self._pauses:
                for sample in forward.lineage.samples:
                    sample.paused = True

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
                f"the attention module ran outside of {type(self._anatomy.backbone).__name__}.forward, so its tokens are "
                "not known; run the whole model"
            )
        module = self._anatomy.modules[site]
        call = registry_call(implementation, module, query, key, mask, extras)
        if (call.batch, call.queries) != (len(forward.lineage.samples), forward.count):
            raise UnsupportedCall(
                f"the call has batch {call.batch} and {call.queries} rows, and the forward pass "
                f"{len(forward.lineage.samples)} and {forward.count}"
            )
        for kept in self._kept:
            heads = kept.heads.get(site)
            if heads is None:
                continue
            for tile in self._engine(call, heads, self._rows(forward, kept), self._budget):
                start = tile.start + call.key_offset
                self._copies.put(
                    [tile.weights], partial(self._write, forward, kept, site, tile.heads, tile.rows, start)
                )
        self._seen.add(site)
        self._ran += 1

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
        at = np.asarray(rows)
        for b, sample in enumerate(forward.lineage.samples):
            positions = forward.positions(b)[at]
            place = sample.place if described.keys == described.queries else sample.source
            width = weights.shape[3]
            columns = np.full(width, -1, np.int64)
            known = np.arange(width) if place is None else place[start : start + width]
            columns[: len(known)] = known
            wanted = sample.selected(kept.selection, positions)
            block = cut(weights[b], heads, positions, wanted, columns, kept.selection.keys, DTYPES[kept.dtype])
            if block is not None:
                field = Field(sample.index, described, kept.group, kept.heads[site], kept.dtype)
                self._store.write(field, block)
                sample.rows += len(block.rows)

    def refuse_compiled(self) -> None:
        """Compiled code around a watched module."""
        if self._here():
            raise UnsupportedModel(
                "the model runs inside of a function compiled by torch.compile, which is not recorded yet; run it uncompiled"
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

    # --- commit ------------------------------------------------------------------------------------------------

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
        elif sample.length and not sample.paused and self._ran:
            queries = ", ".join(repr(kept.selection.queries.text) for kept in self._kept)
            raise SelectionError(
                f"queries {queries} select no row of sample {sample.id}, which has {sample.length} tokens "
                f"({sample.prompt_length} of the prompt)"
            )
