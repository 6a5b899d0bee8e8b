"""What runs beside a compiled model that is recorded: other recorders, models, threads and copies; none notices."""

import copy
import threading

import models
import numpy as np
import pytest
import torch
from compile_checks import assert_exact, by_layer, graphs, nothing_left
from torch._dynamo.testing import CompileCounter

import attnprobe as ap

pytestmark = pytest.mark.usefixtures("unchecked", "fresh_compiler")


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


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_a_bystander_stays_whole_over_twenty_recorders_of_a_compiled_model(attention: str) -> None:
    bystander, model = models.gpt2(seed=5, attention=attention), models.gpt2(attention=attention)
    tokens, frames = models.ids(1, 7), CompileCounter()
    noticing = torch.compile(bystander, backend=frames, fullgraph=True)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    bare = noticing(tokens, use_cache=False).logits
    for number in range(20):
        with ap.record(compiled, layers=number % 3):
            compiled(tokens)
            assert torch.equal(noticing(tokens, use_cache=False).logits, bare)
        assert torch.equal(noticing(tokens, use_cache=False).logits, bare)
    assert frames.frame_count <= 2
    assert graphs() <= 4


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
def test_a_copy_made_inside_of_the_block_is_not_recorded() -> None:
    model, tokens = models.gpt2(), models.ids(1, 6)
    by_layer(model, backend="eager")
    with ap.record(model) as rec:
        copied = copy.deepcopy(model)
        by_layer(copied, backend="eager")
        assert torch.equal(copied(tokens).logits, model(tokens).logits)
    assert len(rec.run.samples) == 1
    assert torch.equal(copied(tokens).logits, model(tokens).logits)
    with ap.record(copied) as rec:
        copied(tokens)
    assert_exact(rec.run, models.gpt2(), input_ids=tokens)
