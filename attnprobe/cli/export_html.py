"""``attnprobe export --html``: the explorer as one file."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from attnprobe.cli.export_files import write_file
from attnprobe.cli.output import Output
from attnprobe.cli.show import parse_head
from attnprobe.errors import SelectionError
from attnprobe.explorer.file import MAX_SIZE, Size, write_html
from attnprobe.run import Run

_NUMBER = re.compile(r"-?[0-9]+")


def html_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--html`` and what belongs to it."""
    options = (
        click.option(
            "--html",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="The explorer as one page, which needs no network.",
        ),
        click.option(
            "--heads", multiple=True, metavar="L.H", help="Whose maps --html has, once or more. [default: all]"
        ),
        click.option("--max-size", metavar="SIZE", help=f"Most that --html may take. [default: {MAX_SIZE}]"),
        click.option("-y", "--yes", is_flag=True, help="Write a --html that has to be larger."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def check_html(html: Path | None, heads: Sequence[str], max_size: str | None, yes: bool) -> None:
    """Refuse options of ``--html`` without it.

    Raises
    ------
    SelectionError
        If there are some.
    """
    given = {"--heads": heads, "--max-size": max_size, "--yes": yes}
    alone = [name for name, value in given.items() if value]
    if html is None and alone:
        raise SelectionError(f"{', '.join(alone)} is of --html: name a --html FILE to write")


def export_html(
    out: Output,
    run: Run,
    file: Path,
    heads: Sequence[str],
    sample: str | None,
    max_size: str | None,
    yes: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Write one HTML file of a run; its size is told before, as an estimate.

    Parameters
    ----------
    out
        Where notes go.
    run, file
        The run, and the file.
    heads
        Whose maps it has, as `parse_head` reads them; all if empty.
    sample
        An id or a place; the first 8 if None.
    max_size
        That it may have.
    yes
        Write it although it has to be larger.
    overwrite
        Whether it may replace a file.

    Returns
    -------
    dict
        What was written.
    """
    sites = [site.key for site in run.sites]
    chosen = [parse_head(head, sites) for head in heads] or None
    named = None if sample is None else [_which(run, sample)]
    written: list[Size] = []

    def write(path: Path) -> None:
        written.append(
            write_html([run], path, chosen, named, max_size or MAX_SIZE, yes, lambda size: out.note(f"about {size}"))
        )

    write_file(file, write, overwrite)
    (size,) = written
    out.note(f"wrote {file}: {size}")
    return {"path": str(file), "format": "html", "bytes": size.total, "parts": size.parts, "left": list(size.left)}


def _which(run: Run, sample: str) -> int | str:
    """An id, or a place where there is no such id."""
    return int(sample) if _NUMBER.fullmatch(sample) and run.reader.find(sample) is None else sample
