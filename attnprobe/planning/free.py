"""How much is free now; None where the system does not tell, and then nothing is checked."""

import contextlib
import shutil
from functools import lru_cache
from pathlib import Path

import torch

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # what version 1 of control groups writes where there is no limit is larger


def host() -> int | None:
    """Bytes of host memory: what Linux says is available, within the limits of a container."""
    try:
        with (PROC / "meminfo").open("rb") as file:
            lines = file.read(512).split(b"\n")  # it is among the first
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith(b"MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    left = (_left(*files) for files in _groups(PROC, GROUPS))
    return min([available, *(nbytes for nbytes in left if nbytes is not None)])


@lru_cache(maxsize=8)
def _groups(proc: Path, groups: Path) -> tuple[tuple[Path, Path, Path, str], ...]:
    """The control groups of this process that have a limit: files of limit, use and statistics, and a name in these."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                root, limit, used, name = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
            elif not controllers:
                root, limit, used, name = groups, "memory.max", "memory.current", ""
            else:
                continue
            for place in {root / path.strip("/"), root}:  # inside of a container, its own group is mounted as the root
                files = place / limit, place / used, place / "memory.stat", f"{name}inactive_file "
                if _left(*files) is not None:
                    found.append(files)
    return tuple(found)


def _left(limit: Path, used: Path, statistics: Path, droppable: str) -> int | None:
    """Bytes that a control group leaves, files that can be dropped counted as free; None where it has no limit."""
    try:
        most = limit.read_text().strip()
        if most == "max" or int(most) > UNLIMITED:
            return None
        cache = next((line for line in statistics.read_text().splitlines() if line.startswith(droppable)), "x 0")
        return max(0, int(most) - int(used.read_text()) + int(cache.split()[1]))
    except (OSError, ValueError):
        return None


def accelerator(device: torch.device) -> int | None:
    """Bytes of a CUDA device: what no process has, and what this one's allocator holds unused."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    try:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    except RuntimeError:  # there is no device of that number
        return None


def disk(path: Path) -> int | None:
    """Bytes of the file system that a path is, or would be, on."""
    try:
        return shutil.disk_usage(next(part for part in (path, *path.parents) if part.exists())).free
    except (OSError, StopIteration):
        return None
