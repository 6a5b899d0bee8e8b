"""Promise 1, per call: weights are the model's own formula on the same tensors, whatever the call carries."""

import checks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.gpt2.modeling_gpt2 import eager_attention_forward as gpt2_eager
from transformers.models.llama.modeling_llama import eager_attention_forward as llama_eager

from attnprobe.call import AttentionCall
from attnprobe.engines import ENGINES, get_engine
from attnprobe.errors import BudgetError, SelectionError, UnsupportedCall
from attnprobe.registry import registry_call


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("name", list(checks.calls()))
def test_engine_equals_the_formula(name: str, engine: str) -> None:
    call = checks.calls()[name]
    checks.assert_exact(call, engine=engine)
    checks.assert_exact(call, heads=(1, 2), rows=tuple(range(0, call.queries, 2)), engine=engine)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["causal", "cached chunk", "boolean mask", "everything"])
def test_half_precision_equals_float64_on_the_same_tensors(name: str, dtype: torch.dtype) -> None:
    call = checks.calls()[name]
    half = checks.replace(call, query=call.query.to(dtype), key=call.key.to(dtype))
    checks.assert_exact(half)


class Module(torch.nn.Module):
    """What an eager function reads of its module."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.num_key_value_groups = groups


@pytest.mark.parametrize("gain", [0.1, 3.0, 30.0])
def test_weights_are_those_of_gpt2s_own_eager_function(gain: float) -> None:
    call = checks.random_call(kv_heads=4, rows=12, columns=12, gain=gain)
    mask = torch.full((12, 12), torch.finfo(torch.float32).min).triu(1)[None, None]
    _, want = gpt2_eager(Module().eval(), call.query, call.key, call.key, mask, scaling=call.scale)
    mine = checks.replace(call, mask=mask)
    got, _ = checks.tiles_of(mine, (0, 1, 2, 3), range(12), "torch", 1 << 20)
    logits = checks.formula(mine)[2]
    bound = 1e-6 + 4 * checks.EPS * logits.abs().amax(-1, keepdim=True)
    assert ((got - want).abs() <= bound).all()
    if gain == 30.0:
        assert want.amax(-1).median() > 0.95, "rows are not peaked"


def test_grouped_weights_are_those_of_llamas_own_eager_function() -> None:
    call = checks.random_call(mask=checks.padding(2, 13, torch.float32))
    module = Module(groups=2).eval()
    _, want = llama_eager(module, call.query, call.key, call.key, call.mask, scaling=call.scale)
    got, _ = checks.tiles_of(call, (0, 1, 2, 3), range(9), "torch", 1 << 20)
    seen = ~torch.isnan(got)
    assert seen.all()
    assert torch.allclose(got, want, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tile_size_heads_and_rows_never_change_a_weight(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 24))
    kv_heads, group = data.draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 1)]))
    batch = data.draw(st.integers(1, 3))
    call = checks.random_call(
        seed=data.draw(st.integers(0, 9)),
        batch=batch,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        rows=rows,
        columns=columns,
        causal=data.draw(st.sampled_from(["none", "upper-left", "bottom-right"])),
        window=data.draw(st.sampled_from([None, 1, 5])),
        cap=data.draw(st.sampled_from([None, 4.0])),
        mask=data.draw(st.sampled_from([None, checks.padding(batch, columns), checks.padding(1, columns + 3)])),
        sinks=data.draw(st.sampled_from([None, torch.linspace(-1, 1, kv_heads * group)])),
    )
    heads = data.draw(st.sets(st.integers(0, call.heads - 1), min_size=1))
    chosen = data.draw(st.sets(st.integers(0, rows - 1), min_size=1))
    line = 4 * 4 * call.batch * columns
    checks.assert_exact(
        call,
        tuple(sorted(heads)),
        tuple(sorted(chosen)),
        budget=data.draw(st.sampled_from([line * 8, line * 20, 1 << 20])),
    )


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_ieee_whatever_the_global_setting_and_it_is_not_touched(precision: str) -> None:
    call = checks.random_call(rows=64, columns=64, dim=64, gain=6.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        checks.assert_exact(call)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_around_the_call_does_not_lower_the_products() -> None:
    call = checks.random_call(rows=32, columns=32, dim=64, gain=6.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        checks.assert_exact(call)


def test_no_tile_is_larger_than_its_share_and_empty_columns_are_skipped() -> None:
    call = checks.random_call(batch=1, rows=256, columns=256, causal="upper-left", kv_heads=4)
    budget = 256 << 10
    tiles = list(get_engine("torch")(call, (0, 1, 2, 3), range(256), budget))
    assert max(t.weights.nbytes for t in tiles) <= budget // 4
    kept = sum(t.weights.nbytes for t in tiles)
    assert kept < 0.65 * 4 * 256 * 256 * 4, "a causal map costs about half"
    assert all(t.start + t.weights.shape[3] == max(t.rows) + 1 for t in tiles)


def test_a_window_and_a_mask_skip_columns_too() -> None:
    windowed = checks.random_call(batch=1, rows=64, columns=64, causal="bottom-right", window=8, kv_heads=4)
    tiles = list(get_engine("torch")(windowed, (0,), range(60, 64), 1 << 20))
    assert [(t.start, t.weights.shape[3]) for t in tiles] == [(53, 11)]
    causal = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
    masked = checks.random_call(batch=1, rows=64, columns=64, mask=causal, kv_heads=4)
    tiles = list(get_engine("torch")(masked, (0,), range(4), 1 << 20))
    assert [(t.start, t.weights.shape[3]) for t in tiles] == [(0, 4)]


def test_a_row_without_a_key_is_zeros() -> None:
    call = checks.calls()["empty rows"]
    got, _ = checks.tiles_of(call, (0,), range(9), "torch", 1 << 20)
    assert got[1].abs().max() == 0
    assert torch.allclose(got[0].sum(-1), torch.ones(1, 9))


def test_a_nan_in_the_model_stays_a_nan() -> None:
    call = checks.random_call(mask=checks.padding(2, 13))
    call.query[0, 0, 3] = torch.nan
    tile = next(iter(get_engine("torch")(call, (0,), range(9), 1 << 20)))
    assert tile.weights[0, 0, 3].isnan().any()


def test_a_budget_below_one_row_is_refused_and_says_which_would_do() -> None:
    call = checks.random_call(batch=1, rows=4, columns=1000)
    with pytest.raises(BudgetError, match=r"a row of one head.*raise budget= \(--budget\) to at least 16,000"):
        list(get_engine("torch")(call, (0,), range(4), 1000))
    half = checks.replace(call, query=call.query.half(), key=call.key.half())
    with pytest.raises(BudgetError, match=r"the keys of one head.*to at least 128,000"):
        list(get_engine("torch")(half, (0,), range(4), 16_000))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SelectionError, match="auto, dense, torch, triton"):
        get_engine("fast")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"kv_heads": 3}, "4 query heads do not share 3 key heads"),
        ({"causal": "left"}, "none, upper-left or bottom-right"),
        ({"mask": torch.ones(2, 1, 9, 5, dtype=torch.bool)}, "mask of shape"),
        ({"mask": torch.ones(9, 13, dtype=torch.bool)}, "mask of shape"),
        ({"bias": torch.ones(1, 3, 9, 13)}, "bias of shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict, words: str) -> None:
    with pytest.raises(UnsupportedCall, match=words):
        checks.random_call(**parts)


def test_backends_without_an_exact_meaning_are_refused_by_name() -> None:
    call = checks.random_call()
    with pytest.raises(UnsupportedCall, match="flash_attention_9.*sdpa, eager"):
        registry_call("flash_attention_9", Module(), call.query, call.key, None, {})
    with pytest.raises(UnsupportedCall, match="boolean"):
        registry_call("eager", Module(), call.query, call.key, checks.padding(2, 13), {})
    with pytest.raises(UnsupportedCall, match="paged cache"):
        registry_call("sdpa", Module(), call.query, call.key, None, {"cache": object()})
    with pytest.raises(UnsupportedCall, match="mask of type str"):
        registry_call("sdpa", Module(), call.query, call.key, "mask", {})


def test_sdpa_without_a_mask_is_causal_only_for_more_than_one_row() -> None:
    call = checks.random_call()
    many = registry_call("sdpa", Module(), call.query, call.key, None, {"scaling": 0.5})
    one = registry_call("sdpa", Module(), call.query[:, :, :1], call.key, None, {})
    told = registry_call("sdpa", Module(), call.query, call.key, None, {"is_causal": False})
    assert (many.causal, many.scale) == ("upper-left", 0.5)
    assert (one.causal, one.scale) == ("none", 8**-0.5)
    assert told.causal == "none"


def test_weights_times_values_are_what_sdpa_returned() -> None:
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, 4, 11, 16, generator=generator) for _ in range(3))
    call = AttentionCall(query, key, 0.25, causal="upper-left")
    got, _ = checks.tiles_of(call, (0, 1, 2, 3), range(11), "torch", 1 << 20)
    want = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.25)
    assert torch.allclose(got @ value, want, atol=1e-5)
