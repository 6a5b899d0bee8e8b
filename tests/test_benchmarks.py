"""The benchmarks run at tiny sizes and give well-formed JSON; figures depend on the machine and are not asserted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import warm
from click.testing import CliRunner

from benchmarks import attention, long, measures, memory, paused, storage
from benchmarks.__main__ import main
from benchmarks.measure import alternate, ratio
from benchmarks.page import write_page

MODULES = {
    "attention": attention,
    "long": long,
    "measures": measures,
    "memory": memory,
    "paused": paused,
    "storage": storage,
}


def spreads(value):
    """Every median with its spread in a result."""
    if isinstance(value, dict):
        if "median" in value:
            yield value
        for part in value.values():
            yield from spreads(part)
    elif isinstance(value, list):
        for part in value:
            yield from spreads(part)


@pytest.fixture
def quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of two of them start warm, since their figures mean nothing here; those of `storage` are fresh."""

    def in_process(module: str, task: dict[str, Any]) -> Any:
        done = warm.python(["-m", module, json.dumps(task)], Path.cwd(), {**os.environ}, tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    for module in (long, memory):
        monkeypatch.setattr(module, "in_fresh_process", in_process)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_quick_run_gives_tables_and_json(name: str, tmp_path: Path, quicker: None) -> None:
    out, page = tmp_path / "results" / "cpu", tmp_path / "page.md"
    done = CliRunner().invoke(main, [name, "--quick", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads((out / f"{name}.json").read_text())
    assert result["benchmark"] == name and result["quick"] is True
    assert {"torch", "transformers", "processor", "cores"} <= set(result["environment"])
    assert all(s["low"] <= s["median"] <= s["high"] and s["count"] >= 1 for s in spreads(result))
    assert name == "long" or list(spreads(result))  # one peak a point has no spread
    for make in MODULES[name].TABLES:
        table = make(result)
        assert table.rows and all(len(row) == len(table.columns) for row in table.rows)

    write_page(out.parent, page, tmp_path / "images")
    text = page.read_text()
    assert result["environment"]["torch"] in text and str(Path.home()) not in text
    assert all(row[0] in text for make in MODULES[name].TABLES for row in make(result).rows)


def test_recorded_weights_are_those_that_eager_attention_makes() -> None:
    difference, kept = attention._check(attention.OneCall(12, 64, 80))
    assert difference <= 1e-6
    assert 12 * 80 * 80 * 4 / 2 < kept <= 12 * 80 * 80 * 4


def test_alternation_runs_each_variant_once_a_round() -> None:
    order = []
    variants = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    times = alternate(variants, rounds=4)
    rounds = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert len(rounds) == 6 and all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({r[0] for r in rounds}) == 3
    assert ratio(times, "a", "b")["count"] == 4


def test_quick_figures_stay_out_of_the_documentation(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["attention", "--quick", "--docs", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert not list(tmp_path.iterdir())
