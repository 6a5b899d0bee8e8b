"""Where recording spends time and memory: code says which stage it is in, and a profiler, if any, takes note."""

from attnprobe.profiling.profile import Profile
from attnprobe.profiling.profiler import Profiler
from attnprobe.profiling.ranges import Ranges, here
from attnprobe.profiling.stages import STAGES, at, carried, copied, each, note, profiled, reporting, stage, written

__all__ = [
    "STAGES",
    "Profile",
    "Profiler",
    "Ranges",
    "at",
    "carried",
    "copied",
    "each",
    "here",
    "note",
    "profiled",
    "reporting",
    "stage",
    "written",
]
