"""Starting a kernel."""

import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from attnprobe.engines.triton.operands import Operands

Blocks = Mapping[str, Any]  # sizes of blocks
_LAUNCHING = threading.Lock()  # what tunes a kernel keeps a launch's arguments in the kernel


def launch(kernel: Any, operands: Operands, grid: Callable[[Blocks], tuple[int, ...]], **arguments: Any) -> None:
    """Start as many programs as the grid says for blocks of some size, on the operands' device and current stream."""
    on_device = torch.cuda.device(operands.device) if operands.device.type == "cuda" else nullcontext()
    with _LAUNCHING, on_device:
        # Said, because triton is about to change what it does where this is not said.
        kernel[grid](**operands.common, **arguments, enable_fp_fusion=True)
