"""``attnprobe bench``: what recording costs on a model, beside the model as it is and eager attention."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from attnprobe.cli.models import Named, pick_device
from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.progress import PERIOD
from attnprobe.errors import AttnprobeError, SelectionError

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from attnprobe.bench import Bench

PLOTS = (".png", ".svg", ".pdf")
INTERRUPTED = 130
SURE = 0.2  # done of the whole, from which on it can be told how long the rest takes


@click.command("bench")
@click.argument("model", required=False)
@click.option(
    "--shape", metavar="LxHxD[:KV]", help="A random model instead: 12x12x64 like GPT-2, 32x32x128:8 like Llama."
)
@click.option("--tokens", default="1k,4k", show_default=True, metavar="N,N", help="Lengths: 1k,4k,16k.")
@click.option(
    "--modes",
    metavar="MODE,MODE",
    help="How it is run; MODE:8k up to 8k tokens.  [default: all but row-measures and hook]",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the model.")
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda:1"; auto is CUDA where there is one.')
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Samples that run together.")
@click.option("--rounds", type=click.IntRange(min=1), help="Times each mode is timed.  [default: 20 on CUDA, else 5]")
@click.option("--seconds", default=30.0, show_default=True, type=float, help="No further round of a mode after these.")
@click.option("--attention", help="sdpa, flash_attention_2, ...; the model's own unless told.")
@click.option("--engine", default="auto", show_default=True, help="Makes the weights: auto, torch, triton, dense.")
@click.option("--budget", default="256 MiB", show_default=True, help="Working memory of a recording.")
@click.option("--memory/--no-memory", default=True, help="Measure peaks of memory too.  [default: memory]")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the mode disk writes, and removes, its runs.")
@click.option("-o", "--out", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Write it: .json, .csv, or a plot (.png, .svg, .pdf); once or more.")  # fmt: skip
@shared
def command(
    out: Output,
    model: str | None,
    shape: str | None,
    tokens: str,
    modes: str | None,
    dtype: str | None,
    device: str,
    files: tuple[Path, ...],
    **options: Any,
) -> None:
    """Measure what recording costs: time and memory, in turns with the model as it is.

    MODEL is what other commands take, or --shape makes a random one. A mode that runs out of memory is a row that says
    so. Ctrl-C ends it with what was measured until then.

    \b
    modes: off          the model as it is; always measured
           paused       a recorder is open but paused
           head         all rows of one head of the middle layer
           rows         the last 256 rows of 4 heads of every layer
           row-measures eight measures of every row of every head
           measures     these, and mass by key and pooled maps
           weights      all weights of the middle layer, in memory
           disk         the same, to a run directory
           eager        eager attention, output_attentions=True
           hook         eager attention, forward hooks, kept in host memory

    \b
    attnprobe bench demo --tokens 256,1k
    attnprobe bench --shape 12x12x64 --tokens 1k,4k,16k -o bench.json -o bench.png
    attnprobe bench --shape 32x32x128:8 --modes measures,weights:8k,eager --tokens 4k,8k,32k
    """  # noqa: D301 (click wants the backspace itself)
    _check_files(files)
    if (model is None) == (shape is None):
        raise SelectionError("name a MODEL or a --shape, one of both: attnprobe bench --shape 12x12x64")
    named = None if model is None else Named(model, progress=False)

    from attnprobe.bench import DEFAULT, Interrupted, bench
    from attnprobe.bench.modes import MODES
    from attnprobe.bench.setting import parse_lengths, parse_modes

    chosen = DEFAULT if modes is None else modes
    parse_modes(chosen, tuple(MODES))  # before a model is loaded
    longest = parse_lengths(tokens)[-1]
    where = pick_device(device)
    what: dict[str, Any] = {"model": shape, "dtype": dtype, "device": where}
    if named is not None:
        what = {"model": _load(named, where, dtype, longest), "name": named.name}
    interrupted = False
    with _progress(out) as report, _stopped_as_by_hand():
        try:
            found = bench(**what, tokens=tokens, modes=chosen, report=report, **options)
        except Interrupted as stopped:
            found, interrupted = stopped.result, True
    if interrupted and all(row.seconds is None for row in found.rows):
        out.note("interrupted: nothing was measured yet, and nothing is written")
        sys.exit(INTERRUPTED)
    written = _save(found, files)
    _print(out, found)
    for file in files:
        out.note(f"written: {file}" if file in written else f"not written: {file}, there is nothing to plot beside off")
    if interrupted:
        out.note("interrupted")
        sys.exit(INTERRUPTED)
    if found.failed:
        first = found.failed[0]
        raise AttnprobeError(f"{first.mode} at {first.tokens:,} tokens failed: {first.reason}")


@contextmanager
def _stopped_as_by_hand() -> Iterator[None]:
    """Let whoever ends the process, a batch system or `timeout`, have what was measured, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_files(files: tuple[Path, ...]) -> None:
    """Refuse before anything runs what could not be written after it."""
    for file in files:
        if file.suffix not in (".json", ".csv", *PLOTS):
            raise SelectionError(f"-o {file}: write .json, .csv, or a plot, {', '.join(PLOTS)}")
        if not file.absolute().parent.is_dir():
            raise SelectionError(f"-o {file}: there is no folder {file.parent}")
        if file.suffix in PLOTS and find_spec("matplotlib") is None:
            raise AttnprobeError("plots need matplotlib: pip install attnprobe[plots]")


def _load(named: Named, device: str, dtype: str | None, longest: int) -> Any:
    """The model on its device; the bundled one with as many positions as are needed."""
    import torch

    from attnprobe import demo

    if named.name == "demo" and named.window is not None and longest > named.window:
        model = demo.load(positions=longest)[0].to(device)
    else:
        model = named.load(device)
    return model if dtype is None else model.to(getattr(torch, dtype))


def _save(found: "Bench", files: tuple[Path, ...]) -> list[Path]:
    """Write what there is; the files that were written."""
    written = []
    for file in files:
        if file.suffix == ".json":
            found.to_json(file)
        elif file.suffix == ".csv":
            found.to_csv(file)
        elif any(row.ratio is not None for row in found.rows if row.mode != "off"):
            found.plot(file)
        else:
            continue
        written.append(file)
    return written


def _print(out: Output, found: "Bench") -> None:
    from attnprobe.bench.table import footnotes, rich_table, text

    if out.as_json or not out.stdout.is_terminal:
        out.data(found.to_dict(), *text(found).splitlines())
        return
    out.stdout.print(rich_table(found, out.width))
    for line in footnotes(found):
        out.stdout.print(line, style="dim", soft_wrap=True)


@contextmanager
def _progress(out: Output) -> Iterator[Callable[[float, float, str], None]]:
    """A bar with the time that is left on a terminal, else a line every 10 seconds."""
    if out.quiet or not out.stderr.is_terminal:
        began, said = time.monotonic(), 0.0

        def line(done: float, total: float, what: str) -> None:
            nonlocal said
            now = time.monotonic()
            if now - said >= PERIOD:
                said = now
                known = done >= SURE * total  # before, it is mostly what a start takes
                left = f", about {timedelta(seconds=round((now - began) * (total / done - 1)))} left" if known else ""
                out.note(f"{done / total:.0%}, {what}{left}")

        yield line
        return
    columns = (
        BarColumn(20), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=out.stderr, transient=True) as progress:
        task = progress.add_task("starting")
        yield lambda done, total, what: progress.update(task, completed=done, total=total, description=what)
