"""Peaks of memory of one run: of a device in this process, of a CPU in a fresh one.

``python -m attnprobe.bench.memory TASK`` is that fresh process: it prints what it found as JSON.
"""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from attnprobe.bench.machine import settle
from attnprobe.bench.modes import MODES, Work
from attnprobe.bench.process import forget_peak, give_back_at_once, in_fresh_process, peak, resident
from attnprobe.bench.setting import Setting
from attnprobe.bench.subject import Subject, subject_of
from attnprobe.errors import AttnprobeError, BudgetError, out_of_memory

WARM = 256  # tokens of a forward pass before, in which libraries settle
SETTING, PICKLED = "setting", "pickled"


@dataclass(frozen=True)
class Peaks:
    """Bytes at the peak, above those before the run, of host memory and of a device's; and bytes kept."""

    host: int | None
    device: int | None
    kept: int


class ChildFailed(AttnprobeError):
    """A fresh process that measured memory failed; `status` is the row's."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def peaks_here(mode: str, work: Work) -> Peaks:
    """Run a mode once in this process, which has run it before."""
    device = work.subject.device
    settle()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        empty_pinned = getattr(torch._C, "_host_emptyCache", None)  # buffers that copies were made through before
        if empty_pinned is not None:
            empty_pinned()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    forget_peak()
    host = resident()
    outcome = MODES[mode](work)
    on_device = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None
    return Peaks(peak() - host, on_device, outcome.kept)


def peaks_of_fresh_process(
    mode: str, length: int, setting: Setting, folder: Path | None, pickled: Path | None
) -> Peaks:
    """Run a mode once in a process that has done nothing else.

    Parameters
    ----------
    mode, length
        What is run.
    setting
        How.
    folder
        Where run directories go.
    pickled
        A file with the model; None for one of the setting's shape.

    Raises
    ------
    ChildFailed
        If it runs out of memory, is refused, or fails.
    """
    task = {
        "mode": mode,
        "length": length,
        SETTING: setting.describe(),
        "folder": None if folder is None else str(folder),
        PICKLED: None if pickled is None else str(pickled),
        "threads": torch.get_num_threads(),
    }
    try:
        found = in_fresh_process("attnprobe.bench.memory", task, quiet=True)
    except subprocess.CalledProcessError as error:
        if error.returncode == -signal.SIGKILL:
            raise ChildFailed("out of memory", "the system killed the process") from error
        if error.returncode == -signal.SIGINT:
            raise KeyboardInterrupt from error
        last = (error.stderr or "").strip().splitlines()[-1:] or ["it said nothing"]
        raise ChildFailed(
            "failed", f"a process that measures memory ended with {error.returncode}: {last[0]}"
        ) from error
    if "status" in found:
        raise ChildFailed(found["status"], found["reason"])
    return Peaks(**found)


def status_of(error: Exception) -> tuple[str, str]:
    """What a row says of an error: a status, and the reason in one line."""
    first = str(error).strip().splitlines()[:1] or [type(error).__name__]
    if isinstance(error, ChildFailed):
        return error.status, str(error)
    if isinstance(error, BudgetError):
        return "will not fit", first[0].removesuffix("; nearest that fit:")
    if out_of_memory(error):
        return "out of memory", first[0].partition(". ")[0]
    return "failed", first[0] if isinstance(error, AttnprobeError) else f"{type(error).__name__}: {first[0]}"


def _child(task: dict[str, Any]) -> dict[str, Any]:
    give_back_at_once()
    torch.set_num_threads(task["threads"])
    setting = Setting.read(task[SETTING])
    try:
        if task[PICKLED] is None:
            subject = subject_of(setting)
        else:
            model: Any = torch.load(task[PICKLED], weights_only=False)
            with torch.device("meta"):  # loading runs no __init__, in which transformers learns which outputs it has
                type(model)(model.config)
            subject = Subject(model, setting.batch)
        work = Work(
            subject,
            subject.ids(task["length"]),
            setting.engine,
            setting.budget,
            None if task["folder"] is None else Path(task["folder"]),
        )
        subject.forward(work.ids[:, :WARM])
        return asdict(peaks_here(task["mode"], work))
    except Exception as error:
        status, reason = status_of(error)
        return {"status": status, "reason": reason}


if __name__ == "__main__":
    print(json.dumps(_child(json.loads(sys.argv[1]))))
