"""The profiler: what one recording's stages take, added up by stage and site."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from attnprobe.fields import Site
from attnprobe.profiling.memory import Taken, read_memory
from attnprobe.profiling.profile import Entry, Note, Profile
from attnprobe.profiling.ranges import Ranges, close_range, name_of, open_range
from attnprobe.profiling.stages import Stage, forget
from attnprobe.profiling.timeline import Timeline

HOST_ONLY = "write", "wait"  # where the device is given nothing: what passes there is nobody's
MAKING = "observe", "logits", "measure"  # where memory of a device is taken: to ask for it costs tens of microseconds
_UNKNOWN = Taken(None, 0, 0, 0)


class _Key(NamedTuple):
    stage: str
    site: Site | None
    behind: bool


@dataclass
class _Sums:
    seconds: float = 0.0
    calls: int = 0
    copied: int = 0
    written: int = 0
    host_peak: int = 0
    device_held: int = 0
    device_peak: int = 0


class _Figures:
    """Of one stage that a thread is in.

    `seconds` are its own so far, `since` is when it was last begun or gone on with, `lost` what profiling took within;
    `base` is what `device` had given out when recording began its work.
    """

    __slots__ = ("base", "begun", "device", "event", "lost", "memory", "range", "seconds", "since", "stream", "sums")

    def __init__(self, device: torch.device | None, memory: Taken) -> None:
        self.device = device if device is not None and device.type == "cuda" else None
        self.memory, self.base = memory, memory.device
        self.sums = _Sums(calls=1)
        self.seconds = self.lost = self.since = self.begun = 0.0
        self.stream: Any = None
        self.event: Any = None
        self.range: Any = None


class Profiler(Ranges):
    """Adds up host and device time, calls, bytes and memory; stages are ranges too, for torch's profiler and Nsight.

    A stage's time is its own: that of the stages within it is theirs. What profiling itself takes is left out of all,
    and counted apart.

    Parameters
    ----------
    devices
        Where the model is.
    clock, memory
        Seconds, and what memory is taken on a CUDA device or, of None, on the host alone.
    """

    counts = True

    def __init__(
        self,
        devices: tuple[torch.device, ...] = (),
        clock: Callable[[], float] = time.perf_counter,
        memory: Callable[[torch.device | None], Taken] = read_memory,
    ) -> None:
        self._device = next((device for device in devices if device.type == "cuda"), None)
        self._clock, self._memory = clock, memory
        self._lock = threading.Lock()
        self._sums: dict[_Key, _Sums] = {}
        self._timeline: Timeline[_Key] = Timeline()
        self._notes: dict[Note, None] = {}
        self._total = self._lost = 0.0
        self._stages = 0
        self._began: float | None = None
        self._ended: float | None = None

    def stage(
        self, name: str, site: Site | None = None, device: torch.device | None = None
    ) -> AbstractContextManager[Any]:
        """Be in a stage, for the block."""
        return Stage(self, name, site, device or self._device)

    def behind(self, name: str) -> AbstractContextManager[Any]:
        """The same in a thread beside the model."""
        return Stage(self, name, None, None, behind=True)

    def begin(self) -> None:
        """The user's block begins; a second one is refused, and its time is not of this recording."""
        if self._began is None:
            self._began = self._clock()

    def end(self) -> None:
        """All is recorded: read what devices took, and take no more of this thread."""
        self._ended = self._clock()
        forget(self)
        with self._lock, suppress(RuntimeError):  # a device that failed tells no times, and raised its own error
            self._timeline.finish()

    # --- what stages tell ----------------------------------------------------------------------------------------

    def opened(self, stage: Stage) -> None:
        """A stage begins; the one around it stands still."""
        now = self._clock()
        outer = self._outer(stage)
        own = stage.figures = _Figures(stage.device, self._read(stage, stage.device))
        if outer is not None:
            self._settle(outer, now, own.memory)
            if outer.figures.device == own.device:
                own.base = outer.figures.base
        own.range = open_range(stage)
        if own.device is not None:
            torch.cuda.nvtx.range_push(name_of(stage))  # type: ignore[no-untyped-call]
            self._mark(stage)
        own.begun = own.since = self._clock()
        self._spent(stage, own.since - now)

    def closed(self, stage: Stage) -> None:
        """A stage ends; the one around it goes on."""
        now = self._clock()
        own, outer = stage.figures, self._outer(stage)
        memory = self._read(stage, own.device)
        self._settle(stage, now, memory)
        if own.device is not None:
            self._unmark(stage)
            torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
        close_range(own.range)
        own.sums.seconds = own.seconds
        with self._lock:
            self._add(_key(stage), own.sums)
            if outer is None and not stage.behind:
                self._total += now - own.begun - own.lost
        after = self._clock()
        self._spent(stage, after - now)
        if outer is not None:
            outer.figures.lost += own.lost
            if memory.where is None:
                memory = outer.figures.memory._replace(host_peak=memory.host_peak)
            outer.figures.since, outer.figures.memory = after, memory

    def count(self, stage: Stage, copied: int = 0, written: int = 0, calls: int = 0) -> None:
        """Bytes of the stage that the thread is in."""
        stage.figures.sums.copied += copied
        stage.figures.sums.written += written
        stage.figures.sums.calls += calls

    def note(self, stage: Stage, what: str, how: str, why: str) -> None:
        """Keep it, once."""
        with self._lock:
            self._notes[Note(stage.site, what, how, why)] = None

    # --- sums ----------------------------------------------------------------------------------------------------

    def _outer(self, stage: Stage) -> Stage | None:
        """The stage around it, if it is of this recording: another one's goes on meanwhile."""
        outer = stage.outer
        return outer if outer is not None and outer.taker is self else None

    def _read(self, stage: Stage, device: torch.device | None) -> Taken:
        """What memory is taken; other threads' is not told apart, and a device's is asked for in some stages."""
        if stage.behind:
            return _UNKNOWN
        return self._memory(device if device is not None and device.type == "cuda" and stage.name in MAKING else None)

    def _settle(self, stage: Stage, now: float, memory: Taken) -> None:
        """Take what a stage took since it was begun or gone on with."""
        own = stage.figures
        own.seconds += now - own.since
        before, sums = own.memory, own.sums
        sums.host_peak += memory.host_peak - before.host_peak
        if memory.where is not None and memory.where == before.where:
            sums.device_peak += max(0, memory.device_peak - before.device_peak)
            sums.device_held = max(sums.device_held, memory.device - own.base)

    def _spent(self, stage: Stage, seconds: float) -> None:
        """Profiling took so long, which is no stage's; in threads beside the model nobody waits for it."""
        outer = self._outer(stage)
        if outer is not None:
            outer.figures.lost += seconds
        if stage.behind:
            return
        with self._lock:
            self._lost += seconds
            self._stages += 1

    def _add(self, key: _Key, own: _Sums) -> None:
        sums = self._sums.get(key)
        if sums is None:
            self._sums[key] = own
            return
        sums.seconds += own.seconds
        sums.calls += own.calls
        sums.copied += own.copied
        sums.written += own.written
        sums.host_peak += own.host_peak
        sums.device_peak += own.device_peak
        sums.device_held = max(sums.device_held, own.device_held)

    def _mark(self, stage: Stage) -> None:
        """A stage's time on its stream begins, and that of the stage around it there stands still."""
        own = stage.figures
        own.stream, own.event = self._timeline.mark(own.device)
        if own.event is None:
            return
        around = self._on_stream(stage)
        if around is not None:
            self._on_device(around, own.event)

    def _unmark(self, stage: Stage) -> None:
        own = stage.figures
        event = None if own.event is None else self._timeline.event(own.stream)
        if event is None:
            return
        self._on_device(stage, event)
        around = self._on_stream(stage)
        if around is not None:
            around.figures.event = event

    def _on_device(self, stage: Stage, until: Any) -> None:
        if stage.name not in HOST_ONLY:
            with self._lock:
                self._timeline.add(_key(stage), stage.figures.event, until)

    def _on_stream(self, stage: Stage) -> Stage | None:
        """The next stage around it that is on the same stream."""
        outer = self._outer(stage)
        while outer is not None and (outer.figures.event is None or outer.figures.stream != stage.figures.stream):
            outer = self._outer(outer)
        return outer

    def report(self) -> Profile:
        """What was found so far."""
        with self._lock:
            seconds = self._timeline.seconds()
            sums = {key: own for key, own in self._sums.items() if not key.behind}
            behind = {(key.stage, key.site): own for key, own in self._sums.items() if key.behind}
            entries = [
                Entry(
                    stage=name,
                    site=site,
                    host=own.seconds,
                    device=seconds.get(_Key(name, site, False), 0.0),
                    behind=beside.seconds,
                    calls=own.calls,
                    copied=own.copied,
                    written=own.written,
                    filed=beside.written,
                    host_peak=own.host_peak,
                    device_peak=own.device_peak,
                    device_held=own.device_held,
                )
                for name, site in dict.fromkeys([*((key.stage, key.site) for key in sums), *behind])
                for own, beside in [(sums.get(_Key(name, site, False), _Sums()), behind.get((name, site), _Sums()))]
            ]
            until = self._clock() if self._ended is None else self._ended
            block = 0.0 if self._began is None else until - self._began
            on_cuda = self._device is not None
            return Profile(entries, list(self._notes), self._total, block, self._stages // 2, self._lost, on_cuda)


def _key(stage: Stage) -> _Key:
    return _Key(stage.name, stage.site, stage.behind)
