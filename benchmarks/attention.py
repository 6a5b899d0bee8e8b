"""One attention call: bare SDPA, eager attention, and SDPA with all heads or one head recorded to memory."""

import time
from typing import Any

import torch

import attnprobe as ap
from benchmarks.measure import alternate, environment, ratio, spread
from benchmarks.models import OneCall
from benchmarks.report import Table, ratio_text

HEADS, DIM, ROUNDS, LENGTHS = 12, 64, 15, (1024, 2048, 4096)
BLOCK = 64  # rows of the bare products
TARGETS = {"all": 0.5, "one": 1.25}


def measure(quick: bool) -> dict[str, Any]:
    """Run it."""
    lengths, rounds = ((48, 96), 2) if quick else (LENGTHS, ROUNDS)
    rows = [_measure_length(length, rounds) for length in lengths]
    return {"benchmark": "attention", "quick": quick, "environment": environment(), "targets": TARGETS, "rows": rows}


def _measure_length(length: int, rounds: int) -> dict[str, Any]:
    call = OneCall(HEADS, DIM, length)

    def recorded(heads: str) -> float:
        with ap.record(call.model, heads=heads):
            return call.inside()

    difference, kept = _check(call)
    floors = Floors(call, kept)
    times = alternate(
        {
            "bare": call.sdpa,
            "again": call.sdpa,
            "eager": lambda: call.eager_weights()[0],
            "all": lambda: recorded("all"),
            "one": lambda: recorded("7"),
            "products": floors.products,
            "softmax": floors.softmax,
            "writes": floors.writes,
        },
        rounds,
    )
    return {
        "length": length,
        "kept_bytes": kept,
        "largest_difference": difference,
        "noise": ratio(times, "again", "bare"),
        "bare_over_eager": ratio(times, "bare", "eager"),
        "all_over_eager": ratio(times, "all", "eager"),
        "one_over_bare": ratio(times, "one", "bare"),
        "floors_over_eager": {name: ratio(times, name, "eager") for name in ("products", "softmax", "writes")},
        "milliseconds": {name: spread([1000 * t for t in values]) for name, values in times.items()},
    }


def _check(call: OneCall) -> tuple[float, int]:
    """Largest difference from eager's weights, and bytes kept: both sides make the same thing."""
    with ap.record(call.model) as rec:
        call.inside()
    eager = call.eager_weights()[1][0]
    heads = (eager[head] - torch.from_numpy(rec.run[0, head].numpy()) for head in range(HEADS))
    return max(float(part.abs().max()) for part in heads), rec.run.nbytes


class Floors:
    """What cannot be avoided: the products of the kept half, their softmax in cache, one write of what is kept."""

    def __init__(self, call: OneCall, kept: int) -> None:
        self._query = call.query[0].contiguous()
        self._key = call.key[0].transpose(1, 2).contiguous()
        self._kept = kept
        self._length = self._query.shape[1]
        self._scratch = torch.empty(HEADS * BLOCK * self._length)

    def _blocks(self) -> Any:
        for first in range(0, self._length, BLOCK):
            stop = min(first + BLOCK, self._length)
            size = HEADS * (stop - first) * stop
            yield first, stop, self._scratch[:size].view(HEADS, stop - first, stop)

    @torch.no_grad()
    def products(self) -> float:
        """Seconds of the matrix products alone, into memory that is reused."""
        began = time.perf_counter()
        for first, stop, logits in self._blocks():
            torch.bmm(self._query[:, first:stop], self._key[:, :, :stop], out=logits)
        return time.perf_counter() - began

    @torch.no_grad()
    def softmax(self) -> float:
        """Seconds of the softmax alone, in place."""
        self._scratch.zero_()
        began = time.perf_counter()
        for _, _, logits in self._blocks():
            torch.softmax(logits, -1, out=logits)
        return time.perf_counter() - began

    def writes(self) -> float:
        """Seconds to write as many bytes as are kept, once, to fresh memory."""
        began = time.perf_counter()
        torch.empty(self._kept, dtype=torch.uint8).zero_()
        return time.perf_counter() - began


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    return Table(
        f"One attention call, {HEADS} heads, d {DIM}, batch 1, float32",
        ["T", "kept", "all heads / eager", "one head / bare SDPA", "bare SDPA / eager", "noise (bare / bare)"],
        [
            [
                f"{row['length']:,}",
                f"{row['kept_bytes'] / 2**20:.0f} MiB",
                ratio_text(row["all_over_eager"], TARGETS["all"]),
                ratio_text(row["one_over_bare"], TARGETS["one"]),
                ratio_text(row["bare_over_eager"]),
                ratio_text(row["noise"]),
            ]
            for row in result["rows"]
        ],
        "SDPA itself is part of both recorded figures; weights go to memory. Eager attention makes the same weights "
        "with its causal mask made beforehand. Before each measurement, free heap pages are given back to the system, "
        "so each side pays for its own fresh memory.",
    )


def floors_table(result: dict[str, Any]) -> Table:
    """What the recorded call cannot do without."""
    names = ("products", "softmax", "writes")
    body = []
    for row in result["rows"]:
        floors = [row["floors_over_eager"][name]["median"] for name in names]
        least = row["bare_over_eager"]["median"] + sum(floors)
        body.append(
            [
                f"{row['length']:,}",
                f"{row['bare_over_eager']['median']:.2f}",
                *(f"{floor:.2f}" for floor in floors),
                f"{least:.2f}",
                f"{row['all_over_eager']['median']:.2f}",
                f"{row['largest_difference']:.1e}",
            ]
        )
    return Table(
        "Where the time of all heads goes, as a share of eager attention (medians)",
        ["T", "SDPA", "products", "softmax", "writes", "sum", "measured", "largest difference from eager"],
        body,
        "Products: query times key of the causal half, in row blocks, into reused memory. Softmax: the same blocks in "
        "place. Writes: as many bytes as are kept, once, to fresh memory.",
    )


TABLES = (table, floors_table)
