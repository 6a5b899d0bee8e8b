"""Tables and plot of the peers."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.told import NOTHING
from benchmarks.process import MIB
from benchmarks.report import Table, ratio_text

Result = dict[str, Any]
NAMED = {"torch", "transformers"}


def _name(row: Result) -> str:
    """A peer with the version of its tool, and of torch and transformers."""
    versions = dict(row.get("versions", {}))
    own = [version for package, version in versions.items() if package not in NAMED]
    return f"{row['title']} ({own[0]})" if own else row["title"]


def _by_length(result: Result, cell: Callable[[Result], str]) -> list[list[str]]:
    """A row a peer, a cell a length; where it ends, why."""
    body = []
    for row in result["rows"]:
        if "not_run" in row:
            body.append([row["title"], f"not run: {row['not_run']}", *[""] * (len(result["lengths"]) - 1)])
            continue
        cells = {found["length"]: cell(found) for found in row["lengths"]}
        if row["ended"]:
            cells[row["ended"]["length"]] = row["ended"]["why"]
        body.append([_name(row), *(cells.get(length, "") for length in result["lengths"])])
    return body


def _columns(result: Result) -> list[str]:
    return ["peer", *(f"T {length:,}" for length in result["lengths"])]


def time_table(result: Result) -> Table:
    """Time over the bare forward's."""
    return Table(
        f"Time of a forward pass with weights, over the bare one's on SDPA; {_model(result)}",
        _columns(result),
        _by_length(result, lambda found: ratio_text(found["ratio"], digits=1)),
        "Every peer in a process of its own, on the same weights and tokens, against the bare model on SDPA in that "
        "process, alternated: median, smallest and largest ratio of the rounds (a single one where it takes long)."
        + _noise(result)
        + _other_versions(result),
    )


def _noise(result: Result) -> str:
    """What the bare model's times are, and how they vary."""
    measured = [found for row in result["rows"] for found in row.get("lengths", ())]
    if not measured:
        return ""
    low, high = min(found["noise"]["low"] for found in measured), max(found["noise"]["high"] for found in measured)
    bare: dict[int, list[float]] = {}
    for found in measured:
        bare.setdefault(found["length"], []).append(1000 * found["seconds"]["bare"]["median"])
    typical = ", ".join(f"{statistics.median(times):,.0f} ms at T {length:,}" for length, times in bare.items())
    return (
        f" The bare model against itself gives {low:.2f} to {high:.2f}; it takes {typical} (median over the peers' "
        "processes)."
    )


def _other_versions(result: Result) -> str:
    """Who could not run with the torch and transformers of the head."""
    found = ""
    for row in result["rows"]:
        versions = {package: version for package, version in row.get("versions", {}).items() if package in NAMED}
        if any(result["environment"][package] != version for package, version in versions.items()):
            found += (
                f" {_name(row)}: with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
            )
    return found


def memory_table(result: Result) -> Table:
    """Peak memory over the bare forward's."""
    gpu = result["environment"]["device"] != "cpu"
    kept = "device memory, as torch's allocator counts it" if gpu else "resident memory (VmHWM) of a fresh process each"
    fresh = "unless they are taken to the host" if gpu else "and large arrays are given back when they are free"
    return Table(
        "Extra peak memory of the same",
        _columns(result),
        _by_length(result, lambda found: _size(found["memory"])),
        f"Peak {kept}, over that of the bare model's pass just before; the weights are in it, {fresh}.",
    )


def error_table(result: Result) -> Table:
    """Largest error."""
    peaked = [found["peaked"] for row in result["rows"] for found in row.get("lengths", ()) if "peaked" in found]
    note = (
        "Against the same model run in float64 on eager attention, with the same parameters and tokens, over all that "
        "the peer gives. It carries the rounding of the layers below, for every peer alike."
    )
    if peaked:
        note += (
            f" Rows are peaked: their largest weight is at least {min(peaked):.1f} times an even row's (median of a "
            "layer, least over layers and lengths)."
        )
    return Table(
        "Largest error of a weight",
        _columns(result),
        _by_length(result, lambda found: "" if found.get("error") is None else f"{found['error']:.0e}"),
        note,
    )


def ability_table(result: Result) -> Table:
    """What each can do."""
    asked = ("fused", "unseen", "generation", "padding")
    body = []
    for row in result["rows"]:
        probes = row.get("probes", {})
        if probes.get("fused") == f"no: {NOTHING}":
            continue
        body.append([_name(row), *(probes.get(name, "not run") for name in asked), row["selects"]])
    return Table(
        "What each can do",
        ["peer", "model on SDPA", "output as the bare model's", "generation with a cache", "padded batch", "chosen"],
        body,
        "Tried on a tiny model in float32, apart from the last column. On SDPA: the peer is given a model on SDPA; do "
        "right weights come, and does it stay there? Output: what leaves the last layer, against the bare model's. "
        "Generation: weights of prompt and new tokens against one pass in float64. Padded: a short text beside a long "
        "one, against the text alone; left and right where these differ.",
    )


def _model(result: Result) -> str:
    return f"{result['shape']['what']}, batch 1, {result['shape']['dtype']}"


def _size(memory: Result) -> str:
    return f"{memory['extra'] / MIB:,.0f} MiB" if "extra" in memory else str(memory["ended"])


TABLES = (time_table, memory_table, error_table, ability_table)
COLORS = ("#440154", "#31688e", "#35b779", "#b5367a", "#e16462", "#fca636", "#7f7f7f", "#17becf", "#8c564b", "#bcbd22")


def draw(result: Result, path: Path) -> None:
    """Time and memory over length; a cross where a peer ends."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    rows = [row for row in result["rows"] if row.get("lengths")]
    for number, row in enumerate(rows):
        mine = row["module"] == "attnprobe"
        style = {"color": COLORS[number % len(COLORS)], "linewidth": 2 if mine else 1.2, "marker": "o" if mine else "s"}
        style |= {"markersize": 5 if mine else 3.5, "linestyle": "-" if mine else "--"}
        lengths = [found["length"] for found in row["lengths"]]
        left.plot(
            lengths, [found["ratio"]["median"] for found in row["lengths"]], label=_name(row).replace("`", ""), **style
        )
        peaks = [
            (found["length"], found["memory"]["extra"] / MIB)
            for found in row["lengths"]
            if found["memory"].get("extra", 0) > 0
        ]
        if peaks:
            right.plot(*zip(*peaks, strict=True), **style)
        if row["ended"]:
            above = sum(before["ended"] == row["ended"] for before in rows[:number])
            for axes in (left, right):  # not where it would be, which nobody measured: above the upper edge
                place = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": style["color"]}
                axes.plot([row["ended"]["length"]], [1.03 + 0.04 * above], "x", markeredgewidth=2, **place)
    for axes, title in ((left, "time over the bare forward's"), (right, "extra peak memory (MiB)")):
        axes.set(xscale="log", yscale="log", xlabel="tokens")
        axes.set_title(title, loc="left", fontsize=10)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.set_xticks(result["lengths"], [f"{length:,}" for length in result["lengths"]])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
