"""Results for people: tables for the terminal and for the documentation, both from the same JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnprobe.bench.machine import environment_line


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of text, and a note below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str

    def print(self) -> None:
        """Print to the terminal."""
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(*self.columns, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        console = Console()
        console.print(table)
        console.print(self.note + "\n", style="dim")

    def markdown(self) -> str:
        """As a section of a page."""
        lines = [f"### {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        return "\n".join([*lines, *map(_line, self.rows), "", self.note, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def ratio_text(ratio: Mapping[str, float], target: float | None = None, digits: int = 2) -> str:
    """Median, spread, and whether a target (at most) is met."""
    text = f"{ratio['median']:.{digits}f} ({ratio['low']:.{digits}f} to {ratio['high']:.{digits}f})"
    if target is None:
        return text
    return f"{text}, target {target}: {'met' if ratio['median'] <= target else 'MISSED'}"


def environment_text(environment: Mapping[str, Any]) -> str:
    """One line: what it was measured on."""
    return environment_line(environment)


HEAD = """# Benchmarks

Made by `python -m benchmarks --docs` from the JSON files in `benchmarks/cpu/`; do not edit by hand. `make bench` runs
the same on your machine.

Machines are noisy. Every figure is a ratio of two things that were measured alternately in one run, each ratio taken
within one round: the median and, in brackets, the smallest and the largest. The noise column is the same thing measured
against itself.
"""


def write_page(folder: Path, page: Path, tables: Mapping[str, Any]) -> None:
    """Write the page of all results in `folder`; `tables` gives each benchmark's."""
    parts = [HEAD]
    for name, make in tables.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            parts.append(f"## {name.capitalize()}\n\nOn {environment_text(result['environment'])}.\n")
            parts.extend(one(result).markdown() for one in make)
    page.write_text("\n".join(parts).rstrip() + "\n")
