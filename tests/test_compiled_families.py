"""Compiled models of the types that transformers ships: recorded exactly, or refused by name; all with -m sweep."""

import re
from typing import Any

import conformance
import pytest
import zoo
from torch import nn
from torch._dynamo.utils import counters

from attnprobe.errors import AttnprobeError

pytestmark = pytest.mark.usefixtures("unchecked", "fresh_compiler")
# Between them: soft caps, learned sinks, experts, windows, packed batches of an encoder, a tower.
SUBSET = [("causal", "gemma2"), ("causal", "gpt_oss"), ("masked", "modernbert"), ("image", "vit"), ("seq2seq", "t5")]
REFUSED = re.compile("is compiled by torch.compile and|inside of compiled code|no attention that can be recorded")


def compile_in_place(kind: str, model: Any) -> None:
    """The whole; of an encoder and its decoder, the layers."""
    if kind != "seq2seq":
        model.compile(backend="eager")
        return
    for part in model.modules():
        for layer in part if isinstance(part, nn.ModuleList) else ():
            if any("Attention" in type(inner).__name__ for inner in layer.modules()):
                layer.compile(backend="eager")


def check(kind: str, name: str, scenario: str = "plain") -> None:
    """Every weight against the model's own eager run, every logit against the compiled run that is not recorded."""
    try:
        case = zoo.build(kind, name)
    except zoo.CannotBuild as error:
        pytest.skip(str(error))
    compile_in_place(kind, case.model)
    assert conformance.check(case, scenario).compared
    assert counters["stats"]["unique_graphs"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), SUBSET)
def test_a_compiled_model_is_recorded_exactly(kind: str, name: str) -> None:
    check(kind, name)


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in zoo.MAPPINGS for name in zoo.types(kind)])
def test_a_compiled_model_of_every_type_is_recorded_exactly_or_refused(kind: str, name: str) -> None:
    try:
        check(kind, name)
    except AttnprobeError as error:
        assert REFUSED.search(str(error)), error
