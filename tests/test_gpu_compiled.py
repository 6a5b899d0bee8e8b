"""Compiled models on CUDA: run with ``pytest -m gpu`` on a machine that has one."""

from collections.abc import Callable
from typing import Any

import checks
import models
import numpy as np
import pytest
import torch
from compile_checks import graphs, nothing_left
from test_ways import mistral

import attnprobe as ap

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.usefixtures("unchecked", "fresh_compiler"),
]
NAMED: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: models.gpt2(n_embd=128, n_positions=256),  # heads of 32
    "mistral": mistral,  # grouped keys, rotary embeddings, a window
    "everything": lambda: mistral(sliding_window=None),  # no mask
}
# On CUDA inductor fuses these otherwise beside the operators, and rounds otherwise: to that, outputs are the same.
ROUNDED = {"mistral", "everything"}
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def assert_same_logits(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
    """The same bits, or, where inductor fuses otherwise, the same but for its rounding."""
    if name in ROUNDED:
        assert (got - want).abs().max() <= ROUNDING[got.dtype] * want.abs().max()
    else:
        assert torch.equal(got, want)


def on_device(name: str, dtype: torch.dtype) -> Any:
    return NAMED[name]().cuda().to(dtype)


def texts(count: int, length: int = 40) -> list[torch.Tensor]:
    """Batches of one shape."""
    return [models.ids(2, length, seed).cuda() for seed in range(count)]


def assert_same(run: ap.Run, **inputs: torch.Tensor) -> None:
    """Against the same weights run on eager attention, uncompiled, on the device."""
    attentions = models.eager(on_device("everything", torch.float32), **inputs).attentions
    checks.assert_same(run, [one.cpu() for one in attentions], inputs["attention_mask"].cpu())


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
@pytest.mark.parametrize(
    ("name", "dtype"), [("gpt2", torch.bfloat16), ("mistral", torch.bfloat16), ("everything", torch.float32)]
)
@torch.no_grad()
def test_inductor_computes_the_same(name: str, dtype: torch.dtype, mode: str | None) -> None:
    """Also with CUDA graphs, which record themselves at the second call and are replayed from the third on."""
    model, batches = on_device(name, dtype), texts(5)
    compiled = torch.compile(model, fullgraph=True, mode=mode)

    def run() -> list[torch.Tensor]:
        logits = []
        for batch in batches:
            torch.compiler.cudagraph_mark_step_begin()
            logits.append(compiled(batch, use_cache=False).logits.clone())  # a replay writes into the same memory
        return logits

    bare = run()
    with nothing_left(model), ap.record(compiled) as rec:
        recorded = run()
    for before, own, after in zip(bare, recorded, run(), strict=True):
        assert_same_logits(name, own, before)
        assert torch.equal(after, before)
    assert graphs() == 2
    assert rec.uncompiled == {} and not rec.fidelity.off
    assert len(rec.run.samples) == 10
    other = NAMED[name]().cuda()
    for number, batch in enumerate(batches):
        for row in range(2):
            weights = rec.run.sample(2 * number + row)[1, 2].numpy()
            assert np.abs(weights.sum(-1) - 1).max() <= 1e-5
            if dtype == torch.float32:
                want = models.eager(other, input_ids=batch).attentions[1][row, 2].cpu().numpy()
                assert np.abs(weights - want).max() <= 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_padded_batch_equals_eager(side: str) -> None:
    model, host = on_device("everything", torch.float32), models.padded([14, 9, 1], side)
    batch = {name: tensor.cuda() for name, tensor in host.items()}
    compiled = torch.compile(model, fullgraph=True)
    bare = compiled(**batch).logits
    with nothing_left(model), ap.record(compiled) as rec:
        assert_same_logits("everything", compiled(**batch).logits, bare)
    assert_same(rec.run, **batch)


def test_generation_on_compiled_code_and_a_static_cache() -> None:
    model, host = on_device("everything", torch.float32), models.padded([9, 5], "left")
    batch = {name: tensor.cuda() for name, tensor in host.items()}
    model.forward = torch.compile(model.forward)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}
    settings |= {"cache_implementation": "static", "disable_compile": True}  # which compiles by itself on CUDA
    bare = model.generate(**batch, **settings)
    with nothing_left(model), ap.record(model) as rec:
        assert torch.equal(model.generate(**batch, **settings), bare)
    assert rec.uncompiled == {}
    mask = torch.cat([batch["attention_mask"], torch.ones_like(bare[:, 9:-1])], 1)
    assert_same(rec.run, input_ids=bare[:, :-1], attention_mask=mask, position_ids=models.positions(mask))


@torch.no_grad()
def test_no_synchronisation_in_a_compiled_forward() -> None:
    model, (tokens,) = on_device("gpt2", torch.bfloat16), texts(1)
    compiled = torch.compile(model, fullgraph=True)
    with ap.record(compiled):
        compiled(tokens, use_cache=False)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = compiled(tokens, use_cache=False)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        del out


@pytest.mark.parametrize("compile_it", [True, False])
@torch.no_grad()
def test_capture_as_a_cuda_graph_is_refused_and_so_is_a_replay_of_an_earlier_one(compile_it: bool) -> None:
    model, (tokens,) = on_device("everything", torch.bfloat16), texts(1)
    run = torch.compile(model) if compile_it else model
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(tokens, use_cache=False)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = run(tokens, use_cache=False).logits
    with nothing_left(model), pytest.raises(ap.NothingRecorded, match="did not run inside of the block"):
        with ap.record(run):
            graph.replay()
    bare = held.clone()
    with nothing_left(model), pytest.raises(ap.UnsupportedCall, match="captured as a CUDA graph"):
        with ap.record(run):
            run(tokens, use_cache=False)  # compiles, where there is something to compile
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                run(tokens, use_cache=False)
    torch.cuda.synchronize()
    graph.replay()
    assert torch.equal(held, bare)
