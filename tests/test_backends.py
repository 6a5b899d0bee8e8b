"""What each backend of transformers' attention registry means: the same weights as the formula, written out here."""

from collections.abc import Iterator
from typing import Any

import checks
import models
import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM

import attnprobe as ap
from attnprobe.errors import UnsupportedCall
from attnprobe.registry import registry_call

# --- flex_attention ----------------------------------------------------------------------------------------------


def gemma2(attention: str) -> Any:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=models.VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=4, attn_logit_softcapping=3.0, sliding_window=5,
        initializer_range=0.2, max_position_embeddings=64,
    )  # fmt: skip
    return Gemma2ForCausalLM._from_config(config, attn_implementation=attention).eval()


@pytest.fixture
def flexible() -> Iterator[Any]:
    """FlexAttention without its compiler, which takes a minute."""
    model = gemma2("flex_attention")
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        try:
            model(models.ids(1, 4))
        except Exception as error:
            pytest.skip(f"flex_attention cannot run here: {type(error).__name__}: {str(error)[:80]}")
        yield model


@pytest.mark.parametrize("lengths", [[14, 14], [14, 9]])
def test_flex_attention_with_block_masks_and_soft_capping_equals_eager(flexible: Any, lengths: list[int]) -> None:
    batch = models.padded(lengths, "left")
    bare = flexible(**batch).logits
    with ap.record(flexible) as rec:
        output = flexible(**batch)
    assert torch.equal(output.logits, bare)
    checks.assert_same(rec.run, gemma2("eager")(**batch, output_attentions=True).attentions, batch["attention_mask"])
    assert rec.run.sample(0)[0, 0].numpy()[13, :9].max() == 0, "the window of the first layer"


# --- FlashAttention ----------------------------------------------------------------------------------------------

FLASH = ("flash_attention_2", "flash_attention_3", "kernels-community/flash-attn3")
ROW, COLUMN = torch.arange(5)[:, None] + 4, torch.arange(9)[None]  # 4 columns are cached
ALL = COLUMN <= ROW
PADDING = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0])
SINKS_A_QUERY = torch.randn(2, 4, 5, 1, generator=torch.Generator().manual_seed(1))
BIAS = torch.randn(1, 4, 5, 9, generator=torch.Generator().manual_seed(2))


class Module(nn.Module):
    """What a function of the registry reads of an attention module."""

    is_causal = True


def weights(
    query: Tensor, key: Tensor, seen: Tensor, scale: float = 8**-0.5, cap: float | None = None,
    bias: Tensor | None = None, sinks: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The formula, dense and in float64."""
    logits = query.double() @ key.double().repeat_interleave(2, 1).transpose(2, 3) * scale
    if cap is not None:
        logits = cap * (logits / cap).tanh()
    if bias is not None:
        logits = logits + bias.double()
    exponents = logits.exp() * seen
    total = exponents.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.double().exp()
    return exponents / total.clamp(min=1e-300)


def tensors(batch: int = 2, rows: int = 5, columns: int = 9) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(batch, 4, rows, 8, generator=random) * 4
    return query, torch.randn(batch, 2, columns, 8, generator=random)


# What the function is given beside queries and keys; what the formula is.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "causal, the last row sees the last column": ({}, {"seen": ALL}),
    "a scale": ({"scaling": 0.7}, {"seen": ALL, "scale": 0.7}),
    "not causal": ({"is_causal": False}, {"seen": torch.ones(5, 9)}),
    "window": ({"sliding_window": 3}, {"seen": ALL & (COLUMN > ROW - 3)}),
    "window to both sides": (
        {"sliding_window": 3, "is_causal": False},
        {"seen": (COLUMN > ROW - 3) & (COLUMN < ROW + 3)},
    ),
    "padding": ({"attention_mask": PADDING}, {"seen": ALL & PADDING[:, None, None, :].bool()}),
    "padding and window": (
        {"attention_mask": PADDING, "sliding_window": 4},
        {"seen": ALL & (COLUMN > ROW - 4) & PADDING[:, None, None, :].bool()},
    ),
    "soft cap": ({"softcap": 3.0}, {"seen": ALL, "cap": 3.0}),
    "a sink a head": ({"s_aux": SINKS}, {"seen": ALL, "sinks": SINKS.view(1, 4, 1, 1)}),
    "a sink a query": ({"sinks": SINKS_A_QUERY}, {"seen": ALL, "sinks": SINKS_A_QUERY}),
    "position bias": ({"position_bias": BIAS}, {"seen": ALL, "bias": BIAS}),
    "all": (
        {"softcap": 3.0, "s_aux": SINKS, "sliding_window": 4, "attention_mask": PADDING},
        {
            "cap": 3.0,
            "sinks": SINKS.view(1, 4, 1, 1),
            "seen": ALL & (COLUMN > ROW - 4) & PADDING[:, None, None, :].bool(),
        },
    ),
}


def made(implementation: str, query: Tensor, key: Tensor, attention_mask: Tensor | None = None, **given: Any) -> Tensor:
    """All weights that the engine makes of a call of the registry."""
    call = registry_call(implementation, Module(), query, key, attention_mask, given)
    return checks.tiles_of(call, (0, 1, 2, 3), range(call.queries), "torch", 1 << 20)[0]


@pytest.mark.parametrize("implementation", FLASH)
@pytest.mark.parametrize("name", list(CASES))
def test_flash_attention_means_the_formula(name: str, implementation: str) -> None:
    given, told = CASES[name]
    query, key = tensors()
    got, want = made(implementation, query, key, **given), weights(query, key, **told)
    assert (got - want).abs().max() <= 2e-6
    assert want.amax(-1).median() > 0.4, "rows are too flat for this to mean anything"


def test_sdpa_has_neither_soft_cap_nor_sinks() -> None:
    query, key = tensors(rows=9)
    got = made("sdpa", query, key, softcap=3.0, s_aux=SINKS)
    assert (got - weights(query, key, torch.ones(9, 9).tril())).abs().max() <= 2e-6


@pytest.mark.parametrize("implementation", FLASH)
def test_a_decoded_row_sees_everything(implementation: str) -> None:
    query, key = tensors(rows=1)
    assert (made(implementation, query, key) - weights(query, key, torch.ones(1, 9))).abs().max() <= 2e-6


def packed(numbers: list[int]) -> Tensor:
    """Which row sees which column where each is of the sequence of this number."""
    own = torch.tensor(numbers)
    return (own[:, None] == own) & torch.ones(9, 9).tril().bool()


@pytest.mark.parametrize(("positions", "numbers"), [
    ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0] * 9),
    ([0, 1, 2, 3, 0, 1, 2, 3, 4], [0] * 4 + [1] * 5),
    ([2, 3, 4, 2, 2, 3, 4, 5, 6], [0] * 3 + [1] + [2] * 5),
    pytest.param([0, 1, 2, 2, 2, 3, 4, 0, 1], [0] * 7 + [1] * 2),
    pytest.param([0, 1, 2, 3, 7, 8, 9, 10, 11], [0] * 9),
])  # fmt: skip
def test_packed_rows_begin_where_flash_attention_begins_them(positions: list[int], numbers: list[int]) -> None:
    """At every position that is the smallest one, as transformers' prepare_fa_kwargs_from_position_ids has it."""
    query, key = tensors(batch=1, rows=9)
    got = made("flash_attention_2", query, key, position_ids=torch.tensor([positions]))
    assert (got - weights(query, key, packed(numbers))).abs().max() <= 2e-6


@pytest.mark.parametrize("window", [None, 3])
def test_packed_rows_keep_their_window(window: int | None) -> None:
    query, key = tensors(batch=1, rows=9)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    seen = packed([0] * 4 + [1] * 5)
    seen &= torch.arange(9) > torch.arange(9)[:, None] - (window or 9)
    got = made("flash_attention_2", query, key, position_ids=positions, sliding_window=window)
    assert (got - weights(query, key, seen)).abs().max() <= 2e-6


def test_positions_of_a_chunk_on_a_filled_cache_are_no_packed_row() -> None:
    query, key = tensors(batch=1)
    got = made("flash_attention_2", query, key, position_ids=torch.tensor([[4, 5, 6, 7, 8]]))
    assert (got - weights(query, key, ALL)).abs().max() <= 2e-6


def test_packed_rows_told_by_their_lengths_are_separate_or_refused() -> None:
    """`cu_seq_lens_q`, as vision towers and padding-free collators pass them."""
    query, key = tensors(batch=1, rows=9)
    bounds = torch.tensor([0, 4, 9], dtype=torch.int32)
    given = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 5, "max_length_k": 5}
    try:
        got = made("flash_attention_2", query, key, is_causal=False, **given)
    except UnsupportedCall as error:
        assert "cu_seq_lens" in str(error)
        return
    own = torch.tensor([0] * 4 + [1] * 5)
    assert (got - weights(query, key, own[:, None] == own)).abs().max() <= 2e-6


@pytest.mark.parametrize("name", [
    "paged|flash_attention_2", "paged|sdpa", "paged|eager", "paged|kernels-community/flash-attn3", "sage_attention",
])  # fmt: skip
def test_backends_without_a_meaning_are_refused_by_name(name: str) -> None:
    query, key = tensors()
    with pytest.raises(UnsupportedCall, match=name.replace("|", r"\|")):
        registry_call(name, Module(), query, key, None, {})


def test_a_paged_cache_is_refused() -> None:
    query, key = tensors()
    with pytest.raises(UnsupportedCall, match="paged cache"):
        registry_call("flash_attention_2", Module(), query, key, None, {"cache": object()})


def test_the_corners_of_a_causal_rule_are_told_apart() -> None:
    query, key = tensors()
    got = made("flash_attention_2", query, key)
    assert (got - weights(query, key, torch.ones(5, 9).tril())).abs().max() > 0.1
