"""Table and picture of the viewers."""

from pathlib import Path
from typing import Any

from benchmarks.process import MIB
from benchmarks.report import Table

Result = dict[str, Any]


def table(result: Result) -> Table:
    """A row a viewer and length."""
    body = []
    for title in dict.fromkeys(row["title"] for row in result["rows"]):
        for row in (row for row in result["rows"] if row["title"] == title):
            body.append([row["title"], f"{row['length']:,}" if "length" in row else "", *_cells(row)])
    return Table(
        f"Viewers of {result['heads']}, in headless Chromium",
        ["viewer", "tokens", "page", "made in", "ready in", "frame, ms: median", "largest"],
        body,
        "The same weights of the bundled model on its text, in the page that each tool makes for a notebook; "
        "CircuitsVis' holds one layer, the others' all. A page of attnprobe's server is what came over the connection "
        "until it was ready. Ready: the first picture of weights is drawn. Frames: while a pointer moves over it. No "
        f"GPU, one round, given up after {result['limit']:g} to {2 * result['limit']:g} s; a tool's longer pages are "
        "not opened then. CircuitsVis draws by WebGL where there is a GPU, so here it is slower than it need be. "
        "BertViz's scripts come from this machine, not from a CDN.",
    )


def _cells(row: Result) -> list[str]:
    page = f"{row['page'] / MIB:,.1f} MiB" if "page" in row else ""
    made = f"{row['made']:.1f} s" if row.get("made") else ""
    if "ended" in row:
        return [page, made, row["ended"], "", ""]
    frame = row.get("frame")
    frames = [f"{frame['median']:.0f}", f"{frame['largest']:,.0f}"] if frame else ["none: busy", ""]
    return [page, made, f"{row['ready']:.1f} s", *frames]


TABLES = (table,)
_COLORS = ("#b3305f", "#fb8861", "#31688e", "#35b779", "#7f7f7f", "#440154", "#17becf")


def draw(result: Result, path: Path) -> None:
    """Bytes of the page, and seconds until it is ready, over length; a cross where a page is never ready."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    titles = dict.fromkeys(row["title"] for row in result["rows"] if "length" in row)
    for color, title in zip(_COLORS, titles, strict=False):
        rows = [row for row in result["rows"] if row["title"] == title]
        style = {"color": color, "marker": "o", "markersize": 4, "linewidth": 2 if "attnprobe" in title else 1.2}
        sizes = [(row["length"], row["page"] / MIB) for row in rows if "page" in row]
        left.plot(*zip(*sizes, strict=True), label=title, **style)
        ready = [(row["length"], row["ready"]) for row in rows if "ready" in row]
        if ready:
            right.plot(*zip(*ready, strict=True), **style)
        for row in rows:
            if "ended" in row:
                right.plot(row["length"], 2 * result["limit"], "x", color=color, markeredgewidth=2)
    for axes, heading in ((left, "size of the page (MiB)"), (right, "seconds until it is ready")):
        axes.set(xscale="log", yscale="log", xlabel="tokens")
        axes.set_title(heading, loc="left", fontsize=10)
        axes.set_xticks(result["lengths"], [f"{length:,}" for length in result["lengths"]])
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
