"""What the explorer copies as Python, run by Python: it gives the numbers that were recorded."""

import ast
import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch

import attnprobe as ap
from attnprobe.explorer.answers import Answers
from attnprobe.run import Run

FRONT = Path(__file__).parent / "front"
NODE = shutil.which("node")
LENGTH, KEYS = 23, 9
KEPT = [*range(4), *range(10, LENGTH)]  # rows of the second run
SELF, CROSS = "transformer.h.1.attn", "transformer.h.1.crossattention"

pytestmark = pytest.mark.skipif(NODE is None, reason="node prints the lines")


def _recorded(path: Path | None, queries: str = "all", seed: int = 0) -> tuple[Run, dict[str, np.ndarray]]:
    """A run of two samples, and the model's own eager weights of the second by site."""
    model = models.cross_gpt2(seed=seed)
    other = torch.randn(1, KEYS, 64, generator=torch.Generator().manual_seed(3))
    inputs = {"input_ids": models.ids(1, LENGTH, seed=5), "encoder_hidden_states": other}
    keep = [ap.Weights("all", queries=queries), ap.Weights("all", kind="cross"), ap.Measures("all")]
    with torch.no_grad(), ap.record(model, to=path, keep=keep) as rec:
        with rec.sample(id="first"):
            model(input_ids=models.ids(1, 7), encoder_hidden_states=other)
        with rec.sample(id='it\'s "it"'):
            model(**inputs)
    outputs = models.eager(model, **inputs)
    maps = {f"transformer.h.{n}.attn": weights[0].numpy() for n, weights in enumerate(outputs.attentions)}
    maps |= {f"transformer.h.{n}.crossattention": one[0].numpy() for n, one in enumerate(outputs.cross_attentions)}
    return rec.run, maps


@dataclass
class Explored:
    """Two runs on disk and one in memory, and the weights of all of their second samples."""

    runs: list[Run]
    maps: list[dict[str, np.ndarray]]
    facts: dict[str, Any]

    def values(self, *changes: dict[str, Any]) -> list[Any]:
        """The value of the last line of each text, run by Python."""
        return [_run(text, self.runs[2]) for text in self.texts(changes)]

    def texts(self, changes: Sequence[dict[str, Any]]) -> list[str]:
        question = {"changes": [{"sample": 1, "site": SELF, "head": 2, **one} for one in changes], **self.facts}
        done = subprocess.run(
            [NODE, "python_lines.mjs"],
            cwd=FRONT,
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        texts: list[str] = json.loads(done.stdout)
        return texts


def _run(text: str, run: Run) -> Any:
    """Execute all lines; what the last one says, or gives a name to, is the value."""
    scope: dict[str, Any] = {"rec": type("Recording", (), {"run": run})}
    lines = ast.parse(text)
    last = lines.body.pop()
    if isinstance(last, ast.Expr):
        exec(compile(lines, "copied", "exec"), scope)
        return eval(compile(ast.Expression(last.value), "copied", "eval"), scope)
    assert isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name)
    exec(text, scope)
    return scope[last.targets[0].id]


def _head(frame: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<I", frame[:4])
    head: dict[str, Any] = json.loads(frame[4 : 4 + length])
    assert "error" not in head, head
    return head


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    base = tmp_path_factory.mktemp("runs") / 'a "b" \\n é\u202e\n'
    base.mkdir()
    made = [
        _recorded(base / "one"),
        _recorded(base / "it's", queries="0-3,10-22", seed=7),
        _recorded(None),
    ]
    runs = [run for run, _ in made]
    answers = Answers.of(runs)
    samples, heads = {}, {}
    for run in range(3):
        for sample in range(2):
            at = {"run": run, "sample": sample}
            samples[f"{run}/{sample}"] = found = _head(answers.ask("sample", at))
            for site in found["sites"]:
                for head in site["weights"]:
                    key = f"{run}/{sample}/{site['key']}/{head}"
                    heads[key] = _head(answers.ask("head", {**at, "site": site["key"], "head": head}))
    facts = {"runs": _head(answers.ask("runs", {}))["runs"], "samples": samples, "heads": heads}
    return Explored(runs, [maps for _, maps in made], facts)


def near(values: Any, wanted: np.ndarray) -> bool:
    values = np.asarray(values)
    return values.shape == wanted.shape and bool(np.allclose(values, wanted, atol=1e-5))


@pytest.mark.parametrize("run", [0, 1, 2])
def test_a_row_and_a_column(explored: Explored, run: int) -> None:
    row, column, cross = explored.values(
        {"view": "lines", "run": run, "query": 17},
        {"view": "table", "run": run, "toward": "queries", "key": 3},
        {"view": "table", "run": run, "site": CROSS, "query": 11},
    )
    maps = explored.maps[run]
    assert near(row, maps[SELF][2, 17])
    assert near(column, maps[SELF][2, :, 3] if run != 1 else maps[SELF][2, KEPT, 3])
    assert near(cross, maps[CROSS][2, 11])


def test_the_last_row_where_none_is_chosen(explored: Explored) -> None:
    (row,) = explored.values({"view": "table"})
    assert near(row, explored.maps[0][SELF][2, LENGTH - 1])


def test_what_a_map_shows(explored: Explored) -> None:
    part, whole, cross = explored.values(
        {"view": "map", "row": 12, "column": 5, "span": 8},
        {"view": "map"},
        {"view": "map", "site": CROSS, "row": 2, "column": 8, "span": 4},
    )
    maps = explored.maps[0]
    assert near(part, maps[SELF][2, 8:16, 1:9])
    assert near(whole, maps[SELF][2])
    assert near(cross, maps[CROSS][2, 0:4, 6:9])


def test_rows_that_were_not_kept_are_not_a_number(explored: Explored) -> None:
    (whole,) = explored.values({"view": "map", "run": 1})
    wanted = np.full((LENGTH, LENGTH), np.nan, np.float32)
    wanted[KEPT] = explored.maps[1][SELF][2][KEPT]
    assert np.allclose(whole, wanted, atol=1e-5, equal_nan=True)


def test_the_mass_in_a_box(explored: Explored) -> None:
    (mass,) = explored.values({"view": "map", "box": [10, 20, 0, 4]})
    assert near(mass, explored.maps[0][SELF][2, 10:20, 0:4].sum(1).mean())


def test_two_heads_of_two_runs(explored: Explored) -> None:
    other = {"run": 2, "sample": 1, "site": "transformer.h.0.attn", "head": 1}
    minus, right = explored.values(
        {"view": "compare", "mode": "minus", "other": other},
        {"view": "compare", "other": {**other, "site": CROSS}},
    )
    assert near(minus, explored.maps[0][SELF][2] - explored.maps[2]["transformer.h.0.attn"][1])
    assert near(right, explored.maps[2][CROSS][1])


def test_a_measure(explored: Explored) -> None:
    (curve,) = explored.values({"view": "measures", "curve": "entropy"})
    weights = explored.maps[0][SELF][2].astype(np.float64)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(1)
    assert np.allclose(np.asarray(curve), entropy, atol=1e-4)


def test_all_texts_are_python_that_names_the_run(explored: Explored) -> None:
    views = ["heads", "map", "lines", "table", "measures", "compare"]
    texts = explored.texts([{"view": view, "sort": "entropy", "x": "max", "y": "entropy"} for view in views])
    for text in texts:
        found = [node.args[0].value for node in ast.walk(ast.parse(text)) if _opens(node)]
        assert found == [str(explored.runs[0].path)]


def _opens(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "open"
