"""Device to host, in order: copies are started in the forward pass and looked at when they have landed."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attnprobe.profiling import copied, stage


class Copies:
    """A queue of copies; each calls back once its tensors are on the host, first in, first out.

    On CUDA, copies go to pinned memory, which PyTorch hands out again once nobody holds it, and run on a stream of
    their own beside the model's: a copy waits for what makes its tensor, and the model waits for no copy.

    Parameters
    ----------
    bound
        Bytes in flight at most, and so of pinned memory and of device memory that waits for its copy; beyond it the
        oldest copy is waited for.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._flying: deque[tuple[list[Tensor | None], list[Any], int, Callable[..., None]]] = deque()
        self._nbytes = 0
        self._aside: dict[torch.device, Any] = {}

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
        hosts: list[Tensor | None] = []
        events: list[Any] = []
        for tensor in tensors:
            if tensor is None or tensor.device.type == "cpu":
                hosts.append(tensor)
            elif tensor.device.type != "cuda":
                with stage("copy"):
                    hosts.append(torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor))
                    copied(tensor.nbytes)
            else:
                host, event = self._copy(tensor, aside)
                hosts.append(host)
                events.append(event)
        self._flying.append((hosts, events, nbytes, then))
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
        while self._flying:
            if not wait and not all(event.query() for event in self._flying[0][1]):
                return
            self._land_first()

    def _land_first(self) -> None:
        hosts, events, nbytes, then = self._flying.popleft()
        self._nbytes -= nbytes
        for event in events:
            with stage("wait"):
                event.synchronize()
        then(*hosts)
