"""The picture of a result: time over the bare forward pass, and extra memory, over length."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnprobe.bench.result import MEASURED, Bench, Row
from attnprobe.bench.table import title
from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIB = float(1 << 20)
FLOOR = MIB  # a log scale has no zero, and less than this is noise
DIED = "out of memory", "will not fit"
# Ours from violet to green, others' in reds; each with a marker of its own, for eyes and printers without colour.
STYLES = {
    "paused": ("#868e96", "."),
    "head": ("#5f3dc4", "o"),
    "rows": ("#1c7ed6", "s"),
    "row-measures": ("#22b8cf", "v"),
    "measures": ("#0b7285", "^"),
    "weights": ("#2b8a3e", "D"),
    "disk": ("#94d82d", "P"),
    "eager": ("#c2255c", "o"),
    "hook": ("#e8590c", "s"),
}


@dataclass(frozen=True)
class _Line:
    """A mode's rows: those that were measured, and the one at which memory ended, if it did."""

    mode: str
    rows: list[Row]
    died: Row | None

    @property
    def style(self) -> dict[str, Any]:
        color, marker = STYLES[self.mode]
        return {"color": color, "marker": marker, "markersize": 5, "linewidth": 1.6}


def plot(bench: Bench) -> "Figure":
    """Draw it on a new figure.

    Raises
    ------
    AttnprobeError
        If matplotlib is not installed, or nothing was measured.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AttnprobeError("plots need matplotlib: pip install attnprobe[plots]") from error
    lines = [line for line in map(_line, [bench] * len(STYLES), STYLES) if line.rows or line.died]
    if not any(line.rows for line in lines):
        raise AttnprobeError("there is nothing to plot: no mode was measured beside off")
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    time, memory = figure.subplots(1, 2)
    _draw_time(time, bench, lines)
    _draw_memory(memory, bench, lines)
    for axes in (time, memory):
        _frame(axes, sorted({row.tokens for row in bench.rows}))
    figure.suptitle(title(bench), fontsize=11, fontweight="bold")
    if any(line.died for line in lines):
        time.plot([], [], "x", color="0.3", markersize=8, markeredgewidth=2, label="memory ended")
    handles, labels = time.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    return figure


def _line(bench: Bench, mode: str) -> _Line:
    own = [row for row in bench.rows if row.mode == mode]
    measured = [row for row in own if row.status == MEASURED and row.ratio is not None]
    return _Line(mode, measured, next((row for row in own if row.status in DIED), None))


def _draw_time(axes: "Axes", bench: Bench, lines: list[_Line]) -> None:
    bare = [(row.tokens, row.ratio) for row in bench.rows if row.mode == "off" and row.ratio and row.ratio.values]
    if bare:
        lengths = [tokens for tokens, _ in bare]
        axes.fill_between(
            lengths,
            [r.low for _, r in bare],
            [r.high for _, r in bare],
            color="0.88",
            linewidth=0,
            label="noise of off",
        )
    axes.axhline(1, color="0.5", linewidth=0.8)
    for line in lines:
        found = [(row.tokens, row.ratio) for row in line.rows if row.ratio is not None]
        if not found:
            axes.plot([], [], **line.style, label=line.mode)
            continue
        lengths, medians = [tokens for tokens, _ in found], [ratio.median for _, ratio in found]
        low, high = [ratio.low for _, ratio in found], [ratio.high for _, ratio in found]
        axes.fill_between(lengths, low, high, color=line.style["color"], alpha=0.15, linewidth=0)
        axes.plot(lengths, medians, **line.style, label=line.mode)
        _cross(axes, line, medians[-1], medians[-1])
    axes.set_yscale("log")
    axes.set_title("Time over the model as it is", fontsize=10, loc="left")
    _ticks(axes, _ratio_ticks(*axes.get_ylim()), lambda value: f"{value:g}×")


def _draw_memory(axes: "Axes", bench: Bench, lines: list[_Line]) -> None:
    measured = any(row.extra is not None for row in bench.rows)
    environment = bench.environment
    room = environment.get("device_memory_gib", environment["memory_gib"]) * 1024 * MIB
    largest = 0.0
    for line in lines:
        sizes = [(row.tokens, row.extra if measured else row.kept) for row in line.rows]
        found = [(tokens, max(float(size), FLOOR)) for tokens, size in sizes if size is not None]
        if found:
            axes.plot(*zip(*found, strict=True), **line.style)
        if line.died is not None:
            _cross(axes, line, found[-1][1] if found else room, room)
        largest = max([largest, *(size for _, size in found), *([room] if line.died else [])])
    if largest > room / 100:
        axes.axhline(room, color="0.5", linewidth=0.8, linestyle=(0, (4, 3)))
        where = "the device" if "device_memory_gib" in environment else "the machine"
        axes.annotate(
            f"memory of {where}", (0, room), (4, -3), xycoords=("axes fraction", "data"), textcoords="offset points",
            color="0.4", fontsize=8, va="top",
        )  # fmt: skip
    axes.set_yscale("log")
    what = "Extra memory at the peak" if measured else "Bytes kept (memory was not measured)"
    axes.set_title(what, fontsize=10, loc="left")
    low, high = axes.get_ylim()
    low = min(low, FLOOR / 1.5)
    axes.set_ylim(low, max(high, 20 * FLOOR))
    _ticks(axes, [MIB * 10**power for power in range(3)] + [1024 * MIB * 10**power for power in range(5)], _size)


def _cross(axes: "Axes", line: _Line, last: float, at: float) -> None:
    """Where memory ended: dashed to there from what was measured last."""
    if line.died is None:
        return
    color = line.style["color"]
    if line.rows:
        axes.plot(
            [line.rows[-1].tokens, line.died.tokens], [last, at], color=color, linewidth=1.2, linestyle=(0, (2, 2))
        )
    axes.plot([line.died.tokens], [at], "x", color=color, markersize=10, markeredgewidth=2.5, clip_on=False, zorder=5)


def _frame(axes: "Axes", lengths: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(lengths[0] / 1.15, lengths[-1] * 1.15)
    axes.set_xticks(lengths, [_tokens(length) for length in lengths])
    axes.set_xlabel("tokens", fontsize=9)
    axes.minorticks_off()
    axes.tick_params(labelsize=9, length=3)
    axes.grid(axis="y", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axes: "Axes", at: list[float], label: Any) -> None:
    """The ticks that are in sight, with what they say."""
    low, high = axes.get_ylim()
    seen = [value for value in at if low <= value <= high]
    axes.set_yticks(seen, [label(value) for value in seen])
    axes.set_ylim(low, high)


def _ratio_ticks(low: float, high: float) -> list[float]:
    steps = (1, 1.2, 1.5, 2, 3, 5) if high / low < 12 else (1, 2, 5) if high / low < 200 else (1,)
    return [step * 10.0**power for power in range(-2, 6) for step in steps]


def _tokens(length: int) -> str:
    return f"{length // 1024}k" if length % 1024 == 0 else f"{length:,}"


def _size(size: float) -> str:
    """Sizes at the ticks; all that is below the lowest is drawn there."""
    if size <= FLOOR:
        return "≤ 1 MiB"
    return f"{size / MIB:g} MiB" if size < 1024 * MIB else f"{size / 1024 / MIB:g} GiB"
