"""A virtual environment for each set of requirements, under `benchmarks/out/venvs`; made once."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
VENVS = HERE.parent / "out" / "venvs"


class NotInstalled(Exception):
    """Requirements that cannot be met here, and why."""


def requirements(module: str) -> Path:
    """A peer's file."""
    return HERE / "requirements" / f"{module}.txt"


def python_for(wanted: Path, venvs: Path = VENVS) -> Path:
    """The interpreter that has what a file of requirements asks for; the same requirements share one.

    Raises
    ------
    NotInstalled
        If pip fails; its output stays in a log beside the environments.
    """
    constraints = HERE.parents[1] / "constraints.txt"
    read = wanted.read_bytes() + (constraints.read_bytes() if b"-c " in wanted.read_bytes() else b"")
    folder = venvs / hashlib.sha256(read + sys.version.encode()).hexdigest()[:12]
    python, done, log = folder / "bin" / "python", folder / ".installed", folder.with_suffix(".log")
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venvs.mkdir(parents=True, exist_ok=True)
    print(f"installing {wanted.name} into {folder}, some minutes", file=sys.stderr)
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-r", str(wanted)]
    with log.open("w") as file:
        for command in ([sys.executable, "-m", "venv", str(folder)], install):
            if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode:
                shutil.rmtree(folder, ignore_errors=True)
                raise NotInstalled(f"{wanted.name} cannot be installed here: {_reason(log)}")
    done.touch()
    return python


def _reason(log: Path) -> str:
    """What pip says last, without its hints."""
    errors = [line.removeprefix("ERROR: ") for line in log.read_text().splitlines() if line.startswith("ERROR: ")]
    refused = [line for line in errors if "HTTP" not in line]
    return (refused or errors or ["see the log beside it"])[-1][:160]
