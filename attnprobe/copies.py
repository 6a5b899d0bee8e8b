"""Device to host, in order: copies are started in the forward pass and looked at when they have landed."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnprobe.fields import HUGE, own_memory
from attnprobe.profiling import copied, stage


@dataclass(eq=False)
class _Flight:
    """Copies on their way, the events of their arrival, and, where somebody brings them further, what will come."""

    hosts: list[Tensor | None]
    events: list[Any]
    nbytes: int
    then: Callable[..., None]
    brought: "Future[list[Tensor | None]] | None" = None

    @property
    def landed(self) -> bool:
        """Whether nothing has to be waited for."""
        return self.brought.done() if self.brought is not None else all(event.query() for event in self.events)

    def wait(self) -> list[Tensor | None]:
        """What came, once it has."""
        if self.brought is not None:
            return self.brought.result()
        for event in self.events:
            event.synchronize()
        return self.hosts

    def bring(self) -> list[Tensor | None]:
        """Out of pinned memory, in a thread of its own."""
        for event in self.events:
            event.synchronize()
        return [None if one is None else own_memory(one) for one in self.hosts]


class Copies:
    """A queue of copies; each calls back once its tensors are on the host, first in, first out.

    On CUDA, copies go to pinned memory, which PyTorch hands out again once nobody holds it, and run on a stream of
    their own beside the model's: a copy waits for what makes its tensor, and the model waits for no copy.

    Parameters
    ----------
    bound
        Bytes in flight at most, and so of pinned memory and of device memory that waits for its copy; beyond it the
        oldest copy is waited for.
    kept
        Whether what lands stays in memory: then a thread brings large tensors out of pinned memory, and the one that
        runs the model does not.
    """

    def __init__(self, bound: int, kept: bool = False) -> None:
        self._bound = bound
        self._flying: deque[_Flight] = deque()
        self._nbytes = 0
        self._aside: dict[torch.device, Any] = {}
        self._bringer = ThreadPoolExecutor(1, "attnprobe-copies") if kept else None

    def __len__(self) -> int:
        """Copies in flight."""
        return len(self._flying)

    def put(
        self, tensors: Sequence[Tensor | None], then: Callable[..., None], land: bool = True, aside: bool = False
    ) -> None:
        """Copy the tensors to the host and call ``then(*copies)``; CPU tensors are handed over as they are.

        What has landed by then is called back, and the bound kept to, unless `land` is False, as within a call back.
        Copies run beside the model's work if `aside`: of tensors that nobody writes to any more.
        """
        nbytes = sum(one.nbytes for one in tensors if one is not None and one.device.type != "cpu")
        while land and self._flying and self._nbytes + nbytes > self._bound:  # first, so that pinned memory is there
            self._land_first()
        flight = _Flight([], [], nbytes, then)
        for tensor in tensors:
            if tensor is None or tensor.device.type == "cpu":
                flight.hosts.append(tensor)
            elif tensor.device.type != "cuda":
                with stage("copy"):
                    flight.hosts.append(torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor))
                    copied(tensor.nbytes)
            else:
                host, event = self._copy(tensor, aside)
                flight.hosts.append(host)
                flight.events.append(event)
        if self._bringer is not None and flight.events and nbytes >= HUGE:
            flight.brought = self._bringer.submit(flight.bring)
        self._flying.append(flight)
        self._nbytes += nbytes
        if land:
            self.land(wait=False)

    def _copy(self, tensor: Tensor, aside: bool) -> tuple[Tensor, Any]:
        """A copy on its way, and the event of its arrival."""
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        stream = torch.cuda.current_stream(tensor.device)
        if aside:
            maker, stream = stream, self._stream(tensor.device)
            stream.wait_stream(maker)
            tensor.record_stream(stream)  # the allocator gives its memory to others only behind the copy
        with torch.cuda.stream(stream) if aside else nullcontext(), stage("copy"):
            host.copy_(tensor, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
            copied(host.nbytes)
        return host, event

    def _stream(self, device: torch.device) -> Any:
        if device not in self._aside:
            self._aside[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._aside[device]

    def land(self, wait: bool) -> None:
        """Call back for what has landed; with `wait`, for everything."""
        while self._flying and (wait or self._flying[0].landed):
            self._land_first()

    def _land_first(self) -> None:
        flight = self._flying.popleft()
        self._nbytes -= flight.nbytes
        with stage("wait") if flight.events else nullcontext():
            hosts = flight.wait()
        flight.then(*hosts)

    def close(self) -> None:
        """Nothing will come any more."""
        if self._bringer is not None:
            self._bringer.shutdown()
