"""Results of ``attnprobe bench`` on the page: what each way of recording costs on a model."""

from pathlib import Path
from typing import Any

from benchmarks.report import Table


def heading(result: dict[str, Any]) -> str:
    """What was measured."""
    from attnprobe.bench.result import Bench
    from attnprobe.bench.table import title

    return f"Modes: {title(Bench.from_dict(result))}"


def table(result: dict[str, Any]) -> Table:
    """A row a mode and length."""
    from attnprobe.bench.result import Bench
    from attnprobe.bench.table import cells, columns, footnotes

    bench = Bench.from_dict(result)
    notes = [note for note in footnotes(bench) if not note.startswith("On ")]  # the section says that already
    return Table("Time and memory", columns(bench), cells(bench), "\n".join(f"- {note}" for note in notes))


def draw(result: dict[str, Any], path: Path) -> None:
    """Its own plot."""
    from attnprobe.bench.result import Bench

    Bench.from_dict(result).plot(path)


TABLES = (table,)
