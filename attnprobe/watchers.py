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
from attnprobe.marks import MARK, Mark, module_of
from attnprobe.seen import refuse_compiled

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Make = Callable[[], AttentionCall | GivenWeights]
lock = threading.RLock()
_watchers: dict[int, list[tuple["Watcher", tuple[int, ...]]]] = {}
_backbones: dict[int, list[tuple["Watcher", int]]] = {}


@runtime_checkable
class Watcher(Protocol):
    """What a recorder does when the model runs."""

    def before_forward(self, stream: int, arguments: Mapping[str, Any]) -> None:
        """The backbone of a stream is about to run with these arguments, by name."""

    def after_forward(self, stream: int, output: Any) -> None:
        """It returned."""

    def before_compiled(self, stream: int, arguments: Mapping[str, Any], cached: bool) -> None:
        """The backbone is about to run inside of compiled code; the key cache that it may be given is not shown."""

    def after_compiled(self, stream: int) -> None:
        """It returned there, and its output is not shown."""

    def entered(self, cache: Any) -> None:
        """Compiled code is about to run that has backbones inside, and is given this key cache, or None."""

    def left(self, output: Any, failed: bool) -> None:
        """It returned."""

    def attention(self, sites: tuple[int, ...], make: Make, traced: bool = False) -> None:
        """The module of these sites computes attention; `make` says what it was given, in `traced` code or not."""

    def returned(self, sites: tuple[int, ...], value: Tensor, output: Tensor, reason: str) -> None:
        """The kernel returned ``[batch, head, query, dim]``; with a `reason`, no product of weights and values."""

    def generation(self, model: nn.Module, arguments: Mapping[str, Any]) -> Any:
        """A context manager around `generate`."""


def in_backward() -> bool:
    """Whether gradient checkpointing runs a forward pass again: it was seen already."""
    return torch._C._current_graph_task_id() != -1


def _opaque(function: F) -> F:
    """What no compiler looks into; where it may not break its graph, its error says this."""
    why = "attnprobe records this module only where it is not compiled; run it so, or record other layers (layers=)"
    opaque: F = torch.compiler.disable(function, reason=why)  # type: ignore[no-untyped-call]
    return opaque


@_opaque
def observe(module: nn.Module, make: Make, compiled: bool = False) -> None:
    """Tell the watchers of a module of a call; one in `compiled` code that is not traced is refused."""
    if in_backward():
        return
    for watcher, sites in tuple(_watchers.get(id(module), ())):
        if sites:
            watcher.attention(sites, refuse_compiled if compiled else make)


def observe_traced(module: nn.Module, make: Make) -> None:
    """Tell the watchers of a module of a call that traced code tells of."""
    if in_backward():
        return
    for watcher, sites in tuple(_watchers.get(id(module), ())):
        if sites:
            watcher.attention(sites, make, traced=True)


@_opaque
def observe_output(module: nn.Module, value: Tensor, output: Tensor, reason: str) -> None:
    """Tell the watchers of a module what the kernel made of its values."""
    if not in_backward():
        for watcher, sites in tuple(_watchers.get(id(module), ())):
            if sites:
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
    """Let `watcher` see the calls of a module, which is these sites, for the block.

    One that is no site that is watched is marked all the same where it is compiled: then the code is the same whatever
    is selected.
    """
    try:
        with listed(_watchers, module, (watcher, sites)):
            with lock:
                mark = module.__dict__.get(MARK)
                if mark is None or module_of(mark.site) is not module:  # a copy has one that is nobody's
                    module.__dict__[MARK] = Mark(module)
            yield
    finally:
        with lock:
            if id(module) not in _watchers:
                module.__dict__.pop(MARK, None)


@_opaque
def observe_start(backbone: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Tell the watchers of a backbone that it is about to run."""
    for watcher, stream in _those_of(backbone):
        watcher.before_forward(stream, arguments)


@_opaque
def observe_end(backbone: nn.Module, output: Any) -> None:
    """And that it returned."""
    for watcher, stream in _those_of(backbone):
        watcher.after_forward(stream, output)


def observe_compiled_start(backbone: nn.Module, arguments: Mapping[str, Any], cached: bool) -> None:
    """Tell them that it is about to run inside of compiled code, and whether it is given a key cache."""
    for watcher, stream in _those_of(backbone):
        watcher.before_compiled(stream, arguments, cached)


def observe_compiled_end(backbone: nn.Module) -> None:
    """And that it returned."""
    for watcher, stream in _those_of(backbone):
        watcher.after_compiled(stream)


def _those_of(backbone: nn.Module) -> tuple[tuple[Watcher, int], ...]:
    return () if in_backward() else tuple(_backbones.get(id(backbone), ()))


def told(backbone: nn.Module, watcher: Watcher, stream: int) -> AbstractContextManager[None]:
    """Let `watcher` be told of the forward passes of a backbone, for the block; who calls `observe_start`, tells it."""
    return listed(_backbones, backbone, (watcher, stream))


def is_told(backbone: nn.Module) -> bool:
    """Whether anybody is."""
    return id(backbone) in _backbones
