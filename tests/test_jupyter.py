"""The explorer in a real JupyterLab, in a real Chromium: its cell draws, its sliders change the map, Python follows."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import browser, missing

pytest.importorskip("jupyterlab", reason="the browser extra is not installed")
pytest.importorskip("anywidget", reason="the notebook extra is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[1]
TOKEN = "only-for-this-test"
RECORD = """\
import torch
from transformers import GPT2Config, GPT2LMHeadModel
import attnprobe as ap
torch.manual_seed(0)
config = GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=50, n_positions=64, initializer_range=0.3,
                    bos_token_id=None, eos_token_id=None)
model = GPT2LMHeadModel(config).eval()
with torch.no_grad(), ap.record(model) as rec:
    model(torch.randint(50, (1, 40)))
view = rec.run.view(1, 2)
view"""
TOLD = "print('state:', view.state['site'], view.state['head'])"
SET = "view.state = {**view.state, 'head': 0, 'scale': 'linear'}"
PATIENCE = 120_000  # milliseconds, on a machine that does other things too


def cell(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab's address, and the notebook that it shows."""
    root = tmp_path_factory.mktemp("lab")
    notebook = root / "explorer.ipynb"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    cells = [cell(source) for source in (RECORD, TOLD, SET)]
    notebook.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{what}_DIR": str(root / what.lower()) for what in ("CONFIG", "RUNTIME", "DATA")}
    environment = {**os.environ, **places, "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces")}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={TOKEN}", "--LabApp.news_url=None"]
    with (root / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (root / "log").read_text()
                time.sleep(0.2)
        yield f"{url}/lab/tree/{notebook.name}?token={TOKEN}", notebook
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(lab: tuple[str, Path]) -> Iterator[Any]:
    """The notebook in a browser, once its kernel is ready."""
    with browser() as running:
        page = running.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.goto(lab[0])
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        yield page


def run(page: Any, number: int) -> None:
    """Run one cell, and wait until it has run; what is asked for while a kernel starts may be forgotten."""
    one = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    prompt = one.locator(".jp-InputArea-prompt")
    before = prompt.inner_text()

    def ran(_: Any) -> bool:
        if "*" not in prompt.inner_text():
            one.locator(".cm-content").click()
            page.keyboard.press("Control+Enter")
        page.wait_for_timeout(2000)
        return prompt.inner_text() != before and re.fullmatch(r"\[\d+\]:", prompt.inner_text().strip()) is not None

    until(page, ran, bool)


def printed(page: Any, text: str) -> None:
    run(page, 1)
    page.wait_for_selector(f".jp-OutputArea-output >> text={text}")


LARGEST = """() => {
  const every = [...document.querySelectorAll(".attnprobe .ap-main canvas")];
  return every.filter((one) => one.width).sort((a, b) => b.width * b.height - a.width * a.height)[0];
}"""


def colours(page: Any) -> int:
    """How many different colours the largest canvas of the map has; none, before it is drawn."""
    count: int = page.evaluate(f"""() => {{
      const canvas = ({LARGEST})();
      if (!canvas) return 0;
      const {{ data }} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    }}""")
    return count


def picture(page: Any) -> str:
    found: str = page.evaluate(f'() => ({LARGEST})()?.toDataURL() ?? ""')
    return found


def until(page: Any, what: Any, wanted: Any) -> Any:
    """Wait until a value is as it is wanted."""
    ends = time.monotonic() + PATIENCE / 1000
    while not wanted(found := what(page)):
        assert time.monotonic() < ends, f"it did not come: {what.__name__}, last {str(found)[:80]!r}"
        page.wait_for_timeout(100)
    return found


def test_the_cell_draws_its_sliders_change_the_map_and_python_follows(page: Any, lab: tuple[str, Path]) -> None:
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    outside: list[str] = []
    page.on("request", lambda one: outside.append(one.url) if "127.0.0.1" not in one.url else None)
    run(page, 0)
    page.wait_for_selector(".attnprobe .ap-bar")
    until(page, colours, lambda count: count > 40)
    printed(page, "state: transformer.h.1.attn 2")

    first = picture(page)
    head = page.locator('.attnprobe input[name="head"]')
    head.focus()
    head.press("ArrowRight")
    second = until(page, picture, lambda now: now not in ("", first))
    printed(page, "state: transformer.h.1.attn 3")
    layer = page.locator('.attnprobe input[name="layer"]')
    layer.focus()
    layer.press("ArrowRight")
    until(page, picture, lambda now: now not in ("", first, second))
    printed(page, "state: transformer.h.2.attn 3")

    run(page, 2)
    assert page.locator(".jp-OutputArea-output", has_text="Error").count() == 0
    page.wait_for_function("document.querySelector('.attnprobe input[name=head]').value === '0'")
    assert page.locator('.attnprobe select[name="scale"]').input_value() == "linear"
    printed(page, "state: transformer.h.2.attn 0")

    page.keyboard.press("Control+s")
    notebook = lab[1]
    until(page, lambda _: notebook.read_text(), lambda text: "image/png" in text)
    saved = json.loads(notebook.read_text())
    (output,) = [one for one in saved["cells"][0]["outputs"] if "data" in one]
    assert set(output["data"]) >= {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert len(json.dumps(output)) < 100_000
    assert [url for url in outside if url.startswith("http")] == []
    assert wrong == []
