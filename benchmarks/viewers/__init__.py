"""Viewers of attention on the same weights: bytes of the page, seconds until it shows something, frames.

All heads of the bundled model on its own text, at several lengths, as each tool's notebook would show them; attnprobe
as its HTML file, and as its server on this machine.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import environment
from benchmarks.peers.venvs import NotInstalled, python_for
from benchmarks.viewers.browser import Page, local, look, scratch, scripts
from benchmarks.viewers.show import TABLES, draw

__all__ = ["TABLES", "draw", "measure"]

HERE = Path(__file__).parent
LENGTHS = (64, 256, 512, 1024)
LIMIT = 30.0  # seconds until a page is given up
OURS = Page(ready="document.querySelector('.attnprobe')?.app?.settled?.() === true", area=".attnprobe .ap-main")
TOOLS = {
    "bertviz_head": ("BertViz 1.4.1, head view", Page("document.querySelectorAll('svg line').length > 0", "svg")),
    "bertviz_model": ("BertViz 1.4.1, model view", Page("document.querySelectorAll('svg line').length > 0", "svg")),
    "circuitsvis": (
        "CircuitsVis 1.43.3, one layer",
        Page("document.querySelectorAll('canvas, img').length > 1", "body"),
    ),
    "inspectus": ("Inspectus 0.2.0", Page("document.querySelectorAll('svg rect, canvas').length > 1", "body")),
}


def measure(quick: bool) -> dict[str, Any]:
    """Make the pages and look at each; a page that no browser opens is a row that says so."""
    import attnprobe as ap
    from attnprobe import demo

    lengths = LENGTHS[:1] if quick else LENGTHS
    model, tokenizer = demo.load()
    ids = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=max(lengths))["input_ids"]
    rows: list[dict[str, Any]] = []
    ended: dict[str, int] = {}  # tools whose pages are not opened any more, and the length from which on
    try:
        python = str(python_for(HERE / "requirements.txt"))
    except NotInstalled as problem:
        python = ""
        rows.append({"tool": "others", "title": "other viewers", "ended": str(problem)})
    with scratch() as folder:
        for length in lengths:
            with ap.record(model, tokenizer, to=Path(folder, f"run{length}")):
                model(ids[:, :length])
            run = ap.open(Path(folder, f"run{length}"))
            rows += _ours(run, Path(folder), length)
            rows += _others(run, Path(folder), length, python, ended) if python else []
    return {
        "benchmark": "viewers",
        "quick": quick,
        "environment": environment("cpu"),
        "heads": f"{run.num_layers} layers x {run.num_heads} heads",
        "lengths": list(lengths),
        "limit": LIMIT,
        "rows": rows,
    }


def _ours(run: Any, folder: Path, length: int) -> Iterator[dict[str, Any]]:
    import time

    from attnprobe.explorer.file import write_html

    page = folder / "ours.html"
    start = time.perf_counter()
    write_html([run], page)
    made = time.perf_counter() - start
    yield {
        "tool": "attnprobe_file",
        "title": "attnprobe, one HTML file",
        "length": length,
        "made": made,
        "page": page.stat().st_size,
        **look(local(page), OURS, {}, LIMIT),
    }
    command = [sys.executable, "-m", "attnprobe.cli", "view", str(run.path), "--no-browser", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            record = ""
            while not record.endswith("}\n"):
                record += server.stdout.readline()
            address = json.loads(record)["url"]
            found = look(address, OURS, {}, LIMIT)
        finally:
            server.terminate()
    row = {"tool": "attnprobe_view", "title": "attnprobe view", "length": length, "made": 0.0}
    yield {**row, "page": found.get("bytes", 0), **found}


def _others(run: Any, folder: Path, length: int, python: str, over: dict[str, int]) -> Iterator[dict[str, Any]]:
    sample = run.sample(0)
    np.save(folder / "weights.npy", np.stack([sample.layer_array(layer) for layer in range(run.num_layers)]))
    (folder / "tokens.json").write_text(json.dumps(list(sample.tokens)))
    files = scripts(folder / "scripts")
    for name, (title, page) in TOOLS.items():
        path = folder / f"{name}.html"
        task = {"name": name, "weights": str(folder / "weights.npy"), "tokens": str(folder / "tokens.json")}
        command = [python, str(HERE / "makers.py"), json.dumps({**task, "page": str(path)})]
        row = {"tool": name, "title": title, "length": length}
        print(f"{title}, {length} tokens", file=sys.stderr)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10 * LIMIT)
        except subprocess.TimeoutExpired:
            yield {**row, "ended": f"no page in {10 * LIMIT:g} s"}
            continue
        if done.returncode:
            yield {**row, "ended": (done.stderr.strip() or "no word").splitlines()[-1][:120]}
            continue
        made = float(path.with_suffix(".seconds").read_text())
        row |= {"made": made, "page": path.stat().st_size}
        if name in over:
            yield {**row, "ended": f"not opened: not ready at {over[name]:,} tokens"}
        else:
            found = look(local(path), page, files, LIMIT)
            if "ended" in found:
                over[name] = length
            yield {**row, **found}
        path.unlink()
