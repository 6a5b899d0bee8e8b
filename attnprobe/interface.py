"""The wrappers that stand in for the entries of transformers' attention registry, for as long as somebody records.

Entering and leaving is counted, so recorders may be nested, overlap and leave in any order; what others registered
meanwhile is never overwritten.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from attnprobe.errors import UnsupportedModel
from attnprobe.marks import MARK, exports
from attnprobe.registry import no_product, registry_call
from attnprobe.traced import tell_call
from attnprobe.watchers import lock, observe, observe_output

_open = {"registry": 0, "eager": 0}


def refuse_overridden(implementations: set[str]) -> None:
    """Refuse backends whose function somebody hid.

    Raises
    ------
    UnsupportedModel
        If there are some.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name in implementations & set(ALL_ATTENTION_FUNCTIONS._local_mapping):
        raise UnsupportedModel(
            f"ALL_ATTENTION_FUNCTIONS[{name!r}] was set to a function of its own, which hides the one that is "
            "recorded; use AttentionInterface.register instead, or delete it"
        )


@functools.cache
def _wrapper(implementation: str, inner: Callable[..., Any] | None) -> Callable[..., Any]:
    """The function that stands in for a registry entry: one object for ever, so that nothing is compiled twice."""

    def attnprobe_attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, *args: Any, **kw: Any
    ) -> Any:
        function = inner
        if function is None:
            if torch.compiler.is_compiling():
                _know_eager(type(module))
                function = _eager[type(module)]
            else:
                function = _eager_of(type(module))
        watched = hasattr(module, MARK) and not exports()
        if watched and not torch.compiler.is_compiling():
            _tell(implementation, module, query, key, attention_mask, kw)
        output = function(module, query, key, value, attention_mask, *args, **kw)
        if watched and torch.compiler.is_compiling():
            tell_call(getattr(module, MARK), implementation, (query, key, value, output[0]), attention_mask, kw)
        elif watched:
            _tell_output(module, value, output, kw)
        return output

    attnprobe_attention.attnprobe_wraps = (implementation, inner)  # type: ignore[attr-defined]
    return attnprobe_attention


def _is_ours(function: Any) -> bool:
    """Whether a registry entry is one of our wrappers; one that others put around ours copies its attributes."""
    wraps = getattr(function, "attnprobe_wraps", None)
    return wraps is not None and function is _wrapper(*wraps)


def _tell(implementation: str, module: nn.Module, query: Tensor, key: Tensor, mask: Any, kw: dict[str, Any]) -> None:
    observe(module, functools.partial(registry_call, implementation, module, query, key, mask, kw))


def _tell_output(module: nn.Module, value: Tensor, output: Any, kw: dict[str, Any]) -> None:
    observe_output(module, value, output[0].transpose(1, 2), no_product(module, kw))


_eager: dict[type, Callable[..., Any]] = {}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _know_eager(cls: type) -> None:
    """Look for the eager function of a class while code is compiled; a function cannot be what comes back then."""
    _eager[cls] = _eager_of(cls)


def _eager_of(cls: type) -> Callable[..., Any]:
    """The eager function that an attention class names in its methods: what it would have run without us."""
    for base in cls.__mro__:
        methods = [inspect.unwrap(one) for one in vars(base).values() if inspect.isfunction(one)]
        methods.sort(key=lambda method: method.__name__ != "forward")  # the one that runs comes first
        for method in methods:
            names = [name for name in method.__code__.co_names if "eager" in name and "attention" in name]
            if len(names) == 1 and callable(function := method.__globals__.get(names[0])):
                return cast(Callable[..., Any], function)
    raise UnsupportedModel(
        f"{cls.__name__} runs eager attention in an unknown way while a model on eager attention is recorded; "
        'load the recorded model with attn_implementation="sdpa"'
    )


@contextmanager
def wrapped_registry(eager: bool) -> Iterator[None]:
    """Wrap every entry for the block, and put one for eager attention, which has none, if it is watched."""
    from transformers.modeling_utils import AttentionInterface

    mapping: dict[str, Callable[..., Any]] = AttentionInterface._global_mapping
    counted = False
    try:  # from the first change on: an interrupt at any point is undone
        with lock:
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
        with lock:
            _open["registry"] -= counted
            _open["eager"] -= eager and counted
            for name, function in list(mapping.items()):
                inner = function.attnprobe_wraps[1] if _is_ours(function) else None  # type: ignore[attr-defined]
                if inner is not None and not _open["registry"]:
                    AttentionInterface.register(name, inner)
            if not _open["eager"] and mapping.get("eager") is _wrapper("eager", None):
                del mapping["eager"]
