"""``attnprobe plan``: what a recording will take, before anything runs."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from attnprobe.cli.keeping import read_keep, selecting
from attnprobe.cli.models import Named, pick_device
from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.errors import BudgetError, SelectionError
from attnprobe.sizes import format_bytes, parse_bytes


@click.command("plan")
@click.argument("model")
@click.option("--tokens", required=True, metavar="N", help="Tokens of the prompt: 4096, 32k.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Texts that run together.")
@click.option("--source", metavar="N", help="Tokens of an encoder, which cross-attention looks at.")
@click.option("--other", multiple=True, metavar="NAME=N", help="Length of another sequence: image=577.")
@click.option("--generate", default=0, type=click.IntRange(min=0), metavar="N", help="Tokens generated after it.")
@selecting
@click.option("-o", "--out", "run", type=click.Path(path_type=Path), metavar="RUN", help="Written there; else memory.")
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda:1"; auto is CUDA where there is one.')
@click.option("--budget", default="256 MiB", show_default=True, help="Working memory.")
@shared
def command(
    out: Output,
    model: str,
    tokens: str,
    batch: int,
    source: str | None,
    other: tuple[str, ...],
    generate: int,
    run: Path | None,
    device: str,
    budget: str,
    **selection: Any,
) -> None:
    """Say what recording MODEL will take: bytes kept, peak memory beside the model's, extra operations.

    Only MODEL's configuration is loaded. Where it does not fit what is free, the exit code is 4, and the nearest
    selections that fit are listed.

    \b
    attnprobe plan gpt2 --tokens 1024 -o runs/book
    attnprobe plan gpt2 --tokens 1024 --keep topk:8 --keep measures
    attnprobe plan demo --tokens 512 --batch 8 --queries -64:
    """  # noqa: D301 (click wants the backspace itself)
    items = read_keep(**selection)
    parse_bytes(budget)
    named = Named(model, progress=False)

    from attnprobe.api import plan

    found = plan(
        named.outline(),
        tokens,
        batch=batch,
        generate=generate,
        source=source or 0,
        others=dict(_parse_other(one) for one in other),
        to=run,
        keep=items,
        budget=budget,
        device=pick_device(device),
    )
    lines = [Text(line, style="bold" if number == 1 else "") for number, line in enumerate(found.lines())]
    lines.append(Text(found.verdict, style="bold"))
    if found.suggestions:
        lines.append(Text("nearest that fit:"))
        lines += [Text(f"  {one.options}  ({format_bytes(one.nbytes)})") for one in found.suggestions]
    for note in found.notes:
        out.note(f"note: {note}")
    out.data(found.to_dict(), *lines)
    if not found.fits:
        raise BudgetError(f"it {found.verdict}")


def _parse_other(text: str) -> tuple[str, str]:
    name, equals, length = text.partition("=")
    if not equals:
        raise SelectionError(f"--other {text!r}: write NAME=N, image=577")
    return name.strip(), length
