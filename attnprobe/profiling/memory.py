"""How much memory is taken, as far as that is told at little cost."""

import sys
from typing import NamedTuple

import torch

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_UNIT = 1 if sys.platform == "darwin" else 1024


class Taken(NamedTuple):
    """Bytes: the most that the process has had in memory, what the allocator of a device gave out, and its most.

    `where` is the device; where there is none, the latter two are 0.
    """

    where: torch.device | None
    host_peak: int
    device: int
    device_peak: int


def read_memory(device: torch.device | None) -> Taken:
    """What is taken now; `device` is a CUDA device, or None."""
    host = 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    found = None if device is None else torch.cuda.memory_stats_as_nested_dict(device).get("allocated_bytes")
    if found is None:
        return Taken(None, host, 0, 0)
    return Taken(device, host, found["all"]["current"], found["all"]["peak"])
