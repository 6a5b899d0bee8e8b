"""Stages by name in the traces of others: ranges for torch's profiler and for Nsight, and nothing taken down here."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd import profiler as torch_profiler

from attnprobe.fields import Site
from attnprobe.profiling.stages import NOTHING, Stage, Taker, told


def short(site: Site | None) -> str:
    """A site in few characters: ``L5``, ``L5 cross``, ``L5 encoder``."""
    if site is None:
        return ""
    words = [f"L{site.layer}", *(["cross"] if site.kind == "cross" else [])]
    return " ".join([*words, *([site.part] if site.part != "decoder" else [])])


def name_of(stage: Stage) -> str:
    """What a stage is called in a trace: ``attnprobe.logits L5``."""
    return f"attnprobe.{stage.name} {short(stage.site)}".rstrip()


class Ranges:
    """Takes no times: while torch's profiler is on, stages are ranges of it; else they are nothing."""

    counts = False

    def stage(
        self, name: str, site: Site | None = None, device: torch.device | None = None
    ) -> AbstractContextManager[Any]:
        """Be in a stage, for the block."""
        return Stage(self, name, site, device) if _traced() else NOTHING

    def behind(self, name: str) -> AbstractContextManager[Any]:
        """The same in a thread beside the model."""
        return Stage(self, name, None, None, behind=True) if _traced() else NOTHING

    def begin(self) -> None:
        """The user's block begins."""

    def end(self) -> None:
        """All is recorded."""

    def opened(self, stage: Stage) -> None:
        """Open a range."""
        stage.figures = open_range(stage)

    def closed(self, stage: Stage) -> None:
        """Close it."""
        close_range(stage.figures)

    def count(self, stage: Stage, copied: int = 0, written: int = 0, calls: int = 0) -> None:
        """Nobody asked."""

    def note(self, stage: Stage, what: str, how: str, why: str) -> None:
        """Nobody asked."""


_NOBODY = Ranges()


def here() -> Taker:
    """Whom what is made now reports to."""
    return told() or _NOBODY


def open_range(stage: Stage) -> Any:
    """A range of torch's profiler, opened; None while that is off."""
    if not _traced():
        return None
    opened = torch_profiler.record_function(name_of(stage))
    opened.__enter__()  # type: ignore[no-untyped-call]
    return opened


def close_range(opened: Any) -> None:
    """Close it."""
    if opened is not None:
        opened.__exit__(None, None, None)


def _traced() -> bool:
    return bool(torch_profiler._is_profiler_enabled)
