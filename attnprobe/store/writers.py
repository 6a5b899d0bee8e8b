"""Who writes a run, or wrote it: which writers live, which have ended, which were killed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from attnprobe.errors import StoreError
from attnprobe.store.journal import host, is_live
from attnprobe.store.leftovers import SHARD
from attnprobe.store.listed import Journalled, all_shards, journal_files

ENDED, LIVING, KILLED, UNKNOWN, COPIED = "ended", "living", "killed", "unknown", "copied"


@dataclass(frozen=True)
class Writing:
    """One writer of a run.

    Attributes
    ----------
    writer, rank, world
        Its id; which of how many workers it is.
    state
        ``"ended"``, ``"living"``, ``"killed"``; ``"unknown"``: on another machine, which cannot be asked, and without
        an end; ``"copied"``: the run is a copy that was made before it had ended.
    started, last
        When it began, and when it last wrote something, UTC, ISO 8601.
    samples, nbytes
        What it has listed so far.
    unfinished
        Bytes of its shards that are not listed yet.
    repaired
        Shards that it has set aside, where it is a repair.
    gone_on
        Of one that was killed or copied, whether a later writer did what it had left: one in its place, or of another
        number of workers.
    """

    writer: str
    rank: int
    world: int
    state: str
    started: str
    last: str
    samples: int
    nbytes: int
    unfinished: int
    repaired: int = 0
    gone_on: bool = False


def find_writers(path: Path, journals: Sequence[Journalled]) -> list[Writing]:
    """The writers of a run, in the order of its journals. Runs up to format 3 do not tell who wrote them."""
    listed = all_shards(journals)
    loose: dict[str, list[tuple[int, float]]] = {}
    for name in sorted(os.listdir(path / "shards")):
        match = SHARD.fullmatch(name)
        if match is not None:
            there = _stat(path / "shards" / name)
            loose.setdefault(match[1] or match[3], []).append((0 if name in listed else there[0], there[1]))
    found = []
    for one in journals:
        if not one.started:
            continue
        own = loose.get(one.writer, [])
        state = COPIED if one.copied else state_of(one.path, one.ended, one.host)
        last = max([_stat(one.path)[1], *(changed for _, changed in own)])
        found.append(
            Writing(
                one.writer,
                one.rank,
                one.world,
                state,
                one.started,
                datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds"),
                len(one.samples),
                sum(one.shards.values()),
                sum(size for size, _ in own),
                len(one.dropped),
                state in (KILLED, COPIED) and any(_goes_on(later, one) for later in journals),
            )
        )
    return found


def _goes_on(later: Journalled, one: Journalled) -> bool:
    """Whether a writer started later to do what another had left; those of the same workers start together."""
    in_place = later.world != one.world or later.rank == one.rank
    return later.started > one.started and in_place and not later.dropped


def _stat(path: Path) -> tuple[int, float]:
    """Bytes of a file and when it changed; nothing of one that was renamed meanwhile."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0.0
    return there.st_size, there.st_mtime


def state_of(journal: Path, ended: str, machine: str) -> str:
    """How a writer is, by its journal, its end, and its machine."""
    if ended:
        return ENDED
    if is_live(journal):
        return LIVING
    return KILLED if not machine or machine == host() else UNKNOWN


def refuse_living(path: Path, journals: Sequence[Journalled], what: str, force: bool) -> None:
    """Refuse to change a run that somebody may still write.

    Parameters
    ----------
    path, journals
        The run, and those of its journals that can be read; of others only the mark tells.
    what
        What is refused: ``"repaired"``.
    force
        Whether writers of other machines, which cannot be asked, are taken to have ended.

    Raises
    ------
    StoreError
        If so.
    """
    known = {one.path.name: one for one in journals}
    for file in journal_files(path):
        one = known.get(file.name, Journalled(file))
        if is_live(file):
            raise StoreError(
                f"{path} is being written by the writer {file.stem}, so it is not {what}; wait until it has ended, or "
                "end it"
            )
        if state_of(file, one.ended, one.host) == UNKNOWN and not force:
            raise StoreError(
                f"{path}: the writer {file.stem} of another machine has not ended, so it is not {what}; if you know "
                "that nobody writes, pass force=True (--force)"
            )
