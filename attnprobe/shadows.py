"""What stands in for a method of one module instance, for as long as somebody records: `generate`, and `forward`.

Attention that goes past transformers' registry is seen by its module's own `forward`: hooks would change the fast
paths of torch's modules, and a shadowed method does not.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from attnprobe.direct import given_weights, layer_call, multihead_call, sdpa_call
from attnprobe.routes import MULTIHEAD, RETURNED, SDPA
from attnprobe.watchers import Watcher, listed, lock, observe, observe_end, observe_output, observe_start

_generators: dict[int, list[Watcher]] = {}
_calls: dict[int, int] = {}  # of an nn.MultiheadAttention: how often its forward ran, to know when it did not


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

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the model has its own."""
        return copy.deepcopy(self.inner, memo)

    def __reduce__(self) -> Any:
        """And so does a pickled one."""
        return self.inner.__reduce__()


@contextmanager
def shadowed_generate(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """Let `watcher` look at the arguments of a model's `generate`, for the block."""
    try:
        with listed(_generators, model, watcher):
            with lock:
                if not isinstance(model.__dict__.get("generate"), _Generate):
                    own = "generate" in model.__dict__
                    model.__dict__["generate"] = _Generate(model, model.generate, own)  # type: ignore[arg-type]
            yield
    finally:
        with lock:
            shadow = model.__dict__.get("generate")
            if isinstance(shadow, _Generate) and id(model) not in _generators:
                if shadow.own:
                    model.__dict__["generate"] = shadow.inner
                else:
                    del model.__dict__["generate"]


# --- forward -----------------------------------------------------------------------------------------------------


class _Forward:
    """Stands in for a module's `forward`, and tells what attention it computed."""

    def __init__(self, module: nn.Module, name: str, run: Callable[..., Any]) -> None:
        self.own = module.__dict__.get(name)  # one of the instance itself
        self.inner = getattr(module, name)
        self.users = 0
        self.run = functools.partial(run, module, self.inner)
        functools.update_wrapper(self, self.inner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own `forward`, seen while somebody records."""
        return self.run(*args, **kwargs) if self.users else self.inner(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the model runs its own."""
        return copy.deepcopy(self.inner, memo)

    def __reduce__(self) -> Any:
        """And so does a pickled one."""
        return self.inner.__reduce__()


class _SeenSDPA(TorchFunctionMode):
    """Sees calls of SDPA inside of one module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            make = functools.partial(sdpa_call, *args, **(kwargs or {}))
            observe(self.module, make, torch.compiler.is_compiling())
            output = function(*args, **(kwargs or {}))
            given = inspect.signature(sdpa_call).bind(*args, **(kwargs or {})).arguments
            reason = "dropout was applied to the weights" if given.get("dropout_p") else ""
            observe_output(self.module, given["value"], output, reason)
            return output
        return function(*args, **(kwargs or {}))


def _with_sdpa(module: nn.Module, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with _SeenSDPA(module):
        return inner(*args, **kwargs)


def _with_inputs(module: nn.MultiheadAttention, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    _calls[id(module)] = _calls.get(id(module), 0) + 1
    observe(module, functools.partial(multihead_call, module, *args, **kwargs), torch.compiler.is_compiling())
    return inner(*args, **kwargs)


def _with_layer(layer: nn.TransformerEncoderLayer, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A layer may take a fast path, past its attention module."""
    names = ("src", "src_mask", "src_key_padding_mask", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    observe_start(layer, given)  # where the layer is the whole model: hooks would switch its fast path off
    before = _calls.get(id(layer.self_attn), 0)
    output = inner(*args, **kwargs)
    if _calls.get(id(layer.self_attn), 0) == before:
        make = functools.partial(layer_call, layer, given["src"], given)
        observe(layer.self_attn, make, torch.compiler.is_compiling())
    observe_end(layer, output)
    return output


def _with_output(heads: int, module: nn.Module, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    output = inner(*args, **kwargs)
    observe(module, functools.partial(given_weights, module, heads, output), torch.compiler.is_compiling())
    return output


@contextmanager
def seen_forward(route: str, module: nn.Module, heads: int, layer: nn.Module | None) -> Iterator[None]:
    """See the attention of a module that goes past the registry, for the block.

    Parameters
    ----------
    route, module, heads
        How it is seen; the module; its heads.
    layer
        The ``nn.TransformerEncoderLayer`` that the module is part of, if any.
    """
    runs: dict[str, Callable[..., Any]] = {
        SDPA: _with_sdpa,
        MULTIHEAD: _with_inputs,
        RETURNED: functools.partial(_with_output, heads),
    }
    with ExitStack() as undo:
        undo.enter_context(_shadowed_forward(module, runs[route]))
        if layer is not None:
            undo.enter_context(_shadowed_forward(layer, _with_layer))
        yield


@contextmanager
def _shadowed_forward(module: nn.Module, run: Callable[..., Any]) -> Iterator[None]:
    held: list[_Forward] = []
    # accelerate puts a `forward` on the instance that first fetches the weights, and then calls this one.
    name = "_old_forward" if "_old_forward" in module.__dict__ else "forward"
    try:
        with lock:
            now = module.__dict__.get(name)
            held.append(now if isinstance(now, _Forward) else _Forward(module, name, run))
            held[0].users += 1
            module.__dict__[name] = held[0]
        yield
    finally:
        with lock:
            for shadow in held:
                shadow.users -= 1
                if not shadow.users and module.__dict__.get(name) is shadow:
                    if shadow.own is None:
                        del module.__dict__[name]
                    else:
                        module.__dict__[name] = shadow.own
                    _calls.pop(id(module), None)
