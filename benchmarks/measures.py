"""One attention call with measures instead of weights: bare SDPA, eager attention, SDPA with all heads measured."""

import time
from typing import Any

import torch

import attnprobe as ap
from attnprobe.measures import GROUPS
from benchmarks.attention import Floors
from benchmarks.measure import alternate, environment, ratio, spread
from benchmarks.models import OneCall
from benchmarks.report import Table, ratio_text

HEADS, DIM, ROUNDS = 12, 64, 7
COMPARED, LONGER = 4096, (2048, 8192, 16384)  # eager attention is run at the first length only
BASIC = ("entropy", "max", "first_mass", "distance", "received")
SINGLE = (*GROUPS["default"][:6], "induction.mean", "received", "distances", "pooled")
TARGETS = {"basic": 0.4, "default": 0.7}
GROWTH = 4.3


def measure(quick: bool) -> dict[str, Any]:
    """Run it."""
    compared, longer, rounds = (64, (96,), 2) if quick else (COMPARED, LONGER, ROUNDS)
    return {
        "benchmark": "measures",
        "quick": quick,
        "environment": environment(),
        "targets": {**TARGETS, "growth": GROWTH},
        "compared": _compare(compared, rounds),
        "single": _single(compared, max(2, rounds // 2)),
        "lengths": _grow(sorted((compared, *longer)), max(2, rounds // 3)),
    }


class _Measured:
    """Seconds of one call with some measures recorded in memory, SDPA included."""

    def __init__(self, length: int) -> None:
        self.call = OneCall(HEADS, DIM, length)

    def __call__(self, *names: str) -> float:
        with ap.record(self.call.model, measures=list(names)):
            return self.call.inside()


def _compare(length: int, rounds: int) -> dict[str, Any]:
    measured = _Measured(length)
    call = measured.call
    floors = Floors(call, 0)
    passes = _Pass(length)
    times = alternate(
        {
            "bare": call.sdpa,
            "again": call.sdpa,
            "eager": lambda: call.eager_weights()[0],
            "basic": lambda: measured(*BASIC),
            "default": lambda: measured("default"),
            "products": floors.products,
            "softmax": floors.softmax,
            "sum": passes.sum,
            "log": passes.log,
        },
        rounds,
    )
    names = ("bare", "basic", "default", "products", "softmax", "sum", "log")
    return {
        "length": length,
        "noise": ratio(times, "again", "bare"),
        "over_eager": {name: ratio(times, name, "eager") for name in names},
        "over_bare": {name: ratio(times, name, "bare") for name in ("basic", "default")},
        "milliseconds": {name: spread([1000 * t for t in values]) for name, values in times.items()},
    }


def _single(length: int, rounds: int) -> list[dict[str, Any]]:
    """What each measure adds to tiles that are made anyway: the difference from the cheapest one."""
    measured = _Measured(length)
    variants = {name: (lambda name=name: measured(name)) for name in SINGLE}
    times = alternate({"tiles": lambda: measured("first_mass"), **variants}, rounds)
    return [
        {
            "name": name,
            "milliseconds": spread([1000 * (a - b) for a, b in zip(times[name], times["tiles"], strict=True)]),
        }
        for name in SINGLE
        if name != "first_mass"
    ]


def _grow(lengths: list[int], rounds: int) -> list[dict[str, Any]]:
    """Time over length, by doublings."""
    measured = {length: _Measured(length) for length in lengths}
    variants: dict[str, Any] = {}
    for length, one in measured.items():
        variants[f"bare {length}"] = one.call.sdpa
        variants[f"default {length}"] = lambda one=one: one("default")
    times = alternate(variants, rounds)
    rows = []
    for length in lengths:
        row: dict[str, Any] = {"length": length, "over_bare": ratio(times, f"default {length}", f"bare {length}")}
        row["milliseconds"] = {
            name: spread([1000 * t for t in times[f"{name} {length}"]]) for name in ("bare", "default")
        }
        if length // 2 in lengths:
            row["growth"] = {
                name: ratio(times, f"{name} {length}", f"{name} {length // 2}") for name in ("bare", "default")
            }
        rows.append(row)
    return rows


class _Pass:
    """One pass over as many numbers as the causal half has, in a piece of the size of a tile that stays in cache."""

    def __init__(self, length: int) -> None:
        self._tile = torch.rand(min(2 << 20, HEADS * length * length // 2))
        self._out = torch.empty_like(self._tile)
        self._count = max(1, HEADS * length * length // 2 // self._tile.numel())

    def _repeat(self, work: Any) -> float:
        began = time.perf_counter()
        for _ in range(self._count):
            work()
        return time.perf_counter() - began

    def sum(self) -> float:
        """Seconds to read everything once and add it up."""
        return self._repeat(lambda: self._tile.sum())

    def log(self) -> float:
        """Seconds to take a logarithm of everything."""
        return self._repeat(lambda: torch.log(self._tile, out=self._out))


def table(result: dict[str, Any]) -> Table:
    """The comparison with eager attention."""
    one = result["compared"]
    over, sets = one["over_eager"], {"basic": ", ".join(BASIC), "default": "the default set"}
    return Table(
        f"Measures of all heads, {HEADS} heads, d {DIM}, T {one['length']:,}, float32",
        ["what", "over eager attention", "over bare SDPA"],
        [
            [f"SDPA and {text}", ratio_text(over[name], TARGETS[name]), ratio_text(one["over_bare"][name])]
            for name, text in sets.items()
        ],
        f"Eager attention makes the weights and nothing else. Bare SDPA takes {over['bare']['median']:.2f} of eager "
        f"(noise, bare over bare: {ratio_text(one['noise'])}). The default set has the basic one's, self, previous, "
        "local, duplicate and induction mass, the histogram of distances, all means, and both pooled maps.",
    )


def floor_table(result: dict[str, Any]) -> Table:
    """Where the time goes."""
    one = result["compared"]
    over = {name: value["median"] for name, value in one["over_eager"].items()}
    # The basic set reads a tile for: clamp, log, product, sum (entropy); max; sum and product (distance); sum (keys).
    passes = 7 * over["sum"] + over["log"]
    least = over["bare"] + over["products"] + over["softmax"] + passes
    rows = [
        ["SDPA itself", f"{over['bare']:.2f}"],
        ["products of query and key, causal half", f"{over['products']:.2f}"],
        ["softmax of it, in cache", f"{over['softmax']:.2f}"],
        ["reductions of the basic set: seven passes in cache and a logarithm", f"{passes:.2f}"],
        ["sum: the floor of the basic set", f"{least:.2f}"],
        ["basic set, measured", f"{over['basic']:.2f}"],
        ["default set, measured", f"{over['default']:.2f}"],
    ]
    return Table(
        "Where the time goes, as a share of eager attention (medians)",
        ["what", "share"],
        rows,
        "A pass reads as many float32 numbers as the causal half has, from a piece that stays in cache.",
    )


def single_table(result: dict[str, Any]) -> Table:
    """What each measure adds."""
    return Table(
        f"What each measure adds, T {result['compared']['length']:,}, milliseconds",
        ["measure", "added"],
        [
            [f"`{one['name']}`", "{median:.0f} ({low:.0f} to {high:.0f})".format(**one["milliseconds"])]
            for one in result["single"]
        ],
        "Against recording `first_mass` alone, which costs the tiles and next to nothing more.",
    )


def growth_table(result: dict[str, Any]) -> Table:
    """Time over length."""
    rows = []
    for row in result["lengths"]:
        growth = row.get("growth")
        rows.append(
            [
                f"{row['length']:,}",
                f"{row['milliseconds']['bare']['median']:,.0f} ms",
                f"{row['milliseconds']['default']['median']:,.0f} ms",
                ratio_text(row["over_bare"]),
                "" if growth is None else ratio_text(growth["default"], GROWTH),
                "" if growth is None else ratio_text(growth["bare"]),
            ]
        )
    return Table(
        "The default set over length, SDPA included",
        ["T", "bare SDPA", "with measures", "ratio", "growth a doubling", "bare SDPA's growth"],
        rows,
        "Work is quadratic in T, so 4 is what a doubling costs at least.",
    )


TABLES = (table, floor_table, single_table, growth_table)
