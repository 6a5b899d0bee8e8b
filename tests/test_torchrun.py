"""One corpus, two workers under torchrun, one of them killed; then three others finish what they began."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from corpus_checks import journals, listed

pytest.importorskip("datasets", reason="the extra attnprobe[data] is not installed")
if not Path("/proc/self/task").is_dir():
    pytest.skip("a worker is found among the children of torchrun, by /proc", allow_module_level=True)

import attnprobe as ap
from attnprobe import demo
from attnprobe.cli import main

ROOT = Path(__file__).parents[1]
ROWS = 32
OPTIONS = ("--dataset", "texts.jsonl", "--id-column", "key", "--layers", "0", "--batch", "2", "--max-tokens", "600")


def children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def capture(run: str, *arguments: str, **environment: str) -> None:
    result = CliRunner().invoke(main, ["capture", "demo", "-o", run, *OPTIONS, *arguments], env=environment)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_a_worker_is_killed_and_another_number_of_them_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = demo.text().split()
    rows = [{"text": " ".join(words[n : n + 500]), "key": f"k{n}"} for n in range(ROWS)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*torchrun, "attnprobe.cli", "capture", "demo", "-o", "run", *OPTIONS, "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "log", "w") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not listed(run):
                assert started.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.01)
            os.kill(children(started.pid)[0], signal.SIGKILL)
            assert started.wait(60) != 0  # torchrun ends the other worker too
        finally:
            started.kill()
    killed, ended = sorted(journals(run), key=lambda lines: "ended" in lines[-1])
    assert "ended" not in killed[-1] and "ended" in ended[-1]  # one had no time to, and the other was asked to
    starts = [lines[0]["writer"] for lines in (killed, ended)]
    assert {(start["rank"], start["world"]) for start in starts} == {(0, 2), (1, 2)}
    before = listed(run)
    assert 0 < len(before) < ROWS and set(before.values()) == {1}
    found = ap.open(run)
    assert {sample.id for sample in found.samples} == set(before)

    array = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "2"}
    for task in range(3):
        capture("run", "--resume", SLURM_ARRAY_TASK_ID=str(task), **array)
    assert listed(run) == Counter(row["key"] for row in rows)
    assert len(journals(run)) == 5 and not list(run.rglob("*.partial"))

    capture("alone")
    found, alone = ap.open(run), ap.open(tmp_path / "alone")
    assert [(s.index, s.id) for s in found.samples] == [(n, f"k{n}") for n in range(ROWS)]
    for one, other in zip(found, alone, strict=True):
        assert list(one.tokens) == list(other.tokens)
        np.testing.assert_allclose(one.layer_array(0), other.layer_array(0), atol=1e-5)
