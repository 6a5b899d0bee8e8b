"""A recording that is killed at, or refused, any one of its system calls loses nothing that it was promised."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import warm
from corpus_checks import listed
from fault_checks import incomplete, problems

import attnprobe as ap
from attnprobe import demo

ROLES = ("main", "ring", "listing")
CALLS = ("pwrite64", "fsync", "rename", "link", "unlink", "ftruncate", "mkdir", "openat")
MADE = re.compile(r"(\w+)\((.*)")
TOLD = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}
TO_DO = "[Ff]ree space|nothing has to be recorded again"

STRACE = shutil.which("strace")


class Call(NamedTuple):
    """One system call of one thread: how many of its kind came before."""

    role: str
    name: str
    number: int


@dataclass
class Ended:
    """How a recording ended."""

    status: int = 0
    promised: set[str] = field(default_factory=set)
    error: str = ""


class Recordings:
    """Processes that record, each forked from one that has imported everything."""

    def __init__(self) -> None:
        job = Path(__file__).with_name("fault_job.py")
        self._server = subprocess.Popen(
            [sys.executable, str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def close(self) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait(30) == 0

    def _say(self, **words: Any) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(words) + "\n")
        self._server.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        heard: dict[str, Any] = json.loads(self._server.stdout.readline())
        return heard

    def record(self, run: Path, role: str | None = None, trace: list[str] | None = None) -> Ended:
        """Record to a run, one thread of it traced with these options."""
        self._say(run=str(run), stop=role)
        ended, tracer = Ended(), None
        while True:
            heard = self._hear()
            if "thread" in heard:
                tracer = attach(heard["thread"], trace or [])
                self._say(go=True)
            ended.promised.update(heard.get("promise", ()))
            ended.error = heard.get("error", ended.error)
            if "ended" in heard:
                ended.status = heard["ended"]
                break
        if tracer is not None:
            tracer.communicate(timeout=30)
        return ended


def attach(thread: int, options: list[str]) -> "subprocess.Popen[str]":
    """Trace one thread."""
    assert STRACE is not None
    tracer = subprocess.Popen([STRACE, "-p", str(thread), *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    assert "attached" in line, line
    return tracer


@pytest.fixture(scope="module")
def tracing() -> None:
    """Skips where nothing can be traced."""
    if STRACE is None:
        if os.environ.get("CI") == "true":
            pytest.fail("strace is missing: apt-get install strace, as .ci/run does")
        pytest.skip("strace is missing")
    tried = subprocess.run([STRACE, "-e", "trace=none", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no process can be traced here: {tried.stderr.strip()}")


@pytest.fixture(scope="module")
def recordings(tracing: None) -> Iterator[Recordings]:
    recordings = Recordings()
    yield recordings
    recordings.close()


@pytest.fixture(scope="module")
def calls(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """All calls of a recording that change its run."""
    found = []
    for role in ROLES:
        scratch = tmp_path_factory.mktemp(role)
        options = ["-o", str(scratch / "log"), "-e", f"trace={','.join(CALLS)}", "-s", "0"]
        assert recordings.record(scratch / "run", role, options).status == 0
        seen: Counter[str] = Counter()
        for line in (scratch / "log").read_text().splitlines():
            made = MADE.match(line)
            if made is not None:
                seen[made[1]] += 1
                if made[1] != "openat" or "O_CREAT" in made[2]:
                    found.append(Call(role, made[1], seen[made[1]]))
    return found


def test_all_calls_are_known(calls: list[Call]) -> None:
    kinds = Counter((call.role, call.name) for call in calls)
    assert kinds["main", "mkdir"] == 3 and kinds["main", "link"] == kinds["main", "unlink"] == 1
    assert kinds["listing", "rename"] == 4  # one a shard
    assert kinds["listing", "pwrite64"] == 4 + 3  # a header each, a line a group
    assert kinds["listing", "fsync"] == 4 * 3 + 3
    assert (
        kinds["ring", "pwrite64"] == 2 * 5
    )  # of each sample its numbers, which are lent, and its ids, which are copied
    assert kinds["main", "openat"] == 2 + 4 and kinds["main", "pwrite64"] == 2 + 4 + 1
    assert len(calls) > 50


def part(calls: list[Call], share: int, first: int) -> list[Call]:
    """Each so-and-so-many-th, over all roles and kinds."""
    return sorted(calls, key=lambda call: (call.name, call.role, call.number))[first % share :: share]


def some(few: int) -> Any:
    """Every so-and-so-many-th call, or all where faults are asked for."""
    return pytest.mark.parametrize("share", [few, pytest.param(1, marks=pytest.mark.faults)])


def inject(call: Call, what: str, more: str = "") -> list[str]:
    return [
        *("-o", "/dev/null", "-e", f"trace={call.name}"),
        *("-e", f"inject={call.name}:{what}:when={call.number}{more}"),
    ]


@some(4)
def test_a_recording_may_be_killed_at_any_call(
    recordings: Recordings, calls: list[Call], tmp_path: Path, share: int
) -> None:
    for number, call in enumerate(part(calls, share, 1)):
        run = tmp_path / str(number)
        killed = recordings.record(run, call.role, inject(call, "signal=KILL"))
        assert killed.status == -signal.SIGKILL, call
        assert list(problems(run, killed.promised)) == [], call
        resumed = recordings.record(run)
        assert (resumed.status, resumed.error) == (0, ""), call
        assert list(incomplete(run)) == [], call


@some(7)
@pytest.mark.parametrize("more", ["", "+"], ids=["once", "for good"])
@pytest.mark.parametrize("code", TOLD)
def test_a_recording_may_be_refused_any_call(
    recordings: Recordings, calls: list[Call], tmp_path: Path, code: str, more: str, share: int
) -> None:
    failed = 0
    chosen = part(calls, share, len(code) + len(more))
    for number, call in enumerate(chosen):
        run = tmp_path / str(number)
        refused = recordings.record(run, call.role, inject(call, f"error={code}", more))
        if refused.status:
            assert refused.status == 1, (call, refused)
            assert TOLD[code] in refused.error and re.search(TO_DO, refused.error), (call, refused)
            failed += 1
        assert list(problems(run, refused.promised)) == [], call
        resumed = recordings.record(run)
        assert (resumed.status, resumed.error) == (0, ""), call
        assert list(incomplete(run)) == [], call
    assert failed >= 0.8 * len(chosen)  # what only tidies up may fail


# --- the command line ---------------------------------------------------------------------------------------------

TEXT = "Maia likes to explore her world. " * 6


# The room that is there when a capture is planned is another's when it writes.
LATER_FULL = """
import shutil
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)
from attnprobe.cli import main
main()
"""


def capture(run: Path, *before: str, program: str = "", of: tuple[Any, ...] = ("--text", TEXT)) -> Any:
    """Run ``attnprobe capture``, by a program of one's own or behind another command."""
    arguments = ["capture", "demo", *map(str, of), "-o", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if before:
        command = [*before, sys.executable, "-m", "attnprobe.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    with tempfile.TemporaryDirectory() as scratch:
        start = ["-m", "attnprobe.cli"]
        if program:
            start = [f"{scratch}/program.py"]
            Path(*start).write_text(program)
        return warm.python([*start, *arguments], Path.cwd(), environment, Path(scratch), timeout=120)


@pytest.mark.faults
def test_a_failing_disk_ends_a_capture_with_one_line(tracing: None, tmp_path: Path) -> None:
    assert STRACE is not None
    trace = ["-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=ENOSPC:when=1+"]
    failed = capture(tmp_path / "run", STRACE, *trace)
    assert failed.returncode == 1 and failed.stdout == ""
    line = failed.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: cannot write .*No space left on device.*[Ff]ree space.*", line)
    assert not list((tmp_path / "run").glob("*"))  # nothing, or an empty directory, which is taken


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with next to no room, which `resize` gives it."""
    place = tmp_path / "full"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def resize(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_a_capture_with_one_line_and_a_run_that_resumes(full: Path) -> None:
    failed = capture(full / "run", program=LATER_FULL)
    assert failed.returncode == 1 and failed.stdout == ""
    line = failed.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: cannot write .*No space left on device.*[Ff]ree space.*", line)
    resize(full, "64m")
    again = capture(full / "run")
    assert again.returncode == 0, again.stderr
    assert len(ap.open(full / "run")) == 1


@pytest.mark.slow
def test_a_corpus_that_filled_the_disk_is_gone_on_with_once_there_is_room(full: Path, tmp_path: Path) -> None:
    """Rows that were listed before the disk was full are kept and not redone, all others are recorded once."""
    words = demo.text().split()
    texts = [" ".join(words[7 * n : 7 * n + 200]) for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    of = ("--dataset", tmp_path / "rows.jsonl", "--max-tokens", 192, "--batch", 4, "--resume", "--json")
    resize(full, "50m")
    failed = capture(full / "run", program=LATER_FULL, of=of)
    assert failed.returncode == 1 and failed.stdout == ""
    line = failed.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: cannot write .*No space left on device.*[Ff]ree space.*", line)
    assert "the same command with --resume goes on" in failed.stderr
    first = {sample.id for sample in ap.open(full / "run").samples}
    assert 0 < len(first) < len(texts)
    before = {file.name: file.read_bytes() for file in (full / "run" / "shards").glob("*.safetensors")}
    resize(full, "200m")
    again = capture(full / "run", of=of)
    assert again.returncode == 0, again.stderr
    figures = json.loads(again.stdout)
    assert (figures["rows"], figures["done"]) == (len(texts) - len(first), len(first))
    assert listed(full / "run") == Counter(map(str, range(len(texts))))
    assert not list((full / "run").rglob("*.partial"))
    assert all((full / "run" / "shards" / name).read_bytes() == data for name, data in before.items())
    assert capture(tmp_path / "whole", of=of).returncode == 0
    run, whole = ap.open(full / "run"), ap.open(tmp_path / "whole")
    for number in range(len(texts)):
        np.testing.assert_allclose(run.sample(number).layer_array(2), whole.sample(number).layer_array(2), atol=1e-6)
    assert ap.verify(full / "run").findings == []
