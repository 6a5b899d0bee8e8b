"""Attention outside of transformers' registry: each way is exact, and nothing of it is left behind."""

from collections.abc import Callable
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from route_checks import HEADS, WIDTH, assert_weights, peaked, recorded, untouched
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

import attnprobe as ap

# --- SDPA called by a module of one's own ------------------------------------------------------------------------


class OwnAttention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = HEADS, causal
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).flatten(2))


class OwnModel(nn.Module):
    def __init__(self, tokens: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(models.VOCABULARY, WIDTH) if tokens else nn.Identity()
        self.blocks = nn.ModuleList(OwnAttention(causal=tokens) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return x


def own_formula(model: OwnModel, x: Tensor) -> list[Tensor]:
    """Softmax of scaled products, layer by layer."""
    found, x = [], model.embed(x)
    for block in model.blocks:
        q, k, _ = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2).double() for part in block.qkv(x).chunk(3, -1))
        logits = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        if block.causal:
            logits = logits.masked_fill(torch.ones(logits.shape[2:]).triu(1).bool(), -torch.inf)
        found.append(logits.softmax(-1))
        x = x + block(x)
    return found


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens, causal", "floats, bidirectional"])
@torch.no_grad()
def test_a_module_of_ones_own_that_calls_sdpa(tokens: bool) -> None:
    model = peaked(OwnModel(tokens))
    x = models.ids(2, 11) if tokens else torch.randn(2, 11, WIDTH, generator=torch.Generator().manual_seed(4))
    bare = model(x)
    run, output = recorded(model, x)
    assert torch.equal(output, bare)
    assert len(run.samples) == 2
    for b in range(2):
        ids = run.samples[b].sequences["main"].ids
        assert (ids.tolist() == x[b].tolist()) if tokens else ids is None
        for layer, want in enumerate(own_formula(model, x)):
            assert_weights(run.sample(b), layer, want[b])
            assert_weights(run.sample(b), f"blocks.{layer}", want[b])


# --- weights that a module returns -------------------------------------------------------------------------------


def gptj() -> Any:
    config = GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=4, vocab_size=96, n_positions=32)
    return peaked(GPTJForCausalLM(config))


def bloom(**settings: Any) -> Any:
    return peaked(BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=96, **settings)))


@pytest.mark.parametrize("make", [gptj, bloom])
@torch.no_grad()
def test_returned_weights_are_those_of_output_attentions(make: Callable[[], Any]) -> None:
    model, batch = make(), models.padded([11, 7], "left")
    run, _ = recorded(model, **batch)
    want = model(**batch, output_attentions=True).attentions
    checks.assert_same(run, want, batch["attention_mask"])
    assert np.array_equal(run.sample(0)[1, 2].numpy(), want[1][0, 2].numpy())


def test_returned_weights_are_refused_after_dropout() -> None:
    model, tokens = bloom(attention_dropout=0.3).train(), models.ids(1, 8)
    with untouched(model), pytest.raises(ap.UnsupportedCall, match=r"dropout.*model\.eval\(\)"), ap.record(model):
        model(tokens)
    calm = bloom(attention_dropout=0.0, hidden_dropout=0.0).train()
    run, _ = recorded(calm, tokens)
    assert_weights(run.sample(0), 1, calm(tokens, output_attentions=True).attentions[1][0].detach())


@torch.no_grad()
def test_weights_returned_on_request_only_are_refused_unless_requested() -> None:
    config = OpenAIGPTConfig(n_embd=32, n_layer=2, n_head=4, vocab_size=96, n_positions=32)
    model, tokens = peaked(OpenAIGPTLMHeadModel(config)), models.ids(1, 8)
    with untouched(model), pytest.raises(ap.UnsupportedCall, match="output_attentions=True"), ap.record(model):
        model(tokens)
    run, output = recorded(model, tokens, output_attentions=True)
    assert_weights(run.sample(0), 1, output.attentions[1][0])


# --- after an exception ------------------------------------------------------------------------------------------


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "sdpa": (lambda: OwnModel(False), torch.randn(1, 5, WIDTH)),
    "multihead": (lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), torch.randn(1, 5, WIDTH)),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, batch_first=True).eval(),
        torch.randn(1, 5, WIDTH),
    ),
    "returned": (bloom, models.ids(1, 5)),
    "registry": (models.gpt2, models.ids(1, 5)),
}


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_nothing_is_left_behind_after_an_exception(name: str) -> None:
    make, good = MODELS[name]
    model, times = make(), 3 if name == "multihead" else 1
    bad = good.double() if good.is_floating_point() else good + 1000  # fails inside of the model
    with untouched(model), pytest.raises((RuntimeError, IndexError)), ap.record(model):
        model(*[bad] * times)
    with untouched(model), pytest.raises(ZeroDivisionError), ap.record(model), ap.record(model):
        model(*[good] * times)
        raise ZeroDivisionError
    assert recorded(model, *[good] * times)[0].sample(0)[0, 1].shape == (5, 5)
