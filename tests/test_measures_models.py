"""Measures of whole models, beside the weights of the same recording, from which the reference makes them again."""

import re
from pathlib import Path
from typing import Any

import measure_reference as reference
import models
import numpy as np
import pytest
import torch
from measure_checks import CROSS, LAST, NAMES, OF_IDS, SELF, check_run, maps_of, with_means
from transformers import DynamicCache

import attnprobe as ap
from attnprobe.measures import MEASURES, SampleRows, row_measure
from attnprobe.store.reading import kept_rows, read_rows

SMALL = {"n_layer": 2, "n_head": 2}


@pytest.fixture(scope="module")
def model() -> Any:
    return models.gpt2(**SMALL)


def both(model: Any, names: Any = NAMES, settings: dict[str, Any] | None = None, **rows: Any) -> ap.Recorder:
    """A recording of measures, and of the weights they are made of."""
    keep = [ap.Weights(**rows), ap.Measures(**rows, names=names)]
    return ap.record(model, keep=keep, **(settings or {}))


BATCHES = {
    "no padding": {"input_ids": models.ids(2, 14)},
    "left": models.padded([14, 9, 1], "left"),
    "right": models.padded([3, 14, 9], "right"),
    "one token": {"input_ids": models.ids(1, 1)},
    "repeats": {"input_ids": models.ids(2, 64) % 7},
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", list(BATCHES))
@torch.no_grad()
def test_measures_equal_those_of_the_recorded_weights(name: str, attention: str) -> None:
    model = models.gpt2(attention=attention, **SMALL)
    with both(model) as rec:
        model(**BATCHES[name])
    check_run(rec.run)


@torch.no_grad()
def test_the_budget_changes_nothing_and_neither_does_the_store(model: Any, tmp_path: Path) -> None:
    batch = models.padded([40, 33], "left")
    with both(model, settings={"budget": 48_000}) as small:
        model(**batch)
    with both(model, settings={"to": tmp_path / "run"}) as disk:
        model(**batch)
    check_run(small.run)
    check_run(ap.open(tmp_path / "run"))
    assert disk.run.samples[1].sequences["main"].length == 33


@pytest.mark.parametrize("rows", [{}, {"queries": "5::7", "heads": "1"}], ids=str)
@torch.no_grad()
def test_a_sample_that_outgrows_the_pooled_grid(rows: dict[str, Any]) -> None:
    model = models.gpt2(n_positions=320, n_layer=1, n_head=2)
    with both(model, **rows) as rec:
        model.generate(**models.padded([260, 250], "left"), max_new_tokens=9, min_new_tokens=9, pad_token_id=0)
    check_run(rec.run)
    grids = [next(f for f in rec.run.reader.fields(i).items() if f[0].what == "pooled_mean") for i in (0, 1)]
    assert [pieces[0].shape[1:] for _, pieces in grids] == [(134, 134), (129, 129)]


@torch.no_grad()
def test_rows_that_were_paused_do_not_count(model: Any) -> None:
    tokens, cache = models.ids(1, 12), DynamicCache()
    with both(model) as rec:
        model(tokens[:, :8], past_key_values=cache)
        with rec.paused():
            model(tokens[:, 8:9], past_key_values=cache)
        for at in range(9, 12):
            model(tokens[:, at : at + 1], past_key_values=cache)
    check_run(rec.run)
    counts = [p for f, p in rec.run.reader.fields(0).items() if f.what == "entropy"]
    assert all(kept_rows(pieces) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11] for pieces in counts)


@torch.no_grad()
def test_items_beside_each_other_measure_their_own_rows(model: Any) -> None:
    tokens = models.ids(1, 12)
    with both(model) as alone:
        model(tokens)
    items = [ap.Measures("all", "received", queries=part) for part in ("all", ":5", "5:")]
    with ap.record(model, keep=[*items, ap.TopK("all", 3, keys="2:"), ap.Measures("1", "entropy", heads="0")]) as rec:
        model(tokens)
    for site in rec.run.sites:
        found = {f.group: read_rows(rec.run.reader, f, p, (0, 1), range(12), range(1)) for f, p in
                 rec.run.reader.fields(0).items() if f.site == site and f.what == "received"}  # fmt: skip
        assert np.allclose(found[0], found[1] + found[2], atol=1e-6) and found[1].sum() > 1
        want = maps_of(alone.run, alone.run.samples[0], *next(
            (f, p) for f, p in alone.run.reader.fields(0).items() if f.site == site and f.what == "weights"
        ))  # fmt: skip
        assert np.allclose(found[2][1, :, 0], want[1].weights[5:].sum(0), atol=1e-5)
    entropies = [f for f in rec.run.reader.fields(0) if f.what == "entropy"]
    assert [(f.site.layer, f.heads, f.group) for f in entropies] == [(1, (0,), 4)]


@torch.no_grad()
def test_measures_of_a_sink_are_left_out_of_groups_and_computed_when_named(model: Any) -> None:
    with ap.record(model, measures="entropy,entropy_with_sink,sink_mass") as rec:
        model(models.ids(1, 9))
    fields = {f.what: (f, p) for f, p in rec.run.reader.fields(0).items()}
    own, with_sink, mass = (
        read_rows(rec.run.reader, *fields[what], (0, 1), range(9), range(1))
        for what in ("entropy", "entropy_with_sink", "sink_mass")
    )
    assert np.array_equal(own, with_sink) and not mass.any() and own.any()


@pytest.mark.parametrize("rows", [
    {"queries": "-6:"},
    {"queries": "::3"},
    {"queries": [0, 5, 6, 7, 12], "heads": "1"},
    {"queries": "-6:", "generated": "none"},
    {"generated": "none", "layers": {0: [1], 1: "all"}},
    {"layers": "L0H1,L1H0"},
])  # fmt: skip
@torch.no_grad()
def test_only_the_selected_rows_and_heads_count(model: Any, rows: dict[str, Any]) -> None:
    with both(model, **rows) as rec:
        model.generate(**models.padded([14, 9], "left"), max_new_tokens=6, min_new_tokens=6, pad_token_id=0)
    check_run(rec.run)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("name", ["no padding", "left"])
@torch.no_grad()
def test_generation_measures_as_the_whole_map_does(model: Any, name: str, options: dict[str, Any]) -> None:
    with both(model) as rec:
        model.generate(**BATCHES[name], max_new_tokens=6, min_new_tokens=6, pad_token_id=0, **options)
    check_run(rec.run)
    sample = rec.run.samples[0]
    assert (sample.prompt_length, sample.sequences["main"].length) == (14, 19)


@torch.no_grad()
def test_a_row_that_generate_finished_is_measured_up_to_its_end() -> None:
    model = models.gpt2()
    prompt = models.ids(2, 6)
    free = model.generate(prompt, max_new_tokens=8, min_new_tokens=8, pad_token_id=0)
    with both(model) as rec:
        model.generate(prompt, max_new_tokens=8, pad_token_id=0, eos_token_id=int(free[0, 8]))
    check_run(rec.run)
    assert len({sample.sequences["main"].length for sample in rec.run.samples}) == 2


def chunks(model: Any, tokens: torch.Tensor, lengths: tuple[int, ...]) -> None:
    cache, at = DynamicCache(), 0
    for length in lengths:
        model(tokens[:, at : at + length], past_key_values=cache)
        at += length


@torch.no_grad()
def test_a_prompt_in_chunks_is_measured_as_a_whole(model: Any) -> None:
    tokens = models.ids(2, 13) % 7
    with both(model) as rec, rec.sample(prompt_length=13):
        chunks(model, tokens, (5, 1, 7))
    check_run(rec.run)


@torch.no_grad()
def test_a_prompt_whose_end_is_not_told_has_no_window_there(model: Any) -> None:
    tokens = models.ids(2, 13)
    with both(model, "all") as rec:
        chunks(model, tokens, (5, 8))
    short = {name for name in SELF - LAST if "(4)" not in name and "(3)" not in name}
    check_run(rec.run, short)
    with pytest.raises(ap.UnsupportedCall, match="received_last.64. .*prompt_length"), both(model, "received_last"):
        chunks(model, tokens, (5, 8))
    with both(model, "all") as rec:
        model.generate(tokens, max_new_tokens=3, min_new_tokens=3, pad_token_id=0, prefill_chunk_size=4)
    check_run(rec.run, short)


@torch.no_grad()
def test_cross_sites_have_no_measure_of_positions_or_tokens() -> None:
    model = models.cross_gpt2(**SMALL)
    states = torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(5))
    seen = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    with both(model, "all") as rec:
        model(**models.padded([10, 7, 4], "left"), encoder_hidden_states=states, encoder_attention_mask=seen)
    short = [{name for name in names if "(4)" not in name and "(3)" not in name and "(5)" not in name} for names in
             (SELF, CROSS)]  # fmt: skip
    check_run(rec.run, *short)
    sites = {field.site.kind for field in rec.run.reader.fields(0)}
    assert sites == {"self", "cross"}


@torch.no_grad()
def test_a_source_without_a_token_gives_invalid_rows_and_no_keys(tmp_path: Path) -> None:
    model, states = models.cross_gpt2(**SMALL), torch.randn(2, 6, 64)
    seen = torch.tensor([[1] * 6, [0] * 6])
    keep = [ap.Weights(), ap.Measures("all", "all"), ap.TopK("all", 3)]
    with ap.record(model, to=tmp_path / "run", keep=keep):
        model(models.ids(2, 9), encoder_hidden_states=states, encoder_attention_mask=seen)
    measures = ap.open(tmp_path / "run").sample(1)["transformer.h.0.crossattention", 0].measures
    assert np.isnan(measures["entropy"].numpy()).all() and (measures["argmax"].numpy() == -1).all()
    assert "received" not in measures


@pytest.mark.parametrize("name", [
    "self", "previous", "local_mass", "local_mass(3)", "distance", "duplicate", "induction", "distances", "self.mean",
])  # fmt: skip
def test_on_cross_sites_they_are_refused_by_name(name: str) -> None:
    model = models.cross_gpt2(**SMALL)
    label = name.removesuffix(".mean").replace("local_mass", "local_mass(64)", name == "local_mass")
    with pytest.raises(
        ap.SelectionError, match=rf"{re.escape(label)} .* of one sequence.*cross.*leave it out, or select kind="
    ):
        ap.record(model, keep=[ap.Measures("all", ["entropy", name])])
    assert ap.record(model, keep=[ap.Measures("all", name, kind="self")]).sites
    assert ap.record(model, keep=[ap.Measures("all", "all", kind="cross")]).sites
    needing = {name for name, one in MEASURES.items() if "positions" in getattr(one, "needs", ())} | {"local_mass"}
    assert name.partition("(")[0].removesuffix(".mean") in needing and len(needing) == 7


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_model_in_half_precision_is_measured_in_float32(dtype: torch.dtype) -> None:
    model = models.gpt2(**SMALL).to(dtype)
    with both(model) as rec:
        model.generate(**models.padded([30, 20], "left"), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
    check_run(rec.run)


@torch.no_grad()
def test_autocast_around_the_recording_does_not_reach_the_measures(model: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16), both(model) as rec:
        model(**models.padded([40, 20], "left"))
    check_run(rec.run)


@pytest.mark.parametrize("modes", [(torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode)])
def test_a_prompt_under_inference_mode_goes_on_without(model: Any, modes: tuple[Any, Any]) -> None:
    tokens, cache = models.ids(1, 12), DynamicCache()
    with both(model) as rec:
        with modes[0]():
            model(tokens[:, :9], past_key_values=cache)
        for at in range(9, 12):
            with modes[1]():
                model(tokens[:, at : at + 1], past_key_values=cache)
    check_run(rec.run)


def test_a_model_that_trains_is_measured_and_measures_leave_it_alone() -> None:
    model, batch = models.gpt2(**SMALL), models.padded([14, 9], "left")
    plain = model(**batch).logits
    with both(model) as rec:
        logits = model(**batch).logits
        logits.sum().backward()
    assert torch.equal(plain, logits) and model.transformer.wte.weight.grad is not None
    check_run(rec.run)


# --- what is known of the tokens -------------------------------------------------------------------------------------


@torch.no_grad()
def test_repeats_are_measured_without_text_too(model: Any) -> None:
    with both(model, settings={"text": False}) as rec:
        model(**BATCHES["repeats"])
    check_run(rec.run)
    assert rec.run.samples[0].sequences["main"].ids.max() < 7


@torch.no_grad()
def test_without_token_ids_repeats_are_absent_and_refused_by_name(model: Any) -> None:
    embeds = model.transformer.wte(models.ids(2, 9))
    with both(model) as rec:
        model(inputs_embeds=embeds)
    check_run(rec.run, SELF - with_means(OF_IDS))
    for name in ("duplicate", "induction.mean"):
        with (
            pytest.raises(ap.UnsupportedCall, match=f"{name[:9]}.* needs all token ids.*inputs_embeds"),
            both(model, name),
        ):
            model(inputs_embeds=embeds)


@torch.no_grad()
def test_where_tokens_before_the_recording_are_unknown_repeats_are_absent_and_refused_by_name(model: Any) -> None:
    tokens, cache = models.ids(1, 12) % 5, DynamicCache()
    model(tokens[:, :6], past_key_values=cache)
    with both(model) as rec:
        model(tokens[:, 6:], past_key_values=cache)
    check_run(rec.run, SELF - with_means(OF_IDS))
    assert rec.run.samples[0].sequences["main"].ids[:6].tolist() == [-1] * 6
    cache = DynamicCache()
    model(tokens[:, :6], past_key_values=cache)
    with pytest.raises(ap.UnsupportedCall, match="duplicate needs all token ids"), both(model, "duplicate"):
        model(tokens[:, 6:], past_key_values=cache)


# --- the largest weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "keys", "dtype"), [
    (5, "all", "float32"), (1, "2:6", "float32"), (30, "all", "float16"), (4, ":3", "bfloat16"),
])  # fmt: skip
@torch.no_grad()
def test_top_k_of_a_model(model: Any, k: int, keys: str, dtype: str) -> None:
    with ap.record(model, keep=[ap.Weights(), ap.TopK("all", k, keys=keys, dtype=dtype)]) as rec:
        model.generate(**models.padded([14, 9], "left"), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
    for sample in rec.run.samples:
        held = {
            (field.site, field.what): (field, pieces) for field, pieces in rec.run.reader.fields(sample.index).items()
        }
        length = sample.sequences["main"].length
        for site in rec.run.sites:
            values, at, rest = (
                read_rows(rec.run.reader, *held[site, what], range(2), range(length), range(1 if "rest" in what else k))
                for what in ("top", "top_keys", "top_rest")
            )
            assert at.dtype == np.int32 and held[site, "top"][0].dtype == dtype
            bounds = slice(*(int(n) if n else None for n in keys.replace("all", ":").split(":")))
            for head, whole in maps_of(rec.run, sample, *held[site, "weights"]).items():
                want = reference.top(whole, k, bounds)
                stored = torch.from_numpy(want[0]).float().to(getattr(torch, dtype)).float().numpy()
                assert (values[head].astype(np.float32) == stored).all()
                assert (at[head] == want[1]).all()
                assert np.allclose(rest[head, :, 0], want[2], atol=1e-6)


@pytest.mark.parametrize("k", [0, -1, 4097, 2.5, True, "5"])
@pytest.mark.usefixtures("unchecked")
def test_a_k_that_is_no_count_is_refused(k: Any) -> None:
    with pytest.raises(ap.SelectionError, match="keep 1 to 4096 weights a row"):
        ap.TopK("all", k)


# --- measures of one's own -------------------------------------------------------------------------------------------


@row_measure(unit="mass", formula="w_i0 + w_i1", source="here")
def first_two(rows: SampleRows) -> torch.Tensor:
    """Mass on the first two keys."""
    return rows.clip(0, 2).sum(-1)


class Squares:
    """Sum of squared weights that each key receives."""

    name, unit, formula, source = "squares", "mass", "sum_i w_ij^2", "here"
    needs, axes, dtype = frozenset(), ("key",), "float32"

    def init(self, heads: int, rows: SampleRows) -> torch.Tensor:
        return torch.zeros(heads, 64)

    def update(self, state: torch.Tensor, rows: SampleRows) -> torch.Tensor:
        state[rows.at, rows.start : rows.stop] += rows.weights.square().sum(1)
        return state

    def merge(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first + second

    def finalize(self, state: torch.Tensor, query_length: int, key_length: int) -> torch.Tensor:
        return state[:, :key_length]


@torch.no_grad()
def test_measures_of_ones_own_are_kept_beside_the_others_and_marked(model: Any) -> None:
    with both(model, [first_two, "entropy", Squares()]) as rec:
        model.generate(**models.padded([14, 9], "left"), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
    described = {one["name"]: one for one in rec.run.manifest.keep[1]["measures"]}
    assert described["first_two"] == {"name": "first_two", "unit": "mass", "axes": ["query"], "own": True}
    assert described["squares"]["own"] and "own" not in described["entropy"]
    for sample in rec.run.samples:
        fields = {(f.site, f.what): (f, pieces) for f, pieces in rec.run.reader.fields(sample.index).items()}
        length = range(sample.sequences["main"].length)
        assert {what for _, what in fields} == {"weights", "squares", *with_means({"entropy", "first_two"})}
        for site in rec.run.sites:
            two = read_rows(rec.run.reader, *fields[site, "first_two"], range(2), length, range(1))[..., 0]
            squares = read_rows(rec.run.reader, *fields[site, "squares"], range(2), length, range(1))[..., 0]
            for head, whole in maps_of(rec.run, sample, *fields[site, "weights"]).items():
                assert np.allclose(two[head], whole.weights[:, :2].sum(-1), atol=1e-6)
                assert np.allclose(squares[head], (whole.weights**2).sum(0), atol=1e-5)


class Cut(Squares):
    def finalize(self, state: torch.Tensor, query_length: int, key_length: int) -> torch.Tensor:
        return state[0]


class TooLong(Squares):
    def finalize(self, state: torch.Tensor, query_length: int, key_length: int) -> torch.Tensor:
        return state[:, : key_length + 3]


class Scaled(Squares):
    def update(self, state: torch.Tensor, rows: SampleRows) -> torch.Tensor:
        rows.weights.mul_(2)
        return state


@pytest.mark.parametrize(
    "own", [Scaled(), row_measure("", "", "", name="twice")(lambda rows: rows.weights.mul_(2).sum(-1))]
)
@torch.no_grad()
def test_a_measure_that_writes_into_the_weights_is_refused_and_named(model: Any, own: Any) -> None:
    with pytest.raises(ap.SelectionError, match=f"the measure {own.name} writes into rows.weights"):
        with ap.record(model, keep=[ap.Weights(), ap.Measures("all", own)]):
            model(models.ids(1, 9))


@torch.no_grad()
def test_a_row_measure_that_needs_the_prompts_end_is_refused_where_it_is_not_known(model: Any) -> None:
    own = row_measure("", "", "", needs=("prompt",), name="left")(lambda rows: rows.peak * rows.prompt_length)
    cache = DynamicCache()
    with pytest.raises(ap.UnsupportedCall, match="left needs the prompt's end"):
        with ap.record(model, measures=own):
            model(models.ids(1, 6), past_key_values=cache)
            model(models.ids(1, 6), past_key_values=cache)


@torch.no_grad()
def test_working_memory_is_given_back_at_the_end(model: Any) -> None:
    with ap.record(model, measures="default") as rec:
        model(models.ids(1, 40))
        assert rec._observer._scratch.sizes()
    assert not rec._observer._scratch.sizes()


@pytest.mark.parametrize(("own", "words"), [
    (row_measure("", "", "", name="whole")(lambda rows: rows.weights), r"whole gave \[2, 9, 9\], .* \[2, 9\]"),
    (row_measure("", "", "", name="flat")(lambda rows: rows.peak.sum()), r"flat gave \[\], .*\[head, query\]"),
    (row_measure("", "", "", name="none")(lambda rows: None), "none gave NoneType"),
    (row_measure("", "", "", name="number")(lambda rows: 0.5), "number gave float"),
    (TooLong(), r"squares gave \[2, 12\], .*\[head, key\] \[2, 9\]"),
    (Cut(), r"squares gave \[64\], .*\[head, key\]"),
])  # fmt: skip
@torch.no_grad()
def test_a_measure_that_gives_another_shape_is_named(model: Any, own: Any, words: str) -> None:
    with pytest.raises(ap.SelectionError, match=words):
        with ap.record(model, measures=own):
            model(models.ids(1, 9))


# --- refused ---------------------------------------------------------------------------------------------------------


def test_an_unknown_measure_is_refused_before_there_is_a_model() -> None:
    with pytest.raises(ap.SelectionError, match="no measure 'nonsense'; there are entropy"):
        ap.Measures("all", names=["nonsense"])


@torch.no_grad()
def test_a_budget_under_one_row_block_is_refused(model: Any) -> None:
    with pytest.raises(ap.BudgetError, match=r"raise budget= \(--budget\) to at least"):
        with ap.record(model, measures="all", budget="1 kB"):
            model(models.ids(2, 64))
