"""Ways to run a compiled model: caches, generation, training; each recorded exactly, what ran uncompiled is shown."""

import copy
from collections.abc import Callable
from typing import Any

import models
import numpy as np
import pytest
import torch
from compile_checks import WAYS, assert_exact, by_layer, graphs, nothing_left
from test_ways import mistral
from torch import nn
from torch._dynamo.utils import counters
from transformers import DynamicCache

import attnprobe as ap

pytestmark = pytest.mark.usefixtures("unchecked", "fresh_compiler")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["whole", "by_layer"])
@torch.no_grad()
def test_a_cache_goes_on_with_its_sample(way: str) -> None:
    model, tokens = mistral(sliding_window=None), models.ids(2, 10)
    compiled = WAYS[way](model, backend="eager", dynamic=True)
    with nothing_left(model), ap.record(compiled) as rec:
        made = compiled(tokens[:, :6]).past_key_values  # made inside of compiled code
        given = DynamicCache()
        compiled(tokens[:1, :6], past_key_values=given)
        for step in range(6, 10):
            compiled(tokens[:, step : step + 1], past_key_values=made)
        compiled(tokens[:1, 6:], past_key_values=given)
    assert [sample.main.length for sample in rec.run.samples] == [10, 10, 10]
    want = models.eager(mistral(sliding_window=None), input_ids=tokens).attentions
    for number, row in enumerate((0, 1, 0)):
        for layer in range(2):
            for head in range(4):
                got = rec.run.sample(number)[layer, head].numpy()
                assert np.abs(got - want[layer][row, head].numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("way", "make", "cache"),
    [
        ("whole", models.gpt2, "dynamic"),
        ("forward", mistral, "static"),
        pytest.param("forward", models.gpt2, "dynamic", marks=pytest.mark.slow),
        pytest.param("in_place", mistral, "dynamic", marks=pytest.mark.slow),
    ],
)
def test_generation(way: str, make: Callable[[], Any], cache: str) -> None:
    model, batch = make(), models.padded([9, 5], "left")
    options = {"cache_implementation": "static"} if cache == "static" else {}
    compiled = WAYS[way](model, backend="eager", fullgraph=True)
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": 0, **options}
    bare = compiled.generate(**batch, **settings)
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled.generate(**batch, **settings), bare)
    once = graphs()
    with ap.record(compiled, layers=1):
        assert torch.equal(compiled.generate(**batch, **settings), bare)
    assert graphs() == once
    assert (once > 0) == (way != "whole"), "what torch.compile returns generates with the model inside, uncompiled"
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 4, dtype=torch.long)], 1)
    inputs = {"input_ids": bare[:, :-1], "attention_mask": mask, "position_ids": models.positions(mask)}
    assert_exact(rec.run, make(), **inputs)
    assert [sample.prompt_length for sample in rec.run.samples] == [9, 5]


def test_gradients_and_weights_of_training() -> None:
    model, tokens = models.gpt2().train(), models.ids(2, 9)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        compiled(tokens, use_cache=False).logits.square().mean().backward()
        return [value.grad.clone() for value in model.parameters()]

    bare = gradients()
    with ap.record(compiled) as rec:
        recorded = gradients()
    assert all(torch.equal(a, b) for a, b in zip(bare, recorded, strict=True))
    assert graphs() == 2
    assert len(rec.run.samples) == 2
    assert np.abs(rec.run.sample(1)[2, 1].numpy().sum(-1) - 1).max() <= 1e-5, "before dropout"


def test_checkpointed_layers_are_recorded_once() -> None:
    tokens = models.ids(2, 9)

    def gradients(compiled: Any) -> list[torch.Tensor]:
        compiled(tokens, use_cache=False).logits.square().mean().backward()
        return [value.grad for value in compiled.parameters()]

    def made() -> Any:
        model = models.gpt2(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0).train()
        model.gradient_checkpointing_enable()
        return torch.compile(model, backend="aot_eager")

    bare, compiled = gradients(made()), made()
    with ap.record(compiled) as rec:
        recorded = gradients(compiled)
    assert all(torch.equal(a, b) for a, b in zip(bare, recorded, strict=True))
    assert_exact(rec.run, models.gpt2(), input_ids=tokens)
    assert rec.uncompiled == {}


@torch.no_grad()
def test_paused_and_named_without_another_compilation() -> None:
    model, tokens = models.gpt2(), models.ids(1, 9)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with ap.record(compiled) as rec:
        with rec.sample("one"):
            compiled(tokens)
        once = graphs()
        with rec.paused():
            compiled(tokens)
        with rec.sample("two"):
            compiled(tokens)
    assert graphs() == once == 1
    assert [sample.id for sample in rec.run.samples] == ["one", "two"]


def test_inference_mode_and_autocast() -> None:
    model, tokens = models.gpt2(), models.ids(2, 9)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        bare = compiled(tokens).logits
        with nothing_left(model), ap.record(compiled) as rec:
            assert torch.equal(compiled(tokens).logits, bare)
            with torch.inference_mode(False):
                compiled(tokens).logits.mean().backward()
    assert len(rec.run.samples) == 4
    assert_exact(rec.run, models.gpt2(), input_ids=tokens)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        bare = compiled(tokens).logits
        with ap.record(compiled) as rec:
            assert torch.equal(compiled(tokens).logits, bare)
    assert not rec.fidelity.off


# --- what runs uncompiled ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_code_that_runs_eagerly_beyond_the_limit_of_recompilations_is_recorded_too() -> None:
    model, tokens = models.gpt2(n_layer=4), models.ids(1, 12)
    by_layer(model, backend="eager", dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=2), ap.record(model) as rec:
        cache = DynamicCache()
        for step in range(12):
            model(tokens[:, step : step + 1], past_key_values=cache)
    assert rec.uncompiled, "torch gave up on some of the code, and the recorder says on which"
    assert all(0 < out <= calls == 12 for out, calls in rec.uncompiled.values())
    assert_exact(rec.run, models.gpt2(n_layer=4), input_ids=tokens)


class Breaking(nn.Module):
    """A module at which a compiler breaks its graph."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        torch._dynamo.graph_break()
        return self.inner(*args, **kwargs)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_graph_breaks_of_the_models_own(attention: str, early: bool) -> None:
    model, tokens = models.gpt2(attention=attention, n_layer=2), models.ids(2, 9)
    model.transformer.h[1].ln_1 = Breaking(model.transformer.h[1].ln_1)
    compiled = torch.compile(model, backend="eager")
    bare = compiled(tokens).logits if early else copy.deepcopy(model)(tokens).logits
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled(tokens).logits, bare)
    assert counters["graph_break"]
    assert_exact(rec.run, models.gpt2(n_layer=2), input_ids=tokens)
    assert rec.uncompiled == {}, "the pieces are compiled"


@torch.no_grad()
def test_a_site_that_is_left_out_of_compilation_is_shown() -> None:
    model, tokens = models.gpt2(n_layer=2), models.ids(2, 9)
    model.transformer.h[1].attn.forward = torch.compiler.disable(model.transformer.h[1].attn.forward)
    compiled = torch.compile(model, backend="eager")
    with ap.record(compiled) as rec:
        compiled(tokens)
    assert_exact(rec.run, models.gpt2(n_layer=2), input_ids=tokens)
    assert rec.uncompiled == {"transformer.h.1.attn": (1, 1)}
    with ap.record(model) as rec:
        model(tokens)
    assert rec.uncompiled == {}, "nobody expects a plain model to run compiled"


@pytest.mark.parametrize("strict", [True, False])
@torch.no_grad()
def test_what_is_exported_inside_of_the_block_is_free_of_operators(strict: bool) -> None:
    model, tokens = models.gpt2(n_layer=1), models.ids(2, 9)
    with ap.record(model) as rec:
        exported = torch.export.export(model, (tokens,), {"use_cache": False}, strict=strict)
        bare = model(tokens).logits
    assert len(rec.run.samples) == 2
    assert not [node for node in exported.graph.nodes if "attnprobe" in str(node.target)]
    assert torch.equal(exported.module()(tokens, use_cache=False).logits, bare)
