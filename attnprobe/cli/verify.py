"""``attnprobe verify``: whether a run is what its journals say; with ``--repair``, what is not is set aside."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from attnprobe.cli.output import VERIFICATION, Output
from attnprobe.cli.output import command as shared
from attnprobe.verifying import Progress as Told
from attnprobe.verifying import verify

PRINTED = 20  # findings; --json gives all


@click.command("verify")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Set damaged shards and journals aside, so that a resume redoes them.")
@click.option(
    "--force",
    is_flag=True,
    help="Repair although writers of other machines have not ended, and remove what they left: they are gone.",
)
@shared
def command(out: Output, run: Path, repair: bool, force: bool) -> None:
    """Check every byte of RUN against its journals, and its numbers against what weights may be.

    Exit code 0 says that nothing is wrong, or that --repair set aside all that was; 3 that something is, with its file,
    tensor and byte. Wrong numbers whose checksum fits were recorded so: --repair leaves them, and 3 remains.

    \b
    attnprobe verify runs/book
    attnprobe verify runs/book --repair && attnprobe capture ... --resume -o runs/book
    """  # noqa: D301 (click wants the backspace itself)
    if force and not repair:
        raise click.UsageError("--force says how to --repair")
    with reading(out, "verifying") as progress:
        report = verify(run, repair, force, progress)
    lines = [f"{run}: {report}"]
    lines += [str(one) for one in report.findings[:PRINTED]]
    if len(report.findings) > PRINTED:
        lines.append(f"... and {len(report.findings) - PRINTED:,} more (--json lists all)")
    lines += report.aside[:PRINTED]
    if len(report.aside) > PRINTED:
        lines.append(f"... and {len(report.aside) - PRINTED:,} more set aside (--json lists all)")
    if repair and any(one.problem == "manifest" for one in report.left):
        lines.append("nothing is repaired: no manifest can be made of what is there")
    elif repair and report.left:
        lines.append(f"{len(report.left):,} of these are left: no repair sets right what was recorded so")
    for note in report.notes:
        out.note(f"note: {note}")
    out.data(report.to_dict() if out.as_json else None, *([] if out.as_json else lines))
    if not report.ok:
        sys.exit(VERIFICATION)


@contextmanager
def reading(out: Output, what: str) -> Iterator[Told | None]:
    """A bar on a terminal, and a function that moves it to so many bytes of all."""
    if out.quiet or not out.stderr.is_terminal:
        yield None
        return
    columns = [TextColumn(what), BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=out.stderr, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
