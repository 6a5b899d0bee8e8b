"""Device to host, in order: copies are started in the forward pass and looked at when they have landed."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attnprobe.profiling import copied, stage


class Copies:
    """A queue of copies; each calls back once its tensors are on the host, first in, first out.

    Parameters
    ----------
    bound
        Bytes in flight at most; beyond it the oldest copy is waited for.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._flying: deque[tuple[list[Tensor | None], list[Any], int, Callable[..., None]]] = deque()
        self._nbytes = 0

    def __len__(self) -> int:
        """Copies in flight."""
        return len(self._flying)

    def put(self, tensors: Sequence[Tensor | None], then: Callable[..., None], land: bool = True) -> None:
        """Copy the tensors to the host and call ``then(*copies)``; CPU tensors are handed over as they are.

        What has landed by then is called back, unless `land` is False.
        """
        hosts: list[Tensor | None] = []
        events: list[Any] = []
        nbytes = 0
        for tensor in tensors:
            if tensor is None or tensor.device.type == "cpu":
                hosts.append(tensor)
                continue
            with stage("copy"):
                pinned = tensor.device.type == "cuda"
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
                host.copy_(tensor, non_blocking=pinned)
                hosts.append(host)
                copied(host.numel() * host.element_size())
            nbytes += host.numel() * host.element_size()
            if pinned:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(tensor.device))
                events.append(event)
        self._flying.append((hosts, events, nbytes, then))
        self._nbytes += nbytes
        if land:
            self.land(wait=False)
        while self._nbytes > self._bound:
            self._land_first()

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
