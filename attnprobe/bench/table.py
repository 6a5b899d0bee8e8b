"""A result for people: as lines of text, and as a table of rich."""

from typing import TYPE_CHECKING

from attnprobe.bench.machine import environment_line
from attnprobe.bench.timing import Spread
from attnprobe.sizes import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from attnprobe.bench.result import Bench, Row

COLUMNS = ("tokens", "mode", "time", "over off", "forward", "kept", "extra", "rounds")
HOST = "on host"  # extra memory beside the device's
DROPPED = "rounds", "forward", HOST  # one after the other, where a terminal is narrow
GAP = 2
NOISY = 1.5


def columns(bench: "Bench") -> tuple[str, ...]:
    """Names of the columns; the host's memory is one of its own where there is a device's."""
    return (*COLUMNS[:-1], HOST, COLUMNS[-1]) if _both(bench) else COLUMNS


def _both(bench: "Bench") -> bool:
    return any(row.device_extra is not None for row in bench.rows)


def title(bench: "Bench") -> str:
    """What was measured, in a line."""
    it = bench.setting
    rows = "" if it.batch == 1 else f", batch {it.batch}"
    return f"{it.model}, {it.dtype}, {it.attention}{rows}, on {bench.environment['device']}"


def cells(bench: "Bench") -> list[list[str]]:
    """The table's cells, a list a row; a length is named in the first of its rows."""
    both = _both(bench)
    before, found = 0, []
    for row in bench.rows:
        tokens = f"{row.tokens:,}" if row.tokens != before else ""
        before = row.tokens
        found.append([tokens, row.mode, *_figures(row, both)])
    return found


def _figures(row: "Row", both: bool) -> list[str]:
    if row.seconds is None:
        return [row.status if row.status != "measured" else "", "", "", "", *_extra(row, both), ""]
    kept = "" if not row.kept else format_bytes(row.kept)
    forward = row.forward_ratio
    inside = "" if forward is None or row.mode in ("off", "paused") else f"{forward.median:.2f}"
    times = [_milliseconds(row.seconds), _ratio(row.ratio), inside]
    return [*times, kept, *_extra(row, both), str(row.seconds.count)]


def _milliseconds(one: Spread) -> str:
    return f"{1000 * one.median:,.1f} ms" if one.median < 1 else f"{one.median:,.2f} s"


def _ratio(one: Spread | None) -> str:
    if one is None or not one.values:
        return ""
    digits = 2 if one.median < 9.995 else 1 if one.median < 99.95 else 0
    return f"{one.median:.{digits}f}" + (f" ({one.low:.{digits}f}-{one.high:.{digits}f})" if one.count > 1 else "")


def _extra(row: "Row", both: bool) -> list[str]:
    """Of the device and of the host, where there are both."""
    sizes = [row.device_extra, row.host_extra] if both else [row.host_extra]
    return ["" if row.mode == "off" else _signed(size) for size in sizes]


def _signed(size: int | None) -> str:
    if size is None:
        return ""
    return f"-{format_bytes(-size)}" if size < 0 else format_bytes(size)


def footnotes(bench: "Bench") -> list[str]:
    """What is below the table: why rows are empty, what modes are, what to know of the figures."""
    why = [f"{row.mode} at {row.tokens:,} tokens, {row.status}: {row.reason}" for row in bench.rows if row.reason]
    what = [f"{name}: {words}" for name, words in bench.modes.items()]
    interrupted = ["Interrupted: not everything was measured."] if bench.interrupted else []
    return [*interrupted, *_noise(bench), *why, *what, *bench.notes, f"On {environment_line(bench.environment)}."]


def _noise(bench: "Bench") -> list[str]:
    """A warning where the model as it is differs much from itself."""
    bare = [row for row in bench.rows if row.mode == "off" and row.ratio is not None and row.ratio.count > 1]
    wide = [row for row in bare if row.ratio is not None and row.ratio.high > NOISY * row.ratio.low]
    if not wide:
        return []
    at = ", ".join(f"{row.tokens:,}" for row in wide)
    return [
        f"NOISY at {at} tokens: two bare passes of a round differ more than {NOISY} times as much in one round as in "
        "another, and so may everything else. A quiet machine, more --rounds, longer passes and, on a CPU, "
        "OMP_NUM_THREADS=1 help."
    ]


def rich_table(bench: "Bench", width: int) -> "Table":
    """The table, without columns that `width` has no place for."""
    from rich import box
    from rich.table import Table

    names, rows = list(columns(bench)), cells(bench)
    widths = dict(zip(names, _widths([names, *rows]), strict=True))
    shown = names.copy()
    for name in DROPPED:
        if name in shown and sum(widths[n] + GAP for n in shown) > width:
            shown.remove(name)
    table = Table(
        box=box.SIMPLE_HEAD, title=title(bench), title_justify="left", title_style="bold", pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )  # fmt: skip
    for name in shown:
        table.add_column(name, justify="left" if name == "mode" else "right", no_wrap=True)
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or bool(rows[number + 1][0])
        style = "bold" if row[1] == "off" else "dim" if bench.rows[number].status != "measured" else ""
        table.add_row(*(row[names.index(name)] for name in shown), end_section=last, style=style)
    return table


def _widths(rows: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def text(bench: "Bench") -> str:
    """All of it as plain text."""
    names = columns(bench)
    rows = [list(names), *cells(bench)]
    widths = _widths(rows)
    lines = []
    for row in rows:
        padded = (
            cell.ljust(width) if name == "mode" else cell.rjust(width)
            for name, cell, width in zip(names, row, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join([title(bench), *lines, "", *footnotes(bench)])
