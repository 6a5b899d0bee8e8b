"""Promise 2: the model computes the same bits, and afterwards everything is as it was."""

import copy
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface
from transformers.models.llama.modeling_llama import eager_attention_forward

import attnprobe as ap
from attnprobe import interface, shadows, watchers


def snapshot(model: Any) -> dict[str, Any]:
    """All that recording could have touched: registries, hooks, attributes, configuration, parameters."""
    return {
        "registry": dict(AttentionInterface._global_mapping),
        "order": list(AttentionInterface._global_mapping),
        "local": dict(ALL_ATTENTION_FUNCTIONS._local_mapping),
        "masks": dict(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping),
        "config": model.config.to_dict(),
        "attributes": {
            name: {k: len(v) if k.endswith(("_hooks", "_with_kwargs", "_always_called")) else id(v)
                   for k, v in vars(module).items()}
            for name, module in model.named_modules()
        },
        "generate": model.generate,
        "parameters": {name: (id(p), p._version) for name, p in model.named_parameters()},
        "modes": [torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()],
        "random": torch.random.get_rng_state().tolist(),
        "open": [dict(interface._open), dict(watchers._watchers), dict(shadows._generators), dict(shadows._calls)],
    }  # fmt: skip


@contextmanager
def unchanged(model: Any) -> Iterator[None]:
    """Fail if the block changes anything that `snapshot` sees."""
    before = snapshot(model)
    try:
        yield
    finally:
        after = snapshot(model)
        assert [name for name in before if before[name] != after[name]] == []


@pytest.fixture
def model() -> Any:
    return models.gpt2()


DRIVES: dict[str, Callable[[Any], torch.Tensor]] = {
    "forward": lambda m: m(models.ids(2, 14)).logits,
    "left": lambda m: m(**models.padded([14, 9], "left")).logits,
    "right": lambda m: m(**models.padded([14, 9], "right")).logits,
    "generate": lambda m: torch.stack(
        m.generate(models.ids(2, 9), max_new_tokens=5, min_new_tokens=5, pad_token_id=0, output_logits=True,
                   return_dict_in_generate=True).logits),
    "static": lambda m: torch.stack(
        m.generate(models.ids(2, 9), max_new_tokens=5, min_new_tokens=5, pad_token_id=0, output_logits=True,
                   return_dict_in_generate=True, cache_implementation="static").logits),
}  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", list(DRIVES))
def test_logits_are_the_same_bits_on_off_and_after(name: str, attention: str) -> None:
    model, drive = models.gpt2(attention=attention), DRIVES[name]
    with torch.no_grad():
        bare = drive(model)
        with unchanged(model), ap.record(model):
            recorded = drive(model)
        after = drive(model)
    assert torch.equal(bare, recorded)
    assert torch.equal(bare, after)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_the_same_bits(model: Any, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    with torch.no_grad():
        bare = DRIVES["left"](model)
        with unchanged(model), ap.record(model):
            assert torch.equal(bare, DRIVES["left"](model))


def test_gradients_are_the_same_bits(model: Any) -> None:
    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(models.ids(2, 12), labels=models.ids(2, 12)).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    bare = gradients()
    with ap.record(model):
        recorded = gradients()
    assert all(torch.equal(a, b) for a, b in zip(bare, recorded, strict=True))


def test_sampling_draws_the_same_tokens(model: Any) -> None:
    def sample() -> torch.Tensor:
        torch.manual_seed(11)
        return model.generate(models.ids(2, 9), max_new_tokens=8, do_sample=True, pad_token_id=0)

    bare = sample()
    with ap.record(model):
        assert torch.equal(bare, sample())


class Stop(Exception):
    """What goes wrong in these tests."""


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["block", "model", "attention", "store", "commit", "generate"])
def test_nothing_is_left_behind_when_something_fails(
    model: Any, where: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    with torch.no_grad():
        with unchanged(model), pytest.raises(error), ap.record(model) as rec:
            model(models.ids(1, 6), use_cache=False)
            with monkeypatch.context() as patch:
                if where == "block":
                    raise error
                if where == "model":
                    patch.setattr(type(model.transformer.h[1].mlp), "forward", fail)
                if where == "attention":
                    patch.setattr("attnprobe.interface.registry_call", fail)
                if where == "store":
                    patch.setattr("attnprobe.store.memory.MemoryStore.write", fail)
                if where == "commit":
                    patch.setattr("attnprobe.store.memory.MemoryStore.commit", fail)
                if where == "generate":
                    handle = iter(range(3))
                    original = type(model.transformer.h[1].mlp).forward
                    patch.setattr(
                        type(model.transformer.h[1].mlp),
                        "forward",
                        lambda self, x: original(self, x) if next(handle, None) is not None else fail(),
                    )
                    model.generate(models.ids(1, 6), max_new_tokens=5, pad_token_id=0)
                model(models.ids(1, 8), use_cache=False)
        assert [s.sequences["main"].length for s in rec.run.samples] == [6], "the whole sample stays, the half one goes"
        assert torch.equal(DRIVES["forward"](model), DRIVES["forward"](models.gpt2()))


def test_failing_to_start_leaves_nothing(model: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with unchanged(model):
        with pytest.raises(ap.RunExists), ap.record(model, to=tmp_path / "taken"):
            pass
        with pytest.raises(ap.SelectionError), ap.record(model, layers=99):
            pass
    assert (tmp_path / "taken" / "file").read_text() == "mine"


def test_recorders_nest_and_leave_in_any_order(model: Any) -> None:
    with unchanged(model), torch.no_grad():
        first, second = ap.record(model, layers=0), ap.record(model, layers=[0, 1])
        first.__enter__()
        model(models.ids(1, 5))
        second.__enter__()
        model(models.ids(1, 7))
        first.__exit__(None, None, None)
        model(models.ids(1, 9))
        second.__exit__(None, None, None)
    lengths = [[s.sequences["main"].length for s in rec.run.samples] for rec in (first, second)]
    assert lengths == [[5, 7], [7, 9]]
    assert np.array_equal(first.run.sample(1)[0, 2].numpy(), second.run.sample(0)[0, 2].numpy())


def test_two_models_at_once_on_different_backends() -> None:
    one, other = models.gpt2(seed=1), models.gpt2(seed=2, attention="eager")
    with torch.no_grad(), unchanged(one), unchanged(other):
        bare = one(models.ids(1, 8)).logits, other(models.ids(1, 9)).logits
        with ap.record(one) as a, ap.record(other) as b:
            recorded = one(models.ids(1, 8)).logits, other(models.ids(1, 9)).logits
    assert all(map(torch.equal, bare, recorded))
    assert (len(a.run.samples), len(b.run.samples)) == (1, 1)
    assert a.run[0, 0].shape == (8, 8)
    assert b.run[0, 0].shape == (9, 9)


def test_a_recorder_sees_its_own_thread_only(model: Any) -> None:
    def elsewhere() -> None:
        with torch.no_grad():
            model(models.ids(1, 20))

    with torch.no_grad(), ap.record(model) as rec:
        model(models.ids(1, 6))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert [s.sequences["main"].length for s in rec.run.samples] == [6]
    with ap.record(model, threads="all") as rec:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert [s.sequences["main"].length for s in rec.run.samples] == [20]


def test_two_threads_record_two_models_at_once() -> None:
    results: dict[int, Any] = {}

    def work(seed: int) -> None:
        model = models.gpt2(seed=seed)
        with torch.no_grad():
            for _ in range(5):
                bare = model(models.ids(1, 6 + seed)).logits
                with ap.record(model) as rec:
                    recorded = model(models.ids(1, 6 + seed)).logits
                results[seed] = torch.equal(bare, recorded), rec.run[0, 0].shape

    before = dict(AttentionInterface._global_mapping)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {seed: (True, (6 + seed, 6 + seed)) for seed in (1, 2, 3)}
    assert dict(AttentionInterface._global_mapping) == before


def test_what_others_register_meanwhile_stays(model: Any) -> None:
    original = AttentionInterface._global_mapping["sdpa"]

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    try:
        with torch.no_grad(), ap.record(model):
            model(models.ids(1, 5))
            AttentionInterface.register("sdpa", theirs)
            AttentionInterface.register("brand_new", theirs)
        assert AttentionInterface._global_mapping["sdpa"] is theirs
        assert AttentionInterface._global_mapping["brand_new"] is theirs
    finally:
        AttentionInterface.register("sdpa", original)
        del AttentionInterface._global_mapping["brand_new"]


def test_a_wrapper_that_others_put_around_ours_stays(model: Any) -> None:
    original = AttentionInterface._global_mapping["sdpa"]
    try:
        with torch.no_grad(), ap.record(model) as rec:
            ours = AttentionInterface._global_mapping["sdpa"]
            theirs = functools.wraps(ours)(lambda *a, **k: ours(*a, **k))
            AttentionInterface.register("sdpa", theirs)
            model(models.ids(1, 5))
        assert AttentionInterface._global_mapping["sdpa"] is theirs
        assert len(rec.run.samples) == 1
    finally:
        AttentionInterface.register("sdpa", original)


@pytest.mark.parametrize("at", range(6))
def test_an_interrupt_while_starting_is_undone(model: Any, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    register, calls = AttentionInterface.register, iter(range(100))

    def interrupted(name: str, function: Any) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt
        register(name, function)

    with unchanged(model):
        monkeypatch.setattr(AttentionInterface, "register", interrupted)
        with pytest.raises(KeyboardInterrupt), ap.record(model):
            pass


@pytest.mark.parametrize("where", ["store", "observer", "hooks"])
def test_an_interrupt_while_closing_keeps_whole_samples(
    model: Any, where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(original: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any) -> Any:
            original(*args)
            raise KeyboardInterrupt

        return work

    with torch.no_grad(), unchanged(model), monkeypatch.context() as patch:
        rec = ap.record(model, to=tmp_path / "run")
        with pytest.raises(KeyboardInterrupt), rec:
            model(models.ids(1, 6), use_cache=False)
            if where == "store":
                patch.setattr(type(rec._store), "close", interrupted(type(rec._store).close))
            if where == "observer":
                patch.setattr(type(rec._observer), "finish", interrupted(type(rec._observer).finish))
            if where == "hooks":
                patch.setattr(rec._undo, "close", interrupted(rec._undo.close))
    assert [s.sequences["main"].length for s in ap.open(tmp_path / "run").samples] == [6]


def test_an_error_while_closing_does_not_hide_the_users(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk")

    with torch.no_grad(), pytest.raises(Stop) as caught, ap.record(model):
        model(models.ids(1, 5))
        monkeypatch.setattr("attnprobe.observer.Observer.finish", fail)
        raise Stop
    assert any("disk" in note for note in caught.value.__notes__)


def test_a_local_override_of_the_attention_function_is_refused(model: Any) -> None:
    ALL_ATTENTION_FUNCTIONS["sdpa"] = AttentionInterface._global_mapping["sdpa"]
    try:
        with pytest.raises(ap.UnsupportedModel, match=r"AttentionInterface\.register instead"), ap.record(model):
            pass
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def test_a_deep_copy_made_inside_of_the_block_is_not_recorded(model: Any) -> None:
    with torch.no_grad(), ap.record(model) as rec:
        copy.deepcopy(model)(models.ids(1, 9))
        model(models.ids(1, 5))
    assert [(s.id, s.sequences["main"].length) for s in rec.run.samples] == [("0", 5)]


def test_a_generate_of_the_users_own_is_restored(model: Any) -> None:
    def mine(*args: Any, **kwargs: Any) -> torch.Tensor:
        return type(model).generate(model, *args, **kwargs)

    model.generate = mine
    with torch.no_grad(), ap.record(model) as rec:
        model.generate(models.ids(1, 5), max_new_tokens=3, min_new_tokens=3, pad_token_id=0)
    assert model.__dict__["generate"] is mine
    assert rec.run.samples[0].prompt_length == 5


def llama(attention: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("recorded", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_unrelated_model_does_not_notice(attention: str, recorded: str) -> None:
    bystander, tokens, model = llama(attention), torch.arange(12)[None], models.gpt2(attention=recorded)
    with torch.no_grad():
        bare = bystander(tokens).logits
        with unchanged(bystander), ap.record(model):
            model(models.ids(1, 6))
            assert torch.equal(bystander(tokens).logits, bare)


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "recorded"), [("sdpa", "sdpa"), ("eager", "eager"), ("sdpa", "eager")])
def test_an_unrelated_compiled_model_stays_whole_over_twenty_recorders(attention: str, recorded: str) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    bystander, tokens = llama(attention), torch.arange(12)[None]
    compiled = torch.compile(bystander, fullgraph=True, backend="eager", dynamic=False)
    model = models.gpt2(attention=recorded)
    with torch.no_grad():
        bare = compiled(tokens, use_cache=False).logits
        counters.clear()
        for _ in range(20):
            with ap.record(model, layers=0):
                model(models.ids(1, 6))
                assert torch.equal(compiled(tokens, use_cache=False).logits, bare)
            assert torch.equal(compiled(tokens, use_cache=False).logits, bare)
    assert counters["stats"]["unique_graphs"] <= 2
    assert not counters["graph_break"]


def test_a_closed_recorder_lets_go_of_the_model() -> None:
    model = models.gpt2()
    with torch.no_grad(), ap.record(model) as rec:
        model(models.ids(1, 6))
    run, gone = rec.run, weakref.ref(model)
    del model, rec
    gc.collect()
    assert gone() is None
    assert run[0, 0].shape == (6, 6)


def test_paused_makes_no_weights_and_counts_tokens(model: Any) -> None:
    tokens = models.ids(1, 12)
    with torch.no_grad(), ap.record(model) as rec:
        cache = model(tokens[:, :5]).past_key_values
        with rec.paused():
            model(tokens[:, 5:8], past_key_values=cache)
            model(models.ids(1, 30))
        model(tokens[:, 8:], past_key_values=cache)
    (sample,) = rec.run.samples
    assert sample.sequences["main"].ids.tolist() == tokens[0].tolist()
    assert rec.run[0, 0].kept == (0, 1, 2, 3, 4, 8, 9, 10, 11)
    want = models.eager(model, input_ids=tokens).attentions[0][0, 0].numpy()
    assert np.abs(rec.run[0, 0][8:] - want[8:]).max() <= 1e-5


def test_a_block_that_was_paused_throughout_is_no_error(model: Any) -> None:
    with torch.no_grad(), ap.record(model) as rec, rec.paused():
        model(models.ids(1, 5))
    assert len(rec.run.samples) == 0


class ByHelper(torch.nn.Module):
    """Takes its attention function in a method that forward calls."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.num_key_value_groups = config, 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(x)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        function = ALL_ATTENTION_FUNCTIONS.get_interface("eager", eager_attention_forward)
        mixed: torch.Tensor = function(self, x, x, x, None, scaling=1.0, dropout=0.0)[0]
        return mixed


@torch.no_grad()
def test_another_model_on_eager_attention_runs_as_before() -> None:
    model, x = models.gpt2(attention="eager"), torch.randn(1, 2, 5, 8)
    other = ByHelper(model.config).eval()
    bare = other(x)
    with ap.record(model):
        model(models.ids(1, 5))
        assert torch.equal(other(x), bare)
