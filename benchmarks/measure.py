"""What every benchmark needs: alternation, ratios with their spread, and what the figures were measured on."""

import statistics
from collections.abc import Callable, Mapping

from attnprobe.bench.machine import OtherLoad, environment, settle

__all__ = ["OtherLoad", "alternate", "environment", "ratio", "settle", "spread"]


def alternate(variants: Mapping[str, Callable[[], float]], rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each variant, once a round, the order turned by one from round to round; `warm` rounds come before."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(-warm, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            settle()
            seconds = variants[name]()
            if turn >= 0:
                times[name].append(seconds)
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest, largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "count": len(values)}


def ratio(times: Mapping[str, list[float]], of: str, over: str) -> dict[str, float]:
    """Spread of the ratios within each round."""
    return spread([a / b for a, b in zip(times[of], times[over], strict=True)])
