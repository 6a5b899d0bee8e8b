"""Row blocks in plain PyTorch: float32 products, softmax, no T x T temporary; empty key columns are skipped."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, Rows, as_index
from attnprobe.engines.tile import Tile
from attnprobe.errors import BudgetError
from attnprobe.shapes import Float

# A tile is written, scanned and normalised in place: one that fits a CPU's last-level cache goes to memory once.
CPU_TILE = 8 << 20
GPU_TILE = 64 << 20
SHARE = 4  # the tile, its keys, masks and the copy that leaves: each at most this part of the budget
PACK = 64  # from so many rows on, products on a CPU repay a dense copy of strided keys


@torch.no_grad()
def tiles(call: AttentionCall, heads: tuple[int, ...], rows: Rows, budget: int) -> Iterator[Tile]:
    """Tiles of `heads` and `rows`, each of at most a quarter of `budget` bytes.

    Products are taken in float32 at IEEE precision whatever the global matmul settings are: where those allow less
    (TF32, bfloat16 passes), in float64, which they do not touch.

    Raises
    ------
    BudgetError
        If one row or, where they have to be copied, the keys of one head do not fit.
    """
    if not len(rows):
        return
    dtype = torch.float32 if ieee_float32() else torch.float64
    on_cpu = call.query.device.type == "cpu"
    share = min(budget // SHARE, CPU_TILE if on_cpu else GPU_TILE)
    line = call.batch * call.keys * dtype.itemsize  # one row of one head
    copied = call.key.dtype != dtype or call.batch > 1
    least = line * (call.key.shape[3] if copied else 1)
    if least > budget // SHARE:
        raise BudgetError(
            f"{'the keys' if copied else 'a row'} of one head, {call.keys} columns for a batch of {call.batch}, take "
            f"{least:,} bytes, and a quarter of the budget is {budget // SHARE:,}; raise budget= (--budget) to at "
            f"least {least * SHARE:,}, or record smaller batches"
        )
    # Few heads at a time, so that a block has enough rows to make a good matrix product, and their keys fit too.
    group = max(1, min(len(heads), share // (line * max(min(len(rows), 64), call.key.shape[3] if copied else 1))))
    pack = on_cpu and len(rows) >= PACK and line * group * call.key.shape[3] <= budget // SHARE
    for first in range(0, len(heads), group):
        chosen = heads[first : first + group]
        yield from _head_tiles(call, chosen, rows, max(1, share // (line * len(chosen))), dtype, pack)


def _head_tiles(
    call: AttentionCall, heads: tuple[int, ...], rows: Rows, height: int, dtype: torch.dtype, pack: bool
) -> Iterator[Tile]:
    group = call.heads // call.kv_heads
    key_heads = tuple(h // group for h in heads)
    with torch.autocast(call.query.device.type, enabled=False):
        key = call.key[:, as_index(key_heads, call.key.device)].to(dtype).flatten(0, 1)
        if pack:
            key = key.contiguous()
    for first in range(0, len(rows), height):
        block = rows[first : first + height]
        start, stop = call.columns(block)
        with torch.autocast(call.query.device.type, enabled=False):
            weights, mass = _weights(call, key[:, start:stop], heads, block, start)
        yield Tile(weights, heads, block, start, mass)


def _weights(
    call: AttentionCall,
    key: Float[Tensor, "batch_head k dim"],
    heads: tuple[int, ...],
    rows: Rows,
    start: int,
) -> tuple[Float[Tensor, "batch h r k"], Float[Tensor, "batch h r"] | None]:
    """Weights and the mass of a sink, made from the logits in place."""
    device = call.query.device
    query = call.query[:, as_index(heads, device)][:, :, as_index(rows, device)].to(key.dtype).flatten(0, 1)
    logits = query.new_empty(query.shape[0], len(rows), key.shape[1])
    torch.baddbmm(logits, query, key.transpose(1, 2), beta=0, alpha=call.scale, out=logits)
    logits = call.restrict_(logits.view(call.batch, len(heads), len(rows), -1), heads, rows, start)
    sink = call.sink_logits(heads, rows)
    if sink is not None:
        beside = sink.to(logits.dtype).expand(*logits.shape[:-1], 1)
        both = torch.cat([logits, beside], -1).softmax(-1)
        return both[..., :-1].float(), both[..., -1].float()
    empty = logits.amax(-1, keepdim=True) == -torch.inf if call.may_empty else None
    weights = torch.softmax(logits, -1, out=logits).float()
    if empty is not None:
        weights.masked_fill_(empty, 0.0)
    return weights, None


def ieee_float32() -> bool:
    """Whether a float32 matrix product is taken in float32 now, under the process's global settings."""
    backends: Any = torch.backends
    for setting in (backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision):
        if (backends.fp32_precision if setting == "none" else setting) not in ("ieee", "none"):
            return False
    return True
