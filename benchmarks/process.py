"""Peak memory of fresh processes."""

import contextlib
import ctypes
import json
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

MIB = 1 << 20
# Fixed, since glibc raises its own, and with it what is held free. Not smaller: each page of such an array faults anew.
MAPPED = 2 << 20
M_MMAP_THRESHOLD = -3


def in_fresh_process(module: str, task: dict[str, Any]) -> dict[str, Any]:
    """What ``python -m module TASK`` prints, as JSON."""
    command = [sys.executable, "-m", module, json.dumps(task)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def give_back_at_once() -> None:
    """From now on every array is given back as soon as it is free (glibc): what is counted is in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED)


def forget_peak() -> None:
    """From here on only: what loading needed would hide what recording needs. Linux only; else it stays in."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The largest resident size of this process, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])
