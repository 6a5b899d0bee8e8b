"""``attnprobe runs``: runs as a whole, united, copied and deleted."""

import sys
from pathlib import Path

import click

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.verify import reading
from attnprobe.errors import StoreError
from attnprobe.run import open_run
from attnprobe.store.copying import copy_run, merge_runs
from attnprobe.store.deleting import delete_run, refuse_delete
from attnprobe.store.layout import Layout

_RUN = click.Path(path_type=Path)


@click.group("runs")
def command() -> None:
    """Unite, copy or delete runs."""


@command.command("merge")
@click.argument("runs", type=_RUN, nargs=-1, required=True, metavar="RUN RUN...")
@click.option("-o", "--out", "new", type=_RUN, required=True, metavar="NEW", help="Where to write.")
@shared
def merge(out: Output, runs: tuple[Path, ...], new: Path) -> None:
    """Unite RUNs of the same model, selection and data in NEW, which appears whole or not at all.

    Every byte is compared with its checksum on the way. A named sample that is in several is taken once, from who
    recorded it first; samples without a name get new numbers where two have one.

    \b
    attnprobe runs merge runs/monday runs/tuesday -o runs/both
    """  # noqa: D301 (click wants the backspace itself)
    if len(runs) < 2:
        raise click.UsageError("give two runs or more; attnprobe runs copy copies one")
    with reading(out, "merging") as progress:
        merge_runs(runs, new, progress)
    _tell(out, new)


@command.command("copy")
@click.argument("run", type=_RUN)
@click.argument("new", type=_RUN)
@shared
def copy(out: Output, run: Path, new: Path) -> None:
    """Copy what RUN lists to NEW, which appears whole or not at all.

    Every byte is compared with its checksum on the way. What is unfinished or was set aside is left out, and RUN may be
    one that is being written.
    """
    with reading(out, "copying") as progress:
        copy_run(run, new, progress)
    _tell(out, new)


@command.command("delete")
@click.argument("run", type=_RUN)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Although writers of other machines have not ended: they are gone.")
@shared
def delete(out: Output, run: Path, yes: bool, force: bool) -> None:
    """Delete RUN, for good; only what is a run, and nobody writes. Other files that lie in it stay."""
    there = refuse_delete(run, force)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{run} is deleted for good; pass --yes where nobody can be asked")
        click.confirm(f"delete {run} ({_describe(there)}) for good?", abort=True, err=True)
    left = delete_run(run, force)
    out.note(f"deleted {run}" + (f", but what is no file of the run: {there.names}" if left else ""))
    if out.as_json:
        out.data({"deleted": str(run), "left": [str(file) for file in left]})


def _tell(out: Output, run: Path) -> None:
    found = open_run(run)
    out.data({"path": str(run), **found.describe()} if out.as_json else None, str(run), repr(found))


def _describe(there: Layout) -> str:
    if there.is_rest:
        return "what a deletion left"
    try:
        return repr(open_run(there.path))
    except StoreError:
        return "damaged"
