"""Plans of models in which several sequences run: an encoder, a tower, cross-attention."""

import json
from typing import Any

import models
import pytest
import torch
from click.testing import CliRunner
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

import attnprobe as ap
from attnprobe.cli import main
from attnprobe.planning import Load, Planner, Room, free
from attnprobe.sites import find_sites

MIB = 1 << 20
TOKENS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PART = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def t5() -> Any:
    config = T5Config(**TOKENS, d_model=32, d_kv=8, d_ff=32, num_layers=3, num_heads=4, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def bart() -> Any:
    layers = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
    config = BartConfig(**TOKENS, d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, **layers)
    return BartForConditionalGeneration(config).eval()


def clip() -> Any:
    vision = {**PART, "image_size": 32, "patch_size": 4}
    config = CLIPConfig(text_config={**PART, **TOKENS}, vision_config=vision, projection_dim=32)
    return CLIPModel(config).eval()


def recorded(model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> ap.Run:
    with torch.no_grad(), ap.record(model, **options) as rec:
        model(**inputs)
    return rec.run


ITEMS = [
    [ap.Weights()],
    [ap.Weights(queries="-7:", dtype="float16")],
    [ap.TopK(k=5)],
    [ap.Measures(names="received,max,pooled", queries="3:")],
]


@pytest.mark.parametrize("keep", ITEMS, ids=str)
@pytest.mark.parametrize("make", [t5, bart])
def test_an_encoder_is_as_long_as_its_source(make: Any, keep: list[Any]) -> None:
    model = make()
    inputs = {"input_ids": models.ids(2, 150) % 60 + 3, "decoder_input_ids": models.ids(2, 21) % 60 + 3}
    run = recorded(model, inputs, keep=keep, budget="4 MiB")
    plan = ap.plan(model, 21, batch=2, source=150, keep=keep, budget="4 MiB")
    assert plan.nbytes == run.nbytes > 0 and not plan.uncounted


@pytest.mark.parametrize("keep", ITEMS, ids=str)
def test_a_tower_is_as_long_as_its_image(keep: list[Any]) -> None:
    model, inputs = clip(), {"input_ids": models.ids(2, 9) % 60 + 3, "pixel_values": torch.randn(2, 3, 32, 32)}
    run = recorded(model, inputs, keep=keep)
    assert ap.plan(model, 9, batch=2, others={"image": 65}, keep=keep).nbytes == run.nbytes > 0


def test_a_model_of_images_alone() -> None:
    model = ViTModel(ViTConfig(**PART, image_size=32, patch_size=4)).eval()
    run = recorded(model, {"pixel_values": torch.randn(2, 3, 32, 32)})
    assert ap.plan(model, 65, batch=2).nbytes == run.nbytes == 2 * 2 * 4 * 65 * 65 * 4


def test_generated_tokens_lengthen_the_decoder_alone() -> None:
    model, ids = t5(), models.ids(1, 40) % 60 + 3
    model.generation_config.eos_token_id = None
    with torch.no_grad(), ap.record(model) as rec:
        model.generate(ids, max_new_tokens=12, do_sample=False)
    assert ap.plan(model, 1, source=40, generate=12).nbytes == rec.run.nbytes


def test_what_was_not_told_is_not_counted_and_said() -> None:
    plan = ap.plan(t5(), 21)
    assert plan.uncounted == ("source",) and plan.to_dict()["uncounted"] == ["source"]
    assert plan.nbytes == 3 * 4 * 21 * 21 * 4
    assert "not counted: source" in repr(plan)
    assert "source of 512" in repr(ap.plan(t5(), 21, source=512))


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (t5, {"others": {"image": 5}}, r"no sequence 'image' beside its tokens; it has \['source'\]"),
        (models.gpt2, {"source": 5}, "no sequence 'source'.*it has none"),
        (bart, {"source": 2000}, "2,000 tokens do not fit the context window of 1,024"),
        (clip, {"others": {"image": 0}}, "tokens=0"),
    ],
)
def test_what_has_no_meaning_is_refused(model: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ap.SelectionError, match=words):
        ap.plan(model(), 8, **options)


def test_an_encoder_that_does_not_fit_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free, "host", lambda: 24 * MIB)
    model, ran = t5(), []
    model.encoder.block[0].layer[0].SelfAttention.q.register_forward_hook(lambda *_: ran.append(1))
    inputs = {"input_ids": models.ids(1, 900) % 60 + 3, "decoder_input_ids": models.ids(1, 4) % 60 + 3}
    with pytest.raises(ap.BudgetError, match="3 sites and 900 tokens do not fit"), ap.record(model, budget="1 MiB"):
        model(**inputs)
    assert not ran
    # A decoder of few tokens is not taken to be as long as its source.
    assert recorded(model, inputs, kind="cross", budget="1 MiB").nbytes == 3 * 4 * 4 * 900 * 4


@pytest.mark.parametrize("keep", ITEMS, ids=str)
@pytest.mark.parametrize("stream", ["main", "source", None])
def test_the_quick_limit_is_never_below_the_plan(keep: list[Any], stream: str | None) -> None:
    model = bart()
    planner = Planner(model, find_sites(model), keep, 4 * MIB, None, stream=stream)
    load = Load(2, 700, name="source") if stream == "source" else Load(2, 100, others=(("source", 700),))
    assert planner._limit.of(load).host >= planner._plan(load, 0, Room()).need.host > 0


def test_operations_of_a_forward_count_each_part_at_its_length() -> None:
    model = t5()
    short, long = (ap.plan(model, 10, source=source) for source in (10, 20))
    matrices = sum(
        p.numel() for n, p in model.encoder.named_parameters() if p.dim() > 1 and "embed" not in n and "bias" not in n
    )
    assert (long.forward - long.attention) - (short.forward - short.attention) == 2 * 10 * matrices


def test_the_command_takes_lengths_by_name(tmp_path: Any) -> None:
    for name, model in (("t5", t5()), ("clip", clip())):
        model.save_pretrained(tmp_path / name)
    told = CliRunner().invoke(main, ["plan", str(tmp_path / "t5"), "--tokens", "21", "--source", "150", "--json"])
    assert json.loads(told.stdout)["nbytes"] == ap.plan(t5(), 21, source=150).nbytes
    told = CliRunner().invoke(main, ["plan", str(tmp_path / "clip"), "--tokens", "9", "--other", "image=65", "--json"])
    assert json.loads(told.stdout)["others"] == {"image": 65}
    refused = CliRunner().invoke(main, ["plan", str(tmp_path / "clip"), "--tokens", "9", "--other", "image"])
    assert refused.exit_code == 2 and "NAME=N" in refused.stderr
