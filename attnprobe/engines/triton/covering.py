"""Which calls the kernels take; all others go to the torch engine."""

import os
from functools import cache
from importlib.util import find_spec

import torch

from attnprobe.call import AttentionCall

WIDEST = 256
CAPABILITY = 8, 0  # of the device: below it there is no bfloat16
DTYPES = torch.float16, torch.bfloat16, torch.float32


def covers(call: AttentionCall) -> str | None:
    """Why the kernels do not take a call; None where they do."""
    query, key = call.query, call.key
    absent = _absent(query.device)
    if absent is not None:
        return absent
    if query.dtype not in DTYPES or key.dtype != query.dtype:
        return f"queries are {query.dtype} and keys {key.dtype}; both float16, bfloat16 or float32 are covered"
    if query.shape[3] > WIDEST:
        return f"heads are {query.shape[3]} wide, and up to {WIDEST} is covered"
    if not call.scale > 0:
        return f"the scale is {call.scale}"
    if call.allowed is not None:
        return "the mask is a function (FlexAttention, packed rows)"
    for name, part, dtypes in (
        ("mask", call.mask, (torch.bool, *DTYPES)),
        ("bias", call.bias, DTYPES),
        ("sinks", call.sinks, DTYPES),
    ):
        if part is not None and (part.dtype not in dtypes or part.device != query.device):
            return f"the {name} is {part.dtype} on {part.device}"
    return None


def interpreted() -> bool:
    """Whether triton runs kernels in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _absent(device: torch.device) -> str | None:
    """Why no kernel runs on a device."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if interpreted() and device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"kernels run on CUDA, not on {device.type}"
    if torch.version.hip is not None:
        return "kernels are written for CUDA, not for ROCm"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return f"the device's compute capability is below {CAPABILITY[0]}.{CAPABILITY[1]}"
    return None
