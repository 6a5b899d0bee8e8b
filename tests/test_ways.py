"""Ways to run a model: generation on any cache, streams, training; each recorded exactly, and none changed by it."""

import contextlib
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
from route_checks import recorded, untouched
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTJConfig,
    GPTJForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    TextIteratorStreamer,
)

import attnprobe as ap

SMALL: dict[str, Any] = {
    "vocab_size": models.VOCABULARY, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.2,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": models.END, "eos_token_id": models.END,
}  # fmt: skip


def mistral(**settings: Any) -> Any:
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**{**SMALL, "sliding_window": 5, **settings})).eval()


def gemma3() -> Any:
    """A hybrid: a layer of a window, one that sees everything."""
    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**SMALL, sliding_window=5, layer_types=kinds, query_pre_attn_scalar=1)
    ).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "everything": lambda: mistral(sliding_window=None),
    "window": mistral,
    "hybrid": gemma3,
}


# --- generation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"do_sample": True, "top_k": 20}, {"cache_implementation": "static"}, {"prefill_chunk_size": 4},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", list(MODELS))
def test_generation_is_exact_and_gives_the_same_tokens(name: str, options: dict[str, Any]) -> None:
    model, batch = MODELS[name](), models.padded([9, 5], "left")
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, **options}
    torch.manual_seed(1)
    bare = model.generate(**batch, **settings)
    torch.manual_seed(1)
    with untouched(model), ap.record(model) as rec:
        assert torch.equal(model.generate(**batch, **settings), bare)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 4, dtype=torch.long)], 1)
    whole = models.eager(model, input_ids=bare[:, :-1], attention_mask=mask, position_ids=models.positions(mask))
    checks.assert_same(rec.run, whole.attentions, mask)
    assert [sample.prompt_length for sample in rec.run.samples] == [9, 5]


@torch.no_grad()
def test_generation_on_a_quantised_cache_is_what_eager_computes_on_it() -> None:
    pytest.importorskip("hqq", reason="needs hqq")  # quanto compiles for minutes on a CPU
    model, tokens = mistral(sliding_window=None), models.ids(1, 9)
    how = {
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "cache_implementation": "quantized",
        "cache_config": {
            "backend": "hqq", "nbits": 4, "residual_length": 4, "q_group_size": 16, "axis_key": 1, "axis_value": 1,
        },
    }  # fmt: skip
    with ap.record(model) as rec:
        model.generate(tokens, **how)
    model.set_attn_implementation("eager")
    steps = model.generate(tokens, **how, output_attentions=True, return_dict_in_generate=True).attentions
    whole = np.zeros((2, 4, 14, 14))
    for number, layers in enumerate(steps):
        for layer, maps in enumerate(layers):
            rows = slice(0, 9) if number == 0 else slice(8 + number, 9 + number)
            whole[layer, :, rows, : maps.shape[-1]] = maps[0].numpy()
    for layer in range(2):
        for head in range(4):
            assert np.abs(rec.run[layer, head].numpy() - whole[layer, head]).max() <= 1e-5


class Decoder:
    """Enough of a tokenizer for a streamer."""

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(f"{int(number)} " for number in ids)


def test_generation_that_is_streamed_from_another_thread() -> None:
    model, tokens = mistral(), models.ids(1, 9)
    bare = model.generate(tokens, max_new_tokens=6, min_new_tokens=6)
    streamer = TextIteratorStreamer(Decoder(), skip_prompt=True, timeout=60)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "streamer": streamer}
    with untouched(model), ap.record(model, threads="all") as rec:
        thread = threading.Thread(target=model.generate, args=(tokens,), kwargs=options)
        thread.start()
        text = "".join(streamer)
        thread.join()
    assert text.split() == [str(number) for number in bare[0, 9:].tolist()]
    assert rec.run.samples[0].sequences["main"].ids.tolist() == bare[0, :-1].tolist()
    assert rec.run.samples[0].prompt_length == 9
    whole = models.eager(model, input_ids=bare[:, :-1]).attentions
    checks.assert_same(rec.run, whole, torch.ones(1, 14))


def test_generations_of_two_threads_are_two_samples() -> None:
    model, prompts = mistral(), [models.ids(1, 9, seed=3), models.ids(1, 7, seed=4)]
    bare = [model.generate(prompt, max_new_tokens=4, min_new_tokens=4) for prompt in prompts]
    with untouched(model), ap.record(model, threads="all") as rec:
        threads = [
            threading.Thread(target=model.generate, args=(prompt,), kwargs={"max_new_tokens": 4, "min_new_tokens": 4})
            for prompt in prompts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = {tuple(sample.sequences["main"].ids.tolist()): number for number, sample in enumerate(rec.run.samples)}
    for tokens in bare:
        want = models.eager(model, input_ids=tokens[:, :-1]).attentions[1][0, 2].numpy()
        got = rec.run.sample(found[tuple(tokens[0, :-1].tolist())])[1, 2].numpy()
        assert np.abs(got - want).max() <= 1e-5


def t5() -> Any:
    torch.manual_seed(0)
    config = T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("make", [mistral, t5])
@pytest.mark.parametrize(("options", "said"), [
    ({"num_beams": 2}, "beam search"),
    ({"use_cache": False}, "use_cache=True"),
    ({"assistant_model": mistral}, "assistant_model"),
    ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
    ({"guidance_scale": 1.5}, "guidance_scale"),
])  # fmt: skip
def test_generation_that_moves_or_redoes_rows_is_refused_by_name(
    make: Callable[[], Any], options: dict[str, Any], said: str
) -> None:
    model = make()
    given = {name: value() if callable(value) else value for name, value in options.items()}
    with untouched(model), pytest.raises(ap.UnsupportedCall, match=said), ap.record(model):
        model.generate(models.ids(1, 6), max_new_tokens=4, **given)
    if "assistant_model" in options:  # which no configuration holds
        return
    model.generation_config.update(**given)
    with pytest.raises(ap.UnsupportedCall, match=said), ap.record(model):  # told by the model's own configuration
        model.generate(models.ids(1, 6), max_new_tokens=4)


def test_several_sequences_of_one_source_are_refused_and_a_repeated_source_is_recorded() -> None:
    model, ids = t5(), models.ids(1, 6)
    options = {"max_new_tokens": 3, "do_sample": True}
    with untouched(model), pytest.raises(ap.UnsupportedCall, match="repeat_interleave"), ap.record(model):
        model.generate(ids, num_return_sequences=2, **options)
    with ap.record(model) as rec:
        model.generate(ids.repeat_interleave(2, 0), **options)
    assert [sample.sequences["source"].ids.tolist() for sample in rec.run.samples] == [ids[0].tolist()] * 2


# --- training ----------------------------------------------------------------------------------------------------


def trained(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and gradients of one step under one seed."""
    model.zero_grad()
    torch.manual_seed(5)
    output = model(tokens, labels=tokens, use_cache=False)
    output.loss.backward()
    return output.logits.detach().clone(), [value.grad.clone() for value in model.parameters()]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", list(MODELS))
def test_checkpointed_forward_passes_are_counted_once(name: str, reentrant: bool) -> None:
    model, tokens = MODELS[name]().train(), models.ids(2, 11)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    logits, gradients = trained(model, tokens)
    with untouched(model), ap.record(model) as rec:
        now, same = trained(model, tokens)
    assert torch.equal(logits, now)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))
    assert len(rec.run.samples) == 2
    model.gradient_checkpointing_disable()
    checks.assert_same(rec.run, models.eager(model.eval(), input_ids=tokens).attentions, torch.ones(2, 11))


@pytest.mark.parametrize("name", list(MODELS))
def test_weights_of_training_are_those_before_dropout(name: str) -> None:
    model, tokens = MODELS[name]().train(), models.ids(2, 11)
    for part in model.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5
    logits, gradients = trained(model, tokens)
    with untouched(model), ap.record(model) as rec:
        now, same = trained(model, tokens)
    assert torch.equal(logits, now)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))
    assert not torch.equal(logits, model.eval()(tokens).logits), "dropout did nothing"
    want = models.eager(model, input_ids=tokens).attentions  # of the first layer, whose inputs know no dropout
    for head in range(4):
        assert np.abs(rec.run.sample(1)[0, head].numpy() - want[0][1, head].numpy()).max() <= 1e-5
        assert np.abs(rec.run.sample(1)[1, head].numpy().sum(-1) - 1).max() <= 1e-5


@pytest.mark.parametrize("name", list(MODELS))
@torch.no_grad()
def test_autocast_is_recorded_from_the_tensors_in_half_precision(name: str) -> None:
    model, tokens = MODELS[name](), models.ids(2, 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bare = model(tokens).logits
        run, output = recorded(model, tokens)
        want = models.eager(model, input_ids=tokens).attentions
    assert torch.equal(output.logits, bare)
    for layer in range(2):
        got = np.stack([run.sample(1)[layer, head].numpy() for head in range(4)])
        assert np.abs(got.sum(-1) - 1).max() <= 1e-5, "softmax is in float32"
        assert np.abs(got - want[layer][1].float().numpy()).max() <= 0.06
        exact = models.eager(model, input_ids=tokens).attentions[layer][1].numpy()
        assert np.abs(got - exact).max() > 1e-5, "queries were not in half precision"


def test_a_copy_and_a_closed_recording_run_as_before() -> None:
    model, tokens = mistral(), models.ids(1, 7)
    with torch.no_grad(), ap.record(model) as rec:
        other = copy.deepcopy(model)
        saved = pickle.loads(pickle.dumps(model))
        want = model(tokens).logits
        for copied in (other, saved):
            with contextlib.suppress(ap.AttnprobeError):
                copied(tokens)
    assert len(rec.run.samples) == 1
    for copied in (other, saved):  # and they live on
        assert torch.equal(copied(tokens).logits, want)
        assert torch.equal(copied.generate(tokens, max_new_tokens=2), model.generate(tokens, max_new_tokens=2))
        assert torch.equal(pickle.loads(pickle.dumps(copied))(tokens).logits, want)


def test_a_wrapper_around_a_recorded_forward_outlives_the_recording() -> None:
    model = GPTJForCausalLM(GPTJConfig(n_embd=32, n_layer=1, n_head=4, rotary_dim=4, vocab_size=96, n_positions=32))
    attention, tokens = model.transformer.h[0].attn, models.ids(1, 7)
    with torch.no_grad(), ap.record(model) as rec:
        model(tokens)
        kept = attention.forward
        attention.forward = lambda *given, **named: kept(*given, **named)
    assert len(rec.run.samples) == 1 and not kept.users  # type: ignore[attr-defined]
    model(tokens)
