"""Fresh processes, and the peak of their memory."""

import contextlib
import ctypes
import json
import os
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
ROOT = Path(__file__).parents[2]


def in_fresh_process(module: str, task: dict[str, Any], quiet: bool = False) -> dict[str, Any]:
    """What ``python -m module TASK`` prints, as JSON.

    Parameters
    ----------
    module, task
        What is run, and its only argument.
    quiet
        Show nothing of what the process says on stderr; the error that is raised where it fails has it.

    Raises
    ------
    subprocess.CalledProcessError
        If the process fails or is killed; its `returncode` is negative where a signal ended it.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(task)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
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
    found = _status("VmHWM")
    if found is None:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found


def resident() -> int:
    """The resident size of this process now, in bytes; its peak where the system does not tell."""
    found = _status("VmRSS")
    return peak() if found is None else found


def _status(name: str) -> int | None:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])
