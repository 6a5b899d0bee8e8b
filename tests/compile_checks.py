"""Ways to compile a model, and what must hold of each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import checks
import models
import torch
from test_unseen import unchanged
from torch._dynamo.utils import counters

import attnprobe as ap
from attnprobe import entries, hooks


def layers_of(model: Any) -> Any:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def whole(model: Any, **options: Any) -> Any:
    return torch.compile(model, **options)


def in_place(model: Any, **options: Any) -> Any:
    model.compile(**options)
    return model


def forward(model: Any, **options: Any) -> Any:
    model.forward = torch.compile(model.forward, **options)
    return model


def by_layer(model: Any, **options: Any) -> Any:
    for layer in layers_of(model):
        layer.compile(**options)
    return model


def backbone(model: Any, **options: Any) -> Any:
    name = "transformer" if hasattr(model, "transformer") else "model"
    setattr(model, name, torch.compile(getattr(model, name), **options))
    return model


def wrapped_layers(model: Any, **options: Any) -> Any:
    for number, layer in enumerate(layers_of(model)):
        layers_of(model)[number] = torch.compile(layer, **options)
    return model


WAYS: dict[str, Callable[..., Any]] = {
    way.__name__: way for way in (whole, in_place, forward, by_layer, backbone, wrapped_layers)
}


def graphs() -> int:
    """How many graphs were compiled; none of them has a break in it."""
    assert not counters["graph_break"], dict(counters["graph_break"])
    return int(counters["stats"]["unique_graphs"])


def assert_exact(run: ap.Run, model: Any, **inputs: torch.Tensor) -> None:
    """Against the same weights run on eager attention, uncompiled."""
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    checks.assert_same(run, models.eager(model, **inputs).attentions, mask)


@contextmanager
def nothing_left(model: Any) -> Iterator[None]:
    """Fail if the block leaves anything behind."""
    with unchanged(model):
        yield
    assert not entries._entered and not hooks._handles and not hooks._noticing
