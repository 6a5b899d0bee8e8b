"""What `capture` says while it records: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from attnprobe.cli.output import Output
from attnprobe.sizes import format_bytes

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from attnprobe.recorder import Recorder

PERIOD = 10.0  # seconds between two lines, and between two looks at the disk


class Streamer:
    """What ``generate`` gives its tokens to: the prompt, then each new one."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def put(self, value: Any) -> None:
        """Count tokens."""
        self._advance(value.numel())

    def end(self) -> None:
        """Nothing is left to do."""


class _Rate(ProgressColumn):
    """Tokens a second, and bytes so far."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run

    def render(self, task: Task) -> Text:
        written = format_bytes(bytes_on_disk(self._run))
        return Text(f"{task.speed:,.0f} tokens/s, {written}" if task.speed else written)


@contextmanager
def recording(out: Output, run: Path, tokens: int, steps: bool) -> Iterator[Callable[[int], None]]:
    """Say that `tokens` are being recorded; gives a function to call with each number of tokens done.

    One forward pass tells nothing before it ends, so without `steps` there is a spinner, the time and the bytes so far.
    """
    if out.quiet or not out.stderr.is_terminal:
        out.note(f"recording {tokens:,} tokens ...")
        yield lambda count: None
        return
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn(f"recording {tokens:,} tokens")]
    if steps:
        columns += [BarColumn(20), TextColumn("{task.completed:,.0f}"), _Rate(run), TimeRemainingColumn()]
    else:
        columns += [TimeElapsedColumn(), _Rate(run)]
    with Progress(*columns, console=out.stderr, transient=True) as progress:
        task = progress.add_task("", total=tokens if steps else None)
        yield lambda count: progress.advance(task, count)


@dataclass
class Pace:
    """How fast rows of a corpus are recorded, since it was made.

    Attributes
    ----------
    run, total
        Where they go; this worker's rows, or None if that is not known.
    handled, recorded, tokens
        Rows that are done with, those of them that were recorded since, and their tokens.
    """

    run: Path
    total: int | None
    handled: int = 0
    recorded: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self._began = self._looked = time.monotonic()
        self._bytes = bytes_on_disk(self.run)

    @property
    def rows(self) -> str:
        """How many of how many."""
        return f"{self.handled:,}" + ("" if self.total is None else f" of {self.total:,}") + " rows"

    @property
    def rate(self) -> str:
        """Tokens a second, the run's bytes, and the time that is left."""
        now = time.monotonic()
        if now - self._looked >= PERIOD:  # a large run has many files
            self._looked, self._bytes = now, bytes_on_disk(self.run)
        elapsed = max(now - self._began, 1e-9)
        parts = [f"{self.tokens / elapsed:,.0f} tokens/s", format_bytes(self._bytes)]
        if self.total is not None and self.recorded:
            left = max(self.total - self.handled, 0) * elapsed / self.recorded
            parts.append(f"{timedelta(seconds=round(left))} left")
        return ", ".join(parts)


@contextmanager
def recording_rows(out: Output, run: Path, total: int | None, who: str) -> Iterator[Callable[[int, int, int], None]]:
    """Say how a corpus is being recorded: a bar on a terminal, else a line every 10 seconds.

    One of several workers, which is told by `who`, has lines: bars of several would overwrite each other.

    Gives a function to call with the numbers of rows that are done with, rows recorded, and their tokens so far.
    """
    pace = Pace(run, total)
    if out.quiet or not out.stderr.is_terminal or who:
        out.note(f"{who}recording {'' if total is None else f'{total:,} '}rows ...")
        said = time.monotonic()

        def line(*counts: int) -> None:
            nonlocal said
            pace.handled, pace.recorded, pace.tokens = counts
            if not out.quiet and time.monotonic() - said >= PERIOD:
                said = time.monotonic()
                out.note(f"{who}{pace.rows}, {pace.rate}")

        yield line
        return
    columns = [TextColumn("recording"), BarColumn(20), TextColumn("{task.fields[rows]}, {task.fields[rate]}")]
    with Progress(*columns, console=out.stderr, transient=True) as progress:
        task = progress.add_task("", total=total, rows=pace.rows, rate="")

        def move(*counts: int) -> None:
            pace.handled, pace.recorded, pace.tokens = counts
            progress.update(task, completed=pace.handled, rows=pace.rows, rate=pace.rate)

        yield move


def tell_fidelity(out: Output, recorder: "Recorder") -> dict[str, Any]:
    """Say how far the recorded weights are those that the kernel used, and what was not recorded; the same as data."""
    fidelity = recorder.fidelity
    out.note(str(fidelity))
    for key, reason in recorder.refused.items():
        out.note(f"not recorded: {key} is a {reason}")
    for key in fidelity.off:
        out.note(f"warning: {key}: the recorded weights may not be those that the kernel used: {fidelity[key]}")
    return {"worst": fidelity.worst, "off": list(fidelity.off)}


def bytes_on_disk(run: Path) -> int:
    """Bytes of a run's shards, unfinished ones included."""
    total = 0
    for file in (run / "shards").glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # renamed between the listing and now
            continue
    return total


def describe_size(values: int, files: int) -> str:
    """How large a run is: its values, and the files that they lie in."""
    return f"{format_bytes(values)} of values, {format_bytes(files)} on disk"
