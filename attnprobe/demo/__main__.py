"""``python -m attnprobe.demo`` (``make demo``): record the bundled model on the bundled text, and look at it."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnprobe import demo
from attnprobe.api import record
from attnprobe.errors import AttnprobeError, RunExists, StoreError
from attnprobe.run import Run, open_run
from attnprobe.shapes import Float
from attnprobe.show.prepare import printable
from attnprobe.show.terminal import WIDEST, has_color, heatmap, row_table

TOKENS = 512
PERIOD = 128  # tokens of the random sequence that is repeated once
WORD = "explore"


@dataclass(frozen=True)
class Found:
    """A head and its score, a mean share of its weight."""

    layer: int
    head: int
    score: float


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="The run.")
def main(out: Path) -> None:
    """Record the bundled model on the bundled text, print what its heads do, and write the run to disk."""
    console = Console(highlight=False, markup=False, emoji=False)
    try:
        _demo(console, out)
    except AttnprobeError as error:
        Console(stderr=True, highlight=False, markup=False).print(f"error: {printable(str(error))}", soft_wrap=True)
        sys.exit(1)


def _demo(console: Console, out: Path) -> None:
    check_target(out)
    from transformers.utils import logging

    logging.disable_progress_bar()
    model, tokenizer = demo.load()
    began = time.perf_counter()
    run = record_text(model, tokenizer, out)
    seconds = time.perf_counter() - began
    repeat = record_repeat(model)
    previous, induction = strongest(run, previous_token), strongest(repeat, induction_score)

    _rule(console, "one token")
    _print_row(console, model, tokenizer)
    _rule(console, "two telling heads, found by what they do")
    _print_heads(console, run, repeat, previous, induction)
    _rule(console, "on disk")
    console.print(f"{out}  {run!r}, recorded in {seconds:.1f} s", soft_wrap=True)
    console.print(draw(run, induction, out), soft_wrap=True)
    console.print("\nNext:", style="bold")
    program = attnprobe_command()
    for line in (
        f"{program} show {out} {previous.layer}.{previous.head} --query 100",
        f"{program} view {out}    # all heads in a browser; needs attnprobe[viewer]",
        f'{program} capture demo --text "To be, or not to be" --generate 20 -o runs/hamlet',
        f"{program} --help",
    ):
        console.print(f"  {line}", soft_wrap=True)


def check_target(out: Path) -> None:
    """Refuse a path where there is something that the demo did not make: its run replaces what is there.

    Raises
    ------
    RunExists
        If it is neither free, nor empty, nor a run of the bundled model.
    """
    if not (out.exists() or out.is_symlink()) or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        name = open_run(out).manifest.model.get("name")
    except StoreError:
        name = None
    if name != "demo":
        raise RunExists(
            f"{out} exists and is not a run of the demo, so it is left as it is; give another path by --out"
        )


def record_text(model: Any, tokenizer: Any, out: Path) -> Run:
    """Record the start of the bundled text to a run directory, in place of an earlier run of the demo."""
    import torch

    inputs = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=TOKENS)
    with record(model, tokenizer, to=out, overwrite=True) as recorder, torch.no_grad():
        model(**inputs)
    return recorder.run


def record_repeat(model: Any, seed: int = 0) -> Run:
    """Record, in memory, random tokens that come twice: what comes next can be known only by looking back."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, model.config.vocab_size, (1, PERIOD), generator=generator).repeat(1, 2)
    with record(model) as recorder, torch.no_grad():
        model(input_ids=ids)
    return recorder.run


def previous_token(weights: Float[np.ndarray, "query key"]) -> float:
    """Mean weight on the token before."""
    return float(np.diagonal(weights, -1).mean())


def induction_score(weights: Float[np.ndarray, "query key"]) -> float:
    """Mean weight, over the second copy, on the token that followed the first copy of the current one."""
    return float(np.diagonal(weights, 1 - PERIOD).mean())


def strongest(run: Run, score: Callable[[Any], float]) -> Found:
    """The head of the highest score."""
    heads = [
        Found(layer, head, score(run[layer, head].numpy()))
        for layer in range(run.num_layers)
        for head in range(run.num_heads)
    ]
    return max(heads, key=lambda found: found.score)


def _rule(console: Console, title: str) -> None:
    console.print(
        f"\n── {title} {'─' * max(0, min(console.width, WIDEST) - len(title) - 4)}\n", style="bold", soft_wrap=True
    )


def _print_row(console: Console, model: Any, tokenizer: Any) -> None:
    """The weights from one token of the first sentence to all others, in one head."""
    import torch

    sentence = demo.text().split("!")[0] + "!"
    inputs = tokenizer(sentence, return_tensors="pt", return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0].tolist()
    end = sentence.index(WORD) + len(WORD)
    token = next(i for i, (_, stop) in enumerate(offsets) if stop >= end)  # the word's last piece
    with record(model, tokenizer) as recorder, torch.no_grad():
        model(**inputs)
    heads = sorted(
        (head for layer in range(recorder.run.num_layers) for head in recorder.run[layer].values()),
        key=lambda head: entropy(head[token]),
    )
    head = heads[len(heads) // 2]  # of middling entropy: neither all on one token nor even over all
    source = head.query_labels[token]
    width, color = min(console.width, WIDEST), has_color(console)
    console.print(f'"{sentence}"', soft_wrap=True)
    console.print(f"layer {head.layer}, head {head.number}: what {source} (>) attends to\n", soft_wrap=True)
    console.print(row_table(head[token], head.key_labels, width, color, token), soft_wrap=True)


def entropy(weights: Float[np.ndarray, " key"]) -> float:
    """Shannon entropy in nats."""
    positive = weights[weights > 0]
    return float(-(positive * np.log(positive)).sum())


def _print_heads(console: Console, run: Run, repeat: Run, previous: Found, induction: Found) -> None:
    """Two heatmaps side by side."""
    color = has_color(console)
    width = (min(console.width, WIDEST) - 3) // 2
    grid = Table.grid(padding=(0, 3, 0, 0))
    for _ in range(2):
        grid.add_column(width=width)
    left = f"layer {previous.layer}, head {previous.head}: previous token"
    right = f"layer {induction.layer}, head {induction.head}: induction"
    grid.add_row(Text(left, "bold"), Text(right, "bold"))
    grid.add_row(
        f"{previous.score:.0%} of its weight is on the token before; here on the text",
        f"{induction.score:.0%} is on what followed the same token before; here on random tokens that come twice",
    )
    maps = [run[previous.layer, previous.head].numpy(), repeat[induction.layer, induction.head].numpy()]
    grid.add_row(*(heatmap(values, width, color) for values in maps))
    console.print(grid)


def draw(run: Run, found: Found, out: Path) -> str:
    """Write a figure of a head beside the run, and say where."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no figure was drawn: pip install attnprobe[plots]"
    target = out.with_name(f"{out.name}-{found.layer}.{found.head}.png")
    figure = Figure(figsize=(6.8, 6), dpi=150, layout="constrained")
    run[found.layer, found.head].plot(figure.subplots())
    figure.savefig(target)
    return f"{target}  layer {found.layer}, head {found.head} on the text"


def attnprobe_command() -> str:
    """How to call ``attnprobe`` from here: by its path where it is not installed for the shell."""
    script = Path(sys.executable).with_name("attnprobe")
    if str(script.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return "attnprobe"
    if not script.exists():
        return "python -m attnprobe.cli"
    near = Path(os.path.relpath(script))
    return str(script if near.parts[0] == ".." else near)


if __name__ == "__main__":
    main()
