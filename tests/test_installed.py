"""What has to be there where every change is tested: tests that need it are skipped where it is missing."""

import os
import shutil

import pytest

from tests.browsing import missing

pytestmark = pytest.mark.skipif(not os.environ.get("CI"), reason="only where CI is set")


def test_there_is_a_browser() -> None:
    assert missing() is None


def test_there_is_node() -> None:
    assert shutil.which("node")


@pytest.mark.parametrize("package", ["anywidget", "jupyterlab", "matplotlib", "starlette", "uvicorn", "xarray"])
def test_there_is_every_extra(package: str) -> None:
    __import__(package)
