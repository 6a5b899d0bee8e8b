"""Peak memory of a whole model while all weights of all layers are streamed to disk, in fresh processes."""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, settle, spread
from benchmarks.process import MIB, forget_peak, give_back_at_once, in_fresh_process, peak
from benchmarks.report import Table

BUDGETS = (64 * MIB, 256 * MIB)
ROUNDS = 5


@dataclass(frozen=True)
class Shape:
    """A random GPT-2 and the length of its input."""

    layers: int
    heads: int
    width: int
    length: int

    def __str__(self) -> str:
        return f"{self.layers} layers x {self.heads} heads, width {self.width}, T {self.length:,}"


SHAPES = (Shape(4, 12, 768, 1024), Shape(12, 12, 768, 1024), Shape(4, 8, 256, 4096))
QUICK_SHAPES = (Shape(2, 2, 32, 64),)


def measure(quick: bool) -> dict[str, Any]:
    """Run it: for every shape, bare and each budget in turn, a fresh process each."""
    rounds = 1 if quick else ROUNDS
    rows = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        runs: dict[int, list[dict[str, int]]] = {0: [], **{budget: [] for budget in BUDGETS}}
        for _ in range(rounds):
            for budget, found in runs.items():
                found.append(_in_fresh_process(shape, budget, mapped=False))
        bare = [run["peak"] for run in runs[0]]
        live = {budget: _in_fresh_process(shape, budget, mapped=True)["peak"] for budget in runs}
        for budget in BUDGETS:
            peaks = [run["peak"] for run in runs[budget]]
            rows.append(
                {
                    "shape": asdict(shape),
                    "what": str(shape),
                    "budget": budget,
                    "written": runs[budget][0]["written"],
                    "bare_peak": spread(bare),
                    "recorded_peak": spread(peaks),
                    "extra": statistics.median(peaks) - statistics.median(bare),
                    "largest_extra": max(peaks) - min(bare),
                    "live_extra": live[budget] - live[0],
                    "bound": 2 * budget,
                }
            )
    return {"benchmark": "memory", "quick": quick, "environment": environment(), "rows": rows}


def _in_fresh_process(shape: Shape, budget: int, mapped: bool) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as directory:
        to = str(Path(directory, "run"))
        task = {"shape": asdict(shape), "budget": budget, "to": to, "mapped": mapped}
        return in_fresh_process("benchmarks.memory", task)


def peak_forward(shape: Shape, budget: int, to: str, mapped: bool) -> dict[str, int]:
    """Peak resident bytes of this process during one forward pass, recorded to `to` if `budget` is not 0.

    With `mapped`, every array is given back as soon as it is free (glibc): what is counted is in use.
    """
    if mapped:
        give_back_at_once()
    import torch

    import attnprobe as ap
    from benchmarks.models import gpt2, token_ids

    model, ids = gpt2(shape.layers, shape.heads, shape.width, shape.length), token_ids(shape.length)
    written = 0
    with torch.no_grad():
        model(ids, use_cache=False)  # the allocator and the libraries settle
        settle()
        forget_peak()
        if budget:
            with ap.record(model, to=to, budget=budget):
                model(ids, use_cache=False)
        else:
            model(ids, use_cache=False)
        largest = peak()
    if budget:
        written = ap.open(to).nbytes
    return {"peak": largest, "written": written}


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    return Table(
        "Peak memory while all weights of all layers are streamed to disk",
        ["model", "budget", "written", "bare peak", "recorded peak", "extra", "in use", "bound (2 x budget)"],
        [
            [
                row["what"],
                f"{row['budget'] // MIB} MiB",
                f"{row['written'] / MIB:,.0f} MiB",
                _size(row["bare_peak"]),
                _size(row["recorded_peak"]),
                f"{row['extra'] / MIB:.0f} MiB",
                f"{row['live_extra'] / MIB:.0f} MiB",
                f"{row['bound'] // MIB} MiB: {'held' if row['largest_extra'] <= row['bound'] else 'MISSED'}",
            ]
            for row in result["rows"]
        ],
        "Resident memory of fresh processes (VmHWM) during one forward pass, after one that was not recorded; medians "
        "and smallest to largest. Most of the spread is free memory that the allocator holds back, in bare processes "
        "too, so the difference of medians may be negative. Held means: the largest recorded peak is within the bound "
        "over the smallest bare one. In use: the difference where the allocator gives large arrays back at once "
        "(mmap threshold fixed, one process each); it is less than a tile of 8 MiB where the bare peak is in the MLP.",
    )


def _size(peak: dict[str, float]) -> str:
    return f"{peak['median'] / MIB:.0f} MiB ({peak['low'] / MIB:.0f} to {peak['high'] / MIB:.0f})"


TABLES = (table,)

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(peak_forward(**{**given, "shape": Shape(**given["shape"])})))
