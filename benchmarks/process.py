"""Peak memory of fresh processes: as `attnprobe bench` measures it."""

from attnprobe.bench.process import MIB, forget_peak, give_back_at_once, in_fresh_process, peak

__all__ = ["MIB", "forget_peak", "give_back_at_once", "in_fresh_process", "peak"]
