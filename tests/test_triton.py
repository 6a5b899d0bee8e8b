"""The triton engine: in triton's interpreter where there is no GPU, and as it is on CUDA with ``-m gpu``."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import checks
import pytest
import torch
import triton_checks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnprobe.engines import ENGINES, get_engine, triton

Run = Callable[..., Any]
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
HEALTH = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module", params=["cpu", CUDA])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Calls a check on a device: the CPU's is in a process that interprets kernels."""
    if request.param == "cuda":
        yield lambda check, *arguments: check(*arguments, "cuda")
        return
    with triton_checks.interpreting() as process:
        yield lambda check, *arguments: process.submit(check, *arguments, "cpu").result(250)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", list(checks.calls()))
def test_tiles_equal_float64(name: str, dtype: torch.dtype, run: Run) -> None:
    run(triton_checks.check_named, name, dtype)


@st.composite
def calls(draw: st.DrawFn, longest: int = 40, widest: int = 40, wide: bool = False) -> dict[str, Any]:
    """Any call that the kernels cover, and heads and rows of it."""
    rows, kv_heads, group = draw(st.integers(1, longest)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    heads, dtype = kv_heads * group, draw(st.sampled_from(DTYPES))
    columns = draw(st.integers(rows if wide else 1, longest))
    return {
        "seed": draw(st.integers(0, 99)),
        "batch": draw(st.integers(1, 2)),
        "rows": rows,
        "columns": columns,
        "heads": heads,
        "kv_heads": kv_heads,
        "dim": draw(st.integers(1, widest)),
        "gain": draw(st.sampled_from([0.1, 3.0, 30.0])),
        "dtype": dtype,
        "causal": draw(st.sampled_from(["none", "upper-left", "bottom-right"])),
        "window": draw(st.sampled_from([None, 1, 5])),
        "cap": draw(st.sampled_from([None, 4.0, 50.0])),
        "mask": draw(st.sampled_from([None, "boolean", "additive", "holes", "added"])),
        "bias": draw(st.booleans()),
        "sinks": draw(st.sampled_from([None, "head", "query"])),
        "strided": draw(st.booleans()),
        "some_heads": tuple(sorted(draw(st.sets(st.integers(0, heads - 1), min_size=1)))),
        "some_rows": tuple(sorted(draw(st.sets(st.integers(0, rows - 1), min_size=1)))),
        "budget": draw(st.sampled_from([16 * 2 * columns * 4, 1 << 20])),
    }


@settings(max_examples=40, deadline=None, suppress_health_check=HEALTH)
@given(spec=calls())
def test_any_call_equals_float64(spec: dict[str, Any], run: Run) -> None:
    run(triton_checks.check_drawn, spec)


@settings(max_examples=8, deadline=None, suppress_health_check=HEALTH)
@given(spec=calls(longest=20, widest=16, wide=True))
def test_measures_of_any_call_equal_their_definitions(spec: dict[str, Any], run: Run) -> None:
    run(triton_checks.check_drawn_measures, spec)


@pytest.mark.sweep
@settings(max_examples=60, deadline=None, suppress_health_check=HEALTH)
@given(spec=calls(longest=70, widest=64, wide=True))
def test_measures_of_any_larger_call_equal_their_definitions(spec: dict[str, Any], run: Run) -> None:
    run(triton_checks.check_drawn_measures, spec)


@pytest.mark.sweep
@settings(max_examples=150, deadline=None, suppress_health_check=HEALTH)
@given(spec=calls(longest=150, widest=256))
def test_any_larger_call_equals_float64(spec: dict[str, Any], run: Run) -> None:
    run(triton_checks.check_drawn, spec)


@pytest.mark.parametrize("name", sorted(checks.calls().keys() - {"more rows than columns"}))
def test_measures_equal_their_definitions(name: str, run: Run) -> None:
    run(triton_checks.check_named_measures, name, DTYPES[len(name) % 3])


@pytest.mark.parametrize("name", sorted(checks.calls().keys() - {"more rows than columns"}))
def test_the_largest_weights_are_those_of_float64(name: str, run: Run) -> None:
    run(triton_checks.check_named_top, name, DTYPES[len(name) % 3])


@pytest.mark.parametrize(
    "check",
    [
        triton_checks.check_some_rows,
        triton_checks.check_padded_measures,
        triton_checks.check_long_measures,
        triton_checks.check_stray,
        triton_checks.check_other_top,
        triton_checks.check_heads_in_turn,
        triton_checks.check_nan_measures,
        triton_checks.check_same_peak_for_long,
        triton_checks.check_the_end_of_memory,
    ],
)
def test_measures_of_what_a_recording_meets(check: Callable[[str], None], run: Run) -> None:
    run(check)


@pytest.mark.parametrize("name", ["generate", "forward", "several forwards"])
def test_recorded_measures_are_those_of_the_recorded_weights(name: str, run: Run) -> None:
    run(triton_checks.check_recording, name)


def test_a_nan_in_the_model_stays_a_nan(run: Run) -> None:
    run(triton_checks.check_nan)


def test_only_columns_that_rows_can_see_are_made(run: Run) -> None:
    run(triton_checks.check_few_columns)


def test_what_is_not_covered_says_why_and_falls_to_torch(run: Run) -> None:
    found = run(triton_checks.reasons)
    assert found.pop("nothing") is None
    words = {"double": "float64", "mixed": "float16", "wide": "257 wide", "function": "function", "mask": "the mask is",
             "bias": "the bias is"}  # fmt: skip
    assert found.keys() == words.keys()
    assert all(words[name] in (reason or "") for name, reason in found.items()), found
    run(triton_checks.check_fallback)


def test_without_a_gpu_the_torch_engine_makes_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    call = checks.random_call()
    triton.covering._absent.cache_clear()
    assert triton.covers(call) == "kernels run on CUDA, not on cpu"
    checks.assert_exact(call, engine="triton")
    (tile,) = get_engine("auto")(call, (0,), range(9), 1 << 20)
    (same,) = ENGINES["torch"](call, (0,), range(9), 1 << 20)
    assert torch.equal(tile.weights, same.weights)


def test_without_triton_the_torch_engine_makes_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.covering, "find_spec", lambda name: None)
    triton.covering._absent.cache_clear()
    assert triton.covers(checks.random_call()) == "triton is not installed"
    checks.assert_exact(checks.random_call(), engine="triton")
    triton.covering._absent.cache_clear()


EVERYTHING = {
    "mask": torch.zeros(1, 1, 300, 300),
    "bias": torch.zeros(1, 4, 300, 300),
    "sinks": torch.zeros(4),
    "cap": 5.0,
    "causal": "bottom-right",
    "window": 9,
}


@pytest.mark.parametrize(
    ("capability", "width", "dtype", "parts", "every"),
    [
        (80, 64, torch.bfloat16, {"causal": "upper-left"}, False),
        (90, 128, torch.float16, EVERYTHING, False),
        *(
            pytest.param(capability, width, dtype, parts, True, marks=pytest.mark.sweep)
            for capability in (80, 90)
            for width, dtype in ((16, torch.float32), (64, torch.bfloat16), (256, torch.float16), (256, torch.float32))
            for parts in ({"causal": "upper-left"}, EVERYTHING)
        ),
    ],
)
def test_kernels_compile_without_a_gpu(
    capability: int, width: int, dtype: torch.dtype, parts: Any, every: bool
) -> None:
    triton_checks.check_compiles(width, dtype, capability, parts, every)
