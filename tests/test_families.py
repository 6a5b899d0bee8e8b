"""Every kind of model that transformers ships, each against its own eager run; a few in CI, all with -m sweep.

``python tests/families.py`` runs the same for all of them, and writes docs/families.md.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import conformance
import families
import pytest
import transformers
import zoo

import attnprobe.interface
from attnprobe.errors import AttnprobeError
from attnprobe.observer import Observer

PAGE = Path(__file__).parents[1] / "docs" / "families.md"

# Between them: grouped queries, windows, chunks, soft caps, sinks of three kinds, biases, ALiBi, boolean and float
# masks, unequal head sizes, one module as many layers, every route, encoders, towers, hybrids, experts.
SUBSET = {
    "causal": [
        "bloom",
        "deepseek_v3",
        "diffllama",
        "doge",
        "falcon",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_oss",
        "gptj",
        "granite_swa",
        "jamba",
        "llama",
        "llama4_text",
        "mistral",
        "mixtral",
        "openai-gpt",
    ],
    "masked": ["albert", "bert", "modernbert"],
    "seq2seq": ["bart", "pegasus", "t5"],
    "image": ["data2vec-vision", "dinov2", "vit"],
}
# Where eager and SDPA runs of the model itself drift apart by 2e-5 in the weights, though not in the logits.
DRIFTS = {("umt5", "right"), ("umt5", "generate")}
LEAST = {"causal": 171, "masked": 31, "seq2seq": 29, "image": 10}  # types that have to be recorded


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, str], Any]:
    """Models are built once."""
    return {}


def case_of(cases: dict[tuple[str, str], Any], kind: str, name: str) -> Any:
    if (kind, name) not in cases:
        cases[kind, name] = zoo.build(kind, name)
    return cases[kind, name]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SUBSET.items() for name in names])
def test_recorded_exactly_in_every_scenario(kind: str, name: str, cases: dict[tuple[str, str], Any]) -> None:
    found = families.examine(case_of(cases, kind, name))
    assert not found.failed, found.failed
    assert "plain" in found.passed and not found.missing
    if f"transformers {transformers.__version__}" in PAGE.read_text():
        assert list(found.passed) == scenarios(kind, name), "another set than the page says"


@pytest.mark.sweep
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_as_many_types_as_ever_are_recorded(kind: str) -> None:
    rows = [families.survey(kind, name) for name in zoo.types(kind)]
    recorded = [row.model_type for row in rows if "plain" in row.passed and not row.missing]
    assert len(recorded) >= LEAST[kind], sorted(set(zoo.types(kind)) - set(recorded))
    off = {(row.model_type, name): why for row in rows for name, why in row.failed.items() if "AssertionError" in why}
    assert not off.keys() - DRIFTS, "recorded, and not right"


MUTANTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no scale": ({"scale": 1.0}, "causal", "llama", "plain"),
    "no causal rule": ({"causal": "none"}, "causal", "gpt2", "plain"),
    "no mask": ({"mask": None}, "causal", "llama", "left"),
    "no soft cap": ({"cap": None}, "causal", "gemma2", "plain"),
    "no sinks": ({"sinks": None}, "causal", "gpt_oss", "plain"),
    "no bias": ({"bias": None}, "seq2seq", "t5", "plain"),
    "groups in another order": ({"key": lambda call: call.key.flip(1)}, "causal", "llama", "plain"),
    "columns of a window from slot 0": ({"key_offset": 0}, "causal", "mistral", "generate"),
    "not in the call but later": ({"later": True}, "causal", "mistral", "static"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_checks_kill(mutant: str, cases: dict[tuple[str, str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    changes, kind, name, scenario = MUTANTS[mutant]
    case = case_of(cases, kind, name)
    if "key_offset" in changes:
        monkeypatch.setattr("attnprobe.observer.align", lambda call, *_: call)
    elif "later" in changes:
        make_later(monkeypatch)
    else:
        original = attnprobe.interface.registry_call

        def altered(*arguments: Any) -> Any:
            call = original(*arguments)
            return replace(call, **{n: v(call) if callable(v) else v for n, v in changes.items()})

        monkeypatch.setattr("attnprobe.interface.registry_call", altered)
    with pytest.raises((AssertionError, AttnprobeError)):
        conformance.check(case, scenario)


def make_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all weights when the recording ends: a cache of fixed size has other keys in it by then."""
    tile, finish = Observer._tile, Observer.finish
    calls: list[tuple[Any, ...]] = []

    def finish_later(self: Observer) -> None:
        for call in calls:
            tile(self, *call)
        finish(self)

    monkeypatch.setattr(Observer, "_tile", lambda _, *call: calls.append(call))
    monkeypatch.setattr(Observer, "finish", finish_later)


def scenarios(kind: str, name: str) -> list[str]:
    """What the page says that is recorded of a type."""
    (line,) = re.findall(rf"^\| `{name}` \|.*$", section(kind), re.MULTILINE)
    return [one.strip() for one in line.split("|")[4].split(",")]


def section(kind: str) -> str:
    """The part of the page that is about a task."""
    text = PAGE.read_text()
    if f"transformers {transformers.__version__}" not in text:
        pytest.skip(f"the page is not of transformers {transformers.__version__}, which is installed here")
    return text.partition(f"## {families.TITLES[kind]}")[2].partition("\n## ")[0]


def test_the_page_of_families_lists_every_type() -> None:
    for kind in zoo.KINDS:
        listed = re.findall(r"^\| `([\w-]+)`", section(kind), re.MULTILINE)
        assert listed == zoo.types(kind)
