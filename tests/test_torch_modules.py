"""nn.TransformerEncoder and nn.MultiheadAttention: exact, and on the fast paths that they take without recording."""

from typing import Any

import models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from route_checks import HEADS, WIDTH, assert_weights, peaked, recorded, untouched
from torch import Tensor, nn

import attnprobe as ap

# --- nn.TransformerEncoder ---------------------------------------------------------------------------------------


def encoder(norm_first: bool, batch_first: bool = True) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, dropout=0.0, norm_first=norm_first, batch_first=batch_first)
    return peaked(nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first and batch_first))


def multihead_weights(module: nn.MultiheadAttention, x: Tensor, **masks: Any) -> Tensor:
    """Torch's own functional on the module's projections; `x` is ``[batch, token, width]``."""
    first = x.transpose(0, 1)
    return F.multi_head_attention_forward(
        first, first, first, WIDTH, HEADS, module.in_proj_weight, module.in_proj_bias, None, None, False, 0.0,
        module.out_proj.weight, module.out_proj.bias, training=False, need_weights=True, average_attn_weights=False,
        **masks,
    )[1].detach()  # fmt: skip


def encoder_weights(model: nn.TransformerEncoder, x: Tensor, padding: Tensor | None) -> list[Tensor]:
    """Weights layer by layer, from ``[batch, token, width]``; layers are made of their parts, so no fast path."""
    found = []
    for layer in model.layers:
        own = layer.norm1(x) if layer.norm_first else x
        found.append(multihead_weights(layer.self_attn, own, key_padding_mask=padding))
        first = own.transpose(0, 1)
        mixed = layer.self_attn(*[own if layer.self_attn.batch_first else first] * 3, key_padding_mask=padding)[0]
        x = x + (mixed if layer.self_attn.batch_first else mixed.transpose(0, 1))
        if layer.norm_first:
            x = x + layer._ff_block(layer.norm2(x))
        else:
            x = layer.norm1(x)
            x = layer.norm2(x + layer._ff_block(x))
    return found


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A call of torch's fast path each."""
    calls: list[int] = []
    inner = torch._transformer_encoder_layer_fwd

    def counted(*args: Any) -> Any:
        calls.append(1)
        return inner(*args)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    return calls


@pytest.mark.parametrize("width", [11, 13], ids=["as wide as the longest", "wider"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_encoder_keeps_its_fast_path_and_is_exact(
    fast: list[int], norm_first: bool, batch_first: bool, padded: bool, width: int
) -> None:
    model = encoder(norm_first, batch_first)
    x = torch.randn(2, width, WIDTH, generator=torch.Generator().manual_seed(4))
    lengths = [11, 7] if padded else [width, width]
    padding = torch.arange(width) >= torch.tensor(lengths)[:, None] if padded else None
    given = x if batch_first else x.transpose(0, 1)
    want = encoder_weights(model, x, padding)
    for training in (False, True):
        model.train(training)
        with torch.set_grad_enabled(training):
            bare = model(given, src_key_padding_mask=padding)
            before = len(fast)
            run, output = recorded(model, given, src_key_padding_mask=padding)
        assert torch.equal(output, bare)
        assert len(fast) - before == before, "as often as without recording"
        assert before == 0 if training or not batch_first else before == 2
        fast.clear()
        for b, length in enumerate(lengths):
            for layer in range(2):
                assert_weights(run.sample(b), layer, want[layer][b, :, :length, :length], 2e-5)


class Classifier(nn.Module):
    """An encoder of tokens, which finds padding by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(models.VOCABULARY, WIDTH), encoder(norm_first=False)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == models.END
        return self.encoder(self.embed(tokens), src_key_padding_mask=padding if padding.any() else None)


@pytest.mark.parametrize("lengths", [[13, 13], [13, 7], [11, 7]])
@torch.no_grad()
def test_an_encoder_inside_of_a_model_of_tokens(fast: list[int], lengths: list[int]) -> None:
    model, tokens = peaked(Classifier()), models.ids(2, 13)
    padding = torch.arange(13) >= torch.tensor(lengths)[:, None]
    tokens[padding] = models.END
    bare = model(tokens)
    run, output = recorded(model, tokens)
    assert torch.equal(output, bare)
    assert len(fast) == 4
    for layer, want in enumerate(encoder_weights(model.encoder, model.embed(tokens), padding)):
        for b, length in enumerate(lengths):
            assert run.samples[b].sequences["main"].ids[:length].tolist() == tokens[b, :length].tolist()
            got = run.sample(b)[f"encoder.layers.{layer}.self_attn", 2].numpy()[:length]
            assert np.abs(got[:, :length] - want[b, 2, :length, :length].numpy()).max() <= 2e-5
            assert not got[:, length:].any()


@torch.no_grad()
def test_ids_are_known_beside_a_boolean_mask() -> None:
    class Masked(Classifier):
        def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
            return self.encoder(self.embed(tokens), src_key_padding_mask=padding)

    tokens = models.ids(1, 9)
    run, _ = recorded(peaked(Masked()), tokens, torch.zeros(1, 9, dtype=torch.bool))
    assert run.samples[0].sequences["main"].ids is not None


@torch.no_grad()
def test_an_encoder_layer_alone_keeps_its_fast_path(fast: list[int]) -> None:
    model, x = encoder(norm_first=True).layers[0], torch.randn(2, 11, WIDTH)
    bare = model(x)
    run, output = recorded(model, x)
    assert_weights(run.sample(0), "self_attn", multihead_weights(model.self_attn, model.norm1(x))[0])
    assert torch.equal(output, bare)
    assert len(fast) == 2


# --- nn.MultiheadAttention ---------------------------------------------------------------------------------------

MASKS: dict[str, dict[str, Tensor]] = {
    "none": {},
    "boolean": {"attn_mask": torch.ones(11, 11).triu(1).bool()},
    "float": {"attn_mask": torch.randn(11, 11, generator=torch.Generator().manual_seed(2)).triu(1)},
    "a head": {"attn_mask": torch.ones(8, 11, 11).triu(1).mul(torch.arange(8)[:, None, None] % 2).bool()},
    "padding": {"key_padding_mask": torch.arange(11).expand(2, 11) >= torch.tensor([[11], [7]])},
    "both": {
        "key_padding_mask": torch.arange(11).expand(2, 11) >= torch.tensor([[11], [7]]),
        "attn_mask": torch.ones(11, 11).triu(1).bool(),
    },
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("name", list(MASKS))
@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_multihead_attention_alone(batch_first: bool, name: str, need_weights: bool) -> None:
    module = peaked(nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first))
    x = torch.randn(2, 11, WIDTH, generator=torch.Generator().manual_seed(4))
    given = [x if batch_first else x.transpose(0, 1)] * 3
    bare = module(*given, need_weights=need_weights, **MASKS[name])
    run, output = recorded(module, *given, need_weights=need_weights, **MASKS[name])
    assert torch.equal(output[0], bare[0])
    want = multihead_weights(module, x, **MASKS[name])
    for b, length in enumerate((11, 7) if "key_padding_mask" in MASKS[name] else (11, 11)):
        assert_weights(run.sample(b), 0, want[b, :, :length, :length])


@pytest.mark.parametrize("adds", ["add_bias_kv", "add_zero_attn"])
def test_multihead_attention_with_keys_of_its_own_is_refused_by_name(adds: str) -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **{adds: True})
    x = torch.randn(1, 5, WIDTH)
    with untouched(module), pytest.raises(ap.AttnprobeError, match=adds), ap.record(module):
        module(x, x, x)


class Turned(nn.MultiheadAttention):
    """Gives its parent other tensors than it was given."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        return super().forward(query * 2, key.flip(-1), value, **options)


class OfOne(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


@pytest.mark.parametrize("cls", [Turned, OfOne])
def test_a_multihead_attention_with_a_forward_of_its_own_is_refused(cls: type) -> None:
    with pytest.raises(ap.UnsupportedModel, match="its forward is not that of nn.MultiheadAttention"):
        ap.record(nn.Sequential(cls(WIDTH, HEADS)))


@pytest.mark.parametrize("keys", [7, 11])
@torch.no_grad()
def test_keys_of_another_sequence_are_not_taken_for_ones_own(keys: int) -> None:
    random = torch.Generator().manual_seed(4)
    module = peaked(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    query, memory = torch.randn(1, 9, WIDTH, generator=random), torch.randn(1, keys, WIDTH, generator=random)
    with pytest.raises(ap.UnsupportedCall, match="looks at another sequence|no place in a map"), ap.record(module):
        module(query, memory, memory)


@torch.no_grad()
def test_transformer_decoder_has_cross_attention() -> None:
    random = torch.Generator().manual_seed(4)
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 48, batch_first=True)
    model = peaked(nn.TransformerDecoder(layer, 2))
    x, memory = torch.randn(1, 9, WIDTH, generator=random), torch.randn(1, 7, WIDTH, generator=random)
    run, _ = recorded(model, x, memory)
    first = model.layers[0]
    own = first.norm1(x + first.self_attn(x, x, x)[0])
    want = first.multihead_attn(own, memory, memory, average_attn_weights=False)[1]
    assert_weights(run.sample(0), "layers.0.multihead_attn", want[0])
    assert {site.key: site.kind for site in run.sites}["layers.0.multihead_attn"] == "cross"


@torch.no_grad()
def test_of_a_transformer_of_two_sequences_a_half_is_recorded() -> None:
    model = peaked(nn.Transformer(WIDTH, HEADS, 1, 1, 48, batch_first=True))
    source, target = torch.randn(1, 9, WIDTH), torch.randn(1, 9, WIDTH)
    with pytest.raises(ap.UnsupportedModel, match=r"record its \.encoder or its \.decoder"):
        ap.record(model)
    with ap.record(model.decoder) as rec:
        model(source, target)
    layer, memory = model.decoder.layers[0], model.encoder(source)
    own = layer.norm1(target + layer.self_attn(target, target, target)[0])
    want = layer.multihead_attn(own, memory, memory, average_attn_weights=False)[1]
    assert_weights(rec.run.sample(0), "layers.0.multihead_attn", want[0])
