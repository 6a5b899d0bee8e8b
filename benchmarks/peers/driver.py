"""Every peer at every length, each in processes of its own, on one model that all of them load from the same files."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import environment
from benchmarks.peers.peer import Peer
from benchmarks.peers.told import told
from benchmarks.peers.venvs import HERE, NotInstalled, python_for, requirements

SHAPES = {"cpu": (4, 8, 512), "cuda": (12, 12, 768)}  # layers, heads, width
LENGTHS = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192, 16384)}
ROUNDS = {"cpu": 5, "cuda": 15}
QUICK_LENGTHS = (48,)
TINY = {"layers": 2, "heads": 4, "width": 64, "positions": 64}
LIMIT = 300  # seconds without news of a process
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Setting:
    """What is the same for all peers of a run."""

    device: str
    dtype: str
    threads: int
    rounds: int
    here: bool
    lengths: Sequence[int]
    model: str
    tiny: str
    limit: float


def measure(
    quick: bool, here: bool = False, device: str = "cpu", dtype: str = "float32", only: Sequence[str] = ()
) -> dict[str, Any]:
    """Run it; `here` takes this environment for all, `only` some modules."""
    import torch

    from benchmarks.peers.files import Shape, write

    lengths = QUICK_LENGTHS if quick else LENGTHS[device]
    tiny = Shape(**TINY)
    shape = tiny if quick else Shape(*SHAPES[device], max(lengths))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write(shape, Path(folder, "model"))
        write(tiny, Path(folder, "tiny"))
        setting = Setting(
            device=device,
            dtype=dtype,
            threads=torch.get_num_threads(),
            rounds=2 if quick else ROUNDS[device],
            here=here,
            lengths=lengths,
            model=str(Path(folder, "model")),
            tiny=str(Path(folder, "tiny")),
            limit=LIMIT,
        )
        for module, peer in peers():
            if not only or module in only:
                print(f"{module}: {peer.__name__}", file=sys.stderr)
                rows.append(_row(module, peer, setting))
    return {
        "benchmark": "peers",
        "quick": quick,
        "environment": environment(device),
        "shape": {"what": str(shape), "dtype": dtype},
        "lengths": list(lengths),
        "rows": rows,
    }


def peers() -> Iterator[tuple[str, type[Peer]]]:
    """Every peer with the module that it is in: a module for each file of requirements."""
    for file in sorted((HERE / "requirements").glob("*.txt")):
        module = importlib.import_module(f"benchmarks.peers.{file.stem}")
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, Peer) and found.__module__ == module.__name__:
                yield file.stem, found


def _row(module: str, peer: type[Peer], setting: Setting) -> dict[str, Any]:
    row = {"module": module, "title": peer.title, "attention": peer.attention, "selects": peer.selects}
    try:
        python = Path(sys.executable) if setting.here else python_for(requirements(module))
    except NotInstalled as problem:
        return {**row, "not_run": str(problem)}
    task = {"module": module, "name": peer.__name__, "device": setting.device, "dtype": setting.dtype}
    task |= {"threads": setting.threads, "rounds": setting.rounds, "folder": setting.model, "tiny": setting.tiny}
    lines = _work(python, {**task, "do": "times", "lengths": list(setting.lengths)}, setting.limit)
    if "versions" not in lines[0]:
        return {**row, "not_run": lines[0]["ended"]}
    lengths = [line for line in lines if "length" in line]
    ended = next((line["ended"] for line in lines if "ended" in line), None)
    if ended is not None:
        ended = {"length": setting.lengths[len(lengths)], "why": ended}
    for found in lengths if setting.device == "cpu" else ():
        (line,) = _work(python, {**task, "do": "memory", "length": found["length"]}, setting.limit)
        found["memory"] = line
    probes = next((line["probes"] for line in lines if "probes" in line), {})
    return {**row, "versions": lines[0]["versions"], "lengths": lengths, "ended": ended, "probes": probes}


def _work(python: Path, task: dict[str, Any], limit: float) -> list[dict[str, Any]]:
    """The lines that a worker tells; the last one says why where it ends early. At least one."""
    with tempfile.TemporaryDirectory() as folder:
        told_to, log = Path(folder, "lines"), Path(folder, "log")
        told_to.touch()
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [str(python), "-m", "benchmarks.peers.worker", json.dumps({**task, "to": str(told_to)})]
        with log.open("w") as file:
            worker = subprocess.Popen(command, env=surroundings, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
            slow = _wait(worker, told_to, limit)
        lines = [json.loads(line) for line in told_to.read_text().splitlines()]
        if slow:
            lines.append({"ended": f"over {limit:g} s"})
        elif worker.returncode:
            text = log.read_text().strip() or "no word"
            why = f"killed by signal {-worker.returncode}" if worker.returncode < 0 else told(RuntimeError(text))
            lines.append({"ended": why})
        if any("ended" in line for line in lines):
            print(f"  {lines[-1]['ended']}\n{log.read_text()[-2000:]}", file=sys.stderr)
        return lines


def _wait(worker: subprocess.Popen[bytes], news: Path, limit: float) -> bool:
    """Wait for a worker; True if it told nothing for so many seconds, and was killed."""
    size, since = 0, time.monotonic()
    while True:
        try:
            worker.wait(0.2)
            return False
        except subprocess.TimeoutExpired:
            if news.stat().st_size != size:
                size, since = news.stat().st_size, time.monotonic()
            if time.monotonic() - since > limit:
                worker.kill()
                worker.wait()
                return True
