"""A result for people: as lines of text, and as a table of rich."""

from typing import TYPE_CHECKING

from attnprobe.bench.machine import environment_line
from attnprobe.bench.timing import Spread
from attnprobe.sizes import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from attnprobe.bench.result import Bench, Row

COLUMNS = ("tokens", "mode", "time", "over off", "forward", "kept", "extra memory", "rounds")


def title(bench: "Bench") -> str:
    """What was measured, in a line."""
    it = bench.setting
    rows = "" if it.batch == 1 else f", batch {it.batch}"
    return f"{it.model}, {it.dtype}, {it.attention}{rows}, on {bench.environment['device']}"


def cells(bench: "Bench") -> list[list[str]]:
    """The table's cells, a list a row; a length is named in the first of its rows."""
    both = any(row.device_extra is not None for row in bench.rows)
    before, found = 0, []
    for row in bench.rows:
        tokens = f"{row.tokens:,}" if row.tokens != before else ""
        before = row.tokens
        found.append([tokens, row.mode, *_figures(row, both)])
    return found


def _figures(row: "Row", both: bool) -> list[str]:
    if row.seconds is None:
        return [row.status if row.status != "measured" else "", "", "", "", _extra(row, both), ""]
    kept = "" if not row.kept else format_bytes(row.kept)
    forward = row.forward_ratio
    inside = "" if forward is None or row.mode in ("off", "paused") else f"{forward.median:.2f}"
    times = [_milliseconds(row.seconds), _ratio(row.ratio), inside]
    return [*times, kept, _extra(row, both), str(row.seconds.count)]


def _milliseconds(one: Spread) -> str:
    return f"{1000 * one.median:,.{1 if one.median < 1 else 0}f} ms"


def _ratio(one: Spread | None) -> str:
    if one is None or not one.values:
        return ""
    digits = 2 if one.median < 100 else 0
    return f"{one.median:.{digits}f} ({one.low:.{digits}f}-{one.high:.{digits}f})"


def _extra(row: "Row", both: bool) -> str:
    """Of the device and of the host, where there are both."""
    if row.mode == "off" or row.host_extra is None:
        return ""
    host = _signed(row.host_extra)
    return f"{_signed(row.device_extra or 0)}, host {host}" if both else host


def _signed(size: int) -> str:
    return f"-{format_bytes(-size)}" if size < 0 else format_bytes(size)


def footnotes(bench: "Bench") -> list[str]:
    """What is below the table: why rows are empty, what modes are, what to know of the figures."""
    why = [f"{row.mode} at {row.tokens:,} tokens, {row.status}: {row.reason}" for row in bench.rows if row.reason]
    what = [f"{name}: {words}" for name, words in bench.modes.items()]
    interrupted = ["Interrupted: not everything was measured."] if bench.interrupted else []
    return [*interrupted, *why, *what, *bench.notes, f"On {environment_line(bench.environment)}."]


def rich_table(bench: "Bench") -> "Table":
    """The table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title(bench), title_justify="left", title_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "mode" else "right")
    rows = cells(bench)
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or bool(rows[number + 1][0])
        empty = not row[-1] and bench.rows[number].status != "measured"
        table.add_row(*row, end_section=last, style="dim" if empty else "bold" if row[1] == "off" else "")
    return table


def text(bench: "Bench") -> str:
    """All of it as plain text."""
    rows = [list(COLUMNS), *cells(bench)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = (
            cell.ljust(width) if name == "mode" else cell.rjust(width)
            for name, cell, width in zip(COLUMNS, row, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join([title(bench), *lines, "", *footnotes(bench)])
