"""What the tests share: where data lie, what is checked while they run, and a compiler that knows nothing yet."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import annotations
import jaxtyping
import pytest

annotations.install()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
DATA = Path(os.environ.get("ATTNPROBE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """All that was imported stays: a collection of garbage, with a compiler at work one after the other, passes it."""
    if not gc.get_freeze_count():  # a benchmark in this process thaws what it finds
        gc.collect()
        gc.freeze()


@pytest.fixture
def data() -> Path:
    """Files that are not part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"no test data at {DATA}; ATTNPROBE_DATA names another place")
    return DATA


@pytest.fixture
def unchecked() -> Iterator[None]:
    """What a user sees, to whom annotations are no checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """A compiler that knows no code yet: what earlier tests compiled counts to nobody's limit."""
    import torch
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
