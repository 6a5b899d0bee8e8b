"""What `capture` says while it records: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def bytes_on_disk(run: Path) -> int:
    """Bytes of a run's shards, unfinished ones included."""
    total = 0
    for file in (run / "shards").glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # renamed between the listing and now
            continue
    return total
