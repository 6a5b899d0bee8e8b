"""The journals of a run, read so that one that is damaged does not hide what the others hold."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from attnprobe.errors import CorruptRun
from attnprobe.store.files import check_directory, read_plain
from attnprobe.store.journal import is_live, parse_line
from attnprobe.store.listed import Journalled, all_dropped, journal_files, read_journal
from attnprobe.store.records import Record
from attnprobe.verifying.findings import Finding


@dataclass
class Journals:
    """What the journals hold.

    Attributes
    ----------
    whole
        Those that can be read, in the order in which their writers started.
    bad
        Names of those that cannot, or should not be.
    cut
        Of a journal whose last line is damaged, the byte where that begins: it is read up to there.
    records
        Records of samples that make no sense, with their journals; found by who checks them.
    unhashed
        Shards whose checksums make no sense; found by who checks them.
    findings, notes
        As of a `Report`.
    """

    whole: list[Journalled] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    records: list[tuple[Record, Journalled]] = field(default_factory=list)
    unhashed: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> set[str]:
        """Shards that were set aside."""
        return all_dropped(self.whole)


def read_all(path: Path) -> Journals:
    """Read all journals of a run."""
    found = Journals()
    try:
        check_directory(path / "journal")
    except CorruptRun as error:
        found.findings.append(Finding("journal", "journal", str(error)))
        return found
    owner: dict[str, str] = {}
    for file in journal_files(path):
        one = _read(file, found)
        if one is None:
            found.bad.append(file.name)
            continue
        twice = next((name for name in one.shards if name in owner), None)
        if twice is not None:
            message = f"it lists the shard {twice}, which journal/{owner[twice]} lists; keep one of these files"
            found.findings.append(Finding("listed twice", f"journal/{file.name}", message))
            found.bad.append(file.name)
            continue
        owner.update(dict.fromkeys(one.shards, file.name))
        found.whole.append(one)
    known = {*(one.path.name for one in found.whole), *found.bad}
    found.notes += [f"journal/{name} is no journal" for name in sorted(set(os.listdir(path / "journal")) - known)]
    found.whole.sort(key=lambda one: (one.started, one.path.name))
    return found


def _read(file: Path, found: Journals) -> Journalled | None:
    """One journal, as far as it is vouched for; None where a line before the last is damaged."""
    name = f"journal/{file.name}"
    try:
        damaged, lines = _scan(file)
        for number, offset, line, problem in damaged:
            if number == lines and _is_torn(line):
                if not is_live(file):
                    found.notes.append(
                        f"{name}: its last line was being written when its writer ended, and is not read"
                    )
                continue
            if number == lines:
                found.cut[file.name] = offset
            more = ": what it listed is not read, and a resume redoes it" if number == lines else ""
            message = f"line {number} is damaged ({problem}){more}"
            found.findings.append(Finding("journal", name, message, offset=offset))
        if any(number < lines for number, *_ in damaged):
            found.cut.pop(file.name, None)
            return None
        return read_journal(file)
    except (CorruptRun, OSError) as error:
        found.findings.append(Finding("journal", name, str(error)))
        return None


def _scan(file: Path) -> tuple[list[tuple[int, int, bytes, str]], int]:
    """Number, offset, bytes and problem of each line that is damaged, and how many lines there are."""
    damaged, number, offset = [], 0, 0
    with read_plain(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                parse_line(line)
            except (ValueError, RecursionError) as error:
                damaged.append((number, offset, line, str(error)))
            offset += len(line)
    return damaged, number


def _is_torn(line: bytes) -> bool:
    """Whether a line looks like the beginning of one, and not like a whole one that was changed."""
    if line.endswith(b"\n"):
        return False
    try:
        parse_line(line[:-1] + b"\n")  # only its line feed is another character
    except (ValueError, RecursionError):
        return True
    return False
