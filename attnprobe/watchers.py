"""Who watches which attention module: a temporary marker on each, which a compiler can trace.

Modules that are not watched run the same code as before, compiled or not.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from attnprobe.call import AttentionCall, GivenWeights

T = TypeVar("T")
MARK = "_attnprobe_watched"
Make = Callable[[], AttentionCall | GivenWeights]
lock = threading.RLock()
_watchers: dict[int, list[tuple["Watcher", tuple[int, ...]]]] = {}
_backbones: dict[int, list[tuple["Watcher", int]]] = {}  # of those that are seen without hooks


@runtime_checkable
class Watcher(Protocol):
    """What a recorder does when the model runs."""

    def before_forward(self, stream: int, arguments: Mapping[str, Any]) -> None:
        """The backbone of a stream is about to run with these arguments, by name."""

    def after_forward(self, stream: int, output: Any) -> None:
        """It returned."""

    def attention(self, sites: tuple[int, ...], make: Make) -> None:
        """The module of these sites computes attention; `make` says what it was given."""

    def returned(self, sites: tuple[int, ...], value: Tensor, output: Tensor, reason: str) -> None:
        """The kernel returned ``[batch, head, query, dim]``; with a `reason`, no product of weights and values."""

    def refuse_compiled(self) -> None:
        """The site runs inside compiled code."""

    def generation(self, model: nn.Module, arguments: Mapping[str, Any]) -> Any:
        """A context manager around `generate`."""


def in_backward() -> bool:
    """Whether gradient checkpointing runs a forward pass again: it was seen already."""
    return torch._C._current_graph_task_id() != -1


@torch.compiler.disable  # type: ignore[untyped-decorator]
def observe(module: nn.Module, make: Make, compiled: bool) -> None:
    """Tell the watchers of a module of a call."""
    if in_backward():
        return
    for watcher, sites in tuple(_watchers.get(id(module), ())):
        if compiled:
            watcher.refuse_compiled()
        watcher.attention(sites, make)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def observe_output(module: nn.Module, value: Tensor, output: Tensor, reason: str) -> None:
    """Tell the watchers of a module what the kernel made of its values."""
    if not in_backward():
        for watcher, sites in tuple(_watchers.get(id(module), ())):
            watcher.returned(sites, value, output, reason)


@contextmanager
def listed(registry: dict[int, list[T]], of: nn.Module, entry: T) -> Iterator[None]:
    """An entry in a registry by module, for the block; a module without entries is not in it."""
    try:
        with lock:
            registry.setdefault(id(of), []).append(entry)
        yield
    finally:
        with lock:
            entries = registry.get(id(of), [])
            if entry in entries:
                entries.remove(entry)
            if not entries:
                registry.pop(id(of), None)


@contextmanager
def marked(module: nn.Module, watcher: Watcher, sites: tuple[int, ...]) -> Iterator[None]:
    """Let `watcher` see the calls of a module, which is these sites, for the block."""
    try:
        with listed(_watchers, module, (watcher, sites)):
            module.__dict__[MARK] = True
            yield
    finally:
        with lock:
            if id(module) not in _watchers:
                module.__dict__.pop(MARK, None)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def observe_start(backbone: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Tell those who see a backbone without hooks that it is about to run."""
    if not in_backward():
        for watcher, stream in tuple(_backbones.get(id(backbone), ())):
            watcher.before_forward(stream, arguments)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def observe_end(backbone: nn.Module, output: Any) -> None:
    """And that it returned."""
    if not in_backward():
        for watcher, stream in tuple(_backbones.get(id(backbone), ())):
            watcher.after_forward(stream, output)


def told(backbone: nn.Module, watcher: Watcher, stream: int) -> AbstractContextManager[None]:
    """Let `watcher` be told of the forward passes of a backbone whose own `forward` is shadowed, for the block."""
    return listed(_backbones, backbone, (watcher, stream))
