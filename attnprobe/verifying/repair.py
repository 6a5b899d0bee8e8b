"""Sets aside what is damaged, so that a run opens with what is whole, and a resume redoes the rest.

At any moment in between, the run opens, or a repair can begin again: a shard is taken off the list before it is moved,
a journal is moved whole, and the damaged end of one is copied before it is cut.
"""

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from attnprobe.errors import StoreError
from attnprobe.store import files
from attnprobe.store.journal import Journal, host, now
from attnprobe.store.leftovers import SHARD, find_leftovers
from attnprobe.store.listed import all_dropped, all_shards, shards_of
from attnprobe.store.writers import refuse_living
from attnprobe.verifying.findings import RECORDED, Finding
from attnprobe.verifying.journals import Journals, read_all

ASIDE = "aside"
_JOURNAL = re.compile(r"([0-9a-f]{8})\.jsonl(\.\d+)?")  # as it is called in aside/


def repair_run(path: Path, journals: Journals, findings: Sequence[Finding], force: bool) -> list[str]:
    """Set aside what findings name; gives what was done, as lines.

    Parameters
    ----------
    path, journals, findings
        The run, and what a check found.
    force
        Whether writers of other machines are taken to have ended. What they left unlisted is removed then, as a resume
        on their machine would do.

    Raises
    ------
    StoreError
        If somebody may still write the run, or it cannot be written.
    """
    refuse_living(path, journals.whole, "repaired", force)
    with _Mover(path) as mover:
        damaged, drop = set(journals.bad), set[str]()
        drop |= {one.file.removeprefix("shards/") for one in findings if one.problem not in RECORDED}
        drop |= journals.unhashed
        for record, journal in journals.records:
            own = set(shards_of(record)) & journal.shards.keys()
            drop |= own
            if not own:  # nothing but its journal names it
                damaged.add(journal.path.name)
        for name in sorted(damaged):
            mover.move(path / "journal" / name)
        for name, offset in sorted(journals.cut.items()):
            if name not in damaged:
                mover.cut(path / "journal" / name, offset)
        whole = [one for one in journals.whole if one.path.name not in damaged]
        listed, dropped = all_shards(whole), all_dropped(whole)
        mover.drop(sorted(drop & listed - dropped))
        dropped |= drop & listed
        orphans = {name for name in _shards_without_journal(path) if name not in listed}
        for name in sorted(dropped | orphans):
            mover.move(path / "shards" / name)
        for file in find_leftovers(path, everywhere=True) if force else ():
            mover.remove(file)
        return mover.done


def still_wrong(path: Path) -> tuple[Journals, list[Finding]]:
    """What keeps a run from being opened, as far as that is told without reading shards."""
    journals = read_all(path)
    findings = list(journals.findings)
    dropped = journals.dropped
    for one in journals.whole:
        for name, size in one.shards.items():
            if name in dropped:
                continue
            try:
                there = os.stat(path / "shards" / name, follow_symlinks=False).st_size
            except OSError:
                findings.append(Finding("missing", f"shards/{name}", "it is listed and not there"))
            else:
                if there != size:
                    message = f"it has {there:,} bytes, and should have {size:,}"
                    findings.append(Finding("size", f"shards/{name}", message))
    return journals, findings


def _shards_without_journal(path: Path) -> Iterable[str]:
    """Shards of writers whose journals were set aside."""
    there = path / ASIDE
    names = os.listdir(there) if there.is_dir() else []
    writers = {match[1] for name in names if (match := _JOURNAL.fullmatch(name))}
    writers = {writer for writer in writers if not (path / "journal" / f"{writer}.jsonl").exists()}
    for name in os.listdir(path / "shards"):
        match = SHARD.fullmatch(name)
        if match is not None and (match[1] or match[3]) in writers:
            yield name


class _Mover:
    """Moves files of a run to its ``aside/``, durably. Where the disk refuses it, the error says how far it came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path / ASIDE
        self._changed = False
        self.done: list[str] = []

    def __enter__(self) -> "_Mover":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, StoreError):
            return
        state = "the run is as it was"
        if self._changed:
            state = f"a part is done, what it took off the list lies in {self._aside} or is still in its place"
        raise StoreError(
            f"cannot repair {self._path}: {files.words_of(error)}; {state}; repair it again once it can be written"
        ) from error

    def _free(self, name: str) -> Path:
        files.make_directory(self._aside)
        names = (name if number == 0 else f"{name}.{number}" for number in range(1 << 20))
        return next(file for one in names if not os.path.lexists(file := self._aside / one))

    def move(self, file: Path) -> None:
        """Move a file, if it is there."""
        if not os.path.lexists(file):
            return
        to = self._free(file.name)
        files.rename(file, to)
        self._changed = True
        files.sync_directory(to.parent)
        files.sync_directory(file.parent)
        self.done.append(f"{file.relative_to(self._path)} is set aside as {to.relative_to(self._path)}")

    def remove(self, file: Path) -> None:
        """Remove a file."""
        files.remove(file)
        self._changed = True
        self.done.append(f"{file.relative_to(self._path)}, which no journal lists, is removed")

    def cut(self, journal: Path, offset: int) -> None:
        """Cut a journal, and keep what is cut off."""
        with files.read_plain(journal) as whole:
            whole.seek(offset)
            tail = whole.read()
        to = self._free(f"{journal.name}.cut")
        files.write_whole(to, tail)
        files.sync_directory(to.parent)
        file = os.open(journal, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            files.truncate(file, offset)
            self._changed = True
            files.sync(file)
        finally:
            files.close(file)
        self.done.append(f"the damaged end of journal/{journal.name} is set aside as {to.relative_to(self._path)}")

    def drop(self, shards: Sequence[str]) -> None:
        """Take shards off the list, in a journal of its own."""
        if not shards:
            return
        start = {"started": now(), "host": host(), "rank": 0, "world": 1, "repair": True}
        journal = Journal(self._path / "journal" / f"{secrets.token_hex(4)}.jsonl", {"writer": start})
        try:
            journal.append({"dropped": list(shards)})
            self._changed = True
            journal.append({"ended": now()})
        finally:
            journal.close()
