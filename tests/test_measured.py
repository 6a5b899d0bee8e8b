"""Measures read back: of a head, a sample, a corpus; by token and by word; and what was not kept."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import attnprobe as ap
from attnprobe import demo
from attnprobe.fields import STATISTICS, Block, Field, Sample, Site, TokenSequence
from attnprobe.kinds import KINDS, kinds_of
from attnprobe.measures.pooled import cell_size
from attnprobe.spans import Span
from attnprobe.store.base import Manifest
from attnprobe.store.memory import MemoryStore
from tests.models import cross_gpt2, gpt2, ids

TEXT = "Maia is a cute little baby who likes to explore her world! Maia likes to explore, and"
LENGTHS = (40, 25, 60)
ALL = ("default", "induction", "duplicate", "received_last(4)", "argmax")
K = 4


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return demo.load()


@pytest.fixture(scope="module", params=["memory", "directory"])
def run(request: pytest.FixtureRequest, loaded: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    """The text: all weights, the largest four of each row, and measures."""
    model, tokenizer = loaded
    to = None if request.param == "memory" else tmp_path_factory.mktemp("runs") / "run"
    with ap.record(model, tokenizer, to=to, keep=[ap.Weights(), ap.TopK(k=K), ap.Measures(names=ALL)]) as recorder:
        model(**tokenizer(TEXT, return_tensors="pt"))
    return recorder.run


@pytest.fixture(scope="module")
def corpus(loaded: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    """Three samples of different lengths: weights and measures."""
    model, tokenizer = loaded
    text = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=200).input_ids
    keep = [ap.Weights(), ap.Measures(names=["means", "received"])]
    with ap.record(model, tokenizer, to=tmp_path_factory.mktemp("runs") / "corpus", keep=keep) as recorder:
        for place, length in enumerate(LENGTHS):
            with recorder.sample(id=f"s{place}"):
                model(text[:, 20 * place : 20 * place + length])
    return recorder.run


def weights(run: ap.Run, sample: int = 0) -> np.ndarray:
    """All weights of a sample, ``[layer, head, query, key]``, in float64."""
    one = run.sample(sample)
    return np.stack([one.layer_array(layer) for layer in range(run.num_layers)]).astype(np.float64)


def tokens_of(run: ap.Run, sample: int = 0) -> np.ndarray:
    found = run.samples[sample].sequences["main"].ids
    assert found is not None
    return found


def entropy(w: np.ndarray) -> np.ndarray:
    return -(w * np.log(np.where(w > 0, w, 1))).sum(-1)


def previous(w: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full((*w.shape[:2], 1), np.nan), np.diagonal(w, -1, -2, -1)], -1)


def induction(w: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Row by row, as it is defined."""
    result = np.full(w.shape[:3], np.nan)
    for i, token in enumerate(tokens):
        earlier = np.flatnonzero(tokens[:i] == token)
        if len(earlier):
            result[..., i] = w[..., i, earlier + 1].sum(-1)
    return result


# --- of a head ----------------------------------------------------------------------------------------------------


def test_rows_of_a_head_are_those_of_its_weights(run: ap.Run) -> None:
    measures = run[1, 6].measures
    expected = entropy(weights(run))[1, 6]
    np.testing.assert_allclose(measures["entropy"].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(np.asarray(measures["previous"]), previous(weights(run))[1, 6], atol=1e-6)
    np.testing.assert_array_equal(measures["argmax"].numpy(), weights(run)[1, 6].argmax(-1))
    series = measures["entropy"].to_pandas()
    assert isinstance(series, pd.Series) and tuple(series.index) == run.sample().tokens
    assert (measures["entropy"].dims, measures["entropy"].unit, series.name) == (("query",), "nats", "entropy")
    assert repr(measures["entropy"]) == f"<entropy: query {len(expected)}, float32, in nats>"


def test_keys_distances_and_cells_have_their_places(run: ap.Run) -> None:
    measures, whole = run[0, 6].measures, weights(run)[0, 6]
    length = len(whole)
    np.testing.assert_allclose(measures["received"].numpy(), whole.sum(0), atol=1e-5)
    assert tuple(measures["received"].to_pandas().index) == run.sample().tokens
    np.testing.assert_allclose(measures["received_last(4)"].numpy(), whole[-4:].sum(0), atol=1e-5)
    away = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    bins = measures["distances"]
    assert list(bins.coords["distance"])[:5] == [0, 1, 2, 4, 8]
    edges = [*bins.coords["distance"], 1 << 30]
    expected = [whole[(away >= a) & (away < b)].sum() / length for a, b in pairwise(edges)]
    np.testing.assert_allclose(bins.numpy(), expected, atol=1e-6)
    pooled = measures["pooled_max"]
    np.testing.assert_allclose(pooled.numpy(), whole, atol=1e-3)  # of so few tokens a cell is one
    assert pooled.dims == ("query_cell", "key_cell") and list(pooled.coords["key_cell"]) == list(range(length))


@pytest.mark.parametrize("length", [255, 256, 257, 700, 1024])
def test_cells_of_a_long_sample_begin_where_they_begin(loaded: tuple[Any, Any], length: int) -> None:
    model, tokenizer = loaded
    text = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=length).input_ids
    keep = [ap.Weights("L1H6"), ap.Measures("L1H6", ["pooled"])]
    with ap.record(model, keep=keep) as recorder:
        model(text)
    pooled, size = recorder.run[1, 6].measures["pooled_max"], cell_size(length)
    starts = np.arange(0, length, size)
    assert list(pooled.coords["query_cell"]) == list(pooled.coords["key_cell"]) == starts.tolist()
    whole = recorder.run[1, 6].numpy()
    expected = np.maximum.reduceat(np.maximum.reduceat(whole, starts, 0), starts, 1)
    np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-3)


def test_means_of_a_head_are_a_table(run: ap.Run) -> None:
    table = run[1, 6].measures.to_pandas()
    rows = induction(weights(run), tokens_of(run))[1, 6]
    assert tuple(table.columns) == (*STATISTICS, "unit") == ("mean", "std", "count", "unit")
    np.testing.assert_allclose(
        table.loc["induction", ["mean", "std", "count"]].astype(float),
        [np.nanmean(rows), np.nanstd(rows), np.isfinite(rows).sum()],
        rtol=1e-5,
    )
    assert table.loc["distance", "unit"] == "tokens"
    np.testing.assert_allclose(run[1, 6].measures["entropy.mean"].numpy()[0], table.loc["entropy", "mean"])


def test_all_of_a_head_goes_to_xarray(run: ap.Run) -> None:
    pytest.importorskip("xarray")
    head = run[1, 6]
    whole, arrays = head.measures.to_xarray(), head.measures.numpy()
    assert set(whole.data_vars) == set(arrays) == set(head.measures.names)
    np.testing.assert_array_equal(whole["received"], arrays["received"])
    assert whole["token"].dims == ("query",) and whole["key_token"].dims == ("key",)
    assert float(whole["entropy.mean"].sel(statistic="count")) == head.shape[0]
    assert whole["distances"].dims == ("distance_bin",)  # distance is a measure of rows
    assert whole["entropy"].attrs == {"unit": "nats"}


# --- of a sample ----------------------------------------------------------------------------------------------------


def test_one_measure_of_all_heads(run: ap.Run) -> None:
    found = run.measures["entropy"]
    assert found.dims == ("layer", "head", "query") and found.shape == (4, 8, len(run.sample().tokens))
    np.testing.assert_allclose(found.numpy(), entropy(weights(run)), atol=1e-5)
    np.testing.assert_array_equal(run.sample().measures["entropy"].numpy(), found.numpy())
    np.testing.assert_array_equal(run.measures["pooled_max"].numpy()[1, 6], run[1, 6].measures["pooled_max"].numpy())
    table = found.to_pandas()
    assert isinstance(table, pd.DataFrame) and table.index.names == ["layer", "head"]
    np.testing.assert_array_equal(table.loc[(1, 6)].to_numpy(), found.numpy()[1, 6])
    assert list(run.measures["entropy.mean"].to_pandas().columns) == ["mean", "std", "count"]


def test_one_measure_goes_to_xarray_with_tokens(run: ap.Run) -> None:
    pytest.importorskip("xarray")
    array = run.measures["entropy"].to_xarray()
    assert array.name == "entropy" and array.attrs == {"unit": "nats"}
    assert array["query"].values.tolist() == list(range(array.sizes["query"]))
    assert tuple(array["token"].values) == run.sample().tokens
    np.testing.assert_array_equal(array.sel(layer=1, head=6), run[1, 6].measures["entropy"].numpy())


def test_labels_of_your_own_name_measures_too(run: ap.Run) -> None:
    words = [f"w{i}" for i in range(len(run.sample().tokens))]
    labelled = run.with_labels(words)
    for series in (labelled[1, 6].measures["entropy"].to_pandas(), labelled[1, 6].measures["received"].to_pandas()):
        assert list(series.index) == words
    assert list(labelled.measures["entropy"].to_pandas().columns) == words


def test_without_text_labels_tell_repeats_only(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    with ap.record(model, tokenizer, text=False, measures=["entropy"]) as recorder:
        model(torch.tensor([[5, 6, 5, 7]]))
    run = recorder.run
    for series in (run[0, 0].measures["entropy"].to_pandas(), run.measures["entropy"].to_pandas().loc[(0, 0)]):
        assert list(series.index) == ["~0", "~1", "~0", "~2"]
    with pytest.raises(ap.SelectionError, match="have no text, so words are not known"):
        run.sample().words()


def test_a_run_without_samples_has_no_measures() -> None:
    measures = ap.Run(MemoryStore(manifest((Site("a", "self", "decoder", 0, 2, 2),)))).measures
    assert measures.names == () and "0 samples" in repr(measures)
    for read in (measures.numpy, measures.to_pandas, measures.summary, lambda: measures["entropy"]):
        with pytest.raises(ap.NotKept, match="measures were kept of self-attention, 0 samples"):
            read()


def test_names_are_those_of_the_manifest_in_its_order(run: ap.Run) -> None:
    names = run.measures.names
    assert names == run.sample().measures.names == run[0, 0].measures.names
    assert names[:3] == ("entropy", "max", "first_mass(1)") and names.index("previous") < names.index("received")
    assert "induction" in run.measures and "induction.mean" in run[0, 0].measures and "nonsense" not in run.measures
    assert all(run[0, 0].measures[name].shape for name in names)


def test_only_some_rows_and_heads_are_nan_elsewhere() -> None:
    model = gpt2()
    keep = [
        ap.Measures("L0H1", ["entropy"], queries="2:5"),
        ap.Measures({0: [1, 2], 2: [3]}, ["entropy", "argmax"], queries="4:8"),
        ap.Weights(),
    ]
    with ap.record(model, keep=keep) as recorder:
        model(ids(1, 12))
    run = recorder.run
    expected = np.full((3, 4, 6), np.nan)
    expected[0, 1] = entropy(weights(run))[0, 1, 2:8]
    for layer, head in ((0, 2), (2, 3)):
        expected[layer, head, 2:] = entropy(weights(run))[layer, head, 4:8]
    found = run.measures["entropy"]
    assert list(found.coords["query"]) == [2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert (run.measures["argmax"].numpy()[1] == -1).all() and (run.measures["argmax"].numpy()[2, 3] >= 0).all()
    table = run.measures.to_pandas()
    assert list(table.index) == [("0", 0, 1), ("0", 0, 2), ("0", 2, 3)]
    assert table["entropy_count"].tolist() == [3, 4, 4]  # of two items that kept a mean, the first one's
    np.testing.assert_allclose(table["entropy"].iloc[0], expected[0, 1, :3].mean(), rtol=1e-5)
    assert np.isnan(run.measures.numpy()["entropy"][0, 1]).all()


def test_heads_may_have_different_measures() -> None:
    model = gpt2()
    keep = [ap.Weights(), ap.Measures("L0H0,L0H3", ["previous"]), ap.Measures("L0H2", ["entropy"])]
    with ap.record(model, keep=keep) as recorder:
        model(ids(1, 9))
    run = recorder.run
    rows, spread = previous(weights(run))[0], entropy(weights(run))[0]
    table, summary = run.measures.to_pandas().loc[("0", 0)], run.measures.summary().numpy()
    assert list(table.index) == [0, 2, 3]
    expected = [np.nanmean(rows[0]), np.nan, np.nanmean(rows[3])]
    np.testing.assert_allclose(table["previous"], expected, rtol=1e-5)
    np.testing.assert_allclose(table["entropy"], [np.nan, spread[2].mean(), np.nan], rtol=1e-5)
    np.testing.assert_allclose(summary["previous"][0, [0, 2, 3]], expected, rtol=1e-5)
    assert run[0, 2].measures.names == ("entropy", "entropy.mean") and list(run[0, 0].measures.means) == ["previous"]


# --- of a corpus ----------------------------------------------------------------------------------------------------


def test_a_run_is_a_number_a_head_and_sample(corpus: ap.Run) -> None:
    arrays, table = corpus.measures.numpy(), corpus.measures.to_pandas()
    assert arrays["entropy"].shape == (3, 4, 8)
    assert table.index.names == ["sample", "layer", "head"] and len(table) == 3 * 4 * 8
    for sample in range(3):
        rows = induction(weights(corpus, sample), tokens_of(corpus, sample))
        np.testing.assert_allclose(arrays["induction"][sample], np.nanmean(rows, -1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(arrays["induction_std"][sample], np.nanstd(rows, -1), rtol=1e-4, atol=1e-6)
        assert (arrays["induction_count"][sample] == np.isfinite(rows[0, 0]).sum()).all()
        line = table.loc[(f"s{sample}", 2, 3)]
        assert line["entropy"] == arrays["entropy"][sample, 2, 3] and line["entropy_count"] == LENGTHS[sample]
        one = corpus.sample(sample).measures
        np.testing.assert_array_equal(one.numpy()["entropy"], arrays["entropy"][sample])
        assert one.to_pandas().index.names == ["layer", "head"]
    means = corpus.measures["entropy.mean"]
    assert means.dims == ("sample", "layer", "head", "statistic")
    np.testing.assert_array_equal(means.numpy()[..., 0], arrays["entropy"])


def test_a_run_goes_to_xarray(corpus: ap.Run) -> None:
    pytest.importorskip("xarray")
    whole = corpus.measures.to_xarray()
    assert dict(whole.sizes) == {"sample": 3, "layer": 4, "head": 8} and whole["sample"].values.tolist() == [
        "s0",
        "s1",
        "s2",
    ]
    np.testing.assert_array_equal(whole["previous"], corpus.measures.numpy()["previous"])
    assert whole["entropy"].attrs == {"unit": "nats"}
    assert dict(corpus.sample(1).measures.to_xarray().sizes) == {"layer": 4, "head": 8}
    assert dict(corpus.measures.summary().to_xarray().sizes) == {"layer": 4, "head": 8}


def test_the_summary_is_that_of_all_rows_together(corpus: ap.Run) -> None:
    summary = corpus.measures.summary()
    rows = [induction(weights(corpus, i), tokens_of(corpus, i)) for i in range(3)]
    whole = np.concatenate(rows, -1)
    arrays = summary.numpy()
    np.testing.assert_allclose(arrays["induction"], np.nanmean(whole, -1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(arrays["induction_std"], np.nanstd(whole, -1), rtol=1e-4, atol=1e-6)
    assert (arrays["induction_count"] == np.isfinite(whole).sum(-1)).all()
    means = np.stack([np.nanmean(one, -1) for one in rows])
    np.testing.assert_allclose(arrays["induction_spread"], means.std(0), rtol=1e-3, atol=1e-6)
    assert (arrays["induction_samples"] == 3).all()
    table = summary.to_pandas()
    assert table.index.names == ["layer", "head"] and table.loc[(1, 6), "induction"] == arrays["induction"][1, 6]
    assert summary["induction"].dims == ("layer", "head", "statistic") and summary["entropy"].unit == "nats"
    assert "3 samples" in repr(summary)
    with pytest.raises(ap.NotKept, match="there is no mean of 'x'; there are entropy"):
        summary["x"]


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_any_size_are_united_exactly(seed: int) -> None:
    from attnprobe.summary import Summary

    random = np.random.default_rng(seed)
    groups = [random.normal(1000, random.uniform(0, 3), (2, int(n))) for n in random.integers(0, 6, 20)]
    groups[3], groups[4] = np.zeros((2, 0)), np.full((2, 1), 1000.0)
    summary = Summary(1, 3, "self", 20)
    for rows in groups:
        count = rows.shape[1]
        figures = [rows.mean(1), rows.std(1), np.full(2, count)] if count else [np.full(2, np.nan)] * 2 + [np.zeros(2)]
        summary.add(0, [0, 2], {"x": np.stack(figures, -1)})
    whole = np.concatenate(groups, 1)
    means = np.stack([rows.mean(1) for rows in groups if rows.shape[1]])
    expected = np.stack([whole.mean(1), whole.std(1), [whole.shape[1]] * 2, means.std(0), [len(means)] * 2], -1)
    np.testing.assert_allclose(summary["x"].values[0, [0, 2]], expected, rtol=1e-12)
    assert np.isnan(summary["x"].values[0, 1, 0]) and len(summary.to_pandas()) == 2


def test_the_demo_has_the_heads_it_was_trained_to_have(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    with ap.record(model, tokenizer, measures="means") as recorder:
        model(**tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=512))
    kinds = recorder.run.measures.summary().kinds()
    heads = {kind: list(zip(rows["layer"], rows["head"], strict=True)) for kind, rows in kinds.groupby("kind")}
    assert heads["previous-token"][0] == (0, 6) and {(1, 6), (1, 0)} <= set(heads["induction"])
    assert (kinds["score"] > kinds["threshold"]).all()
    assert kinds["kind"].iloc[0] == "induction"  # the rare ones first


def test_a_head_may_be_of_several_kinds_or_of_none() -> None:
    assert [kind.name for kind in kinds_of({"induction": 0.5, "first_mass(1)": 0.41, "previous": 0.4})] == [
        "induction",
        "first-token",
    ]
    assert kinds_of({}) == kinds_of({"induction": float("nan"), "entropy": 9.0}) == ()
    assert [kind.name for kind in KINDS] == ["induction", "previous-token", "duplicate", "first-token"]
    assert all(kind.source and kind.threshold_source for kind in KINDS)


# --- several attentions ---------------------------------------------------------------------------------------------


def test_cross_attention_is_selected() -> None:
    model = cross_gpt2(n_layer=2)
    with ap.record(model, keep=[ap.Weights(), ap.Measures(names=["entropy", "received"])]) as recorder, torch.no_grad():
        model(ids(1, 6), encoder_hidden_states=torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(0)))
    run = recorder.run
    name = "transformer.h.1.crossattention"
    cross = run.measures.select(kind="cross")
    np.testing.assert_allclose(cross["received"].numpy()[1, 2], run[name, 2].numpy().sum(0), atol=1e-5)
    np.testing.assert_allclose(run.measures["received"].numpy()[1, 2], run[1, 2].numpy().sum(0), atol=1e-5)
    assert cross["received"].shape == (2, 4, 9) and run[name, 2].measures["received"].shape == (9,)
    table = run.measures.to_pandas()
    assert set(table["kind"]) == {"self", "cross"} and len(table) == 16 and name in set(table["site"])
    np.testing.assert_allclose(
        cross.to_pandas()["entropy"].to_numpy(), table[table["kind"] == "cross"]["entropy"].to_numpy()
    )
    assert cross.summary().kind == "cross" and run.measures.summary().kind == "self"
    with pytest.raises(ap.SelectionError, match=r'kind="both"|kind=\'both\''):
        run.measures.select(kind="both")
    with pytest.raises(ap.SelectionError, match="part='moon': the model has decoder"):
        run.measures.select(part="moon")


def test_cross_attention_alone_needs_no_selection() -> None:
    model = cross_gpt2(n_layer=1)
    with ap.record(model, measures="means", kind="cross") as recorder, torch.no_grad():
        model(ids(1, 6), encoder_hidden_states=torch.randn(1, 9, 64))
    assert recorder.run.measures.summary().kind == "cross"
    assert np.isfinite(recorder.run.measures.numpy()["entropy"]).all()


def put(store: MemoryStore, field: Field, values: np.ndarray) -> None:
    store.write(field, Block(field.heads, range(values.shape[1]), 0, torch.from_numpy(values.astype(np.float32))))


def statistics(heads: int, start: float = 0.0) -> np.ndarray:
    return np.stack([start + np.arange(heads), np.ones(heads), np.full(heads, 5)], -1)[..., None]


def manifest(sites: tuple[Site, ...], measures: Any = ()) -> Manifest:
    keep = ({"what": "measures", "measures": measures},)
    return Manifest({}, sites, keep, {}, "2026-01-01T00:00:00+00:00")


def test_layers_may_differ_in_heads() -> None:
    sites = (Site("a", "self", "decoder", 0, 4, 4), Site("b", "self", "decoder", 1, 2, 2))
    store = MemoryStore(manifest(sites))
    for site in sites:
        put(
            store,
            Field(0, site, 0, tuple(range(site.heads)), what="x.mean", axes=("statistic",)),
            statistics(site.heads),
        )
    store.commit(Sample(0, "s", {"main": TokenSequence(5)}, 5))
    measures = ap.Run(store).measures
    assert measures.numpy()["x"].shape == (1, 2, 4)
    np.testing.assert_array_equal(measures.numpy()["x"][0], [[0, 1, 2, 3], [0, 1, np.nan, np.nan]])
    assert len(measures.to_pandas()) == len(measures.summary().to_pandas()) == 6


def test_two_sites_in_a_layer_want_a_part() -> None:
    sites = (
        Site("encoder.0", "self", "encoder", 0, 2, 2, "source", "source"),
        Site("decoder.0", "self", "decoder", 0, 2, 2),
    )
    store = MemoryStore(manifest(sites))
    for number, site in enumerate(sites):
        field = Field(0, site, 0, (0, 1), what="x.mean", axes=("statistic",))
        put(store, field, statistics(2, 10 * number))
    store.commit(Sample(0, "s", {"main": TokenSequence(5), "source": TokenSequence(7)}, 5))
    measures = ap.Run(store).measures
    for read in (measures.numpy, measures.summary, lambda: measures["x.mean"]):
        with pytest.raises(
            ap.SelectionError, match=r'several sites, encoder\.0 .*select\(kind="self", part="decoder"\)'
        ):
            read()
    assert measures.select(part="decoder").numpy()["x"].tolist() == [[[10, 11]]]
    assert measures.to_pandas()["site"].tolist() == ["encoder.0"] * 2 + ["decoder.0"] * 2


def test_means_may_lie_in_several_blocks() -> None:
    site = Site("a", "self", "decoder", 0, 2, 2)
    whole, part = MemoryStore(manifest((site,))), MemoryStore(manifest((site,)))
    of = Field(0, site, 0, (0, 1), what="x.mean", axes=("statistic",))
    for store, heads in ((whole, (0, 1)), (part, (1,))):
        for head in heads:
            values = torch.tensor([10.0 * head, 1, 5])[None, :, None]
            store.write(of, Block((head,), range(3), 0, values))
        store.commit(Sample(0, "s", {"main": TokenSequence(5)}, 5))
    assert ap.Run(whole).measures.numpy()["x"].tolist() == [[[0, 10]]]
    with pytest.raises(ap.NotKept, match="row 0 of layer 0"):  # a field that lacks a head that it lists
        ap.Run(part).measures.numpy()


def test_what_a_manifest_says_is_not_trusted() -> None:
    sites = (Site("a", "self", "decoder", 0, 2, 2),)
    for measures in (None, 3, "x", [3, {"unit": 5}], {"name": "x"}):
        store = MemoryStore(manifest(sites, measures))
        put(store, Field(0, sites[0], 7, (0, 1), what="x.mean", axes=("statistic",)), statistics(2))
        store.commit(Sample(0, "s", {"main": TokenSequence(5)}, 5))
        run = ap.Run(store)
        assert run.measures.summary()["x"].unit == "" and run[0, 0].measures.means == {"x": (0.0, 1.0, 5.0)}


# --- what was not kept ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(loaded: tuple[Any, Any]) -> ap.Run:
    """Measures of one head, the largest weights of another, and no weights."""
    model, tokenizer = loaded
    keep = [ap.Measures("L0H6", ["entropy", "means"]), ap.TopK("L1H0", k=2, queries="3:9")]
    with ap.record(model, tokenizer, keep=keep) as recorder:
        model(**tokenizer(TEXT, return_tensors="pt"))
    return recorder.run


def test_a_head_without_weights_says_what_there_is(measured: ap.Run) -> None:
    head, top = measured[0, 6], measured[1, 0]
    for read in (
        head.numpy,
        lambda: head[0],
        lambda: head.row(1),
        lambda: head.top(),
        head.to_pandas,
        lambda: head.kept,
    ):
        with pytest.raises(
            ap.NotKept,
            match=r"weights of layer 0 .* head 6, sample 0 were not kept; kept are the measures entropy, .*"
            r'\(head\.measures\); .*keep=\[Weights\("L0H6"\), \.\.\.\]',
        ):
            read()
    with pytest.raises(ap.NotKept, match=r"kept are the 2 largest weights of each row \(head\.topk\); to have"):
        top.numpy()
    with pytest.raises(ap.NotKept, match=r"largest weights of each row of .* kept are the measures entropy"):
        _ = head.topk
    with pytest.raises(ap.NotKept, match=r"no measures were kept of layer 1 .*; record them with record\("):
        top.measures["entropy"]
    assert not head.has_weights and head.dtype == ""
    with pytest.raises(ap.NotKept, match="was not kept"):
        measured.to_bertviz()


def test_a_measure_that_was_not_kept_names_those_that_were(measured: ap.Run, run: ap.Run) -> None:
    with pytest.raises(
        ap.NotKept, match=r'of previous just the mean .* write \["previous\.mean"\], or record measures='
    ):
        measured[0, 6].measures["previous"]
    for view in (measured.measures, measured[0, 6].measures):
        with pytest.raises(
            ap.NotKept, match=r"the measure 'received' was not kept of .*; kept are entropy, entropy\.mean"
        ):
            view["received"]
    with pytest.raises(ap.NotKept, match=r"largest weights of each row .* kept are the weights \(head\.top\(10\)"):
        _ = ap.from_attentions([torch.ones(1, 1, 2, 2).tril() / 2])[0, 0].topk
    plain = ap.from_attentions([torch.ones(1, 1, 2, 2).tril() / 2]).measures
    assert plain.names == () and "none" in repr(plain)
    for read in (plain.numpy, plain.to_pandas, plain.summary):
        with pytest.raises(ap.NotKept, match=r'no means of measures were kept .* record\(\.\.\., measures="default"\)'):
            read()
    with pytest.raises(ap.NotKept, match="no measures were kept of self-attention, sample 0; record them"):
        plain["entropy"]


def test_several_samples_are_not_one_array(corpus: ap.Run) -> None:
    with pytest.raises(
        ap.SelectionError, match=r'3 samples.*write run\.sample\(i\)\.measures\["received"\].*"received\.mean"'
    ):
        corpus.measures["received"]


def test_without_xarray_the_extra_is_named(run: ap.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    views: list[Any] = [run.measures, run.measures["entropy"], run[0, 0].measures, run.measures.summary()]
    for view in views:
        with pytest.raises(ap.AttnprobeError, match=r"pip install attnprobe\[xarray\]"):
            view.to_xarray()


def test_what_a_run_without_weights_says(measured: ap.Run, run: ap.Run, corpus: ap.Run) -> None:
    assert repr(run).startswith("1 sample x 4 layers x 8 heads x 34 tokens, float32 + top 4 + 15 measures, ")
    assert "3 samples x 4 layers x 8 heads x 25 to 60 tokens, float32 + 10 measures" in repr(corpus)
    assert ", top 2 + 9 measures, " in repr(measured) and measured.describe()["dtype"] is None
    assert (measured.describe()["top"], measured.describe()["measures"]) == (2, 9)
    assert "34 x 34, 9 measures, " in repr(measured[0, 6]) and "34 x 34, top 2, " in repr(measured[1, 0])
    assert "float32 + top 4 + 15 measures" in repr(run[0, 0])
    for shown in (measured._repr_html_(), measured[0, 6]._repr_html_()):
        assert "measures" in shown and "<style" not in shown


def test_bertviz_takes_the_layers_that_have_weights(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    with ap.record(model, tokenizer, keep=[ap.Weights("1"), ap.Measures(names="means")]) as recorder:
        model(**tokenizer(TEXT, return_tensors="pt"))
    run = recorder.run
    assert len(run.to_bertviz()["attention"]) == 1
    assert run[1, 0].dtype == "float32" and run[1, 0].shape == (34, 34)


def test_reading_measures_takes_no_torch(corpus: ap.Run) -> None:
    import subprocess

    program = (
        "import sys, attnprobe\nrun = attnprobe.open(sys.argv[1])\n"
        "run.measures.summary().to_pandas(), run.sample(0)[1, 6].measures.to_pandas(), run.sample(1).words()\n"
        "assert not {'torch', 'transformers', 'xarray'} & set(sys.modules)\n"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, str(corpus.path)], env={"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# --- the largest of each row ----------------------------------------------------------------------------------------


def test_the_largest_of_each_row_are_those_of_the_weights(run: ap.Run) -> None:
    top, whole = run[1, 6].topk, weights(run)[1, 6]
    values, keys, rest = top.numpy()
    assert top.k == K and top.kept == tuple(range(len(whole))) and values.shape == keys.shape == (len(whole), K)
    np.testing.assert_allclose(values, -np.sort(-whole, -1)[:, :K], atol=1e-6)
    np.testing.assert_allclose(rest, whole.sum(-1) - values.sum(-1), atol=1e-6)
    row = top.row(" world")
    dense = run[1, 6].row(" world")
    np.testing.assert_allclose(row.to_numpy(), np.sort(dense.to_numpy())[::-1][:K], atol=1e-6)
    assert (row.name, row.index.name) == ("Ġworld", "key")
    assert row.attrs["rest"] == pytest.approx(1 - row.sum(), abs=1e-5)
    assert len(top.row(0)) == 1  # the first token has but one key
    table = top.to_pandas()
    assert list(table.columns) == ["query", "rank", "key", "from", "to", "weight"]
    assert len(table) == (keys >= 0).sum() and (table["weight"] > 0).all()
    np.testing.assert_allclose(table["weight"], whole[table["query"], table["key"]], atol=1e-6)
    assert table["to"].tolist() == [run.sample().tokens[key] for key in table["key"]]
    assert top.rest.name == "rest" and tuple(top.rest.index) == run.sample().tokens
    assert "the 4 largest weights of each row of layer 1" in repr(top)


def test_only_the_kept_rows_have_their_largest(measured: ap.Run) -> None:
    top = measured[1, 0].topk
    assert (
        top.kept == (3, 4, 5, 6, 7, 8) and len(top.numpy()[0]) == 6 and set(top.to_pandas()["query"]) == set(top.kept)
    )
    with pytest.raises(ap.NotKept, match=r"row 2 of layer 1 .* was not kept; kept are rows 3 to 8"):
        top.row(2)
    with pytest.raises(ap.TokenError, match="is not a token"):
        top.row("nonsense")


@pytest.mark.parametrize("key", [5, -2, 1 << 30])
def test_keys_that_the_sample_does_not_have_are_refused(key: int) -> None:
    site = Site("a", "self", "decoder", 0, 1, 1)
    store = MemoryStore(Manifest({}, (site,), ({"what": "topk"},), {}, "2026-01-01T00:00:00+00:00"))
    of = Field(0, site, 0, (0,), what="top", axes=("query", "rank"))
    put(store, of, np.full((1, 5, 2), 0.5))
    keys = torch.tensor([[[0, -1], [1, 0], [2, 1], [key, 2], [4, 3]]], dtype=torch.int32)
    store.write(replace(of, what="top_keys", dtype="int32"), Block((0,), range(5), 0, keys))
    put(store, replace(of, what="top_rest", axes=("query",)), np.zeros((1, 5, 1)))
    store.commit(Sample(0, "s", {"main": TokenSequence(5)}, 5))
    top = ap.Run(store)[0, 0].topk
    assert list(top.row(1)) == [0.5, 0.5] and len(top.row(0)) == 1
    for read in (top.numpy, top.to_pandas, lambda: top.row(3), lambda: top.at(3)):
        with pytest.raises(ap.CorruptRun, match=rf"at keys .*{key}.*, and there are 5 keys; restore the shard"):
            read()


def test_of_two_numbers_the_larger_is_read() -> None:
    model = gpt2()
    with ap.record(model, keep=[ap.TopK(k=2), ap.TopK(k=5), ap.TopK(k=3)]) as recorder:
        model(ids(1, 12))
    assert recorder.run[0, 0].topk.k == 5 and recorder.run.describe()["top"] == 5


# --- words ----------------------------------------------------------------------------------------------------------


def sequence(*texts: str) -> TokenSequence:
    return TokenSequence(len(texts), None, tuple(text.replace(" ", "Ġ") for text in texts), tuple(texts))


def words(of: TokenSequence) -> list[tuple[int, int, str]]:
    store = MemoryStore(manifest((Site("a", "self", "decoder", 0, 1, 1),)))
    store.commit(Sample(0, "s", {"main": of}, of.length))
    return [(word.start, word.stop, word.label) for word in ap.Run(store).sample().words()]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("Ma", "ia", " likes", " to"), [(0, 2, "Maia"), (2, 3, "likes"), (3, 4, "to")]),
        ((" wor", "ld", "!", ' "', "Yes", '"'), [(0, 3, "world!"), (3, 6, '"Yes"')]),
        (("a", "\n", "\n", "b"), [(0, 1, "a"), (1, 2, "\n"), (2, 3, "\n"), (3, 4, "b")]),
        (("a", " ", " b"), [(0, 1, "a"), (1, 2, " "), (2, 3, "b")]),
        (("<|endoftext|>", "Ma", "ia"), [(0, 1, "<|endoftext|>"), (1, 3, "Maia")]),
        (("it", "'s", "<s>", "x"), [(0, 2, "it's"), (2, 3, "<s>"), (3, 4, "x")]),
        (("x",), [(0, 1, "x")]),
    ],
)
def test_words_begin_behind_white_space(texts: tuple[str, ...], expected: list[tuple[int, int, str]]) -> None:
    assert words(sequence(*texts)) == expected


def test_words_of_other_tokenizers() -> None:
    pieces = TokenSequence(5, None, ("[CLS]", "ex", "##plo", "##re", "!"), ("[CLS]", "ex", "##plo", "##re", "!"))
    assert words(pieces) == [(0, 1, "[CLS]"), (1, 4, "explore"), (4, 5, "!")]
    sentence = TokenSequence(3, None, ("▁The", "▁ca", "t"), ("The", "ca", "t"))  # decoded one by one, spaces are lost
    assert words(sentence) == [(0, 1, "The"), (1, 3, "cat")]
    with pytest.raises(ap.SelectionError, match=r"have no text, so words are not known; record with a tokenizer"):
        words(TokenSequence(3, np.arange(3)))


def test_every_token_is_in_one_word(run: ap.Run) -> None:
    found = run.sample().words()
    assert [i for word in found for i in range(word.start, word.stop)] == list(range(len(run.sample().tokens)))
    assert [word.label for word in found] == TEXT.split()


def test_spans_of_characters(run: ap.Run, loaded: tuple[Any, Any]) -> None:
    sample, at = run.sample(), TEXT.index("explore her")
    offsets = loaded[1](TEXT, return_offsets_mapping=True)["offset_mapping"]
    spans = [(0, 4), (at, at + len("explore")), (at, at + len("explore her")), (1, 2)]
    found = sample.spans(spans, offsets)
    assert found == sample.spans(spans)
    assert [span.label for span in found[:3]] == ["Maia", "explore", "explore her"]
    assert found[0].start == 0 and found[3].label in ("a", "ia", "Ma", "Maia")
    with pytest.raises(ap.SelectionError, match="3 offsets for 34 tokens; give the offset_mapping of the same text"):
        sample.spans([(0, 4)], offsets[:3])
    for span in ((5, 5), (400, 410), (9, 3)):
        with pytest.raises(ap.SelectionError, match=rf"hold no token; the text has characters 0 to {len(TEXT)}"):
            sample.spans([span])
    with pytest.raises(ap.SelectionError, match="there is no sequence 'image'; there are main"):
        sample.words("image")


def test_parts_of_characters_want_offsets() -> None:
    store = MemoryStore(manifest((Site("a", "self", "decoder", 0, 1, 1),)))
    store.commit(Sample(0, "s", {"main": sequence("a", "\ufffd", "\ufffd", " b")}, 4))
    sample = ap.Run(store).sample()
    with pytest.raises(ap.SelectionError, match="parts of characters.*give the tokenizer's offset_mapping"):
        sample.spans([(0, 2)])
    assert sample.spans([(1, 2)], [(0, 1), (1, 2), (1, 2), (2, 4)]) == [Span(1, 3, "\ufffd\ufffd")]
    assert sample.spans([(0, 9)], [(0, 0), (0, 1), (1, 2), (0, 0)]) == [Span(1, 3, "\ufffd\ufffd")]  # special tokens


def test_weights_between_words_are_summed_over_keys_and_averaged_over_queries(run: ap.Run) -> None:
    found, whole = run.sample().words(), weights(run)[1, 6]
    expected = np.array([[whole[q.start : q.stop, k.start : k.stop].sum(1).mean() for k in found] for q in found])
    table = run[1, 6].group(found)
    np.testing.assert_allclose(table.to_numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)  # as the rows of tokens
    assert list(table.index) == list(table.columns) == TEXT.split() and table.columns.name == "key"
    part = run[1, 6].group([range(5, 9)], [found[2], range(0, 34), range(3, 4)])
    np.testing.assert_allclose(
        part.to_numpy()[0],
        [whole[5:9, found[2].start : found[2].stop].sum(1).mean(), 1, whole[5:9, 3].mean()],
        atol=1e-6,
    )
    assert list(part.index) == ["5:9"]
    inner = run[1, 6].group([range(9, 12)], [range(4, 6), range(8, 10)])
    expected = [whole[9:12, 4:6].sum(1).mean(), whole[9:12, 8:10].sum(1).mean()]
    np.testing.assert_allclose(inner.to_numpy()[0], expected, atol=1e-6)


def test_many_words_are_read_in_parts(corpus: ap.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = corpus.sample(2).words()
    at_once = corpus.sample(2)[1, 6].group(found)
    monkeypatch.setattr("attnprobe.maps.TOGETHER", 5)
    pd.testing.assert_frame_equal(corpus.sample(2)[1, 6].group(found), at_once)


@pytest.mark.filterwarnings("error")
def test_measures_of_words(run: ap.Run) -> None:
    found, measures = run.sample().words(), run[1, 6].measures
    rows, received = previous(weights(run))[1, 6], weights(run)[1, 6].sum(0)
    grouped = measures["previous"].group(found)
    expected = [np.nanmean(rows[word.start : word.stop]) for word in found]
    np.testing.assert_allclose(grouped.numpy(), expected, atol=1e-6)  # the first token, which has none, is not counted
    assert list(grouped.to_pandas().index) == TEXT.split()
    assert list(grouped.coords["query"]) == [word.start for word in found]
    np.testing.assert_allclose(
        measures["received"].group(found).numpy(), [received[w.start : w.stop].sum() for w in found], atol=1e-5
    )
    whole = run.measures["entropy"].group(found)
    assert whole.dims == ("layer", "head", "query") and whole.shape == (4, 8, len(found))
    np.testing.assert_allclose(whole.numpy()[1, 6], measures["entropy"].group(found).numpy())
    assert np.isnan(measures["induction"].group([range(0, 2)]).numpy()).all()  # no row of it came before


def test_the_largest_that_keys_received_is_that_of_a_word() -> None:
    model = gpt2()
    names = ["received", "received_max", "received_last_max(3)"]
    with ap.record(model, keep=[ap.Weights(), ap.Measures(names=names)]) as recorder:
        model(ids(1, 12))
    spans = [range(0, 1), range(3, 7), range(5, 12)]  # they overlap, and the last one ends with the text
    head = recorder.run[1, 2]
    whole = head.numpy().astype(np.float64)
    for name, by_key, over in (
        (names[0], whole.sum(0), np.sum),
        (names[1], whole.max(0), np.max),
        (names[2], whole[-3:].max(0), np.max),
    ):
        expected = [over(by_key[span.start : span.stop]) for span in spans]
        grouped = head.measures[name].group(spans)
        np.testing.assert_allclose(grouped.numpy(), expected, atol=1e-6)
        every = recorder.run.measures[name].group(spans)
        assert every.dims == ("layer", "head", "key")
        np.testing.assert_array_equal(every.numpy()[1, 2], grouped.numpy())


def test_what_is_not_of_tokens_is_not_grouped(run: ap.Run, measured: ap.Run) -> None:
    measures = run[1, 6].measures
    for name in ("distances", "pooled_max", "entropy.mean", "argmax"):
        with pytest.raises(ap.SelectionError, match=rf"{name} .*so tokens cannot be grouped"):
            measures[name].group([range(0, 2)])
    for wrong in ([range(3, 3)], [range(30, 35)], [range(0, 4, 2)], [Span(-1, 3)], []):
        with pytest.raises(ap.SelectionError, match=r"no run of tokens 0 to 33|no span is given"):
            measures["entropy"].group(wrong)
        with pytest.raises(ap.SelectionError, match=r"no run of tokens 0 to 33|no span is given"):
            run[1, 6].group(wrong)
    with pytest.raises(ap.NotKept, match="were not kept"):
        measured[0, 6].group([range(0, 2)])


def test_words_of_which_not_all_was_kept_are_refused() -> None:
    model = gpt2()
    with ap.record(model, keep=[ap.Measures(names=["entropy"], queries="2:6"), ap.Weights(queries="2:6")]) as recorder:
        model(ids(1, 12))
    head = recorder.run[0, 0]
    assert head.measures["entropy"].group([range(2, 4), range(4, 6)]).shape == (2,)
    assert head.group([range(2, 4)], [range(0, 12)]).to_numpy() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ap.NotKept, match=r"not all of the tokens 4 to 6 \('4:7'\) were kept of entropy"):
        head.measures["entropy"].group([range(4, 7)])
    with pytest.raises(ap.NotKept, match="row 6 of layer 0 .* was not kept"):
        head.group([range(4, 7)], [range(0, 12)])


def test_the_words_of_two_sequences_are_two_lists() -> None:
    model = cross_gpt2(n_layer=1)
    with ap.record(model) as recorder, torch.no_grad():
        model(ids(1, 6), encoder_hidden_states=torch.randn(1, 9, 64))
    head = recorder.run["transformer.h.0.crossattention", 0]
    with pytest.raises(ap.SelectionError, match="of two sequences; give spans of both"):
        head.group([range(0, 2)])
    assert head.group([range(0, 2)], [range(0, 9)]).to_numpy() == pytest.approx(1, abs=1e-5)
