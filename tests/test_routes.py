"""Attention outside of transformers' registry: each way is exact, and nothing of it is left behind."""

import contextlib
from collections.abc import Callable
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from route_checks import HEADS, WIDTH, assert_weights, peaked, recorded, untouched
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as fused
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


class Indirect(OwnAttention):
    """Calls SDPA by another name, in another method."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(fused(q, k, v, is_causal=self.causal).transpose(1, 2).flatten(2))


@torch.no_grad()
def test_sdpa_by_another_name_in_another_method_is_found() -> None:
    model = OwnModel(tokens=True)
    model.blocks[1] = Indirect(causal=True)
    x = models.ids(1, 9)
    run, _ = recorded(peaked(model), x)
    for layer, want in enumerate(own_formula(model, x)):
        assert_weights(run.sample(0), layer, want[0])


class Grouped(OwnAttention):
    """Two query heads share a key head."""

    def __init__(self) -> None:
        super().__init__(causal=True)
        self.num_kv_heads = HEADS // 2

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k[:, ::2], v[:, ::2], is_causal=True, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


@torch.no_grad()
def test_heads_that_share_keys_are_told_by_the_module() -> None:
    model, x = peaked(Grouped()), torch.randn(1, 7, WIDTH)
    run, _ = recorded(model, x)
    q, k, _ = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2).double() for part in model.qkv(x).chunk(3, -1))
    logits = q @ k[:, ::2].repeat_interleave(2, 1).transpose(2, 3) / (WIDTH // HEADS) ** 0.5
    want = logits.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf).softmax(-1)
    assert_weights(run.sample(0), 0, want[0])
    assert (run.sites[0].heads, run.sites[0].kv_heads) == (HEADS, HEADS // 2)


class Prefixed(OwnAttention):
    """Has keys that are no tokens."""

    def forward(self, x: Tensor) -> Tensor:
        more = torch.cat([torch.ones(len(x), 2, WIDTH), x], 1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(more).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q[:, :, 2:], k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("queries", ["all", "0", ":4"])
def test_keys_that_are_no_tokens_are_refused_whatever_rows_are_kept(queries: str) -> None:
    model = Prefixed(causal=False)
    with untouched(model), pytest.raises(ap.UnsupportedCall, match="no place in a map"):
        with ap.record(model, queries=queries):
            model(torch.randn(1, 8, WIDTH))


class Strict(OwnAttention):
    """Sees what was before a token, and not itself."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mask = torch.ones(x.shape[1], x.shape[1]).tril(-1).bool()
        mask[0, 1] = True  # or the first row would be empty
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


@torch.no_grad()
def test_a_token_that_no_row_sees_is_no_padding_where_no_row_sees_itself() -> None:
    run, _ = recorded(peaked(Strict(causal=False)), torch.randn(1, 8, WIDTH))
    assert run.sample(0)[0, 0].numpy().shape == (8, 8)


class Targets(OwnModel):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("tokens", [True, False])
@torch.no_grad()
def test_ids_are_what_comes_first_and_not_the_targets(tokens: bool) -> None:
    ids, targets = models.ids(1, 9), models.ids(1, 9, seed=3)
    run, _ = recorded(peaked(Targets(tokens)), ids if tokens else torch.randn(1, 9, WIDTH), targets)
    found = run.samples[0].sequences["main"].ids
    assert found.tolist() == ids[0].tolist() if tokens else found is None


def test_what_is_called_attention_and_not_known_is_named() -> None:
    class HandmadeAttention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x @ x.transpose(-1, -2), -1) @ x

    model = OwnModel(tokens=False)
    model.extra = HandmadeAttention()
    with pytest.warns(ap.RecordingWarning, match="extra is a HandmadeAttention: how it computes"):
        with ap.record(model) as rec:
            model(torch.randn(1, 5, WIDTH))
    assert list(rec.refused) == ["extra"]
    with pytest.raises(ap.UnsupportedModel, match="HandmadeAttention: how it computes attention is not known"):
        ap.record(nn.Sequential(HandmadeAttention()))


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


def sharp(model: nn.Module, times: float = 3) -> Any:
    """Larger projections to queries and keys than `peaked` makes."""
    for name, value in peaked(model).named_parameters():
        if any(part in name for part in ("query", "key", "q_proj", "k_proj", "qkv")) and value.dim() > 1:
            value.data *= times
    return model


PART = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
IMAGE = {"image_size": 32, "patch_size": 8}
WORDS = {"vocab_size": 96, "pad_token_id": 0}


@pytest.mark.parametrize(("cls", "settings", "of"), [
    ("BlipVision", PART | IMAGE, "pixel_values"),
    ("FlavaText", PART | WORDS, "input_ids"),
    ("FlavaImage", PART | IMAGE, "pixel_values"),
    ("GroupViTText", PART | WORDS, "input_ids"),
    ("Mgpstr", {**PART, "image_size": [32, 32]}, "pixel_values"),
    ("VisualBert", PART | WORDS | {"visual_embedding_dim": 32}, "input_ids"),
])  # fmt: skip
@torch.no_grad()
def test_families_beside_the_sweep_that_return_their_weights(cls: str, settings: dict[str, Any], of: str) -> None:
    config = getattr(transformers, f"{cls}Config")(**settings)
    model = sharp(getattr(transformers, f"{cls}Model")(config))
    inputs = {of: models.ids(1, 9) if of == "input_ids" else torch.randn(1, 3, 32, 32)}
    model(**inputs, output_attentions=True)  # transformers puts hooks of its own there, the first time
    run, output = recorded(model, **inputs, output_attentions=True)
    assert {site.route for site in run.sites} == {"returned"} and len(run.sites) == 2
    for layer in range(2):
        assert_weights(run.sample(0), layer, output.attentions[layer][0])


@pytest.mark.parametrize("groups", [1, 2, 4])
@torch.no_grad()
def test_albert_has_a_layer_for_each_run_of_a_group(groups: int) -> None:
    config = {**PART, **WORDS, "num_hidden_layers": 4, "num_hidden_groups": groups, "embedding_size": 16}
    pair = [
        # At 3 times, four layers of eager and SDPA drift further apart than the tolerance on some processors.
        sharp(transformers.AlbertModel._from_config(transformers.AlbertConfig(**config), attn_implementation=one), 2)
        for one in ("sdpa", "eager")
    ]
    tokens = models.ids(1, 9)
    run, _ = recorded(pair[0], tokens)
    for layer, want in enumerate(pair[1](tokens, output_attentions=True).attentions):
        assert_weights(run.sample(0), layer, want[0])


@pytest.mark.parametrize("p", [0.3, 0.0])
def test_weights_after_functional_dropout_are_refused(p: float) -> None:
    sizes = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": 96, "max_position_embeddings": 32}
    model = peaked(transformers.XLMModel(transformers.XLMConfig(**sizes, dropout=0.0, attention_dropout=p))).train()
    with contextlib.ExitStack() as stack:
        if p:
            stack.enter_context(pytest.raises(ap.UnsupportedCall, match="after dropout"))
        recorded(model, models.ids(1, 8), output_attentions=True)


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


class Translator(nn.Module):
    """Of two sequences, which are told apart by names alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(models.VOCABULARY, WIDTH)
        self.encoder, self.decoder = OwnAttention(causal=False), OwnAttention(causal=True)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        found: Tensor = self.encoder(self.embed(input_ids)) + self.decoder(self.embed(decoder_input_ids))
        return found


@torch.no_grad()
def test_of_two_sequences_in_one_module_none_is_taken_for_the_rows() -> None:
    run, _ = recorded(peaked(Translator()), models.ids(1, 7), models.ids(1, 7, seed=2))
    assert run.samples[0].sequences["main"].ids is None
