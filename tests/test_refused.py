"""Promise 5: what cannot be recorded exactly is refused, with an error that names the fix."""

import re
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from transformers import DynamicCache, MambaConfig, MambaModel, RwkvConfig, RwkvModel

import attnprobe as ap


@pytest.fixture
def model() -> Any:
    return models.gpt2()


def test_a_model_without_known_attention() -> None:
    with pytest.raises(ap.UnsupportedModel, match=r"no attention module of a known kind in Linear: none uses"):
        ap.record(torch.nn.Linear(2, 2))
    mamba = MambaModel(MambaConfig(hidden_size=8, num_hidden_layers=1, state_size=4, vocab_size=8))
    with pytest.raises(ap.UnsupportedModel, match="MambaModel"):
        ap.record(mamba)
    rwkv = RwkvModel(RwkvConfig(hidden_size=64, num_hidden_layers=2, vocab_size=8))
    with pytest.raises(ap.UnsupportedModel, match=r"blocks\.0\.attention is a RwkvSelfAttention: it is no softmax"):
        ap.record(rwkv)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_model_and_no_weights(model: Any) -> None:
    with pytest.raises(ap.UnsupportedModel, match=r"takes a torch\.nn\.Module, not str"):
        ap.record("gpt2")  # type: ignore[arg-type]
    with pytest.raises(ap.SelectionError, match=r"keep holds 'L0H1'; write keep=\[Weights"):
        ap.record(model, keep=["L0H1"])  # type: ignore[list-item]


def test_of_two_models_in_one_module_those_that_run_are_recorded() -> None:
    both = torch.nn.ModuleList([models.gpt2(), models.gpt2()])
    with torch.no_grad(), ap.record(both) as rec:
        both[1](models.ids(1, 5))
    (sample,) = rec.run.samples
    assert [site.key.partition(".")[0] for site in rec.run.sample(0).sites] == ["1"] * 3 and sample.main.length == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layers": 3}, r"layer 3 is out of range: there are 3 \(layers 0 to 2\)"),
        ({"layers": "0,7"}, r"layer 7 is out of range"),
        ({"heads": "4"}, r"head 4 is out of range: there are 4 \(heads 0 to 3\)"),
        ({"layers": "L5H1"}, r"layer 5 is out of range"),
        ({"layers": {0: [9]}}, r"head 9 is out of range"),
        ({"layers": []}, "empty"),
        ({"layers": "5:"}, "select nothing"),
        ({"kind": "cross"}, "nothing is selected"),
        ({"kind": "both"}, '"self" or "cross"'),
        ({"generated": "some"}, '"all" or "none"'),
        ({"dtype": "int8"}, "float32, float16, bfloat16"),
        ({"engine": "fast"}, "auto, dense, torch"),
        ({"threads": "some"}, '"own" or "all"'),
        ({"budget": "much"}, "256 MiB"),
        ({"keep": []}, "keep is empty"),
        ({"keep": [ap.Weights()], "layers": 1}, "layers beside keep="),
    ],
)
def test_selections_and_settings(model: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.SelectionError, match=message):
        ap.record(model, **words)


def test_upcast_attention_on_eager() -> None:
    with pytest.raises(ap.UnsupportedModel, match='reorder_and_upcast_attn.*attn_implementation="sdpa"'):
        ap.record(models.gpt2(attention="eager", reorder_and_upcast_attn=True))


@pytest.mark.parametrize("name", ["my_own", "paged|sdpa", "paged|flash_attention_2", "kernels-community/paged-flash"])
def test_backends_that_have_no_known_meaning(model: Any, name: str) -> None:
    model.config._attn_implementation = name
    with pytest.raises(ap.UnsupportedModel, match=f'{re.escape(name)}.*attn_implementation="sdpa"'):
        ap.record(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "num_beams=1"),
        ({"use_cache": False}, "use_cache=True"),
        ({"prompt_lookup_num_tokens": 3}, "leave it out"),
    ],
)
def test_ways_to_generate(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.UnsupportedCall, match=message), ap.record(model):
        model.generate(models.ids(1, 5), max_new_tokens=3, pad_token_id=0, **options)
    model.generation_config.num_beams = 3
    with pytest.raises(ap.UnsupportedCall, match="num_beams=1"), ap.record(model):
        model.generate(models.ids(1, 5), max_new_tokens=3, pad_token_id=0)


def test_a_text_longer_than_the_context_window(model: Any) -> None:
    with pytest.raises(ap.UnsupportedCall, match="65 tokens do not fit the context window of 64"), ap.record(model):
        model(models.ids(1, 65))


def test_rows_from_the_end_of_a_prompt_in_chunks_need_its_length(model: Any) -> None:
    tokens, cache = models.ids(1, 9), DynamicCache()
    with torch.no_grad(), pytest.raises(ap.UnsupportedCall, match=r"rec\.sample\(prompt_length="):
        with ap.record(model, queries="-2:"):
            model(tokens[:, :5], past_key_values=cache)
            model(tokens[:, 5:], past_key_values=cache)
    cache = DynamicCache()
    with torch.no_grad(), ap.record(model, queries="-2:") as rec, rec.sample("book", prompt_length=9):
        model(tokens[:, :5], past_key_values=cache)
        model(tokens[:, 5:], past_key_values=cache)
    assert rec.run[0, 0].kept == (7, 8)
    assert rec.run.samples[0].id == "book"


def test_rows_that_no_sample_has(model: Any) -> None:
    with torch.no_grad(), pytest.raises(ap.SelectionError, match="select no row or no column of sample 0, which has 5"):
        with ap.record(model, queries=20):
            model(models.ids(1, 5))


def test_a_block_in_which_the_model_did_not_run(model: Any) -> None:
    with pytest.raises(ap.NothingRecorded, match="did not run inside of the block"), ap.record(model):
        pass


def test_a_selected_site_that_was_never_seen() -> None:
    model = models.cross_gpt2()
    with torch.no_grad(), pytest.raises(ap.NothingRecorded, match="3 of 3 selected sites.*pass encoder_hidden_states"):
        with ap.record(model, kind="cross"):
            model(models.ids(1, 5))
    with torch.no_grad(), ap.record(model) as rec:
        model(models.ids(1, 5))
    assert {site.kind for site in rec.run.sample(0).sites} == {"self"}, "cross-attention had nothing to look at"
    with torch.no_grad(), pytest.raises(ap.NothingRecorded, match="1 of 3 selected sites.*select the layers that run"):
        with ap.record(models.gpt2()) as rec:
            skipped = rec._model.transformer.h
            skipped[1].forward = lambda hidden, *_, **__: hidden
            rec._model(models.ids(1, 5))


def test_a_backend_that_is_switched_inside_of_the_block(model: Any) -> None:
    with torch.no_grad(), pytest.raises(ap.NothingRecorded, match="never seen"), ap.record(model):
        model.set_attn_implementation("eager")
        model(models.ids(1, 5))


def test_an_attention_module_run_by_itself(model: Any) -> None:
    with torch.no_grad(), pytest.raises(ap.UnsupportedCall, match="outside of GPT2Model"), ap.record(model):
        model.transformer.h[0].attn(torch.randn(1, 5, 64))


def test_a_mask_that_changes_what_was_told(model: Any) -> None:
    tokens = models.ids(1, 8)
    with torch.no_grad(), pytest.raises(ap.UnsupportedCall, match="changes slot 0.*as a token"), ap.record(model):
        cache = model(tokens[:, :6]).past_key_values
        mask = torch.ones(1, 8, dtype=torch.long)
        mask[0, 0] = 0
        model(tokens[:, 6:], past_key_values=cache, attention_mask=mask)


def test_a_mask_that_is_too_short(model: Any) -> None:
    tokens = models.ids(1, 8)
    with torch.no_grad(), pytest.raises(ap.UnsupportedCall, match="2 wide.*6 cached and 2 new"), ap.record(model):
        cache = model(tokens[:, :6]).past_key_values
        model(tokens[:, 6:], past_key_values=cache, attention_mask=torch.ones(1, 2, dtype=torch.long))


def test_a_batch_that_changes_on_one_cache(model: Any) -> None:
    with torch.no_grad(), pytest.raises(ap.UnsupportedCall, match="batch of 2 and is used for one of 1"):
        with ap.record(model):
            cache = model(models.ids(2, 6)).past_key_values
            cache.batch_select_indices(torch.tensor([0]))
            model(models.ids(1, 1), past_key_values=cache)


def test_errors_inside_of_the_model_name_the_site(model: Any) -> None:
    with torch.no_grad(), pytest.raises(ap.BudgetError, match=r"at layer 0 \(self, transformer\.h\.0\.attn\)"):
        with ap.record(model, budget=100):
            model(models.ids(1, 40))


def test_a_directory_that_is_taken_or_cannot_be_written(model: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with torch.no_grad(), ap.record(model, to=run):
        model(models.ids(1, 5))
    with pytest.raises(ap.RunExists, match="overwrite=True"), ap.record(model, to=run):
        pass
    assert ap.open(run)[0, 0].shape == (5, 5)
    with torch.no_grad(), ap.record(model, to=run, overwrite=True):
        model(models.ids(1, 7))
    assert ap.open(run)[0, 0].shape == (7, 7)
    (tmp_path / "file").write_text("")
    with pytest.raises(ap.StoreError, match="choose another"), ap.record(model, to=tmp_path / "file" / "run"):
        pass


def test_a_recorder_is_used_once_and_inside_of_its_block(model: Any) -> None:
    rec = ap.record(model)
    with pytest.raises(ap.AttnprobeError, match="not open"), rec.paused():
        pass
    with torch.no_grad(), rec:
        model(models.ids(1, 5))
        with pytest.raises(ap.NotKept, match="once the block has ended"):
            _ = rec.run
    with pytest.raises(ap.AttnprobeError, match="call record\\(\\) again"), rec:
        pass


def test_a_failed_recording_gives_the_run_that_it_was_to_replace_back(model: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with torch.no_grad(), ap.record(model, to=run):
        model(models.ids(1, 5))
    for failing in ({"budget": 100}, {"queries": 50}):
        with torch.no_grad(), pytest.raises(ap.AttnprobeError), ap.record(model, to=run, overwrite=True, **failing):
            model(models.ids(1, 40))
        assert ap.open(run)[0, 0].numpy().shape == (5, 5)
    with torch.no_grad(), ap.record(model, to=run, overwrite=True):
        model(models.ids(1, 6))
    assert ap.open(run)[0, 0].numpy().shape == (6, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
