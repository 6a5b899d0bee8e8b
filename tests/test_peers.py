"""Peers run for real, each in a process of its own, and their answers are those of independent references."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import ROOT, main
from benchmarks.page import write_page
from benchmarks.peers import driver, files, probes, show, venvs
from benchmarks.peers.hf_eager import HuggingFaceEager
from benchmarks.peers.peer import Peer

TINY = files.Shape(2, 4, 64, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> files.ModelFiles:
    folder = tmp_path_factory.mktemp("model")
    files.write(TINY, folder)
    return files.ModelFiles(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["attnprobe", "hf_eager", "hooks"])
def test_a_peer_is_measured_in_its_own_processes(module: str) -> None:
    result = driver.measure(quick=True, here=True, only=[module])
    for row in result["rows"]:
        (found,) = row["lengths"]
        assert row["ended"] is None and found["ratio"]["median"] > 0
        assert found["error"] is None if "no weights" in row["title"] else found["error"] < 1e-5
        assert found["peaked"] > 2  # else an error would say little
        assert found["memory"]["peer"] > 0 and {"extra", "bare"} <= set(found["memory"])
    weights = result["rows"][0]["probes"]
    assert weights["generation"] == "yes" and weights["padding"].startswith("yes")
    if module == "attnprobe":
        assert len(result["rows"]) == 3
        assert weights["fused"] == "yes" and weights["unseen"] == "bit for bit"
    else:
        assert weights["fused"].startswith("no: ")
    assert all(len(row) == len(table.columns) for make in show.TABLES for table in [make(result)] for row in table.rows)


def test_a_peer_that_cannot_be_imported_is_a_row_with_the_reason() -> None:
    result = driver.measure(quick=True, here=True, only=["attnread"])
    (row,) = result["rows"]
    assert "attnread" in row["not_run"]
    for make in show.TABLES:
        (cells,) = make(result).rows
        assert "not run" in cells[1]


def test_every_peer_has_its_requirements_and_answers_without_its_tool() -> None:
    found = dict(driver.peers())
    assert set(found) == {file.stem for file in (venvs.HERE / "requirements").glob("*.txt")}
    assert {"attnprobe", "attnread", "hf_eager", "hooks", "nnsight", "torchlens", "transformerlens"} <= set(found)
    for module, peer in driver.peers():
        assert peer.title and peer.package and peer.selects and peer.attention in ("sdpa", "eager"), module


def test_requirements_that_cannot_be_met_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "none.txt").write_text("attnprobe-has-no-such-peer==1.0\n")
    with pytest.raises(venvs.NotInstalled, match="none.txt cannot be installed here: .*no-such-peer"):
        venvs.python_for(tmp_path / "none.txt", tmp_path / "venvs")
    assert not [path for path in (tmp_path / "venvs").iterdir() if path.is_dir()]


def test_the_error_is_the_largest_difference_from_float64(model: files.ModelFiles) -> None:
    class Off(HuggingFaceEager):
        """Wrong in one weight of one head of one layer."""

        def run(self, ids, **inputs):
            steps = [[weights.clone() for weights in super().run(ids, **inputs)[0]]]
            steps[0][1][0, 3, 7, 2] += 0.25
            return steps

    ids, exact = model.tokens(32), model.exact()
    with torch.no_grad():
        wanted = exact(ids, output_attentions=True).attentions
        peer = HuggingFaceEager(model)
        result = peer.run(ids)
        direct = max(float((a - b).abs().max()) for a, b in zip(result[0], wanted, strict=True))
        assert files.largest_error(exact, ids, peer, result)[0] == direct < 1e-5
        off = Off(model)
        assert files.largest_error(exact, ids, off, off.run(ids))[0] == pytest.approx(0.25, abs=1e-5)


def test_probes_find_what_is_wrong(model: files.ModelFiles) -> None:
    class Shifted(HuggingFaceEager):
        """Gives another layer's weights, and knows of no generation."""

        def run(self, ids, **inputs):
            return [super().run(ids, **inputs)[0][::-1]]

        def generate(self, ids, new):
            return Peer.generate(self, ids, new)

    found = probes.probe(Shifted, model)
    assert found["fused"] == "no: gives no weights"
    assert found["generation"] == "no: no such call"
    assert "weights are off by" in found["padding"]
    assert found["unseen"].startswith("to ")


def test_a_worker_without_news_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIMIT", 0.5)
    (row,) = driver.measure(quick=True, here=True, only=["hf_eager"])["rows"]
    assert row["not_run"] == "over 0.5 s"


def spread(value: float) -> dict[str, float]:
    return {"median": value, "low": value * 0.9, "high": value * 1.1, "count": 3}


def made_up(device: str) -> dict:
    """A result in which one peer ends and one was not run."""
    memory = {} if device == "cpu" else {"device_memory_gib": 80.0, "cuda": "13.0"}
    environment = {"device": device, "processor": "P", "cores": 2, "threads": 2, "memory_gib": 8.0, "system": "S"}
    environment |= {"python": "3", "torch": "2", "transformers": "5", "attnprobe": "0", **memory}
    found = {
        "length": 64,
        "ratio": spread(2.0),
        "noise": spread(1.0),
        "seconds": {"bare": spread(0.1)},
        "error": 1e-6,
        "peaked": 3.0,
        "memory": {"extra": 1 << 20},
    }
    row = {"attention": "eager", "selects": "nothing", "probes": {}, "versions": {}}
    rows = [
        {**row, "module": "a", "title": "A", "lengths": [found], "ended": {"length": 128, "why": "out of memory"}},
        {"module": "b", "title": "B", "attention": "sdpa", "selects": "all", "not_run": "no wheel"},
    ]
    shape = {"what": "2 layers", "dtype": "float32"}
    return {"benchmark": "peers", "environment": environment, "shape": shape, "lengths": [64, 128], "rows": rows}


def test_the_page_has_a_part_for_each_device(tmp_path: Path) -> None:
    for folder, device in (("a-gpu", "A GPU"), ("cpu", "cpu")):
        (tmp_path / "benchmarks" / folder).mkdir(parents=True)
        (tmp_path / "benchmarks" / folder / "peers.json").write_text(json.dumps(made_up(device)))
    page = tmp_path / "page.md"
    write_page(tmp_path / "benchmarks", page, tmp_path / "images")
    text = page.read_text()
    assert text.index("## CPU") < text.index("## A GPU") < text.index("A GPU, 80.0 GiB, CUDA 13.0; P, 2 cores")
    assert "out of memory" in text and "not run: no wheel" in text
    for picture in ("images/peers.png", "images/a-gpu/peers.png"):
        assert f"]({picture})" in text and (tmp_path / picture).stat().st_size > 1000


def test_a_result_that_the_page_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "cpu").mkdir(parents=True)
    (tmp_path / "benchmarks" / "cpu" / "odd.json").write_text('{"benchmark": "odd"}')
    with pytest.raises(Exception, match=r"odd.json: a result of 'odd'; benchmarks/page.py knows attention"):
        write_page(tmp_path / "benchmarks", tmp_path / "page.md", tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("module", ["attnprobe", "hf_eager", "hooks"])
def test_peers_are_measured_on_a_gpu(module: str) -> None:
    result = driver.measure(quick=True, here=True, device="cuda", dtype="bfloat16", only=[module])
    assert result["environment"]["device"] == torch.cuda.get_device_name()
    for row in result["rows"]:
        (found,) = row["lengths"]
        assert found["seconds"]["peer"]["median"] > 0 and found["memory"]["bare"] > 0
        assert row["probes"]["unseen"] == "bit for bit" or module != "attnprobe"


def test_only_peers_run_on_a_gpu(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["memory", "--device", "cuda", "--out", str(tmp_path)])
    assert done.exit_code == 2 and "--device is for peers" in done.output


def test_a_peer_needs_nothing_of_what_attnprobe_needs() -> None:
    """A peer's environment has what its own requirements name, and torch, numpy and safetensors are what all have."""
    blocked = "einops", "xxhash", "click", "rich", "pandas", "transformers"
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import benchmarks.peers.worker"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
