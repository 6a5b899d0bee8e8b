"""Everything that touches a model, and undoes it: for a block, a watcher sees what the model runs."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from attnprobe.interface import refuse_overridden, wrapped_registry
from attnprobe.routes import REGISTRY
from attnprobe.shadows import seen_forward, shadowed_generate
from attnprobe.sites import Anatomy
from attnprobe.watchers import Watcher, in_backward, marked, told


@contextmanager
def watching(model: nn.Module, anatomy: Anatomy, watched: tuple[int, ...], watcher: Watcher) -> Iterator[None]:
    """Let `watcher` see the sites of these numbers, the backbones of their streams, and `generate`, for the block."""
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
            if one not in registered:
                site = anatomy.sites[numbers[0]]
                undo.enter_context(seen_forward(site.route, modules[one], site.heads, layers.get(one)))
        streams = {anatomy.stream_of[number] for number in watched}
        streams |= {source for stream in streams if (source := anatomy.source_of(stream)) is not None}
        for stream in sorted(streams):
            backbone = anatomy.streams[stream].backbone
            see = told if isinstance(backbone, nn.TransformerEncoderLayer) else _hooked
            undo.enter_context(see(backbone, watcher, stream))
        main = anatomy.main.backbone
        for module in model.modules():
            if callable(getattr(module, "generate", None)) and any(m is main for m in module.modules()):
                undo.enter_context(shadowed_generate(module, watcher))
        yield


def implementation_of(module: Any) -> Any:
    """The backend that a module's configuration names; None where it names none."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None)


@contextmanager
def _hooked(backbone: nn.Module, watcher: Watcher, stream: int) -> Iterator[None]:
    bind = inspect.signature(backbone.forward).bind_partial

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _tell_before(watcher, stream, bind, args, kwargs, torch.compiler.is_compiling())

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        _tell_after(watcher, stream, output)

    with ExitStack() as undo:
        undo.callback(backbone.register_forward_pre_hook(_Hook(before), with_kwargs=True).remove)
        undo.callback(backbone.register_forward_hook(_Hook(after), with_kwargs=True).remove)
        yield


class _Hook:
    """A hook that a copy of the model, deep or pickled, has in name only."""

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


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _tell_before(
    watcher: Watcher,
    stream: int,
    bind: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    compiled: bool,
) -> None:
    if compiled:
        watcher.refuse_compiled()
    if not in_backward():
        watcher.before_forward(stream, _flat(bind(*args, **kwargs)))


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, those that the signature only gathers too."""
    found = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found.update(found.pop(name, {}))
    return found


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _tell_after(watcher: Watcher, stream: int, output: Any) -> None:
    if not in_backward():
        watcher.after_forward(stream, output)
