"""The ways a model is run: bare, recorded, and as others do it. A new one is a function and a row here."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from attnprobe.api import record
from attnprobe.bench.subject import Subject
from attnprobe.bench.timing import Stopwatch
from attnprobe.errors import UnsupportedModel

ROW_MEASURES = ("entropy", "distance", "first_mass", "self", "previous", "local_mass", "max", "argmax")
LAST, SOME = 256, 4  # rows, and heads a layer, of the mode `rows`


@dataclass(frozen=True)
class Work:
    """A forward pass that is measured.

    Attributes
    ----------
    subject, ids
        The model and its tokens, ``[batch, token]``.
    engine, budget
        As `attnprobe.record` takes them.
    folder
        Where run directories go; None for a temporary folder of the system's.
    """

    subject: Subject
    ids: Tensor
    engine: str = "auto"
    budget: int = 256 << 20
    folder: Path | None = None

    def watch(self, inner: bool = False) -> Stopwatch:
        """A stopwatch of the model's device."""
        return Stopwatch(self.subject.device, inner)


@dataclass(frozen=True)
class Outcome:
    """Of one run: seconds of all of it, seconds of the forward pass inside of it, and bytes kept."""

    seconds: float
    forward: float
    kept: int = 0


@dataclass(frozen=True)
class Mode:
    """A way to run a model.

    Attributes
    ----------
    name
        A word.
    what
        In a few more words.
    run
        Does it once.
    attention
        The implementation of attention that it needs; None for the model's own.
    ours
        Whether attnprobe does it.
    """

    name: str
    what: str
    run: Callable[[Work], Outcome]
    attention: str | None = None
    ours: bool = True

    def __call__(self, work: Work) -> Outcome:
        """Do it once; what switches the attention is not timed."""
        with nullcontext() if self.attention is None else work.subject.on(self.attention):
            return self.run(work)

    def need(self, subject: Subject, length: int) -> int:
        """Bytes of host memory that it takes at least, where nothing refuses it; 0 where that is not much.

        What attnprobe records it plans itself, and a device says when it is full.
        """
        if self.attention != "eager":
            return 0
        every, one = (subject.batch * maps * length * length * subject.dtype.itemsize for maps in subject.maps)
        if subject.device.type == "cpu":
            return every + 3 * one  # logits, the same masked, their softmax
        return every if self.name == "hook" else 0


def _off(work: Work) -> Outcome:
    with work.watch() as watch:
        out = work.subject.forward(work.ids)
    seconds = watch.seconds
    del out
    return Outcome(seconds, seconds)


def _paused(work: Work) -> Outcome:
    with record(work.subject.model, engine=work.engine, budget=work.budget) as recorder, recorder.paused():
        return _off(work)


def _recorded(work: Work, to: Path | None = None, **what: Any) -> Outcome:
    whole, own = work.watch(), work.watch(inner=True)
    with whole, record(work.subject.model, to=to, engine=work.engine, budget=work.budget, **what) as recorder, own:
        out = work.subject.forward(work.ids)
    seconds, forward = whole.seconds, own.seconds
    del out
    kept = recorder.run.nbytes if to is None else sum(f.stat().st_size for f in to.rglob("*") if f.is_file())
    return Outcome(seconds, forward, kept)


def _layer(subject: Subject) -> int:
    """The middle one of those with self-attention."""
    layers = sorted({site.layer for site in subject.anatomy.sites if site.kind == "self"})
    return layers[len(layers) // 2]


def _head(work: Work) -> Outcome:
    return _recorded(work, layers={_layer(work.subject): [0]}, kind="self")


def _rows(work: Work) -> Outcome:
    heads = range(min(SOME, *(site.heads for site in work.subject.anatomy.sites)))
    queries = f"-{LAST}:" if work.ids.shape[1] > LAST else "all"
    return _recorded(work, heads=[*heads], queries=queries)


def _row_measures(work: Work) -> Outcome:
    return _recorded(work, measures=[*ROW_MEASURES])


def _measures(work: Work) -> Outcome:
    return _recorded(work, measures=[*ROW_MEASURES, "received", "pooled"])


def _weights(work: Work) -> Outcome:
    return _recorded(work, layers={_layer(work.subject): "all"}, kind="self")


def _disk(work: Work) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="attnprobe-bench-", dir=work.folder))
    try:
        return _recorded(work, to=folder / "run", layers={_layer(work.subject): "all"}, kind="self")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _eager(work: Work) -> Outcome:
    with work.watch() as watch:
        out = work.subject.forward(work.ids, output_attentions=True)
    given = [weights for weights in out.attentions or () if weights is not None]
    if not given:
        raise UnsupportedModel(f"{type(work.subject.model).__name__} gives no weights for output_attentions=True")
    return Outcome(watch.seconds, watch.seconds, sum(weights.nbytes for weights in given))


def _hook(work: Work) -> Outcome:
    kept: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, Tensor):
            raise UnsupportedModel(f"{type(module).__name__} returns no weights that a forward hook could keep")
        kept.append(weights.cpu())

    modules = work.subject.anatomy.modules
    with work.watch() as watch:
        handles = [module.register_forward_hook(keep) for module in modules]
        try:
            out = work.subject.forward(work.ids)
        finally:
            for handle in handles:
                handle.remove()
    seconds = watch.seconds
    del out
    return Outcome(seconds, seconds, sum(weights.nbytes for weights in kept))


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("off", "the model as it is", _off, ours=False),
        Mode("paused", "a recorder is open but paused; the forward pass alone is timed", _paused),
        Mode("head", "all rows of one head of the middle layer, float32, in memory", _head),
        Mode("rows", f"the last {LAST} rows of {SOME} heads of every layer, float32, in memory", _rows),
        Mode("row-measures", f"{', '.join(ROW_MEASURES)} of every row of every head", _row_measures),
        Mode("measures", f"{len(ROW_MEASURES)} measures of rows, mass by key, both pooled maps, all heads", _measures),
        Mode("weights", "all weights of the middle layer, float32, in memory", _weights),
        Mode("disk", "all weights of the middle layer, float32, to a run directory, synced", _disk),
        Mode("eager", "eager attention with output_attentions=True: all weights, kept where they are made", _eager,
             "eager", ours=False),
        Mode("hook", "eager attention and forward hooks that keep all weights in host memory", _hook,
             "eager", ours=False),
    )
}  # fmt: skip
DEFAULT = ("off", "paused", "head", "rows", "measures", "weights", "disk", "eager")
