"""``attnprobe profile``: what recording a model costs, by stage and layer."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from attnprobe.cli.capturing import asked_of_model, check_target, read_text, tokenize
from attnprobe.cli.keeping import read_keep, selecting
from attnprobe.cli.models import Named, pick_device
from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.rounds import Runner, beside, run_rounds
from attnprobe.errors import SelectionError, StoreError
from attnprobe.sizes import parse_bytes

TOKENS = 512  # where nothing is said, as far as the model takes them
EVENTS = 1_000_000  # of the allocator, that a snapshot tells of


@click.command("profile")
@click.argument("model")
@click.option("--text", help="The text to run the model on.")
@click.option("--file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="A UTF-8 file with it.")
@click.option("--tokens", metavar="N", help=f"So many random tokens instead: 4096, 32k.  [default: {TOKENS}]")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Run on the first N tokens of a text.")
@click.option("--generate", type=click.IntRange(min=1), metavar="N", help="Generate up to N tokens too, greedily.")
@selecting
@click.option(
    "-o", "--out", "--to", "run", type=click.Path(path_type=Path), metavar="RUN", help="Written there; else memory."
)
@click.option(
    "--engine", default="auto", show_default=True, type=click.Choice(["auto", "torch", "triton", "dense"]),
    help="What makes weights.",
)  # fmt: skip
@click.option(
    "--model-dtype", type=click.Choice(["float32", "float16", "bfloat16", "float64"]), help="What the model runs in."
)
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda:1"; auto is CUDA where there is one.')
@click.option("--budget", default="256 MiB", show_default=True, help="Working memory.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="How often each is run.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write a trace of one more run, for Perfetto or chrome://tracing: .json, .json.gz.",
)  # fmt: skip
@click.option(
    "--memory-snapshot", "snapshot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write what CUDA's allocator did in one more run, for pytorch.org/memory_viz.",
)  # fmt: skip
@shared
def command(
    out: Output,
    model: str,
    text: str | None,
    file: Path | None,
    tokens: str | None,
    max_tokens: int | None,
    generate: int | None,
    run: Path | None,
    engine: str,
    model_dtype: str | None,
    device: str,
    budget: str,
    rounds: int,
    overwrite: bool,
    trace: Path | None,
    snapshot: Path | None,
    **selection: Any,
) -> None:
    """Say what recording MODEL costs: time and memory by stage and layer, and the ratio to the bare model.

    The model runs bare, recorded, and recorded with a profile, in turns. Stages are observe (recording's own work
    around a call), logits (tiles of weights, or fused kernels), measure, copy, write and wait.

    \b
    attnprobe profile demo --keep measures
    attnprobe profile gpt2 --file book.txt --max-tokens 1024 --heads L5H1 -o runs/book
    attnprobe profile gpt2 --tokens 1k --keep measures --trace trace.json
    """  # noqa: D301 (click wants the backspace itself)
    # All that can be wrong is found before the model is loaded, cheapest first.
    keep = read_keep(**selection)
    parse_bytes(budget)
    if tokens is not None and (text is not None or file is not None or max_tokens is not None):
        raise SelectionError("--tokens N are random ones: leave it out beside a text, which --max-tokens N cuts")
    if trace is not None and not trace.name.endswith((".json", ".json.gz")):
        raise SelectionError(f"--trace {trace}: write .json or .json.gz")
    for path in (trace, snapshot):
        _check_parent(path)
    if run is not None:
        check_target(run, overwrite)
    where = pick_device(device)
    if snapshot is not None and not where.startswith("cuda"):
        raise SelectionError(
            f"--memory-snapshot tells of CUDA's allocator, and the device is {where}; leave it out, or --device cuda"
        )
    words = read_text((), text, file) if text is not None or file is not None else None
    named = Named(model, progress=out.stderr.is_terminal and not out.quiet)

    import torch

    from attnprobe.api import plan, record

    outline = named.outline()
    if words is not None:
        ids = torch.tensor([tokenize(named, words, max_tokens, generate or 0)])
    else:
        ids = _random(named, outline, tokens, generate or 0)
    sizes: dict[str, Any] = {"generate": generate or 0, "source": ids.shape[1] if named.encodes else 0}
    plan(outline, ids, **sizes, to=run, keep=keep, budget=budget, device=where).check(command_line=True)
    loaded = named.load(where)
    if model_dtype is not None:
        loaded = loaded.to(getattr(torch, model_dtype))
    dtype = str(loaded.dtype).removeprefix("torch.")

    def recorder(to: Path | None, profile: bool) -> Any:
        options: dict[str, Any] = {"engine": engine, "budget": budget, "overwrite": overwrite, "text": False}
        return record(loaded, to=to, keep=keep, profile=profile, **options)

    runner = Runner(loaded, ids.to(loaded.device), generate, recorder, asked_of_model(recorder(None, False)))
    with beside(run) as place:
        found = run_rounds(runner, rounds, place, run, out.detail)
        if trace is not None:
            _trace(runner, place("trace"), trace)
        if snapshot is not None:
            _snapshot(runner, place("snapshot"), snapshot)
    what = f"{type(loaded).__name__} {model}, {dtype} on {_name(loaded.device)}, {ids.shape[1]:,} tokens"
    what += f" and {generate:,} generated" if generate else ""
    lines: list[str | Text] = [Text(what, style="bold"), *found.lines(), "", *found.profile.lines()]
    wrote = {"trace": trace, "memory_snapshot": snapshot, "run": run}
    files = {name: str(path) for name, path in wrote.items() if path is not None}
    about = {"model": model, "dtype": dtype, "device": _name(loaded.device), "tokens": ids.shape[1], "engine": engine}
    out.data({**about, "generate": generate, **found.to_dict(), "profile": found.profile.to_dict(), **files}, *lines)
    for name, wrote_to in files.items():
        out.note(f"{name.replace('_', ' ')}: {wrote_to}")


def _check_parent(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise StoreError(f"cannot write {path}: there is no directory {path.parent}; make it first")


def _random(named: Named, outline: Any, tokens: str | None, generate: int) -> Any:
    """Random token ids, the same each time: as many as were asked for, or as the model takes of `TOKENS`."""
    import torch

    from attnprobe.planning.words import parse_tokens

    window = named.window
    count = parse_tokens(TOKENS if tokens is None else tokens)[0]
    if tokens is None and window is not None:
        count = max(1, min(count, window - generate))
    if window is not None and count + generate > window:
        raise SelectionError(
            f"{count + generate:,} tokens do not fit the context window of {named.name}, which has {window:,}; "
            f"take --tokens {max(1, window - generate)}"
        )
    vocabulary = getattr(outline.get_input_embeddings(), "num_embeddings", None)
    if vocabulary is None:
        raise SelectionError(f"{named.name} takes no tokens; profile it in Python, with record(model, profile=True)")
    return torch.randint(vocabulary, (1, count), generator=torch.Generator().manual_seed(0))


def _trace(runner: Runner, to: Path | None, path: Path) -> None:
    """One more run under torch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as traced:
        runner.timed(lambda: runner.recorded(False, to))
    traced.export_chrome_trace(str(path))


def _snapshot(runner: Runner, to: Path | None, path: Path) -> None:
    """One more run while CUDA's allocator takes notes."""
    import torch

    torch.cuda.memory._record_memory_history(max_entries=EVENTS)
    try:
        runner.timed(lambda: runner.recorded(False, to))
        torch.cuda.memory._dump_snapshot(str(path))  # type: ignore[no-untyped-call]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def _name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
