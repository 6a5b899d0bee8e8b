"""What every benchmark needs: alternation, ratios with their spread, and what the figures were measured on."""

import ctypes
import gc
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and device, for the head of a result."""
    import torch
    import transformers

    import attnprobe

    found: dict[str, Any] = {"device": "cpu"}
    if torch.device(device).type == "cuda":
        there = torch.cuda.get_device_properties(device)
        memory = round(there.total_memory / 2**30, 1)
        found = {"device": there.name, "device_memory_gib": memory, "cuda": torch.version.cuda}
    return {
        **found,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "attnprobe": attnprobe.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


class OtherLoad:
    """The share of the cores that other processes took since it was made; None where the system does not tell."""

    def __init__(self) -> None:
        self._began = self._now()

    def share(self) -> float | None:
        """From 0 to 1."""
        now = self._now()
        if now is None or self._began is None:
            return None
        total, others = (b - a for a, b in zip(self._began, now, strict=True))
        return round(max(0.0, others / total), 3)

    @staticmethod
    def _now() -> tuple[float, float] | None:
        try:
            line = Path("/proc/stat").read_text().splitlines()[0]
        except OSError:
            return None
        spent = [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in line.split()[1:9]]
        own = os.times()
        busy = sum(spent) - spent[3] - spent[4]  # all but idle and waiting
        return sum(spent), busy - own.user - own.system - own.children_user - own.children_system


def settle() -> None:
    """Free what is garbage and give free heap pages back, so that each measurement pays for its own fresh memory."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


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
