"""Measures of calls: each equals its dense definition, whatever the tiles, their order, and how states are merged."""

import math
from typing import Any

import checks
import measure_checks
import measure_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnprobe as ap
from attnprobe.call import AttentionCall
from attnprobe.engines import ENGINES
from attnprobe.fields import Field, Site
from attnprobe.measures import GROUPS, MEASURES, FoldMeasure, RowMeasure, SampleRows, Tokens, choose, row_measure
from attnprobe.measures.base import NEEDS
from attnprobe.measures.measurer import Measurer
from attnprobe.topk import largest


@pytest.mark.parametrize("name", list(checks.calls()))
def test_every_measure_equals_its_definition(name: str) -> None:
    call = checks.calls()[name]
    measure_checks.check_call(call)
    measure_checks.check_call(call, heads=(1, 2), rows=range(0, call.queries, 2), budget=1 << 13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["causal", "boolean mask", "everything"])
def test_half_precision_queries_and_keys_are_measured_in_float32(name: str, dtype: torch.dtype) -> None:
    call = checks.calls()[name]
    measure_checks.check_call(checks.replace(call, query=call.query.to(dtype), key=call.key.to(dtype)))


@pytest.mark.parametrize("gain", [0.0, 0.3, 30.0])
def test_flat_and_peaked_rows(gain: float) -> None:
    for parts in ({}, {"sinks": torch.tensor([-30.0, 0.0, 5.0, 30.0])}):
        measure_checks.check_call(checks.random_call(columns=9, causal="upper-left", gain=gain, **parts))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_measures_are_ieee_whatever_the_global_setting(precision: str) -> None:
    call = checks.random_call(batch=1, rows=64, columns=64, causal="upper-left")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        measure_checks.check_call(call)
    finally:
        torch.set_float32_matmul_precision(before)


def long_call(name: str, length: int) -> AttentionCall:
    """Rows and columns of several cells each; masks are tensors, since the reference is slow with a causal rule."""
    at = torch.arange(length)
    away = at[:, None] - at
    masks = {
        "causal": away >= 0,
        "window": (away >= 0) & (away < 40),
        "both ways": away.abs() < length,
        "padded": (away >= 0) & (at >= 11),
    }
    sinks = torch.tensor([0.0, 3.0]) if name == "window" else None
    mask = masks[name][None, None]
    return checks.random_call(batch=1, heads=2, kv_heads=1, rows=length, columns=length, mask=mask, sinks=sinks)


@pytest.mark.parametrize(
    ("name", "length", "how"),
    [
        ("causal", 257, {"budget": 1 << 16}),
        ("causal", 600, {"budget": 1 << 19, "order": 1}),
        ("window", 513, {"budget": 1 << 17, "order": 2, "grow": True}),
        ("both ways", 300, {"budget": 100_000}),
        ("padded", 301, {"rows": range(100, 290), "budget": 77_000}),
        ("causal", 520, {"rows": range(3, 520, 5)}),
        ("both ways", 530, {"rows": (0, 1, 2, 7, 8, 511, 512, 515, 529), "heads": (1,)}),
    ],
)
def test_long_samples_whose_pooled_cells_are_wide(name: str, length: int, how: dict[str, Any]) -> None:
    (fed,) = measure_checks.feed(long_call(name, length), **how)
    assert length <= 256 or reference.cell(length) > 1
    measure_checks.check_fed(fed)
    measure_checks.check_merged(fed, 3)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tiles_rows_order_and_merging_never_change_a_measure(data: st.DataObject) -> None:
    rows, past = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 12))
    kv_heads, group = data.draw(st.sampled_from([(1, 1), (1, 3), (2, 2)]))
    batch = data.draw(st.integers(1, 2))
    call = checks.random_call(
        seed=data.draw(st.integers(0, 9)),
        batch=batch,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        rows=rows,
        columns=rows + past,
        gain=data.draw(st.sampled_from([0.0, 3.0])),
        causal=data.draw(st.sampled_from(["none", "upper-left", "bottom-right"])),
        window=data.draw(st.sampled_from([None, 1, 5])),
        mask=data.draw(st.sampled_from([None, checks.padding(batch, rows + past)])),
        sinks=data.draw(st.sampled_from([None, torch.linspace(-1, 4, kv_heads * group)])),
    )
    first = data.draw(st.integers(0, rows - 1))
    some = st.one_of(
        st.just(tuple(range(rows))),
        st.just(tuple(range(first, rows))),
        st.sets(st.integers(0, rows - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
    )
    line = 4 * 4 * batch * call.keys
    with pytest.MonkeyPatch.context() as patch:  # so that short samples have cells of several rows
        patch.setattr("attnprobe.measures.pooled.GRID", 8)
        patch.setattr(reference, "GRID", 8)
        for fed in measure_checks.feed(
            call,
            heads=sorted(data.draw(st.sets(st.integers(0, call.heads - 1), min_size=1))),
            rows=data.draw(some),
            budget=data.draw(st.sampled_from([line * 8, line * 20, 1 << 20])),
            order=data.draw(st.sampled_from([None, 0, 1])),
            grow=data.draw(st.booleans()),
        ):
            measure_checks.check_fed(fed)
            measure_checks.check_merged(fed, data.draw(st.integers(2, 4)))


@pytest.mark.parametrize(("prompt", "steps"), [(300, 200), (200, 70), (500, 20)])
def test_a_prompt_and_its_decoded_rows_measure_as_the_whole_map_does(prompt: int, steps: int) -> None:
    length = prompt + steps
    whole = long_call("causal", length)
    (fed,) = measure_checks.feed(whole)
    all_ids = fed.rows[0].tokens.ids
    fed.rows = []
    for stop in (prompt, *range(prompt + 1, length + 1)):
        first = 0 if stop == prompt else stop - 1
        query, key = whole.query[:, :, first:stop], whole.key[:, :, :stop]
        call = checks.replace(whole, query=query, key=key, mask=None, causal="bottom-right")
        for tile in ENGINES["torch"](call, (0, 1), range(stop - first), 1 << 18):
            fed.rows.append(
                SampleRows(
                    weights=tile.weights[0],
                    rows=range(first + tile.rows[0], first + tile.rows[-1] + 1),
                    start=tile.start,
                    at=slice(tile.heads[0], tile.heads[-1] + 1),
                    query_length=stop,
                    key_length=stop,
                    prompt_length=prompt,
                    tokens=Tokens(all_ids[:stop]),
                )
            )
    fed.maps = [reference.Map(m.weights, m.valid, m.ids, prompt) for m in fed.maps]
    measure_checks.check_fed(fed)
    measure_checks.check_merged(fed, 2)
    last = measure_checks.measure(fed, "received_last(5)")["received_last(5)"]
    assert not last[:, prompt:].any() and np.allclose(last.sum(-1), 5), "five rows, all of the prompt"


def test_uniform_rows_have_the_values_that_one_knows() -> None:
    rows = SampleRows(torch.ones(1, 8, 8).tril() / torch.arange(1.0, 9.0)[:, None], range(8), 0, slice(0, 1), 8, 8, 8)
    rows.tokens = Tokens(np.array([5, 6, 5, 6, 5, 6, 7, 8]))
    fed = measure_checks.Fed(Field(0, Site("it", "self", "", 0, 1, 1), 0, (0,)), [rows], [])
    fed.maps = [reference.Map(rows.weights[0].double().numpy(), np.ones(8, bool))]
    found = {name: array[0] for name, array in measure_checks.measure(fed).items()}
    of = np.arange(1, 9)
    assert np.allclose(found["entropy"], np.log(of), atol=1e-6) and not np.signbit(found["entropy"]).any(), "no -0.0"
    assert np.allclose(found["distance"], (of - 1) / 2)
    assert np.allclose(found["self"], 1 / of)
    assert np.isnan(found["previous"][0]) and np.allclose(found["previous"][1:], 1 / of[1:])
    assert (found["argmax"] == 0).all(), "of equal weights, the lowest position"
    nan = math.nan
    assert np.allclose(found["duplicate"], [nan, nan, 1 / 3, 1 / 4, 2 / 5, 2 / 6, nan, nan], equal_nan=True)
    assert np.allclose(found["induction"], [nan, nan, 1 / 3, 1 / 4, 2 / 5, 2 / 6, nan, nan], equal_nan=True)
    assert np.allclose(found["received"], [(1 / of[i:]).sum() for i in range(8)])
    assert np.allclose(found["received_last(5)"][4:], [(1 / of[i:]).sum() for i in range(4, 8)])
    assert np.allclose(found["distances"][:2], [(1 / of).sum() / 8, (1 / of[1:]).sum() / 8])
    assert np.allclose(found["max.mean"], [(1 / of).mean(), (1 / of).std(), 8])
    assert found["induction.mean"][2] == 4


def test_a_nan_of_the_model_stays_one() -> None:
    call = checks.random_call(columns=9, causal="upper-left")
    call.query[0, 0, 3] = torch.nan
    tile = next(ENGINES["torch"](call, (0,), range(9), 1 << 20))
    rows = SampleRows(tile.weights[0], range(9), 0, slice(0, 1), 9, 9, 9)
    fed = measure_checks.Fed(Field(0, Site("it", "self", "", 0, 1, 1), 0, (0,)), [rows], [])
    fed.maps = [reference.Map(np.zeros((9, 9)), np.ones(9, bool))]
    found = measure_checks.measure(fed, "entropy,max,argmax,first_mass,previous,distance,received,distances,pooled")
    for name in ("entropy", "max", "first_mass(1)", "previous", "distance"):
        assert np.isnan(found[name][0, 3]) and not np.isnan(found[name][0, 4:]).any(), name
    assert found["argmax"][0, 3] == -1
    for name in ("received", "distances"):
        assert np.isnan(found[name][0, 0]), name
    assert np.isnan(found["pooled_max"][0, 3, 0]) and np.isnan(found["pooled_mean"][0, 3, 0])


# --- the largest weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "keys"),
    [(1, slice(None)), (5, slice(None)), (40, slice(3, None)), (3, slice(2, 7)), (5, slice(1)), (2, slice(40, 50))],
)
def test_the_largest_weights_and_the_mass_of_the_others(k: int, keys: slice) -> None:
    for name in ("window", "empty rows", "static prefill", "sinks"):
        for fed in measure_checks.feed(checks.calls()[name], budget=1 << 12):
            for rows in fed.rows:
                values, at, rest = largest(rows, k, keys)
                assert values.shape == at.shape == (*rows.weights.shape[:2], k)
                for head, weights in enumerate(rows.weights):
                    dense = np.zeros((fed.lengths[0], fed.lengths[1]))
                    dense[list(rows.rows), rows.start : rows.stop] = weights.numpy()
                    want = reference.top(reference.Map(dense, dense.any(-1)), k, keys)
                    got = list(rows.rows)
                    assert (values[head].numpy() == want[0][got]).all()
                    assert (at[head].numpy() == want[1][got]).all()
                    assert np.allclose(rest[head].numpy(), want[2][got], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_of_equal_weights_the_lowest_positions_are_taken(data: st.DataObject) -> None:
    width, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 14))
    cells = st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5]), min_size=3 * width, max_size=3 * width)
    weights = torch.tensor(data.draw(cells)).view(1, 3, width)
    start = data.draw(st.integers(0, 3))
    values, at, rest = largest(SampleRows(weights, range(3), start, slice(0, 1), 20, 20), k, slice(None))
    dense = np.zeros((3, start + width))
    dense[:, start:] = weights[0].numpy()
    want = reference.top(reference.Map(dense, dense.any(-1)), k)
    for got, expected in zip((values, at, rest), want, strict=True):
        assert (got[0].numpy() == expected).all()


# --- names, and measures of one's own --------------------------------------------------------------------------------


def made(name: str) -> Any:
    measure = MEASURES[name]
    return measure if isinstance(measure, RowMeasure | FoldMeasure) else measure()  # type: ignore[operator]


@pytest.mark.parametrize("name", list(MEASURES))
def test_every_measure_says_what_it_is(name: str) -> None:
    measure, entry = made(name), MEASURES[name]
    assert measure.name.partition("(")[0] == name
    assert measure.unit in ("nats", "tokens", "mass", "position", "rows") and measure.formula and measure.source
    assert measure.needs <= NEEDS
    if isinstance(entry, RowMeasure):
        assert entry.compute.__doc__
    else:
        assert (type(measure) if isinstance(entry, FoldMeasure) else entry).__doc__
    assert name in {**reference.ROWS, **reference.FOLDS, "argmax": None}, "each has a reference"


def test_groups_mean_what_they_hold() -> None:
    assert {one.name for one in choose("all")} == {made(name).name for name in MEASURES}
    for group, members in GROUPS.items():
        assert choose(group)
        assert all(member in GROUPS or member.removesuffix(".mean") in MEASURES for member in members)
    means = choose("means")
    assert means and not any(one.rows or one.asked for one in means)
    assert [one.name for one in choose("default")] == [one.name for one in choose(["default", "entropy.mean"])]
    assert [(one.name, one.rows) for one in choose("entropy.mean, entropy")] == [("entropy", True)]
    assert [one.name for one in choose("first_mass(4),first_mass")] == ["first_mass(4)", "first_mass(1)"]


def test_means_alone_keep_no_row() -> None:
    for fed in measure_checks.feed(checks.calls()["causal"], budget=1 << 12):
        found = measure_checks.measure(fed, "means")
        assert found.keys() == {
            name for name in measure_checks.SELF if name.endswith(".mean") and "(4)" not in name and "(3)" not in name
        }
        for name, array in found.items():
            for got, whole in zip(array, fed.maps, strict=True):
                reference.check(name, got, whole)


@row_measure(unit="mass", formula="w_i0", source="here")
def mine(rows: SampleRows) -> torch.Tensor:
    """Weight on the first key."""
    return rows.clip(0, 1).sum(-1)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("nonsense", "no measure 'nonsense'; there are entropy, .*first_mass.N.*groups pooled"),
        (["entropy", "nonsense"], "no measure 'nonsense'"),
        ("entropy(3)", "entropy takes no number"),
        ("first_mass(0)", "no measure 'first_mass.0.'"),
        ("received.mean", "only a measure of rows has a mean"),
        ("argmax.mean", "a mean of positions says nothing"),
        ("", "no measure ''"),
        ([], "no measure is named"),
        ([mine, row_measure("", "", "", name="mine")(mine.compute)], "two measures are called 'mine'"),
        ([row_measure("", "", "", name="entropy")(mine.compute)], "'entropy' is taken"),
        ([row_measure("", "", "", name="two words")(mine.compute)], "name of a measure is a word"),
        ([row_measure("", "", "", name="other", needs=("magic",))(mine.compute)], "other needs .*magic"),
        ([row_measure("", "", "", name="other", dtype="float64")(mine.compute)], "other: .*float32"),
    ],
)
def test_names_that_mean_nothing_are_refused(names: Any, words: str) -> None:
    with pytest.raises(ap.SelectionError, match=words):
        choose(names)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_measure_is_refused() -> None:
    with pytest.raises(ap.SelectionError, match="3 is no measure: write a name, a function under @attnprobe.row_mea"):
        choose([3])
    with pytest.raises(ap.SelectionError, match="is no measure: write a name"):
        choose(mine.compute)


def test_a_measure_may_use_the_working_memory_and_return_a_view() -> None:
    first = row_measure("mass", "w_i0", "here", name="first")(lambda rows: rows.weights[:, :, 0])
    product = row_measure("", "", "", name="product")(lambda rows: rows.masked_sum(torch.ones(9, 9, dtype=torch.bool)))
    for fed in measure_checks.feed(checks.calls()["causal"]):
        found = measure_checks.measure(fed, [first, "entropy", product])
        for got, whole in zip(found["first"], fed.maps, strict=True):
            assert np.allclose(got, whole.weights[:, 0], atol=1e-6)
        assert np.allclose(found["product"], 1, atol=1e-6)


def test_a_field_without_any_row_says_nothing() -> None:
    measurer = Measurer(choose("all"), Field(0, Site("it", "self", "", 0, 1, 1), 0, (0,)))
    assert list(measurer.finish(0, 0)) == []


def test_a_mean_over_weights_that_are_no_numbers_is_none() -> None:
    (fed,) = measure_checks.feed(checks.random_call(batch=1, columns=9, causal="upper-left"))
    fed.rows[0].weights[1, 4] = torch.nan
    found = measure_checks.measure(fed, "entropy,previous")
    for name in ("entropy.mean", "previous.mean"):
        assert np.isnan(found[name][1, 0]) and np.isfinite(found[name][[0, 2, 3], 0]).all()
        assert found[name][1, 2] == 9, "rows without a value count, so that they cannot leave a corpus unseen"


def test_largest_weights_of_a_row_that_is_no_number_have_a_place() -> None:
    (fed,) = measure_checks.feed(checks.random_call(batch=1, columns=9, causal="upper-left"))
    fed.rows[0].weights[1, 4] = torch.nan
    values, keys, _ = largest(fed.rows[0], 3, slice(None))
    assert values[1, 4].isnan().all() and (keys[1, 4] >= 0).all()
