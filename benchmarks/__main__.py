"""``python -m benchmarks [NAMES]``: run, print, write JSON."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import click

from benchmarks.measure import OtherLoad
from benchmarks.page import NAMES, write_page
from benchmarks.report import environment_text

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ASKED = ("kernels", "streaming", "peers", "viewers")  # these run when they are named: on CUDA, or with other tools
PEERS = sorted(file.stem for file in (ROOT / "benchmarks" / "peers" / "requirements").glob("*.txt"))


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Tiny sizes: shows that it runs; the figures mean nothing.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "out", help="Where the JSON goes."
)
@click.option("--docs", is_flag=True, help="Also write docs/benchmarks/DEVICE/*.json and the page.")
@click.option("--page", is_flag=True, help="Measure nothing: make docs/benchmarks.md and its pictures from the JSON.")
@click.option("--here", is_flag=True, help="Peers: in this environment, not in one of each one's own.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Peers: where the model is.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", help="Peers: its type."
)
@click.option("--only", multiple=True, type=click.Choice(PEERS), help="Peers: these, once or more.")
def main(names: tuple[str, ...], quick: bool, out: Path, docs: bool, page: bool, **peers: Any) -> None:
    """Measure attnprobe.

    Without NAMES everything but kernels and streaming, which need CUDA, and peers and viewers, which install some
    gigabytes of other tools below benchmarks/out/venvs (peers: unless --here): about half an hour on two cores, and a
    quarter of an hour for each of these.
    """
    if quick and docs:
        raise click.UsageError("--quick figures are not for the documentation")
    if peers["device"] != "cpu" and names != ("peers",):
        raise click.UsageError("--device is for peers: python -m benchmarks peers --device cuda")
    for name in () if page else names or [name for name in NAMES if name not in ASKED]:
        _run(name, quick, out, docs, peers if name == "peers" else {})
    if docs or page:
        write_page(DOCS / "benchmarks", DOCS / "benchmarks.md", DOCS / "images")


def _run(name: str, quick: bool, out: Path, docs: bool, settings: dict[str, Any]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    load = OtherLoad()
    result = module.measure(quick, **settings)
    result["environment"]["other_load"] = load.share()
    click.echo(environment_text(result["environment"]))
    for table in module.TABLES:
        table(result).print()
    device = re.sub(r"\W+", "-", result["environment"]["device"].lower())
    for place in (out, DOCS / "benchmarks" / device) if docs else (out,):
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
