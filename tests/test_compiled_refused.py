"""What of a compiled model cannot be recorded: refused by name, with what to do instead, and nothing is left behind."""

import re
from collections.abc import Callable
from typing import Any

import models
import pytest
import torch
from compile_checks import forward, in_place, nothing_left, whole
from test_ways import mistral, t5
from torch import nn
from transformers import DynamicCache, FalconConfig, FalconForCausalLM, GPTJConfig, GPTJForCausalLM

import attnprobe as ap
from attnprobe.seen import refuse_captured

pytestmark = pytest.mark.usefixtures("unchecked", "fresh_compiler")


def sdpa_model() -> Any:
    return FalconForCausalLM(
        FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False)
    )


def returning_model() -> Any:
    return GPTJForCausalLM(GPTJConfig(n_embd=32, n_layer=1, n_head=4, rotary_dim=4, vocab_size=96, n_positions=32))


def multihead_model() -> Any:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 16, batch_first=True), 1, enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (sdpa_model, "calls F.scaled_dot_product_attention itself"),
        (returning_model, "returns weights that it builds itself"),
        (multihead_model, "is an nn.MultiheadAttention"),
        (lambda: mistral(attn_implementation="flex_attention"), "runs on flex_attention"),
    ],
)
@pytest.mark.parametrize("way", [whole, in_place, forward])
def test_other_routes_are_refused_by_name_at_start(way: Callable[..., Any], make: Callable[[], Any], said: str) -> None:
    model = make()
    compiled = way(model, backend="eager")
    with pytest.raises(ap.UnsupportedModel, match=f"is compiled by torch.compile and {said}.*_orig_mod"):
        ap.record(compiled)
    if way is whole:
        ap.record(model)  # which one may run as it is


def test_a_part_that_is_not_selected_may_be_compiled_whatever_it_is() -> None:
    model, x = multihead_model(), torch.randn(1, 4, 16)
    both = nn.Sequential(model, multihead_model()).eval()
    both[1].compile(backend="eager")
    with torch.no_grad(), ap.record(both, layers=0) as rec:
        both(x)
    assert len(rec.run.sample(0).sites) == 1


@torch.no_grad()
def test_other_routes_in_a_compiled_function_are_refused_when_they_run() -> None:
    model = multihead_model().eval()
    run = torch.compile(lambda x: model(x) + 1, backend="eager")
    with pytest.raises(ap.UnsupportedModel, match="only transformers' attention functions"), ap.record(model):
        run(torch.randn(1, 4, 16))


@torch.no_grad()
def test_other_routes_in_a_function_without_breaks_are_named_by_the_compiler() -> None:
    model = multihead_model().eval()
    run = torch.compile(lambda x: model(x) + 1, backend="eager", fullgraph=True)
    said = pytest.raises(torch._dynamo.exc.Unsupported, match="attnprobe records this module only where it is not comp")
    with said, ap.record(model):
        run(torch.randn(1, 4, 16))
    run(torch.randn(1, 4, 16))


@torch.no_grad()
def test_a_cache_that_only_compiled_code_sees() -> None:
    model, tokens = models.gpt2(), models.ids(1, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with nothing_left(model), pytest.raises(ap.UnsupportedCall, match=re.escape("record what torch.compile returned")):
        with ap.record(model):  # not what torch.compile returned, so nothing tells when it is entered
            cache = compiled(tokens[:, :5]).past_key_values
            compiled(tokens[:, 5:], past_key_values=cache)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor, past_key_values: Any) -> torch.Tensor:
            self.model(tokens[:, :5], past_key_values=past_key_values)
            return self.model(tokens[:, 5:], past_key_values=past_key_values).logits

    twice = torch.compile(Twice(), backend="eager", fullgraph=True)
    with pytest.raises(ap.UnsupportedCall, match="several forward passes on one key cache"), ap.record(twice):
        twice(tokens, DynamicCache())


@torch.no_grad()
def test_an_encoder_and_its_decoder_in_one_piece() -> None:
    model = t5()
    compiled = torch.compile(model, backend="eager")
    with nothing_left(model), pytest.raises(ap.UnsupportedCall, match=r"layer\.compile\(\)"), ap.record(compiled):
        compiled(input_ids=models.ids(1, 6), decoder_input_ids=models.ids(1, 4))


def test_a_static_cache_that_generate_compiles_by_itself() -> None:
    from transformers import CompileConfig

    model, compiling = models.gpt2(), CompileConfig(backend="eager", mode=None)
    compiling._compile_all_devices = True
    with pytest.raises(ap.UnsupportedCall, match="disable_compile=True"), ap.record(model):
        model.generate(
            models.ids(1, 5), max_new_tokens=3, pad_token_id=0, cache_implementation="static", compile_config=compiling
        )


@torch.no_grad()
def test_an_error_inside_of_compiled_code_names_the_site_and_leaves_whole_samples() -> None:
    model = models.gpt2()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    short, long = models.ids(1, 5), models.ids(1, 60)
    with nothing_left(model), pytest.raises(ap.BudgetError, match=r"at layer 0 \(self, transformer\.h\.0\.attn\)"):
        with ap.record(compiled, budget=600) as rec:
            compiled(short)
            compiled(long)
    assert [sample.main.length for sample in rec.run.samples] == [5]
    with ap.record(compiled) as rec:
        compiled(short)
    assert len(rec.run.samples) == 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_code_that_cannot_notice_that_recording_began(attention: str) -> None:
    model, tokens = models.gpt2(attention=attention), models.ids(1, 6)
    compiled = torch.compile(model, backend="eager")
    compiled(tokens)
    fix = pytest.raises(ap.NothingRecorded, match=re.escape("call torch._dynamo.reset() before recording"))
    with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
        with nothing_left(model), fix, ap.record(compiled):
            compiled(tokens)
    torch._dynamo.reset()
    with ap.record(compiled) as rec:
        compiled(tokens)
    assert len(rec.run.samples) == 1


class OnGPU(torch.Tensor):
    """Says that it is there."""

    is_cuda = True


def test_capture_as_a_cuda_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.zeros(3).as_subclass(OnGPU)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    refuse_captured([tensor, None])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(ap.UnsupportedCall, match=r"captured as a CUDA graph.*reduce-overhead"):
        refuse_captured([None, tensor])
    refuse_captured([torch.zeros(3), None])  # nobody captures a CPU
