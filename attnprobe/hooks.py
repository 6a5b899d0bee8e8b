"""Everything that touches a model or a registry, and undoes it.

Entering and leaving is counted, so recorders may be nested, overlap and leave in any order; what others registered
meanwhile is never overwritten. An attention module that is watched carries a temporary marker, which a compiler can
trace: modules that are not watched run the same code as before, compiled or not.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from attnprobe.errors import UnsupportedModel
from attnprobe.sites import Anatomy

MARK = "_attnprobe_watched"
_lock = threading.RLock()
_open = {"registry": 0, "eager": 0}
_watchers: dict[int, list[tuple["Watcher", int]]] = {}
_generators: dict[int, list["Watcher"]] = {}


@runtime_checkable
class Watcher(Protocol):
    """What a recorder does when the model runs."""

    def before_forward(self, arguments: Mapping[str, Any]) -> None:
        """The backbone is about to run with these arguments, by name."""

    def after_forward(self, output: Any) -> None:
        """The backbone returned."""

    def attention(
        self, site: int, implementation: str, query: Tensor, key: Tensor, mask: Any, extras: Mapping[str, Any]
    ) -> None:
        """The site of that number is about to compute attention."""

    def refuse_compiled(self) -> None:
        """The site runs inside compiled code."""

    def generation(self, model: nn.Module, arguments: Mapping[str, Any]) -> Any:
        """A context manager around `generate`."""


def _implementation(module: Any) -> Any:
    return module.config._attn_implementation


@contextmanager
def watching(model: nn.Module, anatomy: Anatomy, watched: tuple[int, ...], watcher: Watcher) -> Iterator[None]:
    """Let `watcher` see the model's backbone, its `generate`, and the sites of these numbers, for the block."""
    with ExitStack() as undo:
        used = {_implementation(anatomy.modules[number]) for number in watched}
        _refuse_overridden(used)
        eager = "eager" in used
        undo.enter_context(_wrapped_registry(eager))
        for number in watched:
            undo.enter_context(_marked(anatomy.modules[number], watcher, number))
        backbone = anatomy.backbone
        bind = inspect.signature(backbone.forward).bind_partial

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is backbone:  # a deep copy of the model, made inside of the block, has these hooks too
                _tell_before(watcher, bind, args, kwargs, torch.compiler.is_compiling())

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if module is backbone:
                _tell_after(watcher, output)

        undo.callback(backbone.register_forward_pre_hook(before, with_kwargs=True).remove)
        undo.callback(backbone.register_forward_hook(after, with_kwargs=True).remove)
        for module in model.modules():
            if callable(getattr(module, "generate", None)) and any(m is backbone for m in module.modules()):
                undo.enter_context(_shadowed_generate(module, watcher))
        yield


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _tell_before(
    watcher: Watcher, bind: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], compiled: bool
) -> None:
    if compiled:
        watcher.refuse_compiled()
    if not _in_backward():
        watcher.before_forward(bind(*args, **kwargs).arguments)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _tell_after(watcher: Watcher, output: Any) -> None:
    if not _in_backward():
        watcher.after_forward(output)


def _in_backward() -> bool:
    """Whether gradient checkpointing runs a forward pass again: it was seen already."""
    return torch._C._current_graph_task_id() != -1


def _refuse_overridden(implementations: set[str]) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name in implementations & set(ALL_ATTENTION_FUNCTIONS._local_mapping):
        raise UnsupportedModel(
            f"ALL_ATTENTION_FUNCTIONS[{name!r}] was set to a function of its own, which hides the one that is "
            "recorded; use AttentionInterface.register instead, or delete it"
        )


# --- the attention registry --------------------------------------------------------------------------------------


@functools.cache
def _wrapper(implementation: str, inner: Callable[..., Any] | None) -> Callable[..., Any]:
    """The function that stands in for a registry entry: one object for ever, so that nothing is compiled twice."""

    def attnprobe_attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, *args: Any, **kw: Any
    ) -> Any:
        if hasattr(module, MARK):
            _observe(implementation, module, query, key, attention_mask, kw, torch.compiler.is_compiling())
        function = _eager_of(type(module)) if inner is None else inner
        return function(module, query, key, value, attention_mask, *args, **kw)

    attnprobe_attention.attnprobe_wraps = (implementation, inner)  # type: ignore[attr-defined]
    return attnprobe_attention


def _is_ours(function: Any) -> bool:
    """Whether a registry entry is one of our wrappers; one that others put around ours copies its attributes."""
    wraps = getattr(function, "attnprobe_wraps", None)
    return wraps is not None and function is _wrapper(*wraps)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _observe(
    implementation: str, module: nn.Module, query: Tensor, key: Tensor, mask: Any, kw: dict[str, Any], compiled: bool
) -> None:
    if _in_backward():
        return
    for watcher, site in tuple(_watchers.get(id(module), ())):
        if compiled:
            watcher.refuse_compiled()
        watcher.attention(site, implementation, query, key, mask, kw)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _eager_of(cls: type) -> Callable[..., Any]:
    """The eager function that an attention class names in its forward: what it would have run without us."""
    for base in cls.__mro__:
        forward = inspect.unwrap(vars(base)["forward"]) if "forward" in vars(base) else None
        code = getattr(forward, "__code__", None)
        names = [n for n in code.co_names if "eager" in n and "attention" in n] if code is not None else []
        if len(names) == 1 and callable(function := forward.__globals__.get(names[0])):  # type: ignore[union-attr]
            return cast(Callable[..., Any], function)
    raise UnsupportedModel(
        f"{cls.__name__} runs eager attention in an unknown way while a model on eager attention is recorded; "
        'load the recorded model with attn_implementation="sdpa"'
    )


@contextmanager
def _wrapped_registry(eager: bool) -> Iterator[None]:
    from transformers.modeling_utils import AttentionInterface

    mapping: dict[str, Callable[..., Any]] = AttentionInterface._global_mapping
    counted = False
    try:  # from the first change on: an interrupt at any point is undone
        with _lock:
            counted = True
            _open["registry"] += 1
            _open["eager"] += eager
            for name, function in list(mapping.items()):
                if not _is_ours(function):
                    AttentionInterface.register(name, _wrapper(name, function))
            if eager and "eager" not in mapping:
                AttentionInterface.register("eager", _wrapper("eager", None))
        yield
    finally:
        with _lock:
            _open["registry"] -= counted
            _open["eager"] -= eager and counted
            for name, function in list(mapping.items()):
                inner = function.attnprobe_wraps[1] if _is_ours(function) else None  # type: ignore[attr-defined]
                if inner is not None and not _open["registry"]:
                    AttentionInterface.register(name, inner)
            if not _open["eager"] and mapping.get("eager") is _wrapper("eager", None):
                del mapping["eager"]


@contextmanager
def _marked(module: nn.Module, watcher: Watcher, site: int) -> Iterator[None]:
    entry = (watcher, site)
    try:
        with _lock:
            _watchers.setdefault(id(module), []).append(entry)
            module.__dict__[MARK] = True
        yield
    finally:
        with _lock:
            entries = _watchers.get(id(module), [])
            if entry in entries:
                entries.remove(entry)
            if not entries:
                _watchers.pop(id(module), None)
                module.__dict__.pop(MARK, None)


# --- generate ----------------------------------------------------------------------------------------------------


class _Generate:
    """Stands in for a model's `generate`, and lets its watchers look at the arguments first."""

    def __init__(self, model: nn.Module, inner: Callable[..., Any], own: bool) -> None:
        self.model = model
        self.inner = inner
        self.own = own  # whether the instance had a `generate` of its own before
        functools.update_wrapper(self, inner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model's own `generate` inside of what the watchers put around it."""
        arguments = {**dict(zip(("inputs", "generation_config"), args, strict=False)), **kwargs}
        with ExitStack() as stack:
            for watcher in tuple(_generators.get(id(self.model), ())):
                stack.enter_context(watcher.generation(self.model, arguments))
            return self.inner(*args, **kwargs)


@contextmanager
def _shadowed_generate(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    try:
        with _lock:
            _generators.setdefault(id(model), []).append(watcher)
            if not isinstance(model.__dict__.get("generate"), _Generate):
                own = "generate" in model.__dict__
                model.__dict__["generate"] = _Generate(model, model.generate, own)  # type: ignore[arg-type]
        yield
    finally:
        with _lock:
            watchers = _generators.get(id(model), [])
            if watcher in watchers:
                watchers.remove(watcher)
            shadow = model.__dict__.get("generate")
            if not watchers:
                _generators.pop(id(model), None)
                if isinstance(shadow, _Generate) and shadow.own:
                    model.__dict__["generate"] = shadow.inner
                elif isinstance(shadow, _Generate):
                    del model.__dict__["generate"]
