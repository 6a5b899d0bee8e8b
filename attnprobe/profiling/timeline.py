"""Time on CUDA devices, by events that are recorded as stages begin and end, and read when they have happened.

Nothing waits for a device in a forward pass. A stage's time is that between its events on its stream, in which the
device may also have waited for the host; other streams count by themselves.
"""

from collections import deque
from typing import Any, Generic, TypeVar

import torch

K = TypeVar("K")
MANY = 4096  # spans that may wait: beyond it those that have happened are added up


class Timeline(Generic[K]):
    """Spans on streams, by what they count for."""

    def __init__(self) -> None:
        self._spans: deque[tuple[K, Any, Any]] = deque()
        self._seconds: dict[K, float] = {}

    def mark(self, device: torch.device) -> tuple[Any, Any]:
        """The device's current stream, and an event there now."""
        stream = torch.cuda.current_stream(device)
        return stream, self.event(stream)

    def event(self, stream: Any) -> Any:
        """An event on a stream now; None while a graph is captured, whose work is done later."""
        if torch.cuda.is_current_stream_capturing():
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def add(self, key: K, start: Any, stop: Any) -> None:
        """The time between two events of a stream counts for `key`."""
        self._spans.append((key, start, stop))
        if len(self._spans) > MANY:
            self._fold(wait=False)

    def finish(self) -> None:
        """Wait for what has not happened yet."""
        self._fold(wait=True)

    def seconds(self) -> dict[K, float]:
        """Of what has happened."""
        self._fold(wait=False)
        return dict(self._seconds)

    def _fold(self, wait: bool) -> None:
        while self._spans:
            key, start, stop = self._spans[0]
            if wait:
                stop.synchronize()
            elif not stop.query():
                return
            self._seconds[key] = self._seconds.get(key, 0.0) + start.elapsed_time(stop) / 1000
            self._spans.popleft()
