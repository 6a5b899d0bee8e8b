"""Peak memory of a whole model at long lengths: the default measures, beside eager attention that keeps its weights."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, settle
from benchmarks.process import MIB, forget_peak, give_back_at_once, in_fresh_process, peak
from benchmarks.report import Table

LAYERS, HEADS, WIDTH, POSITIONS = 4, 8, 256, 32768
LENGTHS = (4096, 8192, 16384, 32768)
BOUND = 256 * MIB
GROWTH = 2.2


def measure(quick: bool) -> dict[str, Any]:
    """Run it: for every length a fresh process each, bare, measured and eager; eager until it does not fit."""
    lengths = (64, 128) if quick else LENGTHS
    rows: list[dict[str, Any]] = []
    eager_fits = True
    for length in lengths:
        bare, measured = (_run(mode, length) for mode in ("bare", "measures"))
        row: dict[str, Any] = {
            "length": length,
            "kept": measured["kept"],
            "extra": measured["peak"] - bare["peak"],
            "seconds": {"bare": bare["seconds"], "measures": measured["seconds"]},
        }
        if eager_fits:
            eager = _run("eager", length)
            eager_fits = eager["peak"] is not None
            row["eager_extra"] = eager["peak"] - bare["peak"] if eager_fits else None
            row["eager_seconds"] = eager["seconds"]
        rows.append(row)
    return {
        "benchmark": "long",
        "quick": quick,
        "environment": environment(),
        "shape": {"layers": LAYERS, "heads": HEADS, "width": WIDTH, "positions": POSITIONS},
        "rows": rows,
    }


def _run(mode: str, length: int) -> dict[str, Any]:
    return in_fresh_process("benchmarks.long", {"mode": mode, "length": length})


def forward(mode: str, length: int) -> dict[str, Any]:
    """Peak resident bytes of this process during one forward pass, bare, with measures, or eager with its weights."""
    give_back_at_once()
    if mode == "eager":  # an error rather than a machine that swaps or kills
        memory = resource.getpagesize() * int(_pages())
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    import torch

    import attnprobe as ap
    from benchmarks.models import gpt2, token_ids

    model, ids = gpt2(LAYERS, HEADS, WIDTH, POSITIONS), token_ids(length)
    kept = 0
    with torch.no_grad():
        model(ids[:, :1024], use_cache=False)  # the libraries settle
        settle()
        forget_peak()
        began = time.perf_counter()
        try:
            if mode == "measures":
                with ap.record(model, measures="default") as rec:
                    model(ids, use_cache=False)
                kept = rec.run.nbytes
            elif mode == "eager":
                model.set_attn_implementation("eager")
                outputs = model(ids, use_cache=False, output_attentions=True)
                kept = sum(weights.nbytes for weights in outputs.attentions)
            else:
                model(ids, use_cache=False)
        except (RuntimeError, MemoryError):
            if mode != "eager":
                raise
            return {"peak": None, "kept": 0, "seconds": time.perf_counter() - began}
    return {"peak": peak(), "kept": kept, "seconds": time.perf_counter() - began}


def _pages() -> int:
    import os

    return os.sysconf("SC_PHYS_PAGES")


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    shape, body = result["shape"], []
    before = None
    for row in result["rows"]:
        extra, kept = row["extra"], row["kept"]
        growth = "" if before is None else f"{extra / before:.2f}"
        if row["length"] == LENGTHS[-1] and before:
            growth += f", target {GROWTH}: {'met' if extra / before <= GROWTH else 'MISSED'}"
        before = extra
        eager = row.get("eager_extra", "")
        body.append(
            [
                f"{row['length']:,}",
                f"{kept / MIB:.0f} MiB",
                f"{extra / MIB:.0f} MiB, kept + 256: {'held' if extra <= kept + BOUND else 'MISSED'}",
                growth,
                "does not fit" if eager is None else "" if eager == "" else f"{eager / MIB:,.0f} MiB",
            ]
        )
    memory = result["environment"]["memory_gib"]
    return Table(
        f"Default measures of all heads, {shape['layers']} layers x {shape['heads']} heads, width {shape['width']}",
        ["T", "kept", "extra", "growth", "eager's extra"],
        body,
        "Resident memory (VmHWM) of fresh processes during one forward pass, over the bare forward's; large arrays are "
        "given back at once when they are free (mmap threshold fixed), so that what is counted is in use. Eager is "
        "Hugging Face eager attention with output_attentions=True, which keeps the maps; it does not fit where it "
        f"exceeds the machine's {memory} GiB.",
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """The README's picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = result["rows"]
    lengths = [row["length"] for row in rows]
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    eager = [(row["length"], row["eager_extra"] / MIB) for row in rows if row.get("eager_extra")]
    axes.loglog(*zip(*eager, strict=True), "o-", color="#b5367a", label="eager attention, output_attentions=True")
    axes.loglog(lengths, [row["extra"] / MIB for row in rows], "o-", color="#21918c", label="attnprobe, measures")
    axes.loglog(lengths, [row["kept"] / MIB for row in rows], ":", color="#21918c", label="of which kept")
    machine = result["environment"]["memory_gib"] * 1024
    axes.axhline(machine, color="0.6", linewidth=0.8)
    axes.annotate("memory of the machine", (lengths[0], machine), color="0.4", fontsize=8, va="bottom")
    lost = next((row["length"] for row in rows if row.get("eager_extra", 0) is None), None)
    if lost is not None:
        axes.plot([lost], [machine], "x", color="#b5367a", markersize=9, markeredgewidth=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens")
    axes.set_ylabel("extra memory (MiB)")
    shape = result["shape"]
    axes.set_title(f"Every head of {shape['layers']} layers x {shape['heads']} heads", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


TABLES = (table,)
PICTURE = "memory"

if __name__ == "__main__":
    print(json.dumps(forward(**json.loads(sys.argv[1]))))
