"""The annotations of attnprobe are checked while the tests run: those of arrays, and all others."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import annotations
import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from attnprobe.call import attends
from attnprobe.fields import Block
from attnprobe.sizes import parse_bytes

checked = functools.partial(annotations.jaxtyped, typechecker=beartype)


def plain(a: int, *more: int, b: str = "") -> list[int]:
    return b or [a, *more]  # type: ignore[return-value]


def arrays(a: Float[Tensor, "head key"], b: Float[Tensor, "head key"]) -> None: ...


def quoted(a: "Float[Tensor, 'head key']", b: "Float[Tensor, 'head key']") -> None: ...


def refuses(call: Callable[[], Any]) -> bool:
    """Whether it is the annotations that stop a call."""
    try:
        call()
    except (TypeCheckError, BeartypeCallHintViolation):
        return True
    except Exception:
        return False
    return False


@dataclass
class Plain:
    number: int


@dataclass
class Arrays:
    a: Float[Tensor, "head key"]
    b: Float[Tensor, "head key"]


@pytest.fixture(autouse=True)
def hook(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("annotations are not checked in this run")


def test_arguments_and_results_without_arrays_are_checked() -> None:
    function = checked(plain)
    assert function(1, 2) == [1, 2]
    assert refuses(lambda: function("1"))
    assert refuses(lambda: function(1, "2"))
    assert refuses(lambda: function(1, b=2))
    assert refuses(lambda: function(1, b="b")), "what it gives"
    assert refuses(lambda: checked(Plain)("1"))
    assert Plain(1).number == 1


@pytest.mark.parametrize("function", [arrays, quoted, Arrays])
def test_axes_of_one_name_have_one_size(function: Any) -> None:
    function = checked(function)
    function(torch.ones(2, 3), torch.ones(2, 3))
    for other in (torch.ones(2, 4), torch.ones(2), torch.ones(2, 3, dtype=torch.int64)):
        assert refuses(lambda: function(torch.ones(2, 3), other))  # noqa: B023 (called at once)


@pytest.mark.parametrize(
    ("hint", "found"),
    [
        (Float[Tensor, " key"], True),
        (dict[str, Float[np.ndarray, " key"] | None], True),
        ("Plain", True),
        (list["Plain"], True),
        (Callable[[Float[Tensor, " key"]], None], True),
        (int | None, False),
        (Literal["all", 1], False),
        (tuple[Tensor, ...], False),
    ],
)
def test_an_array_is_found_wherever_it_stands_in_an_annotation(hint: Any, found: bool) -> None:
    assert annotations.may_hold_array(hint) is found


def test_attnprobe_is_checked_unless_a_test_asks_for_what_a_user_sees(request: pytest.FixtureRequest) -> None:
    def refused() -> list[bool]:
        return [
            refuses(lambda: attends([1])),
            refuses(lambda: Block((0,), range(2), "0", None)),
            refuses(lambda: parse_bytes(1.5)),
        ]

    assert refused() == [True, True, True]
    request.getfixturevalue("unchecked")
    assert refused() == [False, False, False]
