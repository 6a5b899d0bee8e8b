"""The recorder: opens and closes a recording. What happens in between is the observer's."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from attnprobe.arguments import ForwardInputs
from attnprobe.compiled import CompiledObserver
from attnprobe.engines import ENGINES, get_engine
from attnprobe.entries import Entry, find_entries, unwrapped
from attnprobe.errors import AttnprobeError, NotKept, RecordingWarning, SelectionError, UnsupportedModel
from attnprobe.fidelity import Fidelity
from attnprobe.fields import Site
from attnprobe.hooks import implementation_of, watching
from attnprobe.keep import Item, resolve
from attnprobe.lineage import Forward
from attnprobe.planning import Load, Planner
from attnprobe.profiling import Profile, Profiler, Ranges, reporting, stage
from attnprobe.provenance import describe_model, make_manifest
from attnprobe.registry import meaning_of, unknown
from attnprobe.routes import NO_SOFTMAX, REGISTRY
from attnprobe.run import Run, open_run
from attnprobe.seen import refuse_untraced
from attnprobe.sites import SOURCE, find_sites
from attnprobe.sizes import parse_bytes
from attnprobe.starting import check_way, plain
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore
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
        keep: Sequence[Item],
        to: Path | None,
        engine: str,
        budget: int | str,
        overwrite: bool,
        text: bool,
        threads: str,
        resume: bool = False,
        data: Mapping[str, Any] | None = None,
        workers: tuple[int, int] = (0, 1),
        profile: bool = False,
    ) -> None:
        if not isinstance(profile, bool):
            raise SelectionError(f"profile={profile!r}: write True or False; attnprobe profile --trace writes a file")
        if threads not in ("own", "all"):
            raise SelectionError(f'threads={threads!r}: write "own" or "all"')
        if tokenizer is not None and not hasattr(tokenizer, "convert_ids_to_tokens"):
            raise SelectionError(
                f"tokenizer is a {type(tokenizer).__name__}; pass a Hugging Face tokenizer, as "
                "AutoTokenizer.from_pretrained(...) makes one"
            )
        self._given = model  # what torch.compile returned, perhaps
        self._model = unwrapped(model)
        self._anatomy = find_sites(self._model)
        self._kept = [resolve(item, group, self._anatomy.sites) for group, item in enumerate(keep)]
        self._watched = tuple(sorted({number for kept in self._kept for number in kept.heads}))
        self._entries = self._refuse()
        self.sites: tuple[Site, ...] = tuple(self._anatomy.sites[number] for number in self._watched)
        self._engine = get_engine(engine)
        self._budget = parse_bytes(budget)
        check_way(to, overwrite, resume, workers)
        self._to, self._overwrite, self._text = to, overwrite, text
        self._resume, self._data, self._workers = resume, plain(data), workers
        self._strings = Strings(tokenizer) if tokenizer is not None and text else None
        self._every_thread = threads == "all"
        devices = dict.fromkeys(parameter.device for parameter in model.parameters())
        self._profiler: Ranges = Profiler(tuple(devices)) if profile else Ranges()
        self._state = "new"
        self._store: MemoryStore | DirectoryWriter
        self._observer: CompiledObserver
        self._planners: dict[str, Planner] = {}

    def __enter__(self) -> "Recorder":
        """Open the store, then watch the model."""
        self._profiler.begin()
        with reporting(self._profiler), self._profiler.stage("observe"):
            self._open()
        return self

    def _open(self) -> None:
        if self._state != "new":
            raise AttnprobeError("a recorder records one block; call record() again for another")
        self._anatomy = find_sites(self._model)  # again: the model may have been changed since record()
        self._entries = self._refuse()
        if self._engine is not ENGINES["dense"]:  # a plan knows how torch cuts, and triton takes no more
            items = [kept.item for kept in self._kept]
            names = {self._anatomy.sites[number].queries for number in self._watched}
            self._planners = {
                name: Planner(self._model, self._anatomy, items, self._budget, self._to, stream=name) for name in names
            }
        described = describe_model(self._model, hashed=self._to is not None)  # by which a resume knows it again
        manifest = make_manifest(described, self._anatomy.sites, self._kept, self._text, self._data)
        if self._to is None:
            self._store = MemoryStore(manifest)
        else:
            self._store = DirectoryWriter(
                self._to, manifest, self._overwrite, self._budget // 4, self._resume, self._workers
            )
        with ExitStack() as undo:
            undo.callback(self._settle, failed=True)
            undo.callback(self._store.close)
            self._observer = CompiledObserver(
                self._anatomy,
                self._kept,
                self._engine,
                self._budget,
                self._store,
                self._strings,
                self._text,
                self._every_thread,
                self._check,
                self._numbers(),
                self._to is None,
            )
            with ExitStack() as unwatch:
                unwatch.enter_context(
                    watching(self._model, self._anatomy, self._watched, self._observer, self._entries)
                )
                self._undo = unwatch.pop_all()
            self._state = "open"
            undo.pop_all()
        lacking = [f"{key} is a {reason}" for key, reason in self.refused.items() if not reason.endswith(NO_SOFTMAX)]
        if lacking:
            more = f", and {len(lacking) - 1} more, see Recorder.refused" if len(lacking) > 1 else ""
            warnings.warn(f"not recorded: {lacking[0]}{more}", RecordingWarning, stacklevel=3)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the model as it was, commit what is whole, and say what is missing."""
        self._state = "closed"
        failed = True
        try:
            with self._profiler.stage("observe"), ExitStack() as last:  # each is done, whatever becomes of the others
                last.callback(self._close_store)
                last.callback(self._note_fidelity)
                last.callback(self._observer.finish)
                last.callback(self._undo.close)
            if error is None:
                self._observer.check_seen(bool(self._entries))
                failed = False
                self._warn_of_infidelity()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"attnprobe, while closing the recording: {late}")
        finally:
            self._settle(failed)
            self._profiler.end()

    def _close_store(self) -> None:
        with stage("write"):
            self._store.close()

    def _refuse(self) -> tuple[Entry, ...]:
        """Refuse at start what is known by then to have no exact weights; where compiled code is entered."""
        entries = tuple(find_entries(self._given))
        for number in self._watched:
            site = self._anatomy.sites[number]
            on_registry = site.route == REGISTRY
            implementation = str(implementation_of(self._anatomy.modules[number])) if on_registry else "sdpa"
            if meaning_of(implementation) is None:
                raise UnsupportedModel(unknown(implementation))
            if any(entry.covers(site.key) for entry in entries):
                refuse_untraced(site, implementation)
        return entries

    def _note_fidelity(self) -> None:
        if isinstance(self._store, DirectoryWriter):
            self._store.note("fidelity", self.fidelity.describe())

    def _numbers(self) -> Iterator[int]:
        """Numbers of samples that are given none: behind those that the run lists, apart from other workers'."""
        rank, world = self._workers
        first = self._store.next_index if isinstance(self._store, DirectoryWriter) else 0
        return count(-(-first // world) * world + rank, world)

    def _warn_of_infidelity(self) -> None:
        for key in self.fidelity.off[:1]:
            warnings.warn(
                f"the recorded weights may not be those that the kernel used, at {len(self.fidelity.off)} sites; "
                f"{key}: {self.fidelity[key]}",
                RecordingWarning,
                stacklevel=3,
            )

    def _settle(self, failed: bool) -> None:
        """Tidy the directory once the store is closed: an empty failure goes, and so does a run that was replaced."""
        if isinstance(self._store, DirectoryWriter):
            if failed:
                self._store.remove_if_empty()
            else:
                self._store.drop_replaced()

    def _check(self, stream: int, inputs: ForwardInputs, forward: Forward) -> None:
        """Refuse a sample that starts, before the model runs, if what is kept of it does not fit what is free."""
        name = self._anatomy.streams[stream].name
        if forward.opening and name in self._planners:
            seen = () if inputs.source is None else ((SOURCE, inputs.source.shape[-1]),)
            load = Load(inputs.batch, inputs.count, 0, forward.start, seen, name)
            self._planners[name].check(load, resumed=bool(self.done))

    @property
    def refused(self) -> dict[str, str]:
        """Names of attention modules that are not recorded, whatever is selected, and why."""
        return dict(self._anatomy.refused)

    @property
    def uncompiled(self) -> dict[str, tuple[int, int]]:
        """Selected sites of compiled code that ran uncompiled all the same, in how many of how many calls.

        What `torch.compile` returns generates uncompiled; a break of the graph inside of a module, and more variants of
        its code than ``torch._dynamo.config.recompile_limit``, make a compiler leave it to run as it is.
        """
        due = (n for n in self._watched if any(entry.covers(self._anatomy.sites[n].key) for entry in self._entries))
        return self._observer.uncompiled(due)

    @property
    def fidelity(self) -> Fidelity:
        """Of a few rows of each site, whether recorded weights times values are what the kernel returned."""
        return self._observer.checks.fidelity

    @property
    def profile(self) -> Profile:
        """What recording took so far, by stage and site; of a recording that was made with ``profile=True``.

        Raises
        ------
        NotKept
            If it was not.
        """
        if not isinstance(self._profiler, Profiler):
            raise NotKept("this recording is not profiled: record(..., profile=True) is, and costs a little time")
        return self._profiler.report()

    @property
    def run(self) -> Run:
        """Everything that was recorded, once the block has ended."""
        if self._state != "closed":
            raise NotKept("the run is there once the block has ended; read rec.run after it")
        if isinstance(self._store, MemoryStore):
            return Run(self._store, self.fidelity)
        return open_run(self._store.path)

    def flush(self) -> None:
        """List the samples that have ended, and wait until they are durable; else that is done in groups.

        Raises
        ------
        StoreError
            If something of them could not be written.
        """
        self._check_open()
        self._observer.commit_ended()
        if isinstance(self._store, DirectoryWriter):
            with self._profiler.stage("write"):
                self._store.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Make no weights inside of this block; tokens are still counted, so a sample may go on afterwards."""
        self._check_open()
        with self._observer.paused():
            yield

    @property
    def done(self) -> frozenset[str]:
        """Ids of the named samples that the run listed already when this recording started."""
        self._check_open()
        return self._store.done if isinstance(self._store, DirectoryWriter) else frozenset()

    @contextmanager
    def sample(
        self,
        id: str | Sequence[str] | None = None,
        prompt_length: int | None = None,
        index: int | Sequence[int] | None = None,
    ) -> Iterator[None]:
        """Name the sample that starts inside of this block, and tell how long its prompt is.

        Parameters
        ----------
        id
            Name; in a batch, ``/0``, ``/1``, ... are added, or give one a row. Where a run is gone on with
            (``resume=True``), two samples of one name are two attempts at one sample.
        prompt_length
            Tokens of the prompt, padding not counted, for a prompt that comes in several forward passes.
        index
            Its number in the run, or one a row; the next ones if None.
        """
        self._check_open()
        if prompt_length is not None and prompt_length < 1:
            raise SelectionError(f"prompt_length={prompt_length}: a prompt has at least one token")
        with self._observer.naming(id, prompt_length, index):
            yield

    def _check_open(self) -> None:
        if self._state != "open":
            raise AttnprobeError("the recording is not open; use this inside of the with block")
