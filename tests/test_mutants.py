"""Tests of the tests: each way of getting weights wrong is put in on purpose, and the exactness checks must notice."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import checks
import models
import pytest

import attnprobe.observer
from attnprobe import call as call_module
from attnprobe.call import AttentionCall
from attnprobe.engines import ENGINES, Tile
from attnprobe.errors import AttnprobeError
from attnprobe.lineage import Forward

Patch = pytest.MonkeyPatch


def altered_call(patch: Patch, **changes: Any) -> None:
    original = attnprobe.observer.registry_call
    patch.setattr("attnprobe.observer.registry_call", lambda *a, **k: replace(original(*a, **k), **changes))


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


MODEL_MUTANTS: list[Callable[[Patch], None]] = [
    no_scale, no_mask, no_causal_rule, padding_ignored, head_offset, deferred,
]  # fmt: skip
CALL_MUTANTS: list[Callable[[Patch], None]] = [
    upper_left_for_bottom_right, no_group, no_cap, no_sinks, no_bias, no_window,
]  # fmt: skip
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
