"""The definition, for tests: all rows of the selected heads at once, in float64."""

from collections.abc import Iterator

import torch

from attnprobe.call import AttentionCall, Rows
from attnprobe.engines.tile import Tile
from attnprobe.scratch import Scratch


@torch.no_grad()
def tiles(
    call: AttentionCall, heads: tuple[int, ...], rows: Rows, budget: int, scratch: Scratch | None = None
) -> Iterator[Tile]:
    """One tile with everything; `budget` is not heeded, nor `scratch` used."""
    with torch.autocast(call.query.device.type, enabled=False):
        query = call.query[:, list(heads)][:, :, list(rows)].double()
        group = call.heads // call.kv_heads
        key = call.key[:, [h // group for h in heads]].double()
        logits = call.restrict_(query @ key.transpose(-1, -2) * call.scale, heads, rows, 0)
        sink = call.sink_logits(heads, rows)
        mass = None
        valid = (logits > -torch.inf).any(-1) if call.may_empty else None
        if sink is None:
            weights = logits.softmax(-1).nan_to_num(0.0) if call.may_empty else logits.softmax(-1)
        else:
            beside = sink.double().expand(*logits.shape[:-1], 1)
            both = torch.cat([logits, beside], -1).softmax(-1)
            weights, mass = both[..., :-1], both[..., -1].float()
    yield Tile(weights.float(), heads, rows, 0, mass, valid, call.looks_back(rows, call.keys))
