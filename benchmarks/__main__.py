"""``python -m benchmarks [NAMES]``: run, print, write JSON."""

import importlib
import json
from pathlib import Path

import click

from benchmarks.measure import OtherLoad
from benchmarks.report import environment_text, write_page

NAMES = ("attention", "measures", "long", "memory", "paused", "storage")
ROOT = Path(__file__).parents[1]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Tiny sizes: shows that it runs; the figures mean nothing.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "out", help="Where the JSON goes."
)
@click.option("--docs", is_flag=True, help="Also write docs/benchmarks/cpu/*.json and docs/benchmarks.md.")
def main(names: tuple[str, ...], quick: bool, out: Path, docs: bool) -> None:
    """Measure attnprobe; without NAMES, everything (about half an hour on two cores)."""
    if quick and docs:
        raise click.UsageError("--quick figures are not for the documentation")
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES}
    folder = ROOT / "docs" / "benchmarks" / "cpu"
    for name in names or NAMES:
        load = OtherLoad()
        result = modules[name].measure(quick)
        result["environment"]["other_load"] = load.share()
        click.echo(environment_text(result["environment"]))
        for table in modules[name].TABLES:
            table(result).print()
        for place in (out, folder) if docs else (out,):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if docs:
        for name in names or NAMES:
            if hasattr(modules[name], "draw"):
                modules[name].draw(json.loads((folder / f"{name}.json").read_text()), ROOT / "docs" / "images")
        write_page(folder, ROOT / "docs" / "benchmarks.md", {name: m.TABLES for name, m in modules.items()})


if __name__ == "__main__":
    main()
