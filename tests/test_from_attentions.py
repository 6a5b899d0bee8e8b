"""A run of what others computed: GPT-2's own eager weights, of a forward pass and of a generation."""

from typing import Any

import models
import pytest
import torch

import attnprobe as ap
from attnprobe.errors import SelectionError


@pytest.fixture(scope="module")
def model() -> Any:
    return models.gpt2(attention="eager")


def attentions(model: Any, ids: torch.Tensor, **options: Any) -> Any:
    with torch.no_grad():
        return model(ids, output_attentions=True, **options)


def maps(batch: int = 1, heads: int = 2, rows: int = 3, columns: int = 3) -> torch.Tensor:
    return torch.rand(batch, heads, rows, columns).tril(columns - rows) + 0.0


def test_maps_of_a_forward_pass_are_the_model_s_own(model: Any) -> None:
    outputs = attentions(model, models.ids(2, 9))
    run = ap.from_attentions(outputs.attentions)
    assert len(run.samples) == 2 and repr(run).startswith("2 samples x 3 layers x 4 heads x 9 tokens, float32")
    for b in range(2):
        for layer in range(3):
            read = torch.from_numpy(run.sample(b).layer_array(layer))
            assert torch.equal(read, outputs.attentions[layer][b])


def test_maps_are_copied(model: Any) -> None:
    weights = maps()
    run, before = ap.from_attentions((weights,)), weights.clone()
    weights.zero_()
    assert torch.equal(run[0, 1].torch(), before[0, 1])


def test_maps_of_a_generation_are_joined(model: Any) -> None:
    ids = models.ids(2, 5)
    with torch.no_grad():
        outputs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            return_dict_in_generate=True,
            output_attentions=True,
        )
    run = ap.from_attentions(outputs.attentions)
    again = attentions(model, outputs.sequences[:, :8])
    assert [s.sequences["main"].length for s in run.samples] == [8, 8]
    assert [s.prompt_length for s in run.samples] == [5, 5]
    for b in range(2):
        for layer in range(3):
            read = torch.from_numpy(run.sample(b).layer_array(layer))
            assert torch.equal(read[:, :5, :5], outputs.attentions[0][layer][b])
            for step in (1, 2, 3):
                assert torch.equal(read[:, 4 + step, : 5 + step], outputs.attentions[step][layer][b, :, 0])
            torch.testing.assert_close(read, again.attentions[layer][b], atol=1e-5, rtol=0)


def test_rows_after_a_cache_are_the_last_ones(model: Any) -> None:
    ids = models.ids(1, 7)
    first = attentions(model, ids[:, :4], use_cache=True)
    rest = attentions(model, ids[:, 4:], past_key_values=first.past_key_values)
    head = ap.from_attentions(rest.attentions)[1, 2]
    assert head.shape == (7, 7) and head.kept == (4, 5, 6)
    assert torch.equal(torch.from_numpy(head[4:]), rest.attentions[1][0, 2])
    both = ap.from_attentions((first.attentions, rest.attentions))[1, 2]
    assert both.kept == tuple(range(7))


def test_what_fused_attention_returns_is_refused_with_the_fix() -> None:
    outputs = attentions_of_sdpa()
    for nothing in (outputs, (), None, (None,), (None, None), ((), ()), ((None,), (None,)), (maps(), None)):
        with pytest.raises(SelectionError, match=r"there are no weights .*attnprobe\.record\(model\)"):
            ap.from_attentions(nothing)


def attentions_of_sdpa() -> Any:
    """An empty tuple, or one of None: what there is without eager attention."""
    sdpa = models.gpt2()
    with torch.no_grad():
        return sdpa(models.ids(1, 3)).attentions


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((torch.rand(2, 3, 3),), r"layer 0: want a tensor \[batch, head, query, key\], got \(2, 3, 3\)"),
        ((maps(), torch.rand(3, 3)), r"layer 1: want a tensor"),
        (((maps(), "x"),), "layer 1: want a tensor .* got str"),
        ((maps(), maps(batch=2)), r"layer 1: shape \(2, 2, 3, 3\) does not go with the others'"),
        ((maps(), maps(rows=2)), "layer 1: shape"),
        ((maps(rows=4),), "layer 0: 4 rows over 3 columns"),
        (((maps(),), (maps(rows=1, columns=5),)), "step 1, layer 0: 1 rows over 5 columns, .* end at row 3"),
        (((maps(),), (maps(rows=1, columns=4), maps(rows=1, columns=4))), "step 1, 2 layers, where step 0 has 1"),
        (((maps(),), (maps(batch=2, rows=1, columns=4),)), "step 1, layer 0: shape"),
        (((maps(),), (maps(heads=3, rows=1, columns=4),)), "step 1, layer 0: shape"),
        ((torch.cat([maps(), torch.zeros(1, 2, 3, 5)], -1),), "where a static cache pads the maps"),
    ],
)
def test_wrong_shapes_are_named(given: Any, words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        ap.from_attentions(given)


def test_tokens_name_the_columns() -> None:
    one = ap.from_attentions((maps(),), ["a", "b", "c"])
    assert tuple(one[0, 0].row("b").index) == ("a", "b", "c")
    rows = (("a", "b", "c"), ("x", "y", "z"))
    two = ap.from_attentions((maps(batch=2),), rows)
    assert [two.sample(b).tokens for b in range(2)] == list(rows)
    assert ap.from_attentions((maps(),), [["a", "b", "c"]]).sample().tokens == ("a", "b", "c")
    assert ap.from_attentions((maps(),)).sample().tokens == ("0", "1", "2")


@pytest.mark.parametrize(
    ("batch", "tokens", "words"),
    [
        (1, ["a", "b"], "2 tokens for maps of 3 columns; give one a column"),
        (2, ["a", "b", "c"], "tokens for 1 samples, and the maps have 2"),
        (2, [["a", "b", "c"]], "tokens for 1 samples, and the maps have 2"),
        (2, [["a", "b", "c"], ["a"]], "1 tokens for maps of 3 columns"),
        (1, [], "0 tokens for maps of 3 columns"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(batch: int, tokens: Any, words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        ap.from_attentions((maps(batch),), tokens)
