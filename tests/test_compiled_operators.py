"""The operators by which compiled code tells what it computes: kept by every compiler, in order, and unseen by it."""

from collections.abc import Callable
from typing import Any

import checks
import models
import pytest
import test_backends
import torch
from compile_checks import assert_exact, graphs, nothing_left
from test_ways import mistral
from torch._dynamo.backends.common import aot_autograd

import attnprobe as ap
from attnprobe import interface, traced
from attnprobe.marks import Mark
from attnprobe.watchers import marked

pytestmark = pytest.mark.usefixtures("unchecked", "fresh_compiler")


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
def test_no_operator_is_removed_or_moved_though_nobody_uses_its_result() -> None:
    model, tokens = models.gpt2(), models.ids(2, 9)
    told: list[list[str]] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graph.graph.eliminate_dead_code()  # as every compiler does
        nodes, wrapped = (
            graph.graph.nodes,
            "functionalized",
        )  # what changes an input is an argument of that
        names = [str(node.args[0] if wrapped in str(node.target) else node.target) for node in nodes]
        told.append([name.split(".")[1] for name in names if name.startswith("attnprobe.")])
        graph.recompile()
        return graph.forward

    compiled = torch.compile(model, backend=aot_autograd(fw_compiler=keep), fullgraph=True)
    with ap.record(compiled, layers=1, heads=0):
        compiled(tokens)
    assert told == [["start", "attention", "attention", "attention", "end"]], "all sites, whatever is selected"


class Catcher:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def attention(self, sites: tuple[int, ...], make: Callable[[], Any], traced: bool = False) -> None:
        assert traced
        self.calls.append(make())

    def returned(self, *_: Any) -> None:
        """Not compared here."""


def flash(module: Any, query: torch.Tensor, key: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    """Of the shape of what FlashAttention returns."""
    return torch.empty_like(query.transpose(1, 2)), None


@pytest.mark.parametrize("name", list(test_backends.CASES))
@torch.no_grad()
def test_every_argument_of_the_attention_function_comes_through(name: str) -> None:
    given, told = test_backends.CASES[name]
    module, catcher, wrapped = test_backends.Module(), Catcher(), interface._wrapper("flash_attention_2", flash)
    query, key = test_backends.tensors()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def run(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return wrapped(module, query, key, key, **given)[0]

    with marked(module, catcher, (0,)):
        run(query, key)
    (call,) = catcher.calls
    got = checks.tiles_of(call, (0, 1, 2, 3), range(5), "torch", 1 << 20)[0]
    assert (got - test_backends.weights(query, key, **told)).abs().max() <= 2e-6


def test_packed_rows_come_through() -> None:
    module, catcher, wrapped = test_backends.Module(), Catcher(), interface._wrapper("flash_attention_2", flash)
    query, key = test_backends.tensors(batch=1, rows=9)
    ends = torch.tensor([0, 4, 9], dtype=torch.int32)
    run = torch.compile(
        lambda q, k, ends: wrapped(module, q, k, k, None, cu_seq_lens_q=ends, cu_seq_lens_k=ends)[0],
        backend="aot_eager",
        fullgraph=True,
    )
    with marked(module, catcher, (0,)):
        run(query, key, ends)
    row, column = torch.arange(9)[:, None], torch.arange(9)[None]
    seen = (column <= row) & ((row < 4) == (column < 4))
    got = checks.tiles_of(catcher.calls[0], (0, 1, 2, 3), range(9), "torch", 1 << 20)[0]
    assert (got - test_backends.weights(query, key, seen)).abs().max() <= 2e-6


@pytest.mark.slow  # half a minute of a C++ compiler
@pytest.mark.parametrize("make", [models.gpt2, mistral])
@torch.no_grad()
def test_inductor_keeps_every_operator_in_order_and_computes_the_same_bits(make: Callable[[], Any]) -> None:
    model, batch = make(), models.padded([11, 6], "left")
    compiled = torch.compile(model, fullgraph=True, mode="reduce-overhead")  # on a CPU there are no graphs to replay
    bare = compiled(**batch).logits
    with nothing_left(model), ap.record(compiled) as rec:
        assert torch.equal(compiled(**batch).logits, bare)
    assert graphs() == 2
    assert_exact(rec.run, make(), **batch)
