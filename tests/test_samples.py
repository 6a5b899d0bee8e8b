"""Samples: which sequence a batch row is, where a forward pass continues one, and when one ends."""

import gc
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache

import attnprobe as ap
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
