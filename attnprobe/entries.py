"""Where a model's compiled code is entered, and what of that is seen from outside: the key cache, before and after.

Compiled code tells what it is given by tensors (see `attnprobe.traced`). A key cache is no tensor: it goes in and comes
out with the call that enters the code, so that call is bracketed for as long as somebody records.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attnprobe.watchers import Watcher, in_backward, listed, lock

_entered: dict[int, list[Watcher]] = {}


@dataclass(frozen=True)
class Entry:
    """An attribute of a module that enters compiled code: ``model.compile()`` and its like have put it there.

    Attributes
    ----------
    key, module
        The module and its name; one that ``torch.compile`` returned stands for the module inside.
    name
        The attribute.
    """

    key: str
    module: nn.Module
    name: str

    def covers(self, key: str) -> bool:
        """Whether a module of this name runs inside."""
        return not self.key or key == self.key or key.startswith(f"{self.key}.")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of what ``torch.compile`` returned; any other as it is."""
    while _is_wrapper(model):
        model = _inside(model)
    return model


def find_entries(model: nn.Module) -> Iterator[Entry]:
    """Where compiled code of a model is entered, from the outside to the inside."""
    outer = model
    while _is_wrapper(outer):
        yield Entry("", outer, "forward")
        outer = _inside(outer)
    for key, module in outer.named_modules():
        if _is_wrapper(module):
            yield Entry(key, module, "forward")
        else:
            if module.__dict__.get("_compiled_call_impl") is not None:
                yield Entry(key, module, "_compiled_call_impl")
            forward = module.__dict__.get("forward")
            by_compiler = hasattr(forward, "_torchdynamo_orig_callable")  # what torch.compiler.disable made has one too
            if isinstance(forward, _Bracket) or (by_compiler and not hasattr(forward, "_torchdynamo_disable")):
                yield Entry(key, module, "forward")


def _is_wrapper(module: Any) -> bool:
    return isinstance(module, nn.Module) and "_orig_mod" in module._modules


def _inside(wrapper: nn.Module) -> nn.Module:
    return wrapper.get_submodule("_orig_mod")


class _Bracket:
    """Stands in for what enters compiled code."""

    def __init__(self, module: nn.Module, inner: Callable[..., Any]) -> None:
        self.module = module
        self.inner = inner
        self.__wrapped__ = inner  # for who asks for its signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it inside of what the watchers put around it."""
        watchers = () if torch.compiler.is_compiling() or in_backward() else tuple(_entered.get(id(self.module), ()))
        if not watchers:
            return self.inner(*args, **kwargs)
        cache = next((given for given in (*kwargs.values(), *args) if hasattr(given, "get_seq_length")), None)
        for watcher in watchers:
            watcher.entered(cache)
        output, failed = None, True
        try:
            output = self.inner(*args, **kwargs)
            failed = False
            return output
        finally:
            for watcher in reversed(watchers):
                watcher.left(output, failed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the model runs its own."""
        return copy.deepcopy(self.inner, memo)

    def __reduce__(self) -> Any:
        """And so does a pickled one."""
        return self.inner.__reduce__()


@contextmanager
def seen_entry(entry: Entry, watcher: Watcher) -> Iterator[None]:
    """Let `watcher` be told when compiled code is entered and left, for the block."""
    held = entry.module.__dict__
    try:
        with listed(_entered, entry.module, watcher):
            with lock:
                if not isinstance(held.get(entry.name), _Bracket):
                    held[entry.name] = _Bracket(entry.module, held[entry.name])
            yield
    finally:
        with lock:
            bracket = held.get(entry.name)
            if isinstance(bracket, _Bracket) and id(entry.module) not in _entered:
                held[entry.name] = bracket.inner
