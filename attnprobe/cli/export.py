"""``attnprobe export``: pictures and tables of a run, as files."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from attnprobe.cli import export_pictures, export_tables
from attnprobe.cli.export_files import check_targets, write_file
from attnprobe.cli.export_html import export_html, html_options
from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.pictured import Look, looks
from attnprobe.errors import SelectionError
from attnprobe.run import open_run
from attnprobe.sizes import format_bytes

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("head", metavar="[L.H]", required=False)
@click.option("--png", type=_FILE, metavar="FILE", help="A picture, of pixels.")
@click.option("--svg", type=_FILE, metavar="FILE", help="A picture, of lines and text; only a map is of pixels.")
@click.option("--pdf", type=_FILE, metavar="FILE", help="The same as PDF.")
@click.option("--csv", type=_FILE, metavar="FILE", help="A table as text, in full digits.")
@click.option(
    "--parquet", type=_FILE, metavar="FILE", help="A table for pandas, polars, DuckDB: needs attnprobe[data]."
)
@click.option("--html", type=_FILE, metavar="FILE", help="The explorer as one file, which needs no network.")
@html_options
@click.option("--grid", is_flag=False, flag_value="", metavar="[MEASURE]", help="Picture all heads, or a mean of each.")
@click.option("--measures", is_flag=True, help="Picture measures: curves, histograms, heads by two means.")
@click.option(
    "--what", type=click.Choice(export_tables.KINDS), help="Which table. [default: map, without L.H measures]"
)
@click.option("--query", metavar="TOKEN", help="Whose row: a token or a position.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many weights of top.")
@click.option("--sample", metavar="I", help="Which sample, by its id or place, where there are several.")
@click.option("--kind", type=click.Choice(["self", "cross"]), help="Of which attention --grid and --measures are.")
@click.option("--part", help="Of which part of the model: decoder, encoder.")
@click.option("--dpi", type=click.IntRange(30, 1200), default=300, show_default=True, help="Pixels an inch of --png.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@shared
@looks
def command(
    out: Output,
    run: Path,
    head: str | None,
    overwrite: bool,
    what: str | None,
    dpi: int,
    look: Look,
    html: Path | None,
    max_size: str,
    yes: bool,
    **options: Any,
) -> None:
    """Write pictures (--png, --svg, --pdf), tables (--csv, --parquet) or the explorer (--html) of RUN.

    Of one head L.H, or of all. With --html, L.H may be several with commas: the heads whose maps the file has.

    A file appears whole or not at all. In a CSV file tokens are quoted and otherwise as they are, so that they can be
    read back; a spreadsheet may take one that starts with = + - @ for a formula: import the column as text.

    \b
    attnprobe export runs/maia --html maia.html
    attnprobe export runs/book 3.1,5.0 --html book.html --max-size 50MB
    attnprobe export runs/maia 3.1 --png head.png --pdf head.pdf
    attnprobe export runs/maia --grid --svg all.svg
    attnprobe export runs/tale --grid induction --png induction.png
    attnprobe export runs/tale --csv measures.csv
    attnprobe export runs/maia 3.1 --what row --query " her" --csv row.csv
    attnprobe export runs/book 3.1 --rows 20000:20256 --columns 1: --parquet part.parquet
    """  # noqa: D301 (click wants the backspace itself)
    pictures = {name: options.pop(name) for name in export_pictures.FORMATS}
    tables = {name: options.pop(name) for name in export_tables.FORMATS}
    targets = {name: path for name, path in (pictures | tables).items() if path is not None}
    if html is not None:
        if targets or any(options[name] for name in ("grid", "measures", "query")) or what is not None:
            raise SelectionError("--html is a file of its own: write pictures and tables by other commands")
        check_targets({"html": html}, overwrite)
        samples = [] if options["sample"] is None else [options["sample"]]
        export_html(out, run, html, head.split(",") if head else [], samples, max_size, yes)
        return
    if not targets:
        raise SelectionError("name a file to write: --html, --png, --svg, --pdf, --csv or --parquet FILE")
    drawn = any(name in pictures for name in targets)
    if not drawn and (options["grid"] is not None or options["measures"]):
        raise SelectionError("--grid and --measures are pictures: name a --png, --svg or --pdf to write")
    if not drawn or len(targets) > sum(path is not None for path in pictures.values()):
        what = export_tables.kind_of(what, head, options["query"])
    elif what is not None or options["query"] is not None:
        raise SelectionError("--what and --query are of tables: name a --csv or --parquet to write")
    check_targets(targets, overwrite)
    opened = open_run(run)
    figure = export_pictures.draw(opened, head, look, options) if drawn else None
    table = export_tables.table_of(opened, head, what, look, options) if what is not None else None
    written = []
    for name, path in targets.items():
        if figure is not None and name in pictures:
            size = write_file(path, partial(export_pictures.save, figure, name=name, dpi=dpi), overwrite)
            shape: dict[str, Any] = {"inches": [round(float(side), 2) for side in figure.get_size_inches()]}
            told = " x ".join(f"{side:g}" for side in shape["inches"]) + " inches"
        else:
            assert table is not None  # it was made for these formats
            size = write_file(path, partial(export_tables.save, table, name=name), overwrite)
            shape = {"rows": len(table), "columns": len(table.columns)}
            told = f"{len(table):,} rows x {len(table.columns):,} columns"
        written.append({"path": str(path), "format": name, **shape, "bytes": size})
        out.note(f"wrote {path}: {told}, {format_bytes(size)}")
    if out.as_json:
        out.data({"run": str(run), "files": written})
