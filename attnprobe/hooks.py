"""Everything that touches a model, and undoes it: for a block, a watcher sees what the model runs."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from attnprobe.entries import Entry, seen_entry
from attnprobe.interface import refuse_overridden, wrapped_registry
from attnprobe.marks import ROOT_MARK, Mark, exports
from attnprobe.routes import REGISTRY
from attnprobe.shadows import seen_forward, shadowed_generate
from attnprobe.sites import Anatomy
from attnprobe.traced import tell_end, tell_start
from attnprobe.watchers import Watcher, is_told, listed, lock, marked, observe_end, observe_start, told


@contextmanager
def watching(
    model: nn.Module, anatomy: Anatomy, watched: tuple[int, ...], watcher: Watcher, entries: tuple[Entry, ...] = ()
) -> Iterator[None]:
    """Let `watcher` see the sites of these numbers, the backbones of their streams, and `generate`, for the block.

    With `entries` to compiled code, every site of the registry is marked, so that the code is the same whatever is
    selected.
    """
    modules = {id(anatomy.modules[number]): anatomy.modules[number] for number in watched}
    sites = {one: tuple(n for n, module in enumerate(anatomy.modules) if id(module) == one) for one in modules}
    with ExitStack() as undo:
        registered = {one for one, numbers in sites.items() if anatomy.sites[numbers[0]].route == REGISTRY}
        if registered:
            used = {implementation_of(modules[one]) for one in registered}
            refuse_overridden(used)
            undo.enter_context(wrapped_registry("eager" in used))
        layers = {id(part.self_attn): part for part in model.modules() if isinstance(part, nn.TransformerEncoderLayer)}
        for one, numbers in sites.items():
            undo.enter_context(marked(modules[one], watcher, numbers))
            if one in registered and implementation_of(modules[one]) == "eager":
                undo.enter_context(_noticed(modules[one], watcher))
            if one not in registered:
                site = anatomy.sites[numbers[0]]
                undo.enter_context(seen_forward(site.route, modules[one], site.heads, layers.get(one)))
        if entries:
            for module, site in zip(anatomy.modules, anatomy.sites, strict=True):
                if id(module) not in sites and site.route == REGISTRY:
                    undo.enter_context(marked(module, watcher, ()))
                    if implementation_of(module) == "eager":
                        undo.enter_context(_noticed(module, watcher))
        streams = {anatomy.stream_of[number] for number in watched}
        streams |= {source for stream in streams if (source := anatomy.source_of(stream)) is not None}
        for stream in sorted(streams):
            backbone = anatomy.streams[stream].backbone
            see = told if isinstance(backbone, nn.TransformerEncoderLayer) else _hooked
            undo.enter_context(see(backbone, watcher, stream))
        for entry in entries:
            if any(entry.covers(anatomy.streams[stream].key) for stream in streams):
                undo.enter_context(seen_entry(entry, watcher))
        main = anatomy.main.backbone
        for module in model.modules():
            if callable(getattr(module, "generate", None)) and any(m is main for m in module.modules()):
                undo.enter_context(shadowed_generate(module, watcher))
        yield


def implementation_of(module: Any) -> Any:
    """The backend that a module's configuration names; None where it names none."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None)


# --- backbones ---------------------------------------------------------------------------------------------------

_handles: dict[int, list[RemovableHandle]] = {}
_noticing: dict[int, list[Watcher]] = {}


class _Hook:
    """A hook that a copy of the model, deep or pickled, has in name only. One object for ever: see `_wrapper`."""

    def __init__(self, run: Callable[..., None]) -> None:
        self._run = run

    def __call__(self, *told: Any) -> None:
        self._run(*told)

    def __reduce__(self) -> Any:
        return _no_hook, ()


def _no_hook() -> Callable[..., None]:
    return _nothing


def _nothing(*_: Any) -> None:
    """What the hook of a copy does."""


def _before(backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if exports():
        return
    mark = getattr(backbone, ROOT_MARK)
    arguments = {**dict(zip(mark.names, args, strict=False)), **kwargs}
    if torch.compiler.is_compiling():
        tell_start(backbone, mark, arguments)
    else:
        observe_start(backbone, arguments)


def _after(backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    if exports():
        return
    if torch.compiler.is_compiling():
        tell_end(getattr(backbone, ROOT_MARK))
    else:
        observe_end(backbone, output)


_BEFORE, _AFTER = _Hook(_before), _Hook(_after)


@contextmanager
def _hooked(backbone: nn.Module, watcher: Watcher, stream: int) -> Iterator[None]:
    """Tell `watcher` of the forward passes of a backbone, for the block: by one pair of hooks, whoever else is told."""
    try:
        with told(backbone, watcher, stream):
            with lock:
                if id(backbone) not in _handles:
                    handles = _handles.setdefault(id(backbone), [])
                    backbone.__dict__[ROOT_MARK] = Mark(backbone, _positional(backbone))
                    handles.append(backbone.register_forward_pre_hook(_BEFORE, with_kwargs=True))
                    handles.append(backbone.register_forward_hook(_AFTER, with_kwargs=True))
            yield
    finally:
        with lock:
            if not is_told(backbone):
                for handle in _handles.pop(id(backbone), ()):
                    handle.remove()
                backbone.__dict__.pop(ROOT_MARK, None)


def _positional(backbone: nn.Module) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(name for name, one in inspect.signature(backbone.forward).parameters.items() if one.kind in kinds)


@contextmanager
def _noticed(module: nn.Module, watcher: Watcher) -> Iterator[None]:
    """Let code that was compiled earlier notice that the block begins, where no registry entry tells it.

    It does not notice a hook that is added, nor one entry more in the registry, but that a module has a `forward` of
    its own; this one is what it had.
    """
    held = module.__dict__
    try:
        with listed(_noticing, module, watcher):
            with lock:
                held.setdefault("forward", module.forward)
            yield
    finally:
        with lock:
            if id(module) not in _noticing and held.get("forward") == MethodType(type(module).forward, module):
                del held["forward"]
