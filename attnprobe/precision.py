"""How precise matrix products are now."""

from typing import Any

import torch


def ieee_float32() -> bool:
    """Whether a float32 matrix product is taken in float32 now, under the process's global settings."""
    backends: Any = torch.backends
    for setting in (backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision):
        if (backends.fp32_precision if setting == "none" else setting) not in ("ieee", "none"):
            return False
    return True
