"""What figures were measured on, how busy it was meanwhile, and a heap to begin with that is tidy."""

import ctypes
import gc
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from attnprobe.version import VERSION

GIB = 1 << 30
RESERVE = GIB  # of free host memory, for all else that runs


def lacks_memory(need: int) -> str | None:
    """What of the host's memory is needed and may be taken, in words; None where `need` bytes may be, or none tells."""
    from attnprobe.planning import free  # which needs all of the package's own requirements

    there = free.host()
    if there is None or need <= there - RESERVE:
        return None
    return f"{need / GIB:,.1f} GiB of host memory, and {max(0, there - RESERVE) / GIB:,.1f} GiB may be taken"


def environment(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Versions and device, for the head of a result. `driver`, `cuda` and `triton` are of an accelerator."""
    found = {
        "device": "cpu",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "attnprobe": VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if torch.device(device).type == "cuda":
        there = torch.cuda.get_device_properties(device)
        found |= {
            "device": there.name,
            "device_memory_gib": round(there.total_memory / 2**30, 1),
            "capability": f"{there.major}.{there.minor}",
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "triton": _version("triton"),
        }
    return found


def environment_line(environment: Mapping[str, Any]) -> str:
    """One line: what it was measured on."""
    parts = [f"{environment['processor']}, {environment['cores']} cores, {environment['threads']} threads"]
    if environment["device"] != "cpu":
        driver = f", driver {environment['driver']}" if environment.get("driver") else ""
        memory = environment["device_memory_gib"]
        parts.insert(0, f"{environment['device']}, {memory} GiB{driver}, CUDA {environment['cuda']}")
    parts[-1] += f", {environment['memory_gib']} GiB"
    load = environment.get("other_load")
    if load is not None:
        parts.append(f"other processes used {load:.0%} of the cores meanwhile")
    versions = (f"{name} {environment[name]}" for name in ("torch", "transformers", "triton", "attnprobe")
                if environment.get(name))  # fmt: skip
    parts.append(f"{environment['system']}; Python {environment['python']}, {', '.join(versions)}")
    return "; ".join([*parts, *filter(None, [environment.get("date", "")[:10]])])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _driver() -> str | None:
    """Version of the driver, as its own tool tells it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


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
        return round(max(0.0, others / total), 3) if total else None

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
