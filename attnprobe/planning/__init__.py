"""What a recording will take, told before anything runs: bytes, peak memory, operations."""

from attnprobe.planning.load import Load
from attnprobe.planning.plan import Entry, Plan, Room, Suggestion
from attnprobe.planning.planner import Planner

__all__ = ["Entry", "Load", "Plan", "Planner", "Room", "Suggestion"]
