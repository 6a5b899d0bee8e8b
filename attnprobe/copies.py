"""Device to host, in order: copies are started in the forward pass and looked at when they have landed."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Copies:
    """A queue of copies; each calls back once its tensors are on the host, first in, first out.

    Parameters
    ----------
    bound
        Bytes in flight at most; beyond it the oldest copy is waited for.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._flying: deque[tuple[list[Tensor | None], Any, int, Callable[..., None]]] = deque()
        self._nbytes = 0

    def put(self, tensors: Sequence[Tensor | None], then: Callable[..., None]) -> None:
        """Copy the tensors to the host and call ``then(*copies)``; CPU tensors are handed over as they are."""
        hosts: list[Tensor | None] = []
        event, nbytes = None, 0
        for tensor in tensors:
            if tensor is None or tensor.device.type == "cpu":
                hosts.append(tensor)
                continue
            pinned = tensor.device.type == "cuda"
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
            host.copy_(tensor, non_blocking=pinned)
            hosts.append(host)
            nbytes += host.numel() * host.element_size()
            if pinned:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(tensor.device))
        self._flying.append((hosts, event, nbytes, then))
        self._nbytes += nbytes
        self.land(wait=False)
        while self._nbytes > self._bound:
            self._land_first()

    def land(self, wait: bool) -> None:
        """Call back for what has landed; with `wait`, for everything."""
        while self._flying:
            event = self._flying[0][1]
            if not wait and event is not None and not event.query():
                return
            self._land_first()

    def _land_first(self) -> None:
        hosts, event, nbytes, then = self._flying.popleft()
        self._nbytes -= nbytes
        if event is not None:
            event.synchronize()
        then(*hosts)

    def drop(self) -> None:
        """Forget what is in flight."""
        self._flying.clear()
        self._nbytes = 0
