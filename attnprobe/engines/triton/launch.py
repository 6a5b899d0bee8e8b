"""Starting a kernel."""

import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attnprobe.engines.triton.operands import Operands

Blocks = Mapping[str, Any]  # sizes of blocks
_LAUNCHING = threading.Lock()  # what tunes a kernel keeps a launch's arguments in the kernel
_TUNED: dict[tuple[Any, ...], dict[str, Any]] = {}  # what tuning found, looked up faster than the tuner does


def launch(kernel: Any, operands: Operands, grid: Callable[[Blocks], tuple[int, ...]], **arguments: Any) -> None:
    """Start as many programs as the grid says for blocks of some size, on the operands' device and current stream."""
    given = {**operands.common, **arguments}
    kind = (kernel.base_fn.__name__, operands.device, *(given[name] for name in kernel.keys if name in given))
    kind += tuple(one.dtype for one in given.values() if isinstance(one, Tensor))
    on_device = torch.cuda.device(operands.device) if operands.device.type == "cuda" else nullcontext()
    # Fusion is said, because triton is about to change what it does where this is not said.
    with _LAUNCHING, on_device:
        if kind in _TUNED:
            kernel.fn[grid](**given, **_TUNED[kind], enable_fp_fusion=True)
        else:
            kernel[grid](**given, enable_fp_fusion=True)
            _TUNED[kind] = kernel.best_config.all_kwargs()
