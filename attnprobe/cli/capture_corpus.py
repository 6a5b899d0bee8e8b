"""``attnprobe capture --dataset``: a corpus, row by row, alone or as one of several workers."""

import functools
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from attnprobe.cli.capturing import asked_of_model, check_target
from attnprobe.cli.corpus_options import Job
from attnprobe.cli.models import Named, pick_device
from attnprobe.cli.output import Output
from attnprobe.cli.progress import bytes_on_disk, recording_rows, tell_fidelity
from attnprobe.corpus import Batcher, Corpus, Piece, Tally, find_files, read_hub_name
from attnprobe.errors import RecordingWarning, SelectionError, StoreError
from attnprobe.sizes import format_bytes
from attnprobe.store.base import ROWS, Manifest, rows_of
from attnprobe.workers import Workers, find_workers

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from attnprobe.recorder import Recorder


def capture_corpus(out: Output, job: Job) -> None:
    """Record this worker's rows that the run does not list yet.

    Raises
    ------
    AttnprobeError
        If the corpus, the run or the model is not what the job needs, mostly before the model is loaded.
    """
    workers = find_workers(os.environ, job.worker)
    if workers.world > 1 and not job.resume:
        raise SelectionError(
            f"this is worker {workers.label} ({workers.launcher}), and several write one run with --resume: none can "
            "know who starts it; add --resume"
        )
    if job.resume and job.overwrite:
        raise SelectionError("--resume goes on with the run that is there, --overwrite replaces it: choose one")
    check_target(job.run, job.overwrite, job.resume)
    there = _manifest(job)
    corpus = _find_corpus(job, there)
    corpus.check()
    named = Named(job.model, progress=out.stderr.is_terminal and not out.quiet)
    if named.encodes:
        raise SelectionError(
            f"{named.name} is an encoder-decoder, whose decoder needs a text of its own; a corpus is recorded with a "
            "decoder or an encoder, and this one with record() in Python"
        )
    rows = corpus.whole()
    data = {
        **corpus.describe(),
        "max_tokens": job.max_tokens,
        "long": job.long,
        **({} if rows is None else {ROWS: rows}),
    }
    outline = named.outline()
    done = frozenset() if there is None else _listed(job, there, outline, data)

    tally = Tally()
    batches = _batcher(named, job).batches(corpus.rows(workers, done), tally)
    first = next(batches, None)
    who = f"worker {workers.label}: " if workers.world > 1 else ""
    if first is None:
        if not (done or tally.done or workers.world > 1):
            raise SelectionError(f"of {corpus.source.label} no row can be recorded: {_left_out(tally)}")
        out.note(f"{who}no row is left to record ({_summary(tally)})")
        out.data(_figures(job, workers, tally, 0.0), str(job.run))
        return
    device = pick_device(job.device, workers.local_rank if workers.world > 1 else None)

    from attnprobe.api import plan, record

    length = len(first[0].ids)
    expected = plan(outline, length, batch=len(first), to=job.run, keep=job.keep, budget=job.budget, device=device)
    expected.check(command_line=True, resumed=there is not None)
    for note in expected.notes if there is None else ():
        out.note(f"note: {note}")
    loaded = named.load(device)
    out.detail(f"{type(loaded).__name__} {job.model}, {str(loaded.dtype).removeprefix('torch.')} on {loaded.device}")
    recorder = record(
        loaded,
        named.tokenizer,
        to=job.run,
        keep=job.keep,
        budget=job.budget,
        overwrite=job.overwrite,
        resume=job.resume,
        data=data,
        workers=(workers.rank, workers.world),
        text=job.text,
    )
    began = time.perf_counter()
    try:
        with _terminable(), recording_rows(out, job.run, corpus.count(workers), who) as tell:
            _run(loaded, named.tokenizer.pad_token_id or 0, recorder, chain([first], batches), tally, tell)
    except BaseException:
        if tally.recorded and (job.run / "manifest.json").is_file():
            out.note(f"{who}what is listed in {job.run} is kept{_rows(job)}; the same command with --resume goes on")
        raise
    seconds = time.perf_counter() - began
    out.note(
        f"{who}recorded {tally.tokens:,} tokens in {seconds:.1f} s: {tally.tokens / seconds:,.0f} tokens/s, "
        f"{format_bytes(bytes_on_disk(job.run))} on disk"
    )
    fidelity = tell_fidelity(out, recorder)
    figures = {**_figures(job, workers, tally, seconds), "fidelity": fidelity}
    out.data(figures, str(job.run), f"{who}{_summary(tally)}")


# --- before the model is loaded --------------------------------------------------------------------------------------


def _manifest(job: Job) -> Manifest | None:
    """The manifest of a run that is gone on with, None where it is not there yet."""
    from attnprobe.store.read_directory import read_manifest

    return read_manifest(job.run) if job.resume and (job.run / "manifest.json").exists() else None


def _find_corpus(job: Job, there: Manifest | None) -> Corpus:
    source = find_files(job.dataset, job.sample_by)
    if source is not None:
        return Corpus(source, job.column, job.id_column, job.limit)
    hub = read_hub_name(job.dataset[0])
    begun = (there.data if there is not None else None) or {}
    same = all(begun.get(name) == value for name, value in (("kind", "hub"), ("name", hub.name)))
    revision = begun.get("revision") if same else None  # the hub may have a newer one since
    return Corpus(hub.pinned(revision), job.column, job.id_column, job.limit)


def _listed(job: Job, there: Manifest, outline: Any, data: dict[str, Any]) -> frozenset[str]:
    """Ids of the rows that a run lists, once it is known to be of the same; the model's numbers are compared later."""
    from attnprobe.keep import resolve
    from attnprobe.provenance import make_manifest
    from attnprobe.sites import find_sites
    from attnprobe.store.read_directory import DirectoryReader
    from attnprobe.store.target import refuse_another

    model = {**there.model, "class": type(outline).__name__}
    kept = [resolve(item, group, find_sites(outline).sites) for group, item in enumerate(job.keep)]
    refuse_another(job.run, make_manifest(model, there.sites, kept, job.text, data))
    return DirectoryReader(job.run).named


def _batcher(named: Named, job: Job) -> Batcher:
    tokenizer = named.tokenizer
    tokenizer.truncation_side = "right"

    def encode(texts: list[str], most: int | None) -> list[list[int]]:
        cut = {} if most is None else {"truncation": True, "max_length": most}
        ids: list[list[int]] = tokenizer(texts, verbose=False, **cut)["input_ids"]
        return ids

    # Of some encoders a few of the configuration's positions are not for tokens: their tokenizers know how many are.
    told = tokenizer.model_max_length if job.max_tokens is None else None
    window = min((most for most in (named.window, told) if most is not None and most < 1 << 40), default=None)
    return Batcher(encode, job.batch, job.batch_tokens, job.max_tokens, window, job.long)


# --- while it runs ---------------------------------------------------------------------------------------------------


def _run(
    model: Any,
    pad: int,
    recorder: "Recorder",
    batches: Iterator[list[Piece]],
    tally: Tally,
    tell: Callable[[int, int, int], None],
) -> None:
    """Run the model on all batches inside of the recording."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)  # it is said later
        with recorder, torch.no_grad():
            body, arguments = _body(model, recorder), asked_of_model(recorder)
            for batch in batches:
                inputs = _pad(batch, pad, model.device)
                with recorder.sample(id=[piece.id for piece in batch], index=[piece.number for piece in batch]):
                    body(**inputs, **arguments)
                tally.recorded += len(batch)
                tally.tokens += sum(len(piece.ids) for piece in batch)
                tell(tally.handled, tally.recorded, tally.tokens)


def _body(model: Any, recorder: "Recorder") -> Callable[..., Any]:
    """The model without its head, if all attention is below: of a batch, logits may be larger than all weights."""
    import inspect

    below = f"{model.base_model_prefix}."
    body = model.base_model if all(site.key.startswith(below) for site in recorder.sites) else model
    caches = "use_cache" in inspect.signature(body.forward).parameters
    return functools.partial(body, use_cache=False) if caches else body


def _pad(batch: Sequence[Piece], pad: int, device: Any) -> dict[str, Any]:
    """Token ids and mask, padded on the right: the tokens keep their positions, whatever the model makes these of."""
    import torch

    ids = torch.full((len(batch), max(len(piece.ids) for piece in batch)), pad)
    mask = torch.zeros_like(ids)
    for row, piece in enumerate(batch):
        ids[row, : len(piece.ids)] = torch.tensor(piece.ids)
        mask[row, : len(piece.ids)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, by which a cluster ends a job, do as Ctrl-C does: rows that are whole are listed first."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what it says ----------------------------------------------------------------------------------------------------


def _summary(tally: Tally) -> str:
    parts = [f"{tally.recorded:,} rows recorded"] if tally.recorded else []
    parts += [f"{tally.done:,} recorded already"] if tally.done else []
    parts += [f"{tally.cut:,} cut"] if tally.cut else []
    parts += [f"left out: {_left_out(tally)}"] if tally.skipped else []
    return ", ".join(parts) or "none"


def _rows(job: Job) -> str:
    """How many rows a run lists, and of how many; nothing where that cannot be told."""
    from attnprobe.store.read_directory import DirectoryReader

    try:
        reader = DirectoryReader(job.run)
    except StoreError:
        return ""
    told = rows_of(reader.manifest, len(reader.samples))
    return f" ({told} rows)" if told else ""


def _left_out(tally: Tally) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(tally.skipped.items()))


def _figures(job: Job, workers: Workers, tally: Tally, seconds: float) -> dict[str, Any]:
    return {
        "path": str(job.run),
        "worker": workers.label,
        "rows": tally.recorded,
        "tokens": tally.tokens,
        "done": tally.done,
        "cut": tally.cut,
        "left_out": dict(tally.skipped),
        "bytes": bytes_on_disk(job.run),
        "seconds": round(seconds, 3),
    }
