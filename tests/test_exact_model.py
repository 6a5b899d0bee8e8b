"""Promise 1, end to end: every layer, head and valid row against a separate eager run of the same model."""

from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
from transformers import GPT2DoubleHeadsModel, GPT2ForSequenceClassification, GPT2Model

import attnprobe as ap


@pytest.fixture(scope="module")
def model() -> Any:
    return models.gpt2()


@pytest.mark.parametrize("name", list(checks.SCENARIOS))
def test_recorded_beside_sdpa(model: Any, name: str) -> None:
    checks.SCENARIOS[name](model)


@pytest.mark.parametrize("name", ["no padding", "left", "right", "generate, left", "generate, static", "chunks"])
def test_recorded_on_eager(name: str) -> None:
    checks.SCENARIOS[name](models.gpt2(attention="eager"))


@pytest.mark.parametrize("settings", [
    {"scale_attn_by_inverse_layer_idx": True},
    {"scale_attn_weights": False, "initializer_range": 0.1},
    {"n_head": 1},
    {"reorder_and_upcast_attn": True},  # ignored on sdpa
])  # fmt: skip
def test_configurations(settings: dict[str, Any]) -> None:
    reference = {k: v for k, v in settings.items() if k != "reorder_and_upcast_attn"}
    model, plain = models.gpt2(**settings), models.gpt2(**reference)
    batch = models.padded([14, 9], "left")
    with torch.no_grad(), ap.record(model) as rec:
        model(**batch)
    checks.assert_same(rec.run, models.eager(plain, **batch).attentions, batch["attention_mask"])


@pytest.mark.parametrize("cls", [GPT2Model, GPT2ForSequenceClassification])
def test_other_classes(cls: type) -> None:
    model = models.gpt2(cls, pad_token_id=models.END)
    checks.forward(model, models.padded([14, 9], "right"))


def test_double_heads_has_a_sample_a_choice() -> None:
    model = models.gpt2(GPT2DoubleHeadsModel)
    tokens = models.ids(6, 12).view(2, 3, 12)
    with torch.no_grad(), ap.record(model) as rec:
        model(tokens, mc_token_ids=torch.full((2, 3), 11))
    flat = tokens.view(6, 12)
    assert len(rec.run.samples) == 6
    checks.assert_same(rec.run, models.eager(model.transformer, input_ids=flat).attentions, torch.ones_like(flat))


def test_several_forwards_are_several_samples(model: Any) -> None:
    texts = [models.ids(1, n, seed=n) for n in (5, 12, 9)]
    with torch.no_grad(), ap.record(model) as rec:
        for text in texts:
            model(text)
    assert [s.sequences["main"].length for s in rec.run.samples] == [5, 12, 9]
    for i, text in enumerate(texts):
        want = models.eager(model, input_ids=text).attentions
        assert np.abs(rec.run.sample(i)[2, 3].numpy() - want[2][0, 3].numpy()).max() <= checks.TOLERANCE


def test_cross_attention_is_a_site_of_its_own() -> None:
    model = models.cross_gpt2()
    batch = models.padded([10, 7], "left")
    states = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(5))
    seen = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    inputs = {**batch, "encoder_hidden_states": states, "encoder_attention_mask": seen}
    with torch.no_grad(), ap.record(model) as rec:
        model(**inputs)
    want = models.eager(model, **inputs)
    checks.assert_same(rec.run, want.attentions, batch["attention_mask"])
    for b in range(2):
        rows, columns = batch["attention_mask"][b].bool(), seen[b].bool()
        for layer in range(3):
            site = f"transformer.h.{layer}.crossattention"
            for head in range(4):
                got = rec.run.sample(b)[site, head].numpy()
                assert np.abs(got - want.cross_attentions[layer][b, head][rows][:, columns].numpy()).max() <= 1e-5
    assert {s.kind for s in rec.run.sites} == {"self", "cross"}


def test_cross_attention_of_cached_steps() -> None:
    model = models.cross_gpt2()
    tokens, states = models.ids(1, 9), torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad(), ap.record(model, kind="cross") as rec:
        first = model(tokens[:, :5], encoder_hidden_states=states)
        cache = first.past_key_values
        for at in range(5, 9):
            model(tokens[:, at : at + 1], past_key_values=cache, encoder_hidden_states=states)
    want = models.eager(model, input_ids=tokens, encoder_hidden_states=states).cross_attentions
    for layer in range(3):
        got = rec.run[f"transformer.h.{layer}.crossattention", 1].numpy()
        assert got.shape == (9, 6)
        assert np.abs(got - want[layer][0, 1].numpy()).max() <= 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_what_is_selected_is_there_and_exact(model: Any, side: str) -> None:
    batch = models.padded([14, 9], side)
    with torch.no_grad(), ap.record(model, layers="-1", heads="1,3", queries="-4:", keys="2:8") as rec:
        model(**batch)
    want = models.eager(model, **batch).attentions
    for b, length in enumerate((14, 9)):
        seen = batch["attention_mask"][b].bool()
        whole = want[2][b, 3][seen][:, seen].numpy()
        got = rec.run.sample(b)[2, 3]
        assert got.kept == tuple(range(length - 4, length))
        assert np.abs(got[-4:, 2:8] - whole[-4:, 2:8]).max() <= 1e-5
        for absent in ((0, 1), (2, 0)):
            with pytest.raises(ap.NotKept):
                rec.run.sample(b)[absent]
        with pytest.raises(ap.NotKept, match="kept are rows"):
            got[:, 2:8]
        with pytest.raises(ap.NotKept, match="kept are columns 2 to 7"):
            got[-4:]


@pytest.mark.parametrize(("generated", "rows"), [("all", [7, 8, 9, 10, 11]), ("none", [7, 8])])
def test_queries_count_in_the_prompt_of_a_generation(model: Any, generated: str, rows: list[int]) -> None:
    with torch.no_grad(), ap.record(model, queries="-2:", generated=generated) as rec:
        model.generate(models.ids(1, 9), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
    assert list(rec.run[0, 0].kept) == rows


def test_two_things_kept_of_one_recording(model: Any) -> None:
    keep = [ap.Weights("L1H2,L2H0", dtype="float16"), ap.Weights(layers=1, queries=[3, 5])]
    tokens = models.ids(1, 12)
    with torch.no_grad(), ap.record(model, keep=keep) as rec:
        model(tokens)
    want = models.eager(model, input_ids=tokens).attentions
    assert rec.run[1, 2].dtype == "float16, float32"
    assert np.abs(rec.run[1, 2].numpy() - want[1][0, 2].numpy()).max() <= 5e-4
    assert rec.run[1, 0].kept == (3, 5)
    assert np.abs(rec.run[1, 0][5] - want[1][0, 0, 5].numpy()).max() <= 1e-5


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_stored_in_half_precision_differs_by_its_rounding_only(model: Any, stored: str) -> None:
    tokens = models.ids(1, 14)
    with torch.no_grad(), ap.record(model, dtype=stored) as rec:
        model(tokens)
    want = models.eager(model, input_ids=tokens).attentions[0][0, 0]
    exact = want.to(getattr(torch, stored)).float().numpy()
    assert np.abs(rec.run[0, 0].numpy().astype(np.float32) - exact).max() <= 2 ** (-8 if stored == "bfloat16" else -11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_sum_to_one_and_follow_the_float32_model(dtype: torch.dtype) -> None:
    model, tokens = models.gpt2(initializer_range=0.1), models.ids(1, 14)
    want = models.eager(model, input_ids=tokens).attentions
    with torch.no_grad(), ap.record(model.to(dtype)) as rec:
        model(tokens)
    for layer in range(3):
        got = rec.run[layer, 0].numpy()
        assert np.abs(got.sum(-1) - 1).max() <= 1e-5
        assert np.abs(got - want[layer][0, 0].numpy()).max() <= 0.05


def test_autocast_is_recorded_from_the_half_precision_queries() -> None:
    model, tokens = models.gpt2(initializer_range=0.1), models.ids(1, 14)
    want = models.eager(model, input_ids=tokens).attentions
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        bare = model(tokens).logits
        with ap.record(model) as rec:
            out = model(tokens).logits
    assert torch.equal(bare, out)
    assert np.abs(rec.run[2, 0].numpy() - want[2][0, 0].numpy()).max() <= 0.05


def test_inputs_embeds_make_samples_without_tokens(model: Any) -> None:
    tokens = models.ids(2, 10)
    with torch.no_grad(), ap.record(model) as rec:
        model(inputs_embeds=model.transformer.wte(tokens))
    checks.assert_same(rec.run, models.eager(model, input_ids=tokens).attentions, torch.ones_like(tokens))
    assert rec.run.samples[0].sequences["main"].ids is None


def test_inference_mode_and_training_mode(model: Any) -> None:
    tokens = models.ids(1, 10)
    want = models.eager(model, input_ids=tokens).attentions
    with torch.inference_mode(), ap.record(model) as rec:
        model(tokens)
    assert np.abs(rec.run[1, 1].numpy() - want[1][0, 1].numpy()).max() <= 1e-5
    training = models.gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.5).train()
    torch.manual_seed(3)
    bare = training(tokens).logits
    torch.manual_seed(3)
    with ap.record(training) as rec:
        recorded = training(tokens).logits
        recorded.sum().backward()
    assert torch.equal(bare, recorded)
    assert np.abs(rec.run[0, 1].numpy() - want[0][0, 1].numpy()).max() <= 1e-5, "weights are pre-dropout"


def test_gradient_checkpointing_is_counted_once() -> None:
    model = models.gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).train()
    model.gradient_checkpointing_enable()
    tokens = models.ids(1, 10)
    with ap.record(model) as rec:
        model(tokens, use_cache=False).logits.sum().backward()
    assert len(rec.run.samples) == 1
    want = models.eager(model.eval(), input_ids=tokens).attentions
    assert np.abs(rec.run[2, 1].numpy() - want[2][0, 1].numpy()).max() <= 1e-5


def test_a_model_inside_of_another_module_is_recorded() -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = models.gpt2()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids=x).logits

    wrapper, tokens = Wrapper(), models.ids(1, 10)
    with torch.no_grad(), ap.record(wrapper) as rec:
        wrapper(tokens)
    want = models.eager(wrapper.inner, input_ids=tokens).attentions
    assert np.abs(rec.run[2, 1].numpy() - want[2][0, 1].numpy()).max() <= 1e-5


def test_a_mask_that_lets_rows_look_ahead_is_kept_whole(model: Any) -> None:
    tokens = models.ids(1, 10)
    prefix = torch.ones(10, 10, dtype=torch.bool).tril()
    prefix[:4, :4] = True
    with torch.no_grad(), ap.record(model) as rec:
        model(tokens, attention_mask=prefix[None, None])
    additive = torch.where(prefix, 0.0, torch.finfo(torch.float32).min)[None, None]
    want = models.eager(model, input_ids=tokens, attention_mask=additive).attentions
    got = rec.run[0, 1].numpy()
    assert np.abs(got - want[0][0, 1].numpy()).max() <= 1e-5
    assert got[0, 3] > 0
