"""Compiled models: recorded exactly, from the same code whatever is selected, and none of them computes other bits."""

import copy
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
from test_unseen import unchanged
from test_ways import mistral, t5
from torch import nn
from torch._dynamo.utils import counters
from transformers import DynamicCache, FalconConfig, FalconForCausalLM, GPTJConfig, GPTJForCausalLM

import attnprobe as ap
from attnprobe import entries, hooks, traced
from attnprobe.marks import Mark

pytestmark = pytest.mark.usefixtures("unchecked")  # a compiler would look into the checks


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Code that earlier tests compiled counts to nobody's limit."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def layers_of(model: Any) -> Any:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def whole(model: Any, **options: Any) -> Any:
    return torch.compile(model, **options)


def in_place(model: Any, **options: Any) -> Any:
    model.compile(**options)
    return model


def forward(model: Any, **options: Any) -> Any:
    model.forward = torch.compile(model.forward, **options)
    return model


def by_layer(model: Any, **options: Any) -> Any:
    for layer in layers_of(model):
        layer.compile(**options)
    return model


def backbone(model: Any, **options: Any) -> Any:
    name = "transformer" if hasattr(model, "transformer") else "model"
    setattr(model, name, torch.compile(getattr(model, name), **options))
    return model


def wrapped_layers(model: Any, **options: Any) -> Any:
    for number, layer in enumerate(layers_of(model)):
        layers_of(model)[number] = torch.compile(layer, **options)
    return model


WAYS: dict[str, Callable[..., Any]] = {
    way.__name__: way for way in (whole, in_place, forward, by_layer, backbone, wrapped_layers)
}


def graphs() -> int:
    """How many graphs were compiled; none of them has a break in it."""
    assert not counters["graph_break"], dict(counters["graph_break"])
    return int(counters["stats"]["unique_graphs"])


def assert_exact(run: ap.Run, model: Any, **inputs: torch.Tensor) -> None:
    """Against the same weights run on eager attention, uncompiled."""
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    checks.assert_same(run, models.eager(model, **inputs).attentions, mask)


@contextmanager
def nothing_left(model: Any) -> Iterator[None]:
    """Fail if the block leaves anything behind."""
    with unchanged(model):
        yield
    assert not entries._entered and not hooks._handles and not hooks._noticing


# --- what is recorded --------------------------------------------------------------------------------------------


CASES = [
    *[(way, True, attention) for way in WAYS for attention in ("sdpa", "eager")],
    *[(way, False, "sdpa") for way in ("whole", "by_layer")],
]


@pytest.mark.parametrize(("way", "early", "attention"), CASES)
@torch.no_grad()
def test_a_compiled_model_is_recorded_and_computes_the_same_bits(way: str, early: bool, attention: str) -> None:
    """Compiled before recording starts (`early`) or while it runs."""
    plain = models.gpt2(attention=attention, n_layer=2)
    model, tokens = models.gpt2(attention=attention, n_layer=2), models.ids(2, 9)
    compiled = WAYS[way](model, backend="eager", fullgraph=True)
    bare = compiled(tokens).logits if early else None
    before = graphs()
    with nothing_left(model), ap.record(compiled) as rec:
        recorded = compiled(tokens).logits
    once = graphs()
    assert_exact(rec.run, plain, input_ids=tokens)
    assert {number.difference is not None for number in rec.fidelity.values()} == {True}
    # A backbone that is compiled by itself runs its hooks before and behind its own code: they are compiled apart.
    assert once == before + {"by_layer": 2, "wrapped_layers": 2, "backbone": 3}.get(way, 1)
    after = compiled(tokens).logits
    assert torch.equal(recorded, after) and (bare is None or torch.equal(recorded, bare))
    both = graphs()
    assert both == once if early else both <= 2 * once
    for selection in ({"layers": 1}, {"heads": [2]}, {"layers": "0", "queries": "-2:"}, {"measures": ["entropy"]}):
        with ap.record(compiled, **selection) as rec:
            assert torch.equal(compiled(tokens).logits, after)
        assert torch.equal(compiled(tokens).logits, after)
        assert len(rec.run.samples) == 2
    assert graphs() == both, "another recording compiles nothing, whatever it selects"


@pytest.mark.parametrize(
    ("side", "make"), [("left", models.gpt2), ("left", mistral), ("right", lambda: mistral(sliding_window=None))]
)
@torch.no_grad()
def test_a_padded_batch_on_grouped_keys_and_windows(side: str, make: Callable[[], Any]) -> None:
    model, batch = make(), models.padded([11, 6], side)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    bare = compiled(**batch).logits
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled(**batch).logits, bare)
    assert graphs() == 2
    assert_exact(rec.run, make(), **batch)


@pytest.mark.parametrize("way", ["whole", "by_layer"])
@torch.no_grad()
def test_a_cache_goes_on_with_its_sample(way: str) -> None:
    model, tokens = mistral(sliding_window=None), models.ids(2, 10)
    compiled = WAYS[way](model, backend="eager", dynamic=True)
    with nothing_left(model), ap.record(compiled) as rec:
        made = compiled(tokens[:, :6]).past_key_values  # made inside of compiled code
        given = DynamicCache()
        compiled(tokens[:1, :6], past_key_values=given)
        for step in range(6, 10):
            compiled(tokens[:, step : step + 1], past_key_values=made)
        compiled(tokens[:1, 6:], past_key_values=given)
    assert [sample.main.length for sample in rec.run.samples] == [10, 10, 10]
    want = models.eager(mistral(sliding_window=None), input_ids=tokens).attentions
    for number, row in enumerate((0, 1, 0)):
        for layer in range(2):
            for head in range(4):
                got = rec.run.sample(number)[layer, head].numpy()
                assert np.abs(got - want[layer][row, head].numpy()).max() <= 1e-5


@pytest.mark.parametrize(
    ("way", "make", "cache"),
    [
        ("whole", models.gpt2, "dynamic"),
        ("forward", models.gpt2, "dynamic"),
        ("forward", mistral, "static"),
        ("in_place", mistral, "dynamic"),
    ],
)
def test_generation(way: str, make: Callable[[], Any], cache: str) -> None:
    model, batch = make(), models.padded([9, 5], "left")
    options = {"cache_implementation": "static"} if cache == "static" else {}
    compiled = WAYS[way](model, backend="eager", fullgraph=True)
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": 0, **options}
    bare = compiled.generate(**batch, **settings)
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled.generate(**batch, **settings), bare)
    once = graphs()
    with ap.record(compiled, layers=1):
        assert torch.equal(compiled.generate(**batch, **settings), bare)
    assert graphs() == once
    assert (once > 0) == (way != "whole"), "what torch.compile returns generates with the model inside, uncompiled"
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 4, dtype=torch.long)], 1)
    inputs = {"input_ids": bare[:, :-1], "attention_mask": mask, "position_ids": models.positions(mask)}
    assert_exact(rec.run, make(), **inputs)
    assert [sample.prompt_length for sample in rec.run.samples] == [9, 5]


def test_gradients_and_weights_of_training() -> None:
    model, tokens = models.gpt2().train(), models.ids(2, 9)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        compiled(tokens, use_cache=False).logits.square().mean().backward()
        return [value.grad.clone() for value in model.parameters()]

    bare = gradients()
    with ap.record(compiled) as rec:
        recorded = gradients()
    assert all(torch.equal(a, b) for a, b in zip(bare, recorded, strict=True))
    assert graphs() == 2
    assert len(rec.run.samples) == 2
    assert np.abs(rec.run.sample(1)[2, 1].numpy().sum(-1) - 1).max() <= 1e-5, "before dropout"


@torch.no_grad()
def test_paused_and_named_without_another_compilation() -> None:
    model, tokens = models.gpt2(), models.ids(1, 9)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with ap.record(compiled) as rec:
        with rec.sample("one"):
            compiled(tokens)
        once = graphs()
        with rec.paused():
            compiled(tokens)
        with rec.sample("two"):
            compiled(tokens)
    assert graphs() == once == 1
    assert [sample.id for sample in rec.run.samples] == ["one", "two"]


@torch.no_grad()
def test_recorders_at_once_and_a_bystander() -> None:
    first, second = models.gpt2(seed=1), models.gpt2(seed=2)
    one, two = (torch.compile(model, backend="eager", fullgraph=True) for model in (first, second))
    tokens = models.ids(1, 7)
    bare = one(tokens).logits, two(tokens).logits
    with nothing_left(first), nothing_left(second), ap.record(one) as a:
        with ap.record(one, layers=0) as b, ap.record(two) as c:
            assert torch.equal(one(tokens).logits, bare[0])
            assert torch.equal(two(tokens).logits, bare[1])
        two(tokens)
    assert [len(rec.run.samples) for rec in (a, b, c)] == [1, 1, 1]
    assert_exact(a.run, models.gpt2(seed=1), input_ids=tokens)
    assert_exact(c.run, models.gpt2(seed=2), input_ids=tokens)
    assert np.array_equal(a.run[0, 3].numpy(), b.run[0, 3].numpy())


@torch.no_grad()
def test_a_bystander_that_is_compiled_while_eager_attention_is_recorded() -> None:
    bystander, model, tokens = models.gpt2(seed=3, attention="eager"), models.gpt2(attention="eager"), models.ids(1, 7)
    bare = bystander(tokens).logits
    compiled = torch.compile(bystander, backend="eager", fullgraph=True)
    for _ in range(3):
        with ap.record(model) as rec:
            model(tokens)
            assert torch.equal(compiled(tokens).logits, bare)
        assert torch.equal(compiled(tokens).logits, bare)
    assert len(rec.run.samples) == 1
    assert graphs() <= 2


@torch.no_grad()
def test_threads_see_their_own_calls() -> None:
    model, other = models.gpt2(), models.ids(1, 20)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    with ap.record(compiled) as rec:
        compiled(models.ids(1, 6))
        thread = threading.Thread(target=torch.no_grad()(compiled), args=(other,))
        thread.start()
        thread.join()
    assert [sample.main.length for sample in rec.run.samples] == [6]


@torch.no_grad()
def test_code_that_runs_eagerly_beyond_the_limit_of_recompilations_is_recorded_too() -> None:
    model, tokens = models.gpt2(n_layer=4), models.ids(1, 12)
    by_layer(model, backend="eager", dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=2), ap.record(model) as rec:
        cache = DynamicCache()
        for step in range(12):
            model(tokens[:, step : step + 1], past_key_values=cache)
    assert counters["unimplemented"] or counters["frames"]["total"] > counters["frames"]["ok"]
    assert_exact(rec.run, models.gpt2(n_layer=4), input_ids=tokens)


@torch.no_grad()
def test_a_function_around_the_model() -> None:
    model, tokens = models.gpt2(), models.ids(2, 8)

    @torch.compile(backend="eager", fullgraph=True)
    def run(tokens: torch.Tensor) -> torch.Tensor:
        return model(model(tokens, use_cache=False).logits.argmax(-1)).logits

    bare = run(tokens)
    with nothing_left(model), ap.record(model) as rec:
        assert torch.equal(run(tokens), bare)
    assert len(rec.run.samples) == 4, "the model ran twice on two rows"
    assert graphs() == 2
    second = models.gpt2()(tokens).logits.argmax(-1)
    for row in range(2):
        for number, fed in ((row, tokens), (2 + row, second)):
            want = models.eager(models.gpt2(), input_ids=fed).attentions[1][row, 2].numpy()
            assert np.abs(rec.run.sample(number)[1, 2].numpy() - want).max() <= 1e-5


@torch.no_grad()
def test_layers_of_an_encoder_and_its_decoder() -> None:
    model, source, target = t5(), models.ids(2, 7), models.ids(2, 5, seed=2)
    bare = model(input_ids=source, decoder_input_ids=target)
    for block in (*model.encoder.block, *model.decoder.block):
        block.compile(backend="eager")
    want = models.eager(t5(), input_ids=source, decoder_input_ids=target)
    with nothing_left(model), ap.record(model) as rec:
        got = model(input_ids=source, decoder_input_ids=target)
    assert torch.equal(got.logits, bare.logits)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] > 0
    for site in rec.run.sample(1).sites:
        maps = want.encoder_attentions if site.queries == "source" else want.decoder_attentions
        maps = want.cross_attentions if site.kind == "cross" else maps
        for head in range(4):
            exact = maps[site.layer][1, head].numpy()
            assert np.abs(rec.run.sample(1)[site.key, head].numpy() - exact).max() <= 1e-5


@torch.no_grad()
def test_a_copy_made_inside_of_the_block_is_not_recorded() -> None:
    model, tokens = models.gpt2(), models.ids(1, 6)
    by_layer(model, backend="eager")
    with ap.record(model) as rec:
        copied = copy.deepcopy(model)
        by_layer(copied, backend="eager")
        assert torch.equal(copied(tokens).logits, model(tokens).logits)
    assert len(rec.run.samples) == 1
    assert torch.equal(copied(tokens).logits, model(tokens).logits)


# --- what is refused ---------------------------------------------------------------------------------------------


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


# --- the operators -----------------------------------------------------------------------------------------------


def test_the_operators_are_what_they_say() -> None:
    order, query = torch.zeros((), dtype=torch.int64), torch.randn(1, 2, 3, 4)
    call = (order, Mark().site, "sdpa", query, query, query, query.transpose(1, 2), *[None] * 10, 0.0, "")
    torch.library.opcheck(torch.ops.attnprobe.attention.default, call)
    torch.library.opcheck(torch.ops.attnprobe.start.default, (order, Mark().site, *[None] * 6, False, ""))
    torch.library.opcheck(torch.ops.attnprobe.end.default, (order, Mark().site))
    for name in ("attention", "start", "end"):
        assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.attnprobe, name).default.tags
    assert int(traced._order) == 0


@torch.no_grad()
def test_inductor_keeps_every_operator_in_order_and_computes_the_same_bits() -> None:
    model, batch = mistral(), models.padded([11, 6], "left")
    compiled = torch.compile(model, fullgraph=True, mode="reduce-overhead")  # on a CPU there are no graphs to replay
    bare = compiled(**batch).logits
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled(**batch).logits, bare)
    assert graphs() == 2
    assert_exact(rec.run, mistral(), **batch)
