"""Tests of the tests: each way of getting weights wrong is put in on purpose, and the exactness checks must notice."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import checks
import measure_checks
import models
import numpy as np
import pytest
import torch

import attnprobe.interface
import attnprobe.observer
from attnprobe import call as call_module
from attnprobe.call import AttentionCall
from attnprobe.engines import ENGINES, Tile
from attnprobe.errors import AttnprobeError
from attnprobe.lineage import Forward
from attnprobe.measures import MEASURES, SampleRows, Tokens, distances
from attnprobe.measures.distances import Distances
from attnprobe.measures.pooled import Pooled
from attnprobe.measures.received import Received
from attnprobe.measures.tokens import Earlier

Patch = pytest.MonkeyPatch


def altered_call(patch: Patch, **changes: Any) -> None:
    original = attnprobe.interface.registry_call
    patch.setattr("attnprobe.interface.registry_call", lambda *a, **k: replace(original(*a, **k), **changes))


def no_scale(patch: Patch) -> None:
    altered_call(patch, scale=1.0)


def no_mask(patch: Patch) -> None:
    altered_call(patch, mask=None)


def no_causal_rule(patch: Patch) -> None:
    altered_call(patch, causal="none")


def padding_ignored(patch: Patch) -> None:
    original = Forward.land

    def land(self: Forward, ids: Any, mask: Any, diagonal: Any, positions: Any, source: Any) -> None:
        original(self, ids, None, None, positions, source)

    patch.setattr(Forward, "land", land)


def head_offset(patch: Patch) -> None:
    original = ENGINES["torch"]

    def tiles(call: AttentionCall, *rest: Any) -> Iterator[Tile]:
        yield from original(replace(call, query=call.query.roll(1, 1), key=call.key.roll(1, 1)), *rest)

    patch.setattr("attnprobe.recorder.get_engine", lambda name: tiles)


def deferred(patch: Patch) -> None:
    """Weights made after the forward pass: a cache has been overwritten by then."""
    observer = attnprobe.observer.Observer
    record, waiting = observer._record, []

    def later(self: Any, *call: Any) -> None:
        waiting.append((dict(self._forwards), call))

    def before(method: Any) -> Any:
        def work(self: Any, *args: Any) -> None:
            for forwards, call in waiting:
                self._forwards = forwards
                record(self, *call)
            waiting.clear()
            self._forwards = {}
            method(self, *args)

        return work

    patch.setattr(observer, "_record", later)
    for name in ("before_forward", "finish"):
        patch.setattr(observer, name, before(getattr(observer, name)))


def upper_left_for_bottom_right(patch: Patch) -> None:
    original = AttentionCall.diagonal
    assert isinstance(original, property)
    patch.setattr(AttentionCall, "diagonal", property(lambda self: 0))


def no_group(patch: Patch) -> None:
    original = call_module.as_index

    def wrong(numbers: Any, device: Any) -> Any:
        return original(tuple(0 for _ in numbers) if isinstance(numbers, tuple) else numbers, device)

    patch.setattr("attnprobe.engines.torch.as_index", wrong)


def no_cap(patch: Patch) -> None:
    without(patch, cap=None)


def no_sinks(patch: Patch) -> None:
    without(patch, sinks=None)


def no_bias(patch: Patch) -> None:
    without(patch, bias=None)


def no_window(patch: Patch) -> None:
    without(patch, window=None)


def without(patch: Patch, **changes: Any) -> None:
    original = ENGINES["torch"]
    patch.setitem(ENGINES, "torch", lambda call, *a: original(replace(call, **changes), *a))


def altered_measure(patch: Patch, name: str, alter: Callable[[torch.Tensor, SampleRows], torch.Tensor]) -> None:
    original: Any = MEASURES[name]
    patch.setitem(MEASURES, name, replace(original, compute=lambda rows: alter(original.compute(rows), rows)))


def altered_fold(patch: Patch, fold: type, **changes: Callable[[SampleRows], Any]) -> None:
    original: Any = fold.update  # type: ignore[attr-defined]

    def update(self: Any, state: Any, rows: SampleRows) -> Any:
        return original(self, state, replace(rows, **{name: change(rows) for name, change in changes.items()}))

    patch.setattr(fold, "update", update)


def entropy_in_bits(patch: Patch) -> None:
    altered_measure(patch, "entropy", lambda values, rows: values / 0.6931)


def argmax_in_the_tile(patch: Patch) -> None:
    altered_measure(patch, "argmax", lambda values, rows: values - rows.start)


def first_token_has_a_previous_one(patch: Patch) -> None:
    altered_measure(patch, "previous", lambda values, rows: values.nan_to_num(0.0))


def distances_one_bin_off(patch: Patch) -> None:
    for name in ("_by_shear", "_by_mask"):
        original = getattr(distances, name)
        patch.setattr(distances, name, lambda rows, original=original: original(rows).roll(1, -1))


def empty_rows_counted(patch: Patch) -> None:
    altered_fold(patch, Distances, valid=lambda rows: None)


def generated_rows_in_the_prompts_window(patch: Patch) -> None:
    altered_fold(patch, Received, prompt_length=lambda rows: rows.query_length)


def pooled_mean_over_full_cells(patch: Patch) -> None:
    """The last cells of a length that is no multiple of the cell's are narrower."""
    original = Pooled.finalize

    def finalize(self: Pooled, state: Any, queries: int, keys: int) -> torch.Tensor:
        found = original(self, state, queries, keys)
        if not self.largest:
            found[..., -1] *= ((keys - 1) % state.size[1] + 1) / state.size[1]
        return found

    patch.setattr(Pooled, "finalize", finalize)


def token_before_is_a_repeat(patch: Patch) -> None:
    original = Tokens.earlier

    def earlier(self: Tokens, rows: Any) -> Earlier:
        found, own = original(self, rows), np.asarray(rows)
        return Earlier(np.append(found.rows, np.arange(len(own))), np.append(found.positions, np.maximum(own - 1, 0)))

    patch.setattr(Tokens, "earlier", earlier)


MODEL_MUTANTS: list[Callable[[Patch], None]] = [
    no_scale, no_mask, no_causal_rule, padding_ignored, head_offset, deferred,
]  # fmt: skip
CALL_MUTANTS: list[Callable[[Patch], None]] = [
    upper_left_for_bottom_right, no_group, no_cap, no_sinks, no_bias, no_window,
]  # fmt: skip
MEASURE_MUTANTS: dict[Callable[[Patch], None], str] = {
    entropy_in_bits: "entropy",
    argmax_in_the_tile: "argmax",
    first_token_has_a_previous_one: "previous",
    distances_one_bin_off: "distances",
    empty_rows_counted: "distances",
    generated_rows_in_the_prompts_window: "received_last",
    pooled_mean_over_full_cells: "pooled_mean",
    token_before_is_a_repeat: "duplicate",
}
KILLERS = {
    "deferred": ["reused static cache"],
    "no_mask": ["left", "generate, static"],
    "padding_ignored": ["left", "right"],
}


@pytest.mark.parametrize("mutant", MODEL_MUTANTS, ids=lambda m: m.__name__)
def test_checks_of_models_kill(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    model = models.gpt2()
    for name in KILLERS.get(mutant.__name__, ["no padding"]):
        checks.SCENARIOS[name](model)
        with monkeypatch.context() as patch:
            mutant(patch)
            with pytest.raises((AssertionError, AttnprobeError)):
                checks.SCENARIOS[name](model)
        checks.SCENARIOS[name](model)


@pytest.mark.parametrize("mutant", CALL_MUTANTS, ids=lambda m: m.__name__)
def test_checks_of_calls_kill(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    checks.check_calls()
    with monkeypatch.context() as patch:
        mutant(patch)
        with pytest.raises(AssertionError):
            checks.check_calls()
    checks.check_calls()


@pytest.mark.parametrize("mutant", MEASURE_MUTANTS, ids=lambda m: m.__name__)
def test_checks_of_measures_kill(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match=rf"(?s)^{MEASURE_MUTANTS[mutant]}\S*: .* (is not|ulp apart)"):
        measure_checks.check_measures()


def test_checks_of_measures_pass_what_is_right() -> None:
    measure_checks.check_measures()
