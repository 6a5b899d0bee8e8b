"""Row blocks in plain PyTorch: float32 products, softmax, no T x T temporary; empty key columns are skipped."""

from collections.abc import Iterator

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, Rows, as_index
from attnprobe.engines.layout import Layout, lay_out
from attnprobe.engines.tile import Tile
from attnprobe.precision import ieee_float32
from attnprobe.scratch import Scratch
from attnprobe.shapes import Float


@torch.no_grad()
def tiles(
    call: AttentionCall, heads: tuple[int, ...], rows: Rows, budget: int, scratch: Scratch | None = None
) -> Iterator[Tile]:
    """Tiles of `heads` and `rows`, each of at most a quarter of `budget` bytes.

    Products are taken in float32 at IEEE precision whatever the global matmul settings are: where those allow less
    (TF32, bfloat16 passes), in float64, which they do not touch. With `scratch`, a tile is valid until the next one.

    Raises
    ------
    BudgetError
        If one row or, where they have to be copied, the keys of one head do not fit.
    """
    if not len(rows):
        return
    dtype = torch.float32 if ieee_float32() else torch.float64
    layout = lay_out(
        batch=call.batch,
        heads=len(heads),
        rows=len(rows),
        keys=call.keys,
        dim=call.key.shape[3],
        itemsize=dtype.itemsize,
        copied=call.key.dtype != dtype,
        on_cpu=call.query.device.type == "cpu",
        budget=budget,
    )
    for first in range(0, len(heads), layout.heads):
        yield from _head_tiles(call, heads[first : first + layout.heads], rows, layout, dtype, scratch)


def _head_tiles(
    call: AttentionCall,
    heads: tuple[int, ...],
    rows: Rows,
    layout: Layout,
    dtype: torch.dtype,
    scratch: Scratch | None,
) -> Iterator[Tile]:
    group = call.heads // call.kv_heads
    key_heads = tuple(h // group for h in heads)
    with torch.autocast(call.query.device.type, enabled=False):
        key = call.key[:, as_index(key_heads, call.key.device)].to(dtype).flatten(0, 1).transpose(1, 2)
        if layout.pack:
            key = key.contiguous()
    height = layout.height(len(heads))
    for first in range(0, len(rows), height):
        block = rows[first : first + height]
        start, stop = call.columns(block)
        with torch.autocast(call.query.device.type, enabled=False):
            yield _tile(call, key[:, :, start:stop], heads, block, start, scratch)


def _tile(
    call: AttentionCall,
    key: Float[Tensor, "batch_head dim k"],
    heads: tuple[int, ...],
    rows: Rows,
    start: int,
    scratch: Scratch | None,
) -> Tile:
    """Weights and the mass of a sink, made from the logits in place."""
    device = call.query.device
    query = call.query[:, as_index(heads, device)][:, :, as_index(rows, device)].to(key.dtype).flatten(0, 1)
    shape = query.shape[0], len(rows), key.shape[2]
    logits = query.new_empty(shape) if scratch is None else scratch.take("tile", shape, query.dtype, device)
    torch.baddbmm(logits, query, key, beta=0, alpha=call.scale, out=logits)
    logits = call.restrict_(logits.view(call.batch, len(heads), len(rows), -1), heads, rows, start)
    empty = logits.amax(-1) == -torch.inf if call.may_empty else None
    valid = None if empty is None else ~empty
    sink = call.sink_logits(heads, rows)
    causal = call.looks_back(rows, start + key.shape[2])
    if sink is not None:
        beside = sink.to(logits.dtype).expand(*logits.shape[:-1], 1)
        both = torch.cat([logits, beside], -1).softmax(-1)
        return Tile(both[..., :-1].float(), heads, rows, start, both[..., -1].float(), valid, causal)
    weights = torch.softmax(logits, -1, out=logits).float()
    if empty is not None:
        weights.masked_fill_(empty[..., None], 0.0)
    return Tile(weights, heads, rows, start, None, valid, causal)
