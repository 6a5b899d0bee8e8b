"""The options of ``capture --dataset``."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from attnprobe.corpus import LONG
from attnprobe.keep import Item

COUNT = click.IntRange(min=1)
SAMPLED = ("line", "paragraph", "document")
OPTIONS = (
    click.option(
        "--dataset",
        multiple=True,
        metavar="FILES",
        help="Files (.jsonl, .txt, .csv, .parquet), a glob in quotes, a directory, once or more; or a dataset on the "
        "hub: name[:config][@split].",
    ),
    click.option("--column", default="text", show_default=True, help="Where its texts are."),
    click.option("--id-column", help="Where its rows' ids are; else they are numbered from 0."),
    click.option(
        "--sample-by", default="line", show_default=True, type=click.Choice(SAMPLED), help="What a row of .txt is."
    ),
    click.option("--limit", type=COUNT, metavar="N", help="Take only the first N rows."),
    click.option("--batch", type=COUNT, default=8, show_default=True, metavar="N", help="Rows that run together."),
    click.option("--batch-tokens", type=COUNT, metavar="N", help="Most tokens of a batch, padding included."),
    click.option(
        "--long", default="cut", show_default=True, type=click.Choice(LONG), help="Of rows longer than the window."
    ),
    click.option("--resume", is_flag=True, help="Go on with the run that is there, or start it."),
    click.option("--worker", metavar="I/N", help="Worker I of N, from 0; else its launcher says it."),
)


@dataclass(frozen=True)
class Job:
    """What the command line asks for."""

    model: str
    run: Path
    keep: Sequence[Item]
    device: str
    budget: str
    overwrite: bool
    text: bool
    max_tokens: int | None
    dataset: tuple[str, ...]
    column: str
    id_column: str | None
    sample_by: str
    limit: int | None
    batch: int
    batch_tokens: int | None
    long: str
    resume: bool
    worker: str | None


_NAMES = [field.name for field in fields(Job)]
OWN = _NAMES[_NAMES.index("dataset") :]  # those of a corpus alone


def corpus_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a corpus, which it takes as one mapping, ``corpus``."""

    @functools.wraps(function)
    def gathering(**parameters: Any) -> None:
        function(corpus={name: parameters.pop(name) for name in OWN}, **parameters)

    for option in reversed(OPTIONS):
        gathering = option(gathering)
    return gathering


def check_options(dataset: Sequence[str], words: Sequence[str]) -> None:
    """Refuse options of the other way of ``capture``.

    Parameters
    ----------
    dataset
        What ``--dataset`` names.
    words
        What is no option: the model, and what else there is.

    Raises
    ------
    click.UsageError
        If there are any.
    """
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    options = {str(one.name): one.opts[0] for one in context.command.params}
    given = {name: option for name, option in options.items() if context.get_parameter_source(name) is typed}
    wrong = next((given[name] for name in ("text", "file", "generate") if name in given), None)
    if dataset and (stray := _stray(words)):
        raise click.UsageError(
            f"{stray!r} belongs to no option: where the shell made several files of a glob, quote the glob "
            '(--dataset "texts/*.jsonl"); else give --dataset before each file'
        )
    if dataset and (wrong or len(words) > 1):
        raise click.UsageError(f"{wrong or 'a text from standard input'} is of one text, and --dataset of many")
    own = next((given[name] for name in OWN if name in given), None)
    if own == "--resume" and not dataset:
        raise click.UsageError("--resume goes on with --dataset; of one text all is recorded or nothing: --overwrite")
    if own is not None and not dataset:
        raise click.UsageError(f"{own} is of a corpus; give --dataset too")


def _stray(words: Sequence[str]) -> str | None:
    """What was to be a file of a corpus, and stands behind no ``--dataset``; else None."""
    more = [word for word in words[1:] if word != "-"]
    files = [word for word in words if Path(word).is_file()] if more else []
    return next(iter(files or more), None)
