"""The page of all results, and its pictures, from the JSON files of every device; nothing is measured."""

import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from benchmarks.report import environment_text

# In the page's order. A module of this name measures, and shows: TABLES, and draw where there is a picture of it.
NAMES = ("attention", "measures", "long", "memory", "paused", "storage", "kernels", "streaming", "peers", "viewers")
# What others measured and a module here shows: what a result calls itself, and the module.
SHOWN = {"attnprobe bench": "modes"}

HEAD = """# Benchmarks

Made by `python -m benchmarks --page` from the JSON files in `benchmarks/`, a folder for each device; do not edit by
hand. `make bench` measures on your machine.

Machines are noisy. Figures are ratios of two things that were measured alternately in one run, each ratio taken within
one round: the median and, in brackets, the smallest and the largest. The noise column is the same thing measured
against itself.
"""


def write_page(results: Path, page: Path, images: Path) -> None:
    """Write the page of `results`, folders of JSON files by device, and draw its pictures.

    Raises
    ------
    click.ClickException
        If a file is of no benchmark that is known here.
    """
    parts = [HEAD]
    for folder in sorted(
        filter(Path.is_dir, results.iterdir()), key=lambda folder: (folder.name != "cpu", folder.name)
    ):
        found = sorted(map(_load, folder.glob("*.json")), key=_place)
        if not found:
            continue
        device = found[0][1]["environment"]["device"]
        parts.append(f"## {'CPU' if device == 'cpu' else device}\n")
        pictures = images if folder.name == "cpu" else images / folder.name
        for stem, result, module in found:
            parts.append(_section(stem, result, module, pictures, page))
    page.write_text("\n".join(parts).rstrip() + "\n")


def _load(path: Path) -> tuple[str, dict[str, Any], ModuleType]:
    result = json.loads(path.read_text())
    name = result.get("benchmark")
    module = SHOWN.get(name, name if name in NAMES else None)
    if module is None:
        known = ", ".join([*NAMES, *SHOWN])
        raise click.ClickException(f"{path}: a result of {name!r}; benchmarks/page.py knows {known}")
    return path.stem, result, importlib.import_module(f"benchmarks.{module}")


def _place(found: tuple[str, dict[str, Any], ModuleType]) -> tuple[int, str]:
    stem, result, _ = found
    name = result["benchmark"]
    return (NAMES.index(name) if name in NAMES else len(NAMES)), stem


def _section(stem: str, result: dict[str, Any], module: ModuleType, pictures: Path, page: Path) -> str:
    heading = module.heading(result) if hasattr(module, "heading") else result["benchmark"].capitalize()
    parts = [f"### {heading}\n\nOn {environment_text(result['environment'])}.\n"]
    if hasattr(module, "draw"):
        path = pictures / f"{getattr(module, 'PICTURE', stem)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        module.draw(result, path)
        parts.append(f"![{heading}]({os.path.relpath(path, page.parent)})\n")
    return "\n".join([*parts, *(table(result).markdown() for table in module.TABLES)])
