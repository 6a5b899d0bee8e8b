"""Samples: which sequence a batch row is, where a forward pass continues one, and when one ends."""

import gc
import threading
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
from transformers import DynamicCache, GenerationConfig, StaticCache

import attnprobe as ap
from attnprobe.copies import Copies
from attnprobe.cut import cut
from attnprobe.samples import first_occurrence


@pytest.fixture
def model() -> Any:
    return models.gpt2()


def lengths(run: ap.Run) -> list[int]:
    return [sample.sequences["main"].length for sample in run.samples]


@torch.no_grad()
def test_padding_is_not_part_of_a_sample(model: Any) -> None:
    batch = models.padded([10, 4], "left")
    with ap.record(model) as rec:
        model(**batch)
    assert lengths(rec.run) == [10, 4]
    assert rec.run.samples[1].sequences["main"].ids.tolist() == batch["input_ids"][1, 6:].tolist()


@torch.no_grad()
def test_positions_are_kept_where_they_do_not_count_from_zero(model: Any) -> None:
    batch = models.padded([10, 4], "left")
    with ap.record(model) as rec:
        model(**batch)
        model(**batch, position_ids=models.positions(batch["attention_mask"]))
    told = [sample.sequences["main"].positions for sample in rec.run.samples]
    assert told[0] is None
    assert told[1].tolist() == [6, 7, 8, 9], "without position_ids, GPT-2 counts padding too"
    assert told[2] is told[3] is None


@torch.no_grad()
def test_a_sample_ends_when_its_cache_is_freed(model: Any) -> None:
    with ap.record(model) as rec:
        out = model(models.ids(1, 5))
        assert len(rec._store.samples) == 0
        del out
        gc.collect()
        model(models.ids(1, 6), use_cache=False)
        assert [s.sequences["main"].length for s in rec._store.samples] == [5, 6]


@torch.no_grad()
def test_two_caches_grow_side_by_side(model: Any) -> None:
    a, b = models.ids(1, 10, seed=1), models.ids(1, 12, seed=2)
    with ap.record(model) as rec:
        cache_a, cache_b = DynamicCache(), DynamicCache()
        model(a[:, :6], past_key_values=cache_a)
        model(b[:, :7], past_key_values=cache_b)
        model(a[:, 6:], past_key_values=cache_a)
        model(b[:, 7:], past_key_values=cache_b)
    assert lengths(rec.run) == [10, 12]
    for i, tokens in enumerate((a, b)):
        want = models.eager(model, input_ids=tokens).attentions
        assert np.abs(rec.run.sample(i)[2, 1].numpy() - want[2][0, 1].numpy()).max() <= checks.TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_a_cache_filled_before_the_block_starts_a_sample_at_its_length(model: Any, static: bool) -> None:
    tokens = models.ids(1, 10)
    cache = StaticCache(config=model.config, max_cache_len=16) if static else DynamicCache()
    model(tokens[:, :6], past_key_values=cache)
    with ap.record(model) as rec:
        model(tokens[:, 6:], past_key_values=cache)
    sequence = rec.run.samples[0].sequences["main"]
    assert sequence.ids.tolist() == [-1] * 6 + tokens[0, 6:].tolist()
    want = models.eager(model, input_ids=tokens).attentions[1][0, 1].numpy()
    head = rec.run[1, 1]
    assert head.kept == (6, 7, 8, 9)
    assert np.abs(head[6:] - want[6:]).max() <= checks.TOLERANCE
    with pytest.raises(ap.NotKept, match="row 0 .* kept are rows 6 to 9"):
        head[:]


@torch.no_grad()
def test_a_cache_that_was_cropped_starts_a_new_sample(model: Any) -> None:
    tokens = models.ids(1, 9)
    with ap.record(model) as rec:
        cache = model(tokens[:, :6]).past_key_values
        cache.crop(-2)
        model(tokens[:, 4:], past_key_values=cache)
    assert lengths(rec.run) == [6, 9]
    want = models.eager(model, input_ids=tokens).attentions[0][0, 0].numpy()
    assert np.abs(rec.run.sample(1)[0, 0][4:] - want[4:]).max() <= checks.TOLERANCE


@torch.no_grad()
def test_right_padding_that_is_generated_behind(model: Any) -> None:
    batch = models.padded([6, 3], "right")
    step = models.ids(2, 1, seed=9)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
    with ap.record(model) as rec:
        cache = model(**batch).past_key_values
        model(step, past_key_values=cache, attention_mask=mask)
    assert lengths(rec.run) == [7, 4]
    fed = torch.cat([batch["input_ids"], step], 1)
    want = models.eager(model, input_ids=fed, attention_mask=mask).attentions
    checks.assert_same(rec.run, want, mask)


@torch.no_grad()
def test_a_sequence_that_generate_finished_ends_there(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = models.ids(2, 6)
    free = model.generate(prompt, max_new_tokens=8, min_new_tokens=8, pad_token_id=0)
    stop = int(free[0, 8])
    with ap.record(model) as rec:
        out = model.generate(prompt, max_new_tokens=8, pad_token_id=0, eos_token_id=stop)
    for b, sample in enumerate(rec.run.samples):
        generated = out[b, 6:].tolist()
        fed = generated[: generated.index(stop) + 1] if stop in generated[:-1] else generated[:-1]
        ids = sample.sequences["main"].ids.tolist()
        assert ids == prompt[b].tolist() + fed[: len(ids) - 6]
        assert 0 not in ids[6:] or 0 in fed
        assert len(ids) in (6 + len(fed), 6 + len(fed) - 1)


@torch.no_grad()
def test_several_turns_on_one_cache_are_one_sample(model: Any) -> None:
    cache = DynamicCache()
    with ap.record(model) as rec:
        first = model.generate(
            models.ids(1, 6), max_new_tokens=3, min_new_tokens=3, pad_token_id=0, past_key_values=cache
        )
        second = torch.cat([first, models.ids(1, 4, seed=8)], 1)
        out = model.generate(second, max_new_tokens=3, min_new_tokens=3, pad_token_id=0, past_key_values=cache)
    assert rec.run.samples[0].sequences["main"].ids.tolist() == out[0, :-1].tolist()
    assert rec.run.samples[0].prompt_length == 6
    want = models.eager(model, input_ids=out[:, :-1]).attentions
    checks.assert_same(rec.run, want, torch.ones_like(out[:, :-1]))


@torch.no_grad()
def test_several_returned_sequences_are_several_samples(model: Any) -> None:
    torch.manual_seed(0)
    with ap.record(model) as rec:
        out = model.generate(
            models.ids(1, 6), max_new_tokens=4, min_new_tokens=4, do_sample=True, num_return_sequences=3, pad_token_id=0
        )
    assert [s.sequences["main"].ids.tolist() for s in rec.run.samples] == out[:, :-1].tolist()


@torch.no_grad()
def test_names_and_prompts_are_told(model: Any) -> None:
    with ap.record(model) as rec:
        with rec.sample("pair"):
            model(models.ids(2, 5))
        model(models.ids(1, 6))
        with rec.sample("last", prompt_length=4):
            model(models.ids(1, 7))
    assert [s.id for s in rec.run.samples] == ["pair/0", "pair/1", "2", "last"]
    assert [s.prompt_length for s in rec.run.samples] == [5, 5, 6, 4]
    assert rec.run.sample("last")[0, 0].shape == (7, 7)


@torch.no_grad()
def test_one_name_is_for_one_sample(model: Any) -> None:
    with pytest.raises(ap.UnsupportedCall, match="name each one"), ap.record(model) as rec, rec.sample("one"):
        model(models.ids(1, 5))
        model(models.ids(1, 5))


@torch.no_grad()
@pytest.mark.parametrize("to", [None, "run"])
def test_samples_that_are_told_no_place_take_those_that_are_free(model: Any, to: Any, tmp_path: Any) -> None:
    with ap.record(model, to=to and tmp_path / to) as rec:
        with rec.sample(id="x", index=1):
            model(models.ids(1, 4), use_cache=False)
        for length in (5, 6):
            model(models.ids(1, length), use_cache=False)
        with rec.sample(index=[4, 3]):
            model(models.ids(2, 7), use_cache=False)
        model(models.ids(2, 8), use_cache=False)
    found = [(s.index, s.id, s.main.length) for s in rec.run.samples]
    assert found == [(0, "0", 5), (1, "x", 4), (2, "2", 6), (3, "3", 7), (4, "4", 7), (5, "5", 8), (6, "6", 8)]


@torch.no_grad()
@pytest.mark.parametrize("growing", [False, True])
def test_a_place_that_is_told_twice_is_refused_and_the_rest_goes_on(model: Any, growing: bool, tmp_path: Any) -> None:
    with ap.record(model, to=tmp_path / "run") as rec:
        model(models.ids(1, 4), use_cache=False)
        with rec.sample(index=2):
            cache = model(models.ids(1, 5), use_cache=growing).past_key_values
        for places in (0, 2):
            with pytest.raises(ap.UnsupportedCall, match=rf"index={places}\): an earlier sample .* has that place"):
                with rec.sample(index=[7, places]):
                    model(models.ids(2, 6), use_cache=False)
        with rec.sample(index=[7, 8]):
            model(models.ids(2, 6), use_cache=False)
        del cache
    assert [(s.index, s.main.length) for s in rec.run.samples] == [(0, 4), (2, 5), (7, 6), (8, 6)]


@torch.no_grad()
def test_a_place_is_free_again_where_nothing_was_kept(model: Any, tmp_path: Any) -> None:
    with ap.record(model, to=tmp_path / "run") as rec:
        with pytest.raises(IndexError), rec.sample(id="a", index=3):
            model(torch.full((1, 4), 10_000))
        with rec.paused(), rec.sample(id="a", index=3):
            model(models.ids(1, 5), use_cache=False)
        with rec.sample(id="a", index=3):
            model(models.ids(1, 6), use_cache=False)
    assert [(s.index, s.id, s.main.length) for s in rec.run.samples] == [(3, "a", 6)]


@torch.no_grad()
def test_a_failed_forward_that_is_caught_leaves_the_others_whole(model: Any) -> None:
    with ap.record(model) as rec:
        model(models.ids(1, 5))
        with pytest.raises(IndexError):
            model(torch.full((1, 4), 10_000))
        with pytest.raises(ap.UnsupportedCall):
            model(models.ids(1, 65))
        model(models.ids(1, 6))
    assert lengths(rec.run) == [5, 6]


@torch.no_grad()
def test_a_fully_padded_row_is_no_sample(model: Any) -> None:
    batch = models.padded([5, 0], "left")
    with ap.record(model) as rec:
        model(**batch)
    assert lengths(rec.run) == [5]


@torch.no_grad()
def test_output_as_a_tuple_is_read_too(model: Any) -> None:
    tokens = models.ids(1, 8)
    with ap.record(model) as rec:
        cache = model(tokens[:, :5], return_dict=False)[1]
        model(tokens[:, 5:], past_key_values=cache, return_dict=False)
    assert lengths(rec.run) == [8]


@torch.no_grad()
def test_a_cache_that_is_given_but_not_returned_continues_its_sample(model: Any) -> None:
    tokens, cache = models.ids(1, 9), DynamicCache()
    with ap.record(model) as rec:
        model(tokens[:, :5], past_key_values=cache, use_cache=False)
        model(tokens[:, 5:], past_key_values=cache, use_cache=False)
    assert lengths(rec.run) == [9]
    want = models.eager(model, input_ids=tokens).attentions
    checks.assert_same(rec.run, want, torch.ones_like(tokens))


def test_without_text_only_repeats_are_told() -> None:
    assert first_occurrence(np.array([7, 3, 7, 9, 3])).tolist() == [0, 1, 0, 2, 1]
    assert first_occurrence(np.array([-1, -1, 7, 3, 7])).tolist() == [-1, -1, 0, 1, 0]


@torch.no_grad()
def test_no_text_keeps_no_ids_and_no_strings(model: Any, tmp_path: Any) -> None:
    tokens = torch.tensor([[40, 41, 40, 42]])
    with ap.record(model, to=tmp_path / "run", text=False):
        model(tokens)
    sequence = ap.open(tmp_path / "run").samples[0].sequences["main"]
    assert sequence.ids.tolist() == [0, 1, 0, 2]
    assert sequence.tokens is None


@torch.no_grad()
def test_many_small_samples_are_listed_in_order(model: Any, tmp_path: Any) -> None:
    with ap.record(model, to=tmp_path / "run", layers=0, heads=0) as rec:
        for i in range(1, 30):
            model(models.ids(1, i), use_cache=False)
    assert lengths(rec.run) == list(range(1, 30))


@torch.no_grad()
def test_a_second_turn_may_hold_the_end_token_of_the_first(model: Any) -> None:
    cache, prompt = DynamicCache(), models.ids(1, 6)
    free = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
    stop = int(free[0, 8])
    with ap.record(model) as rec:
        options = {"max_new_tokens": 4, "pad_token_id": 0, "past_key_values": cache}
        first = model.generate(prompt, eos_token_id=stop, **options)
        second = torch.cat([first, models.ids(1, 3, seed=5)], 1)
        out = model.generate(second, eos_token_id=models.END, **options)
    assert stop in second[0, 6:].tolist()
    assert rec.run.samples[0].sequences["main"].ids.tolist() == out[0, :-1].tolist()


def unequal_ends(model: Any) -> tuple[torch.Tensor, int]:
    """Prompts of two rows, and a token that only the first one generates, and soon."""
    for seed in range(50):
        prompt = models.ids(2, 6, seed)
        free = model.generate(prompt, max_new_tokens=6, min_new_tokens=6, pad_token_id=0)
        for token in free[0, 6:9].tolist():
            if token not in free[1].tolist():
                return prompt, token
    raise AssertionError("no such prompt")


@torch.no_grad()
def test_a_row_that_ended_cannot_go_on_in_a_later_turn(model: Any) -> None:
    cache, (prompt, stop) = DynamicCache(), unequal_ends(model)
    with pytest.raises(ap.UnsupportedCall, match="ended in an earlier generation"), ap.record(model):
        first = model.generate(prompt, max_new_tokens=6, pad_token_id=0, eos_token_id=stop, past_key_values=cache)
        second = torch.cat([first, models.ids(2, 3)], 1)
        model.generate(second, max_new_tokens=2, pad_token_id=0, past_key_values=cache)


@torch.no_grad()
def test_an_end_token_of_the_models_own_configuration_counts(model: Any) -> None:
    prompt, model.generation_config.eos_token_id = unequal_ends(model)
    with ap.record(model) as rec:
        model.generate(prompt, generation_config=GenerationConfig(max_new_tokens=6, pad_token_id=0))
    lengths_ = lengths(rec.run)
    assert lengths_[0] < lengths_[1] == 11


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_a_cache_that_was_reordered_is_refused(model: Any, static: bool) -> None:
    cache = StaticCache(config=model.config, max_cache_len=16) if static else DynamicCache()
    tokens = models.ids(2, 8)
    with pytest.raises(ap.UnsupportedCall, match="changed between forward passes"), ap.record(model):
        model(tokens[:, :6], past_key_values=cache)
        cache.reorder_cache(torch.tensor([1, 0]))
        model(tokens[:, 6:], past_key_values=cache)


@torch.no_grad()
def test_beams_that_go_past_the_recorder_are_refused(model: Any) -> None:
    with pytest.raises(ap.UnsupportedCall, match="changed between forward passes"), ap.record(model.transformer):
        model.generate(models.ids(1, 6), num_beams=3, max_new_tokens=5, pad_token_id=0)


@torch.no_grad()
def test_one_failing_sample_does_not_take_the_others_along(model: Any) -> None:
    with pytest.raises(ap.SelectionError, match="sample 0"), ap.record(model, queries=[20]) as rec:
        kept = [model(models.ids(1, n)) for n in (5, 30, 31)]
    assert len(kept) == 3
    assert lengths(rec.run) == [30, 31]


@torch.no_grad()
def test_packed_sequences_are_samples_of_their_own(model: Any) -> None:
    ids = models.ids(2, 9)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 0, 0, 1]])
    with ap.record(model) as rec:
        model(ids, position_ids=positions, use_cache=False)
    assert [s.sequences["main"].length for s in rec.run.samples] == [4, 6, 5, 3]
    assert all(rec.run.sample(i)[0, 0].numpy().sum(-1) == pytest.approx(1.0) for i in range(4))


@torch.no_grad()
def test_packed_rows_that_go_on_in_a_cache_are_refused(model: Any) -> None:
    cache = DynamicCache()
    with pytest.raises(ap.UnsupportedCall, match="pack sequences in one forward pass"), ap.record(model):
        model(models.ids(1, 4), past_key_values=cache)
        model(models.ids(1, 4), past_key_values=cache, position_ids=torch.tensor([[4, 5, 0, 1]]))


@torch.no_grad()
def test_a_chunk_of_one_token_is_no_generation_where_it_matters(model: Any) -> None:
    tokens, cache = models.ids(1, 9), DynamicCache()
    refused = pytest.raises(ap.UnsupportedCall, match="taken for the start of generation")
    with refused, ap.record(model, generated="none"):
        for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:]):
            model(part, past_key_values=cache)


@torch.no_grad()
def test_columns_that_no_sample_has_are_refused(model: Any) -> None:
    refused = pytest.raises(ap.SelectionError, match="keys '50:60' select no row or no column")
    with refused, ap.record(model, keys="50:60"):
        model(models.ids(1, 5))


class Lag(Copies):
    """Copies that land late, as on a device."""

    def land(self, wait: bool) -> None:
        if wait:
            super().land(wait=True)


@torch.no_grad()
@pytest.mark.parametrize("name", list(checks.SCENARIOS))
def test_copies_may_land_late(model: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnprobe.observer.Copies", Lag)
    checks.SCENARIOS[name](model)


@torch.no_grad()
def test_a_refusal_that_lands_late_drops_its_own_sample_only(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def stray(*arguments: Any) -> Any:
        if next(calls) == 1:
            raise ap.UnsupportedCall("stray")
        return cut(*arguments)

    monkeypatch.setattr("attnprobe.observer.Copies", Lag)
    monkeypatch.setattr("attnprobe.place.cut", stray)
    with pytest.raises(ap.UnsupportedCall, match="stray"), ap.record(model) as rec:
        model(models.ids(1, 6))
        model(models.ids(1, 8))
    assert lengths(rec.run) == [8]
    assert rec.run[2, 3].numpy().shape == (8, 8)


def test_two_threads_generate_at_once(model: Any) -> None:
    barrier = threading.Barrier(2)

    def work(length: int) -> None:
        with torch.no_grad():
            barrier.wait()
            model.generate(models.ids(1, length, seed=length), max_new_tokens=6, min_new_tokens=6, pad_token_id=0)

    with ap.record(model, threads="all") as rec:
        threads = [threading.Thread(target=work, args=(length,)) for length in (6, 12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted((s.sequences["main"].length, s.prompt_length) for s in rec.run.samples) == [(11, 6), (17, 12)]


@torch.no_grad()
def test_a_kept_row_does_not_hold_its_batch(model: Any) -> None:
    batch = models.padded([64, 1, 1, 1, 1, 1, 1, 1], "left")
    with ap.record(model) as rec:
        model(**batch)
    reader, held = rec.run.reader, {}
    for sample in rec.run.samples:
        for pieces in reader.fields(sample.index).values():
            for piece in pieces:
                storage = piece.place.untyped_storage()
                held[storage.data_ptr()] = storage.nbytes()
    assert sum(held.values()) <= 1.01 * rec.run.nbytes
