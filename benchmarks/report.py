"""Results for people: tables for the terminal and for the documentation, both from the same JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        lines = [f"#### {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
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
