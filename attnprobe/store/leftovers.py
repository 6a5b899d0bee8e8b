"""What writers that were killed left behind: unfinished shards, and whole ones that no journal lists."""

import re
from pathlib import Path
from typing import Any

from attnprobe.store import files
from attnprobe.store.journal import host, is_live, read_lines
from attnprobe.store.listed import read_journal

_MANIFEST = re.compile(r"manifest\.json\.[0-9a-f]{8}\.partial")
SHARD = re.compile(r"([0-9a-f]{8})-\d{5,}\.safetensors(\.partial)?|([0-9a-f]{8})\.pyramid\.partial")


def find_leftovers(path: Path, everywhere: bool = False) -> list[Path]:
    """Files of the run at `path` that no journal lists and that nobody will list any more.

    Parameters
    ----------
    path
        The run.
    everywhere
        Of writers on other machines too, which cannot be asked whether they live: only where the user says that nobody
        writes. Without it, of writers of this machine that have ended. A shard without any journal is none: who knows
        what became of that.
    """
    found = []
    for name in ("shards", "journal"):  # what a link leads to is no part of the run
        files.check_directory(path / name)
    dead: dict[str, bool] = {}
    listed: dict[str, set[str]] = {}
    for file in sorted((path / "shards").iterdir()):
        match = SHARD.fullmatch(file.name)
        if match is None:
            continue
        writer = match[1] or match[3]
        if writer not in dead:
            dead[writer] = _has_ended(path / "journal" / f"{writer}.jsonl", everywhere)
            listed[writer] = set(read_journal(path / "journal" / f"{writer}.jsonl").shards) if dead[writer] else set()
        if dead[writer] and file.name not in listed[writer]:
            found.append(file)
    return found


def clear_leftovers(path: Path) -> None:
    """Remove what writers of this machine left behind when they were killed."""
    for file in find_leftovers(path):
        files.remove(file)
    if (path / "manifest.json").is_file():  # who is just about to publish another finds that it is there
        for file in path.iterdir():
            if _MANIFEST.fullmatch(file.name):
                files.remove(file)


def _has_ended(journal: Path, everywhere: bool) -> bool:
    if not journal.is_file() or is_live(journal):
        return False
    if everywhere:
        return True
    first: dict[str, Any] = next(iter(read_lines(journal)), {})
    writer = first.get("writer")
    return isinstance(writer, dict) and writer.get("host") == host()
