"""Processes in which torch and transformers need not be imported again: forked from one that imported them once.

To import them takes longer than most of what a process of a test does. A forked process knows no attnprobe yet, has
its own directory, environment and output, and ends alone. Not for what measures memory, or what an import costs.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = ["torch", "transformers.models.gpt2.modeling_gpt2", "transformers.models.auto"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(LIBRARIES)


@dataclass(frozen=True)
class Done:
    """How a process ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def python(
    arguments: Sequence[str], cwd: Path, environment: dict[str, str], scratch: Path, timeout: float = 280
) -> Done:
    """Do what ``python FILE ...`` or ``python -m MODULE ...`` does, `environment` being all that is set.

    `scratch` is a directory for what it writes.
    """
    out, err = scratch / "stdout", scratch / "stderr"
    for file in (out, err):
        file.unlink(missing_ok=True)
    process = _context.Process(target=_run, args=(tuple(arguments), str(cwd), environment, str(out), str(err)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{' '.join(arguments)} took more than {timeout} s: {err.read_text()}")
    return Done(process.exitcode, out.read_text(), err.read_text())


def _run(arguments: tuple[str, ...], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    known = [name for name in sys.modules if name.partition(".")[0] == "attnprobe"]
    assert not known, f"already imported: {known}"
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")
