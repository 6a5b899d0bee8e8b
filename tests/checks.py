"""Exactness checks that the tests run as they are, and once for every mutant, which they must kill."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import models
import numpy as np
import torch
from transformers import DynamicCache, StaticCache

import attnprobe as ap
from attnprobe.call import AttentionCall
from attnprobe.engines import ENGINES

TOLERANCE = 1e-5
EPS = torch.finfo(torch.float32).eps


def registry() -> dict[str, Any]:
    """What transformers' attention registry holds."""
    from transformers.modeling_utils import AttentionInterface

    return dict(AttentionInterface._global_mapping)


# --- one call ----------------------------------------------------------------------------------------------------


def formula(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, sink mass and logits of a whole call in float64, one score at a time in the open: the reference."""
    query, key = call.query.double(), call.key.double()
    batch, heads, rows, _ = query.shape
    columns = key.shape[2]
    logits = torch.empty(batch, heads, rows, columns, dtype=torch.float64)
    for head in range(heads):
        logits[:, head] = query[:, head] @ key[:, head * key.shape[1] // heads].transpose(1, 2) * call.scale
    if call.cap is not None:
        logits = call.cap * torch.tanh(logits / call.cap)
    if call.bias is not None:
        logits = logits + call.bias[..., :columns].double()
    allowed = torch.ones(batch, heads, rows, columns, dtype=torch.bool)
    if call.mask is not None:
        mask = call.mask[..., :columns]
        if mask.dtype == torch.bool:
            allowed &= mask
        else:
            allowed &= mask > torch.finfo(mask.dtype).min
            logits = logits + mask.double().clamp(min=-1e30)
    for row in range(rows):
        own = row if call.causal == "upper-left" else row + columns - rows
        for column in range(columns):
            if call.causal != "none" and column > own:
                allowed[:, :, row, column] = False
            if call.window is not None and abs(column - own) >= call.window:
                allowed[:, :, row, column] = False
    scores = torch.where(allowed, logits, -math.inf)
    if call.sinks is not None:
        sink = call.sinks.double().reshape(1, -1, 1, 1) if call.sinks.dim() == 1 else call.sinks.double()
        scores = torch.cat([scores, sink.expand(batch, heads, rows, 1)], -1)
    else:
        scores = torch.cat([scores, torch.full((batch, heads, rows, 1), -math.inf, dtype=torch.float64)], -1)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights[..., :-1], weights[..., -1], torch.where(allowed, logits, 0.0)


def tiles_of(
    call: AttentionCall, heads: tuple[int, ...], rows: Any, engine: str, budget: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An engine's tiles put together: weights of heads and rows over all columns, and the sink's mass."""
    whole = torch.full((call.batch, call.heads, call.queries, call.keys), math.nan)
    mass = torch.full((call.batch, call.heads, call.queries), math.nan)
    for tile in ENGINES[engine](call, heads, rows, budget):
        part = torch.zeros(call.batch, len(tile.heads), len(tile.rows), call.keys)
        part[..., tile.start : tile.start + tile.weights.shape[3]] = tile.weights
        at = np.ix_(range(call.batch), tile.heads, list(tile.rows))
        assert whole[at].isnan().all(), "a row came twice"
        whole[at] = part
        if tile.sink_mass is not None:
            mass[at] = tile.sink_mass
    picked = np.ix_(range(call.batch), heads, list(rows))
    return whole[picked], None if call.sinks is None else mass[picked]


def assert_exact(
    call: AttentionCall,
    heads: tuple[int, ...] | None = None,
    rows: Any = None,
    engine: str = "torch",
    budget: int = 1 << 24,
) -> None:
    """Promise 1 at the level of one call: 1e-6 + 4 eps32 max|logit| of the row."""
    heads = tuple(range(call.heads)) if heads is None else heads
    rows = range(call.queries) if rows is None else rows
    weights, mass, logits = formula(call)
    picked = np.ix_(range(call.batch), heads, list(rows))
    got, got_mass = tiles_of(call, heads, rows, engine, budget)
    bound = 1e-6 + 4 * EPS * logits[picked].abs().amax(-1)
    worst = ((got - weights[picked]).abs().amax(-1) / bound).max()
    assert worst <= 1, f"{engine}: {float(worst):.3g} times the bound"
    if got_mass is not None:
        assert ((got_mass - mass[picked]).abs() / bound).max() <= 1
        assert torch.allclose(got.double().sum(-1) + got_mass, torch.ones_like(got_mass).double(), atol=1e-5)


def random_call(seed: int = 0, batch: int = 2, heads: int = 4, kv_heads: int = 2, rows: int = 9, columns: int = 13,
                dim: int = 8, gain: float = 3.0, **parts: Any) -> AttentionCall:  # fmt: skip
    """A made-up call with peaked rows."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, rows, dim, generator=generator) * gain
    key = torch.randn(batch, kv_heads, columns, dim, generator=generator)
    return AttentionCall(query, key, **{"scale": dim**-0.5, **parts})


def padding(batch: int, columns: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
    """A mask that hides row b's first b columns, boolean or additive."""
    seen = torch.arange(columns)[None] >= torch.arange(batch)[:, None]
    mask = seen[:, None, None, :]
    return mask if dtype == torch.bool else torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)


def calls() -> dict[str, AttentionCall]:
    """One call for each part that a call may carry."""
    generator = torch.Generator().manual_seed(7)
    bias = torch.randn(1, 4, 9, 13, generator=generator)
    return {
        "plain": random_call(),
        "causal": random_call(columns=9, causal="upper-left"),
        "static prefill": random_call(causal="upper-left"),
        "cached chunk": random_call(causal="bottom-right"),
        "decode": random_call(rows=1, causal="bottom-right"),
        "window": random_call(causal="bottom-right", window=4),
        "symmetric window": random_call(window=3),
        "boolean mask": random_call(mask=padding(2, 13)),
        "additive mask": random_call(mask=padding(2, 13, torch.float32)),
        "wide mask": random_call(mask=padding(2, 20)),
        "cap": random_call(cap=2.0, causal="bottom-right"),
        "bias": random_call(bias=bias),
        "sinks": random_call(sinks=torch.tensor([0.0, 1.0, -2.0, 3.0]), causal="bottom-right"),
        "sinks a query": random_call(sinks=torch.randn(2, 4, 9, 1, generator=generator)),
        "no group": random_call(kv_heads=4),
        "one key head": random_call(kv_heads=1),
        "empty rows": random_call(mask=torch.tensor([True, False])[:, None, None, None].expand(2, 1, 9, 13)),
        "more rows than columns": random_call(rows=13, columns=9, causal="bottom-right"),
        "everything": random_call(
            cap=5.0, bias=bias, causal="bottom-right", window=6, sinks=torch.ones(4), mask=padding(2, 13)
        ),
    }


def check_calls() -> None:
    """Every made-up call, whole and in part, in large and in small tiles."""
    for call in calls().values():
        assert_exact(call)
        assert_exact(call, heads=(1, 2), rows=tuple(range(0, call.queries, 2)), budget=1 << 13)


# --- whole models ------------------------------------------------------------------------------------------------


def assert_same(run: ap.Run, attentions: Any, mask: torch.Tensor, cls: str = "self") -> float:
    """Every layer, head and valid row of a run against eager maps ``[batch, head, query, key]``, a tuple of layers."""
    worst, peaks = 0.0, []
    for b, seen in enumerate(mask.bool().cpu()):
        sample = run.sample(b)
        for layer, maps in enumerate(attentions):
            for head in range(maps.shape[1]):
                want = maps[b, head][seen][:, seen].numpy()
                got = sample[layer, head].numpy()
                assert got.shape == want.shape, (got.shape, want.shape)
                worst = max(worst, float(np.abs(got - want).max()))
                peaks += [want[row, : row + 1].max() * (row + 1) for row in range(7, len(want))]
    assert worst <= TOLERANCE, f"largest difference {worst:.2e}"
    assert not peaks or np.median(peaks) >= 2, "rows are too flat for this to mean anything"
    return worst


def forward(model: Any, batch: dict[str, torch.Tensor], **settings: Any) -> None:
    """One forward pass against a separate eager run."""
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    with torch.no_grad(), ap.record(model, **settings) as rec:
        model(**batch)
    assert_same(rec.run, models.eager(model, **batch).attentions, mask)


def generation(model: Any, batch: dict[str, torch.Tensor], steps: int = 8, **options: Any) -> None:
    """Generation, stitched together, against one eager pass over all that was fed."""
    with torch.no_grad(), ap.record(model) as rec:
        out = model.generate(**batch, max_new_tokens=steps, min_new_tokens=steps, pad_token_id=0, **options)
    fed = out[:, :-1]
    new = torch.ones(len(fed), fed.shape[1] - batch["input_ids"].shape[1], dtype=torch.long)
    mask = torch.cat([batch.get("attention_mask", torch.ones_like(batch["input_ids"])), new], 1)
    whole = models.eager(model, input_ids=fed, attention_mask=mask, position_ids=models.positions(mask))
    assert_same(rec.run, whole.attentions, mask)
    for b in range(len(fed)):
        assert rec.run.samples[b].prompt_length == int(batch.get("attention_mask", mask)[b].sum()) - (
            0 if "attention_mask" in batch else new.shape[1]
        )


def chunks(model: Any, lengths: tuple[int, ...] = (5, 1, 7)) -> None:
    """Prefill by hand in chunks on one cache, against one eager pass."""
    tokens, cache, at = models.ids(2, sum(lengths)), DynamicCache(), 0
    with torch.no_grad(), ap.record(model) as rec:
        for length in lengths:
            model(tokens[:, at : at + length], past_key_values=cache)
            at += length
    assert_same(rec.run, models.eager(model, input_ids=tokens).attentions, torch.ones_like(tokens))


def reused_cache(model: Any) -> None:
    """A static cache that a second prompt overwrites: weights have to be made when the call is made."""
    tokens = models.ids(2, 10)
    cache = StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad(), ap.record(model) as rec:
        for row in tokens:
            model(row[None], past_key_values=cache)
            cache.reset()
    for b, row in enumerate(tokens):
        want = models.eager(model, input_ids=row[None]).attentions
        for layer, maps in enumerate(want):
            got = rec.run.sample(b)[layer, 2].numpy()
            assert np.abs(got - maps[0, 2].numpy()).max() <= TOLERANCE


SCENARIOS: dict[str, Callable[[Any], None]] = {
    "no padding": lambda m: forward(m, {"input_ids": models.ids(2, 14)}),
    "mask of ones": lambda m: forward(m, {**models.padded([14, 14], "left")}),
    "left": lambda m: forward(m, models.padded([14, 9, 1], "left")),
    "right": lambda m: forward(m, models.padded([3, 14, 9], "right")),
    "one token": lambda m: forward(m, {"input_ids": models.ids(1, 1)}),
    "long": lambda m: forward(m, {"input_ids": models.ids(1, 64)}),
    "small tiles": lambda m: forward(m, models.padded([14, 9], "left"), budget=8000),
    "generate": lambda m: generation(m, {"input_ids": models.ids(2, 9)}),
    "generate, left": lambda m: generation(m, models.padded([9, 5], "left")),
    "generate, static": lambda m: generation(m, models.padded([9, 5], "left"), cache_implementation="static"),
    "generate, static, no padding": lambda m: generation(
        m, {"input_ids": models.ids(2, 9)}, cache_implementation="static"
    ),
    "generate, sampled": lambda m: generation(m, {"input_ids": models.ids(2, 9)}, do_sample=True),
    "generate, in chunks": lambda m: generation(m, models.padded([9, 5], "left"), prefill_chunk_size=4),
    "chunks": chunks,
    "reused static cache": reused_cache,
}


__all__ = ["SCENARIOS", "TOLERANCE", "assert_exact", "assert_same", "calls", "check_calls", "replace"]
