"""Which files of a directory are a run's. It is told by their names, and all others are let be: they are somebody's."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnprobe.errors import StoreError
from attnprobe.store import files
from attnprobe.store.journal import parse_line
from attnprobe.store.leftovers import SHARD

MANIFEST = "manifest.json"
_TOP = re.compile(r"manifest\.json(\.[0-9a-f]{8})?(\.partial)?|fidelity\.json(\.part)?")
_WITHIN = {
    "shards": SHARD,
    "aside": re.compile(rf"({SHARD.pattern}|[0-9a-f]{{8}}\.jsonl(\.cut)?)(\.\d+)?"),
    "journal": re.compile(r"[0-9a-f]{8}\.jsonl"),
}
_NAMED = 3  # files that a message names


@dataclass(frozen=True)
class Layout:
    """What lies in a directory.

    Attributes
    ----------
    path
        The directory.
    own
        Files that a run has, in the order in which they go: the manifest first, and the journals, by which the rest of
        an interrupted deletion is told, last.
    parts
        The run's directories, in the same order.
    foreign
        All else.
    taken
        Those of them that are called like a part of a run and are something else.
    """

    path: Path
    own: tuple[Path, ...]
    parts: tuple[Path, ...]
    foreign: tuple[Path, ...]
    taken: tuple[Path, ...]

    @property
    def names(self) -> str:
        """The foreign files, the first few of them by name."""
        return name_some(self.path, self.foreign)

    @property
    def is_begun(self) -> bool:
        """Whether nothing but a run lies here, or nothing at all: it may be one that others are just making."""
        return not self.foreign

    @property
    def is_run(self) -> bool:
        """Whether a run lies here, with others' files or without."""
        manifest = read_loosely(self.path) if self._has_manifest and not self.taken else None
        return manifest is not None and {"format", "sites", "keep"} <= manifest.keys()

    @property
    def is_damaged(self) -> bool:
        """Whether a run lies here whose manifest cannot be read: its shards and journals are there."""
        return self._has_manifest and not self.is_run and self._has_journals

    @property
    def is_rest(self) -> bool:
        """Whether an interrupted deletion left this: shards and journals, or their directories, without a manifest."""
        if self._has_manifest:
            return False
        return self._has_journals or (self.is_begun and any(part.name in ("shards", "journal") for part in self.parts))

    @property
    def _has_manifest(self) -> bool:
        return self.path / MANIFEST in self.own

    @property
    def _has_journals(self) -> bool:
        """Whether both directories are there, with journals of attnprobe or, if these are damaged, nothing else."""
        names = {part.name for part in self.parts}
        within = [file for file in self.own if file.parent.name in ("shards", "journal")]
        if self.taken or not {"shards", "journal"} <= names or not within:
            return False
        return self.is_begun or any(file.parent.name == "journal" and _is_journal(file) for file in within)


def find_layout(path: Path) -> Layout:
    """Look at a directory; what is none, or is a link, holds nothing of a run."""
    if path.is_symlink() or not path.is_dir():
        return Layout(path, (), (), (), ())
    own, within, parts, foreign, taken = [], [], [], [], []
    for entry in sorted(path.iterdir()):
        if entry.name in _WITHIN and entry.is_dir() and not entry.is_symlink():
            parts.append(entry)
            inner = sorted(entry.iterdir())
            mine = [one for one in inner if _WITHIN[entry.name].fullmatch(one.name) and _is_file(one)]
            within += mine
            foreign += sorted(one for one in set(inner) - set(mine) if _is_there(one))
        elif _TOP.fullmatch(entry.name) and _is_file(entry):
            own.append(entry)
        elif _is_there(entry):
            foreign.append(entry)
            taken += [entry] if entry.name in _WITHIN or _TOP.fullmatch(entry.name) else []
    order = list(_WITHIN)
    own.sort(key=lambda file: file.name != MANIFEST)
    within.sort(key=lambda file: order.index(file.parent.name))
    parts.sort(key=lambda part: order.index(part.name))
    return Layout(path, (*own, *within), tuple(parts), tuple(foreign), tuple(taken))


def name_some(path: Path, found: Iterable[Path]) -> str:
    """The first few of some files, as they are called within a directory, and how many more there are."""
    names = [f"{one.relative_to(path)}{'/' * (one.is_dir() and not one.is_symlink())}" for one in found]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def read_loosely(path: Path) -> dict[str, Any] | None:
    """What a run's manifest says, of any format; None where it cannot be read."""
    try:
        with files.read_plain(path / MANIFEST) as file:
            manifest = json.load(file)
    except (OSError, ValueError, RecursionError, StoreError):
        return None
    return manifest if isinstance(manifest, dict) else None


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _is_there(path: Path) -> bool:
    """Not gone since its directory was listed, as what others that start or write the run have just renamed."""
    return path.is_symlink() or path.exists()


def _is_journal(path: Path) -> bool:
    """Whether its first line has the checksum that attnprobe writes."""
    try:
        with files.read_plain(path) as file:
            parse_line(file.readline())
    except (OSError, ValueError, RecursionError, StoreError):
        return False
    return True
