"""What tests of several routes share: recording that leaves nothing behind, peaked weights, a comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import checks
import numpy as np
import torch
from torch import Tensor, nn

import attnprobe as ap
from attnprobe import interface, shadows, watchers

HEADS, WIDTH = 4, 32


def state(model: nn.Module) -> Any:
    """All that recording could have touched."""
    return (
        checks.registry(),
        [{name: id(value) for name, value in vars(module).items()} for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        torch._C._len_torch_function_stack(),
        [
            dict(interface._open),
            dict(watchers._watchers),
            dict(watchers._backbones),
            dict(shadows._generators),
            dict(shadows._calls),
        ],
    )


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Fail if the block leaves anything behind."""
    before = state(model)
    yield
    assert state(model) == before


def recorded(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[ap.Run, Any]:
    """The run and the output of one recorded forward pass, which left nothing behind."""
    with untouched(model), ap.record(model) as rec:
        output = model(*args, **kwargs)
    return rec.run, output


def peaked(model: nn.Module) -> Any:
    """Weights large enough for rows to be far from uniform."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        for value in module.parameters(recurse=False):
            noise = torch.randn(value.shape, generator=random)
            if value.dim() < 2:
                value.data = value.data + noise * 0.1
            else:
                value.data = noise * (1.0 if isinstance(module, nn.Embedding) else 1.6 * value[0].numel() ** -0.5)
    return model.eval()


def assert_weights(sample: Any, key: str | int, want: Tensor, tolerance: float = 1e-5) -> None:
    """Every head of a site in a sample, against ``[head, query, key]``."""
    for head in range(len(want)):
        got = sample[key, head].numpy()
        assert got.shape == tuple(want[head].shape)
        assert np.abs(got - want[head].numpy()).max() <= tolerance
    many = want[:, -1]
    assert (many.amax(-1) * (many > 0).sum(-1)).median() > 1.2, "rows are too flat for this to mean anything"
