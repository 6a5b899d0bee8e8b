"""What kernels are given of a call: pointers, strides, and the constants that they are compiled for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, Rows, numbers_of

SMALLEST_BLOCK = 16  # of a matrix product, in each dimension
MOST_ROWS = 128
LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Operands:
    """Keyword arguments of a kernel, beside its results and its blocks.

    Attributes
    ----------
    shape
        Batch, selected heads, selected rows.
    common
        What every kernel takes.
    sinks
        What only those take that normalise rows.
    device
        Where.
    """

    shape: tuple[int, int, int]
    common: dict[str, Any]
    sinks: dict[str, Any]
    device: torch.device

    @classmethod
    def of(cls, call: AttentionCall, heads: tuple[int, ...], rows: Rows) -> "Operands":
        """Of some heads and rows of a call."""
        query, mask = call.query, call.mask
        boolean = mask is not None and mask.dtype == torch.bool
        width = query.shape[3]
        plain = call.bias is None and call.cap is None and (mask is None or boolean)  # products are just scaled
        common = {
            **_strided("query", query, "batch", "head", "row", "dim"),
            **_strided("key", call.key, "batch", "head", "row", "dim"),
            **_strided("mask", _as_bytes(mask), "batch", "head", "row", "column", absent=query),
            **_strided("bias", call.bias, "batch", "head", "row", "column", absent=query),
            "heads": _numbers(heads, query.device),
            "rows": _numbers(rows, query.device),
            "head_count": len(heads),
            "row_count": len(rows),
            "keys": call.keys,
            "diagonal": call.diagonal,
            "window": call.window or 0,
            "scale": float(call.scale),
            "factor": LOG2_E * (float(call.scale) if plain else 1.0),
            "cap": float(call.cap or 1.0),
            "lowest_mask": 0.0 if mask is None or boolean else torch.finfo(mask.dtype).min,
            "GROUP": call.heads // call.kv_heads,
            "HEAD_DIM": width,
            "BLOCK_D": max(power(width), SMALLEST_BLOCK),
            "MASK": 0 if mask is None else 1 if boolean else 2,
            "BIAS": call.bias is not None,
            "CAP": call.cap is not None,
            "CAUSAL": call.causal != "none",
            "WINDOW": call.window is not None,
            "SIZE": min(power(len(rows)), MOST_ROWS),
        }
        sinks = call.sinks
        if sinks is not None:
            sinks = sinks[..., 0] if sinks.dim() == 4 else sinks.reshape(1, -1, 1)
        own = {**_strided("sinks", sinks, "batch", "head", "row", absent=query), "SINKS": sinks is not None}
        return cls((call.batch, len(heads), len(rows)), common, own, query.device)

    def empty(self, *more: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory for a result, ``[batch, head, row, *more]``."""
        return torch.empty(*self.shape, *more, dtype=dtype, device=self.device)

    def blocks(self, sizes: Mapping[str, Any]) -> tuple[int, int]:
        """A program for each block of rows, and each batch row and head."""
        batch, heads, rows = self.shape
        return -(-rows // sizes["BLOCK_M"]), batch * heads


def _numbers(rows: Rows, device: torch.device) -> Tensor:
    """Rows or heads as kernels take them."""
    # Those of each stream: kernels of another one might read them before they are made.
    return _kept(rows, device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0)


@lru_cache(maxsize=8)
def _kept(rows: Rows, device: torch.device, stream: int) -> Tensor:
    """Made once: the sites of a forward pass ask for the same ones."""
    return numbers_of(rows, device).int()


def _strided(name: str, part: Tensor | None, *axes: str, absent: Tensor | None = None) -> dict[str, Any]:
    """A tensor and its strides, 0 where it is repeated; where it is absent, any tensor, that is not looked at."""
    if part is None:
        return {name: absent, **{f"{name}_{axis}": 0 for axis in axes}}
    strides = (0 if size == 1 else stride for size, stride in zip(part.shape, part.stride(), strict=True))
    return {name: part, **{f"{name}_{axis}": stride for axis, stride in zip(axes, strides, strict=True)}}


def _as_bytes(mask: Tensor | None) -> Tensor | None:
    return mask.view(torch.uint8) if mask is not None and mask.dtype == torch.bool else mask


def power(number: int) -> int:
    """The smallest power of two that is no less."""
    return 1 << max(number - 1, 0).bit_length()


def of_sample(call: AttentionCall, row: int) -> AttentionCall:
    """The call of one row of the batch."""

    def one(part: Tensor | None) -> Tensor | None:
        return part if part is None or part.shape[0] == 1 else part[row : row + 1]

    sinks = one(call.sinks) if call.sinks is not None and call.sinks.dim() == 4 else call.sinks
    query, key = call.query[row : row + 1], call.key[row : row + 1]
    return replace(call, query=query, key=key, mask=one(call.mask), bias=one(call.bias), sinks=sinks)
