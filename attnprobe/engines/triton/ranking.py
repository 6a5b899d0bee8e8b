"""Fused form of the largest weights of each row."""

from collections.abc import Iterator

import torch

from attnprobe.call import AttentionCall, Rows
from attnprobe.engines.fused import Place, Top
from attnprobe.engines.layout import SHARE
from attnprobe.engines.triton.launch import launch
from attnprobe.engines.triton.operands import Operands, of_sample, power

MOST = 16  # the narrowest block's columns
NUMBERS = 8  # bytes of a weight and its position


def top_of_rows(
    call: AttentionCall, heads: tuple[int, ...], rows: Rows, place: Place, k: int, keys: slice, budget: int
) -> Iterator[Top]:
    """The `k` largest weights of rows of a call's sample on a range of keys, some of the heads at a time."""
    own, wide = of_sample(call, place.batch), max(power(k), 2)
    several = max(1, budget // SHARE // (len(rows) * (wide + 1) * NUMBERS))
    for first in range(0, len(heads), several):
        yield _top(own, heads[first : first + several], rows, place, k, wide, keys)


def _top(call: AttentionCall, heads: tuple[int, ...], rows: Rows, place: Place, k: int, wide: int, keys: slice) -> Top:
    from attnprobe.engines.triton.kernels.largest import largest as kernel

    operands = Operands.of(call, heads, rows)
    device, shape = operands.device, (len(heads), len(rows))
    values = torch.empty(*shape, wide, device=device)
    positions = torch.empty(*shape, wide, dtype=torch.int32, device=device)
    among, strays = torch.empty(2, *shape, device=device)
    launch(
        kernel,
        operands,
        operands.blocks,
        **operands.sinks,
        column_shift=place.column_shift,
        length=place.key_length,
        first=keys.start or 0,
        last=place.key_length if keys.stop is None else min(keys.stop, place.key_length),
        values=values,
        positions=positions,
        among=among,
        strays=strays,
        K=wide,
    )
    values, positions = values[..., :k], positions[..., :k]
    rest = (among - values.sum(-1)).clamp(min=0)
    return Top(heads, values.contiguous(), positions.contiguous(), rest, strays.amax())
