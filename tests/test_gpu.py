"""The promises on CUDA: run with ``pytest -m gpu`` on a machine that has one."""

import contextlib
from typing import Any

import checks
import measure_checks
import models
import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import attnprobe as ap

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def on_device(**settings: Any) -> Any:
    return models.gpt2(**settings).cuda()


@pytest.mark.parametrize("name", list(checks.calls()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_engine_equals_the_formula_on_the_device(name: str, dtype: torch.dtype) -> None:
    call = checks.calls()[name]
    half = checks.replace(call, query=call.query.to(dtype), key=call.key.to(dtype))
    moved = {
        n: getattr(half, n).cuda() for n in ("query", "key", "mask", "bias", "sinks") if getattr(half, n) is not None
    }
    weights, _, logits = checks.formula(half)
    from attnprobe.engines import get_engine

    got = torch.zeros(weights.shape)
    for tile in get_engine("torch")(
        checks.replace(half, **moved), tuple(range(call.heads)), range(call.queries), 1 << 20
    ):
        at = np.ix_(
            range(call.batch), tile.heads, list(tile.rows), range(tile.start, tile.start + tile.weights.shape[3])
        )
        got[at] = tile.weights.cpu()
    bound = 1e-6 + 4 * checks.EPS * logits.abs().amax(-1, keepdim=True)
    assert ((got - weights).abs() <= bound).all()


@pytest.mark.parametrize("allowed", [False, True])
def test_products_are_ieee_though_tf32_is_allowed(allowed: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        test_engine_equals_the_formula_on_the_device("causal", torch.float32)
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_the_same_bits_on_every_sdpa_backend(backend: str, dtype: torch.dtype) -> None:
    if backend == "flash" and dtype == torch.float32:
        pytest.skip("flash attention takes half precision only")
    model, tokens = on_device(n_embd=128, n_positions=256).to(dtype), models.ids(2, 200).cuda()
    before = dict(checks.registry())
    with torch.no_grad(), sdpa_kernel(BACKENDS[backend]):
        bare = model(tokens).logits
        with ap.record(model, layers=[0, 2]) as rec:
            recorded = model(tokens).logits
        after = model(tokens).logits
    assert torch.equal(bare, recorded)
    assert torch.equal(bare, after)
    assert checks.registry() == before
    assert np.abs(rec.run.sample(1)[2, 1].numpy().sum(-1) - 1).max() < 1e-5


@pytest.mark.parametrize("lengths", [[14, 14], [14, 9, 1]])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_eager_on_the_device(lengths: list[int], side: str) -> None:
    model, batch = on_device(), {k: v.cuda() for k, v in models.padded(lengths, side).items()}
    with torch.no_grad(), ap.record(model) as rec:
        model(**batch)
    attentions = [a.cpu() for a in models.eager(model, **batch).attentions]
    checks.assert_same(rec.run, attentions, batch["attention_mask"].cpu())


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_generation_equals_eager_on_the_device(options: dict[str, Any]) -> None:
    model, batch = on_device(), {k: v.cuda() for k, v in models.padded([9, 5], "left").items()}
    with torch.no_grad(), ap.record(model, queries="-3:") as rec:
        out = model.generate(**batch, max_new_tokens=8, min_new_tokens=8, pad_token_id=0, **options)
    fed = out[:, :-1]
    mask = torch.cat([batch["attention_mask"], torch.ones_like(fed[:, 9:])], 1)
    want = models.eager(model, input_ids=fed, attention_mask=mask, position_ids=models.positions(mask)).attentions
    for b, prompt in enumerate((9, 5)):
        seen = mask[b].bool()
        whole = want[2][b, 1][seen][:, seen].cpu().numpy()
        head = rec.run.sample(b)[2, 1]
        assert head.kept == tuple(range(prompt - 3, prompt + 7))
        assert np.abs(head[prompt - 3 :] - whole[prompt - 3 :]).max() <= checks.TOLERANCE


def test_a_compiled_static_cache_is_refused() -> None:
    with pytest.raises(ap.UnsupportedCall, match="disable_compile=True"), ap.record(model := on_device()):
        model.generate(models.ids(1, 5).cuda(), max_new_tokens=3, pad_token_id=0, cache_implementation="static")


@pytest.mark.parametrize("settings", [{}, {"heads": "0,2,3"}, {"layers": "L0H1,L2H3"}, {"dtype": "float16"}])
def test_no_synchronisation_in_a_forward(settings: dict[str, Any]) -> None:
    model, tokens = on_device(), models.ids(2, 30).cuda()
    with torch.no_grad(), ap.record(model, **settings):
        model(tokens)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = model(tokens)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        del out


@pytest.mark.parametrize("name", ["reused static cache", "chunks", "left", "right"])
def test_scenarios_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, fill, eager = models.ids, models.padded, models.eager
    monkeypatch.setattr(models, "ids", lambda *a, **k: make(*a, **k).cuda())
    monkeypatch.setattr(models, "padded", lambda *a, **k: {n: v.cuda() for n, v in fill(*a, **k).items()})

    def on_host(model: Any, **inputs: Any) -> Any:
        out = eager(model, **{name: value.cuda() for name, value in inputs.items()})
        out.attentions = tuple(part.cpu() for part in out.attentions)
        return out

    monkeypatch.setattr(models, "eager", on_host)
    checks.SCENARIOS[name](on_device())


def test_extra_device_memory_is_within_twice_the_budget() -> None:
    model = on_device(n_layer=6, n_embd=256, n_positions=4096).to(torch.bfloat16)
    tokens, budget = models.ids(1, 4096).cuda(), 64 << 20

    def peak(record: bool) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            if record:
                with ap.record(model, heads=0, budget=budget):
                    model(tokens, use_cache=False)
            else:
                model(tokens, use_cache=False)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    bare = peak(False)
    assert peak(True) - bare <= 2 * budget


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measures_on_the_device_are_those_of_the_recorded_weights(dtype: torch.dtype) -> None:
    model = on_device(n_positions=512).to(dtype)
    keep = [ap.Weights(), ap.Measures("all", measure_checks.NAMES)]
    batch = {name: tensor.cuda() for name, tensor in models.padded([300, 120], "left").items()}
    with torch.no_grad(), ap.record(model, keep=keep) as rec:
        model.generate(**batch, max_new_tokens=8, min_new_tokens=8, pad_token_id=0)
    measure_checks.check_run(rec.run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_weights_on_the_device_are_those_of_the_recorded_ones(dtype: torch.dtype) -> None:
    model = on_device(n_positions=512).to(dtype)
    batch = {name: tensor.cuda() for name, tensor in models.padded([300, 120], "left").items()}
    with torch.no_grad(), ap.record(model, keep=[ap.Weights(), ap.TopK("all", 5)]) as rec:
        model.generate(**batch, max_new_tokens=8, min_new_tokens=8, pad_token_id=0)
    measure_checks.check_largest(rec.run, 5)


def test_device_memory_of_measures_grows_with_the_length_and_not_with_its_square() -> None:
    model = on_device(n_positions=16384).half()
    extra = []
    for length in (4096, 8192, 16384):
        tokens, peaks = models.ids(1, length).cuda(), []
        for measures in (None, "default"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            with torch.no_grad(), ap.record(model, measures=measures or "means") as rec:
                with rec.paused() if measures is None else contextlib.nullcontext():
                    model.transformer(tokens, use_cache=False)
            peaks.append(torch.cuda.max_memory_allocated())
        extra.append(peaks[1] - peaks[0])
    assert max(extra) < 2 * (256 << 20)
    assert extra[2] < 2.5 * max(extra[1], 16 << 20)
