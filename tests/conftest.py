"""Models that the tests share: small GPT-2s with peaked attention, built from a configuration."""

import os
from collections.abc import Iterator
from pathlib import Path

import annotations
import jaxtyping
import pytest

annotations.install()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
DATA = Path(os.environ.get("ATTNPROBE_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
