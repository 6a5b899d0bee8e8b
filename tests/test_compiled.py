"""Compiled models: recorded exactly, from the same code whatever is selected, and none of them computes other bits."""

from collections.abc import Callable
from typing import Any

import models
import numpy as np
import pytest
import torch
from compile_checks import WAYS, assert_exact, by_layer, graphs, nothing_left
from test_ways import mistral, t5
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

import attnprobe as ap

# A compiler would look into the checks of types.
pytestmark = pytest.mark.usefixtures("unchecked", "fresh_compiler")

CASES = [
    *[(way, True, "sdpa") for way in WAYS],
    *[(way, True, "eager") for way in ("whole", "by_layer", "backbone")],
    *[(way, False, "sdpa") for way in ("whole", "by_layer")],
]


@pytest.mark.parametrize(("way", "early", "attention"), CASES)
@torch.no_grad()
def test_a_compiled_model_is_recorded_and_computes_the_same_bits(way: str, early: bool, attention: str) -> None:
    """Compiled before recording starts (`early`) or while it runs."""
    plain = models.gpt2(attention=attention, n_layer=2)
    model, tokens = models.gpt2(attention=attention, n_layer=2), models.ids(2, 9)
    compiled = WAYS[way](model, backend="eager", fullgraph=True)
    bare = compiled(tokens).logits if early else None
    before = graphs()
    with nothing_left(model), ap.record(compiled) as rec:
        recorded = compiled(tokens).logits
    once = graphs()
    assert_exact(rec.run, plain, input_ids=tokens)
    assert {number.difference is not None for number in rec.fidelity.values()} == {True}
    # A backbone that is compiled by itself runs its hooks before and behind its own code: they are compiled apart.
    assert once == before + {"by_layer": 2, "wrapped_layers": 2, "backbone": 3}.get(way, 1)
    with ap.record(plain) as uncompiled:
        plain(tokens)
    for row, layer, head in np.ndindex(2, 2, 4):
        other = uncompiled.run.sample(row)[layer, head].numpy()
        assert np.abs(rec.run.sample(row)[layer, head].numpy() - other).max() <= 1e-5
    assert rec.uncompiled == {}, "no call ran uncompiled"
    after = compiled(tokens).logits
    assert torch.equal(recorded, after) and (bare is None or torch.equal(recorded, bare))
    both = graphs()
    assert both == once if early else both <= 2 * once
    for selection in ({"layers": 1}, {"heads": [2]}, {"layers": "0", "queries": "-2:"}, {"measures": ["entropy"]}):
        with torch._dynamo.config.patch(error_on_recompile=True):
            with ap.record(compiled, **selection) as rec:
                assert torch.equal(compiled(tokens).logits, after)
            assert torch.equal(compiled(tokens).logits, after)
        assert len(rec.run.samples) == 2
    assert graphs() == both, "another recording compiles nothing, whatever it selects"


@pytest.mark.parametrize(
    ("side", "make"), [("left", models.gpt2), ("left", mistral), ("right", lambda: mistral(sliding_window=None))]
)
@torch.no_grad()
def test_a_padded_batch_on_grouped_keys_and_windows(side: str, make: Callable[[], Any]) -> None:
    model, batch = make(), models.padded([11, 6], side)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    bare = compiled(**batch).logits
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled(**batch).logits, bare)
    assert graphs() == 2
    assert_exact(rec.run, make(), **batch)


@pytest.mark.parametrize("make", [models.gpt2, mistral])
@torch.no_grad()
def test_layers_share_their_code_whichever_is_recorded(make: Callable[..., Any]) -> None:
    model, tokens, frames = make(), models.ids(1, 8), CompileCounter()
    by_layer(model, backend=frames, fullgraph=True)
    model(tokens, use_cache=False)
    assert frames.frame_count == 1, "a layer's number is no part of the code"
    for layers in ("all", 0, 1):
        with ap.record(model, layers=layers) as rec:
            model(tokens, use_cache=False)
        assert rec.uncompiled == {}
        model(tokens, use_cache=False)
    assert frames.frame_count == 2


@torch.no_grad()
def test_a_function_around_the_model() -> None:
    model, tokens = models.gpt2(), models.ids(2, 8)

    @torch.compile(backend="eager", fullgraph=True)
    def run(tokens: torch.Tensor) -> torch.Tensor:
        return model(model(tokens, use_cache=False).logits.argmax(-1)).logits

    bare = run(tokens)
    with nothing_left(model), ap.record(model) as rec:
        assert torch.equal(run(tokens), bare)
    assert len(rec.run.samples) == 4, "the model ran twice on two rows"
    assert graphs() == 2
    second = models.gpt2()(tokens).logits.argmax(-1)
    for row in range(2):
        for number, fed in ((row, tokens), (2 + row, second)):
            want = models.eager(models.gpt2(), input_ids=fed).attentions[1][row, 2].numpy()
            assert np.abs(rec.run.sample(number)[1, 2].numpy() - want).max() <= 1e-5


@torch.no_grad()
def test_layers_of_an_encoder_and_its_decoder() -> None:
    model, source, target = t5(), models.ids(2, 7), models.ids(2, 5, seed=2)
    bare = model(input_ids=source, decoder_input_ids=target)
    for block in (*model.encoder.block, *model.decoder.block):
        block.compile(backend="eager")
    want = models.eager(t5(), input_ids=source, decoder_input_ids=target)
    with nothing_left(model), ap.record(model) as rec:
        got = model(input_ids=source, decoder_input_ids=target)
    assert torch.equal(got.logits, bare.logits)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] > 0
    for site in rec.run.sample(1).sites:
        maps = want.encoder_attentions if site.queries == "source" else want.decoder_attentions
        maps = want.cross_attentions if site.kind == "cross" else maps
        for head in range(4):
            exact = maps[site.layer][1, head].numpy()
            assert np.abs(rec.run.sample(1)[site.key, head].numpy() - exact).max() <= 1e-5


@pytest.mark.parametrize("way", ["whole", "in_place", "by_layer"])
@torch.no_grad()
def test_a_model_that_is_compiled_inside_of_the_block(way: str) -> None:
    model, tokens = models.gpt2(n_layer=2), models.ids(2, 9)
    bare = model(tokens).logits
    with ap.record(model) as rec:
        compiled = WAYS[way](model, backend="eager", fullgraph=True)
        assert torch.equal(compiled(tokens).logits, bare)
    assert graphs()
    assert_exact(rec.run, models.gpt2(n_layer=2), input_ids=tokens)
    assert torch.equal(compiled(tokens).logits, bare)
    assert not [name for part in model.modules() for name in vars(part) if "attnprobe" in name]


@torch.no_grad()
def test_code_that_was_first_compiled_while_some_sites_were_recorded_is_compiled_once_more() -> None:
    model, tokens = models.gpt2(n_layer=2), models.ids(2, 9)
    with ap.record(model, layers="0"):
        model.compile(backend="eager", fullgraph=True)
        model(tokens)
    first = graphs()
    for layer in ("1", "0", "all"):
        with ap.record(model, layers=layer):
            model(tokens)
        assert graphs() == first + 1
