"""The launch files of examples/corpus and the commands of docs/corpus.md: each asks for what attnprobe understands."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from corpus_checks import listed

import attnprobe as ap
from attnprobe import demo
from attnprobe.cli import main
from attnprobe.workers import find_workers

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "corpus"
PAGE = (ROOT / "docs" / "corpus.md").read_text()
WORDS = demo.text().split()


def parse(command: list[str]) -> dict[str, Any]:
    """What a command line of ``attnprobe capture`` means; a wrong one raises."""
    assert command[:2] == ["attnprobe", "capture"]
    group = click.Context(main)
    found = main.get_command(group, "capture")
    assert found is not None
    return found.make_context("capture", command[2:]).params


def commands(text: str) -> list[list[str]]:
    """The commands of a page's sh blocks, lines that go on joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


# --- SLURM -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
def test_the_batch_script_runs_what_it_says(tmp_path: Path) -> None:
    script = EXAMPLES / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    for name, does in (("srun", '"$@"'), ("attnprobe", 'printf "%s\\n" "attnprobe" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TEXTS": "/data/a b/*.jsonl", "RUN": "runs/x"}
    done = subprocess.run(["bash", script], env={**environment, "MODEL": "gpt2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = parse(done.stdout.splitlines())
    assert (asked["model"], asked["dataset"], asked["run"]) == ("gpt2", ("/data/a b/*.jsonl",), Path("runs/x"))
    assert asked["resume"] and asked["column"] == "text"
    refused = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert refused.returncode != 0 and "MODEL" in refused.stderr


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def test_the_indexed_job_tells_its_pods_how_many_they_are() -> None:
    yaml = pytest.importorskip("yaml", reason="no parser of YAML is installed")
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"]) == ("Job", "Indexed")
    (container,) = spec["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    last = spec["completions"] - 1
    found = find_workers({**environment, "JOB_COMPLETION_INDEX": str(last)})
    assert (found.rank, found.world) == (last, spec["completions"]) and spec["parallelism"] == spec["completions"]
    asked = parse(container["command"])
    (mount,) = container["volumeMounts"]
    assert asked["resume"] and all(str(asked[name]).startswith(mount["mountPath"]) for name in ("run",))
    assert asked["dataset"][0].startswith(mount["mountPath"])


# --- Ray -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_data() -> Any:
    """The pipeline's module; its actor is a plain class, and Ray is not needed to call it."""
    spec = importlib.util.spec_from_file_location("ray_data", EXAMPLES / "ray_data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(*numbers: int) -> dict[str, np.ndarray]:
    texts = [" ".join(WORDS[9 * n : 9 * n + 5 + 4 * n]) for n in numbers]
    return {"id": np.array([f"r{n}" for n in numbers]), "text": np.array(texts, dtype=object)}


def test_actors_that_end_without_a_word_have_made_their_batches_durable(ray_data: Any, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    first, second = (ray_data.Capture("demo", run, "cpu", together=2, layers="1", data={"of": "x"}) for _ in range(2))
    out = first(table(0, 1, 2, 3, 4))
    assert list(out["id"]) == [f"r{n}" for n in range(5)] and (out["tokens"] > 0).all()
    assert listed(tmp_path / "run") == {f"r{n}": 1 for n in range(5)}
    second(table(5, 6))
    assert len(ap.open(run)) == 7  # both still live
    again = ray_data.Capture("demo", run, "cpu", layers="1", data={"of": "x"})
    assert list(again(table(4, 5, 7))["tokens"] > 0) == [False, False, True]
    assert listed(tmp_path / "run") == {f"r{n}": 1 for n in range(8)}
    model, tokenizer = demo.load()
    for number in (0, 4, 6, 7):
        with ap.record(model, tokenizer, layers="1") as rec:
            model(**tokenizer(str(table(number)["text"][0]), return_tensors="pt"), use_cache=False)
        found = ap.open(run).sample(f"r{number}").layer_array(1)
        np.testing.assert_allclose(found, rec.run.sample().layer_array(1), atol=1e-5)
    for actor in (first, second, again):
        actor.rec.__exit__(None, None, None)


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra attnprobe[data] is not installed")
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    rows = [{"text": " ".join(WORDS[n : n + 9]), "id": n} for n in range(20)]
    for part in range(2):
        lines = [json.dumps(row) for row in rows[10 * part : 10 * part + 10]]
        Path(f"texts/{part}.jsonl").write_text("\n".join(lines))
    ran = 0
    for command in commands(PAGE):
        if command[:2] == ["attnprobe", "capture"] and "--worker" not in command:
            result = CliRunner().invoke(main, command[1:])
            assert result.exit_code == 0, (command, result.output)
            ran += 1
        elif "capture" in command:  # below a launcher, or one of several by hand
            assert parse(["attnprobe", *command[command.index("capture") :]])["resume"]
            ran += 1
    assert ran == 5
    assert len(ap.open("runs/texts")) == 20


def test_the_page_names_the_files_that_are_there() -> None:
    named = set(re.findall(r"examples/corpus/([\w.]+)", PAGE))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.is_file()}
