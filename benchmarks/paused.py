"""A recorder that is open but paused: one call, the cost of a call in microseconds, a whole small model."""

import time
from collections.abc import Callable
from typing import Any

import torch

import attnprobe as ap
from benchmarks.measure import alternate, environment, ratio, spread
from benchmarks.models import OneCall, gpt2, token_ids
from benchmarks.report import Table, ratio_text

TARGET = 1.01
ROUNDS = 31


def measure(quick: bool) -> dict[str, Any]:
    """Run it."""
    rounds = 2 if quick else ROUNDS
    rows = [_one_call(64 if quick else 1024, 2 if quick else 5, rounds), _whole_model(2 if quick else 10, rounds)]
    return {
        "benchmark": "paused",
        "quick": quick,
        "environment": environment(),
        "targets": {"paused": TARGET},
        "rows": rows,
        "microseconds_a_call": _tiny_call(20 if quick else 2000, rounds),
    }


def _paused(model: Any, run: Callable[[], float]) -> Callable[[], float]:
    def measured() -> float:
        with ap.record(model) as rec, rec.paused():
            return run()

    return measured


def _row(what: str, times: dict[str, list[float]]) -> dict[str, Any]:
    milliseconds = {name: spread([1000 * t for t in values]) for name, values in times.items()}
    ratios = {"paused_over_bare": ratio(times, "paused", "bare"), "noise": ratio(times, "again", "bare")}
    return {"what": what, **ratios, "milliseconds": milliseconds}


def _one_call(length: int, repeat: int, rounds: int) -> dict[str, Any]:
    call = OneCall(12, 64, length)

    def bare() -> float:
        return call.inside(repeat)

    times = alternate({"bare": bare, "paused": _paused(call.model, bare), "again": bare}, rounds)
    return _row(f"one call, 12 heads, d 64, T {length:,}", times)


def _whole_model(repeat: int, rounds: int) -> dict[str, Any]:
    length = 128
    model, ids = gpt2(4, 8, 160, length), token_ids(length)

    @torch.no_grad()
    def bare() -> float:
        began = time.perf_counter()
        for _ in range(repeat):
            model(ids, use_cache=False)
        return (time.perf_counter() - began) / repeat

    times = alternate({"bare": bare, "paused": _paused(model, bare), "again": bare}, rounds)
    return _row(f"whole model, 4 layers x 8 heads, width 160, T {length}", times)


def _tiny_call(repeat: int, rounds: int) -> dict[str, Any]:
    """Differences on a call so small that what is added to it shows."""
    call, other = OneCall(2, 8, 4), OneCall(2, 8, 4)

    def bare() -> float:
        return call.inside(repeat)

    def bystander() -> float:
        with ap.record(other.model) as rec, rec.paused():
            seconds = bare()
            other.inside()
        return seconds

    times = alternate(
        {"bare": bare, "paused": _paused(call.model, bare), "bystander": bystander, "again": bare}, rounds
    )
    added = {
        name: spread([1e6 * (a - b) for a, b in zip(times[name], times["bare"], strict=True)])
        for name in ("paused", "bystander", "again")
    }
    return {**added, "bare": spread([1e6 * t for t in times["bare"]])}


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    cost = result["microseconds_a_call"]
    added = {name: f"{c['median']:+.1f} us ({c['low']:+.1f} to {c['high']:+.1f})" for name, c in cost.items()}
    return Table(
        "Recorder open but paused",
        ["what", "paused / bare", "noise (bare / bare)"],
        [
            [row["what"], ratio_text(row["paused_over_bare"], TARGET, 3), ratio_text(row["noise"], digits=3)]
            for row in result["rows"]
        ],
        f"Added to each call, measured on a tiny one: {added['paused']} in the recorded model, {added['bystander']} in "
        f"another model of the process; the same call against itself differs by {added['again']}.",
    )


TABLES = (table,)
