"""``attnprobe export --html``: the explorer as one file."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from attnprobe.cli.output import Output
from attnprobe.cli.show import parse_head
from attnprobe.explorer.file import MAX_SIZE, Size, write_html
from attnprobe.run import open_run
from attnprobe.sizes import format_bytes

LARGE = 5_000_000  # bytes from which on it is told how a file gets smaller
_NUMBER = re.compile(r"-?[0-9]+")


def html_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--max-size`` and ``--yes``, which `export_html` takes."""
    options = (
        click.option("--max-size", default=MAX_SIZE, show_default=True, help="Most that an HTML file may have."),
        click.option("-y", "--yes", is_flag=True, help="Write an HTML file that has to be larger."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def export_html(
    out: Output,
    run: Path,
    file: Path,
    heads: Sequence[str] = (),
    samples: Sequence[str] = (),
    max_size: str = MAX_SIZE,
    yes: bool = False,
) -> None:
    """Write one HTML file of a run.

    Parameters
    ----------
    out
        Where its size is told: an estimate before the work, as a note; and what it has, as data. What cannot be looked
        at in it for want of exact weights is a note, with the size that they need.
    run, file
        The run, and the file.
    heads
        Whose maps it has, as `parse_head` reads them; all if empty.
    samples
        Ids or places; the first 8 if empty.
    max_size
        That it may have.
    yes
        Write it although it has to be larger.
    """
    opened = open_run(run)
    sites = [site.key for site in opened.sites]
    chosen = [parse_head(head, sites) for head in heads] or None
    named = [_which(opened.reader.find, sample) for sample in samples] or None

    def tell(size: Size) -> None:
        hints = ["smaller: fewer heads (3.1,5.0), one --sample, a lower --max-size"] if size.total > LARGE else []
        hints += ["finer: a higher --max-size"] if size.left else []
        out.note("; ".join([f"{file} will be about {format_bytes(size.total)}", *hints]))

    size = write_html(opened, file, chosen, named, max_size, yes, tell)
    record: dict[str, Any] = {"path": str(file), "bytes": size.total, "parts": size.parts, "left": list(size.left)}
    if size.lacking:
        record["exact"] = size.exact
    out.data(record, str(file), size.account)
    if size.lacking:
        out.note(size.lacking)


def _which(find: Callable[[str], object], sample: str) -> int | str:
    """An id, or a place where there is no such id."""
    return int(sample) if _NUMBER.fullmatch(sample) and find(sample) is None else sample
