"""Clocks, and medians with their spread."""

import statistics
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch


@dataclass(frozen=True)
class Spread:
    """Numbers that were measured one after the other.

    Attributes
    ----------
    values
        All of them, in the order of the rounds.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    @property
    def count(self) -> int:
        """How many."""
        return len(self.values)

    def describe(self) -> dict[str, Any]:
        """In plain data."""
        return {**{name: getattr(self, name) for name in ("median", "low", "high", "count")}, "values": [*self.values]}


class Stopwatch:
    """Times its block: by events of a CUDA device, which is idle when it starts and when it has stopped; else by clock.

    Parameters
    ----------
    device
        Where the work is done.
    inner
        Time a part of a block that is timed itself: the device is not waited for before `seconds` is read.
    """

    def __init__(self, device: torch.device, inner: bool = False) -> None:
        self._device, self._inner = device, inner
        self._cuda = device.type == "cuda"
        self._clock = 0.0
        event: Any = torch.cuda.Event
        self._events = [event(enable_timing=True) for _ in range(2)] if self._cuda else []

    def __enter__(self) -> "Stopwatch":
        if self._cuda:
            if not self._inner:
                torch.cuda.synchronize(self._device)
            self._events[0].record(torch.cuda.current_stream(self._device))
        else:
            self._clock = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda:
            self._events[1].record(torch.cuda.current_stream(self._device))
        else:
            self._clock = time.perf_counter() - self._clock

    @property
    def seconds(self) -> float:
        """Of the block, once it has ended."""
        if not self._cuda:
            return self._clock
        self._events[1].synchronize()
        milliseconds: float = self._events[0].elapsed_time(self._events[1])
        return milliseconds / 1000
