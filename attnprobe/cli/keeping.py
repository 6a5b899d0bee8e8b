"""``--keep`` and the options that select, which `capture` and `plan` share."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from attnprobe.errors import SelectionError
from attnprobe.keep import Item, Measures, TopK, Weights

FORMS = "weights, topk:K, measures, measures:NAME,NAME"


def selecting(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that `read_keep` takes."""
    options = (
        click.option(
            "--keep",
            multiple=True,
            metavar="WHAT",
            help=f"What of it, once or more: {FORMS}.  [default: weights]",
        ),
        click.option("--layers", default="all", show_default=True, help='Layers: "0,3-5", "-1", "::4".'),
        click.option(
            "--heads", default="all", show_default=True, help='Heads: as layers, or across them: "L5H1,L6H9".'
        ),
        click.option("--queries", default="all", show_default=True, help='Rows of the prompt: "-64:", "0,10".'),
        click.option("--keys", default="all", show_default=True, help='One range of columns: ":512".'),
        click.option(
            "--dtype",
            default="float32",
            show_default=True,
            help="What weights are stored in: float16, bfloat16, log-uint8 (one byte, within 3.35 %).",
        ),
        click.option(
            "--pyramid/--no-pyramid",
            default=True,
            help="Keep coarser levels of large maps beside their weights, to show them at once.  [default: pyramid]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def read_keep(keep: Sequence[str], **words: Any) -> list[Item]:
    """What ``--keep`` names, of what the other options select.

    Raises
    ------
    SelectionError
        If something is unknown, is named twice, or an option has no meaning beside what is kept.
    """
    names = [one.partition(":")[0].strip() for one in keep] or ["weights"]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        more = ": measures:entropy,max" if twice == "measures" else ""
        raise SelectionError(f"--keep {twice} is there twice; write it once{more}")
    if set(names) == {"measures"}:
        default = Weights()
        for name in ("keys", "dtype"):
            if words[name] != getattr(default, name):
                raise SelectionError(
                    f"--{name} {words[name]} has no meaning with --keep measures: rows are measured over all of their "
                    "columns, and measures are numbers of their own; leave it out, or --keep weights too"
                )
    return [_item(one, words) for one in keep] or [Weights(**words)]


def _item(one: str, words: dict[str, Any]) -> Item:
    """An item of one ``--keep``."""
    name, colon, rest = (part.strip() for part in one.partition(":"))
    if name == "weights" and not colon:
        return Weights(**words)
    if name == "topk" and (rest.isdecimal() or not colon):
        own = {word: value for word, value in words.items() if word != "pyramid"}
        return TopK(**own, k=int(rest)) if rest else TopK(**own)
    if name == "measures" and (rest or not colon):
        own = {word: value for word, value in words.items() if word not in ("keys", "dtype", "pyramid")}
        return Measures(**own, names=rest) if rest else Measures(**own)
    raise SelectionError(f"--keep {one!r} is not understood; write {FORMS}")
