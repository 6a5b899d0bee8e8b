"""What the journals of a run list, united: each sample once, in shards that are there."""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from attnprobe.errors import CorruptRun
from attnprobe.store.files import check_directory
from attnprobe.store.journal import check_line, parse_line, parse_lines
from attnprobe.store.records import Record, Stored, find_parts
from attnprobe.store.validate_fields import NUMBER

FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors")
_JOURNAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.jsonl")
_WORD = 64  # characters of a date


class Hashes:
    """The hashes of each shard, read when they are asked for."""

    def __init__(self) -> None:
        self.places: dict[str, Mapping[str, str] | Stored] = {}

    def __getitem__(self, name: str) -> Mapping[str, str]:
        place = self.places[name]
        if not isinstance(place, Stored):
            return place
        found = place.load()
        try:
            _check_hashes(found)
        except TypeError as error:
            raise CorruptRun(f"{place.path}: the hashes of {name} make no sense ({error}); restore it") from error
        return found

    def items(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Names of shards, and their hashes."""
        return ((name, self[name]) for name in self.places)


@dataclass
class Journalled:
    """What one writer's journal holds.

    Attributes
    ----------
    path
        The journal.
    started, ended
        When the writer began and ended, UTC, ISO 8601; empty where it is not told. One that was killed has no end.
    rank, world
        Which of how many it was.
    copied
        Whether this is a copy that was made before it had ended; `ended` is when that was.
    host
        Its machine, as `journal.host` has it.
    shards
        Bytes of each shard.
    hashes
        The xxh3 of each tensor of each shard.
    samples
        The records of samples, in the order in which they were listed.
    dropped
        Shards, of any writer, that were set aside.
    fidelity
        What the recording found out of the weights, by site.
    """

    path: Path
    started: str = ""
    ended: str = ""
    copied: bool = False
    rank: int = 0
    world: int = 1
    host: str = ""
    shards: dict[str, int] = field(default_factory=dict)
    hashes: Hashes = field(default_factory=Hashes)
    samples: list[Record] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    fidelity: Mapping[str, Any] | None = None

    @property
    def writer(self) -> str:
        """The writer's id."""
        return self.path.stem


def read_journal(path: Path) -> Journalled:
    """Read and check one journal; the records of samples are checked when they are used.

    Raises
    ------
    CorruptRun
        If it is damaged, or a line makes no sense.
    """
    found = Journalled(path)
    try:
        for number, line in enumerate(parse_lines(path, partial(_parse, path)), 1):
            try:
                _take(found, line)
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise CorruptRun(
                    f"{path}, line {number}: a record makes no sense ({error!r}); restore it, or record again"
                ) from error
    except OSError as error:
        raise CorruptRun(f"{path} cannot be read: {error}; restore it, or record again") from error
    return found


def _parse(path: Path, line: bytes, start: int) -> dict[str, Any]:
    check_line(line)
    found = find_parts(path, line, start)
    return parse_line(line) if found is None else found


def _take(found: Journalled, line: Mapping[str, Any]) -> None:
    if "writer" in line:
        writer = line["writer"]
        found.started, found.rank, found.world = _date(writer["started"]), writer["rank"], writer["world"]
        if type(found.rank) is not int or type(found.world) is not int or not 0 <= found.rank < found.world:
            raise ValueError(f"rank {found.rank!r} of {found.world!r}")
        found.host = _date(writer.get("host", ""))
    if "ended" in line:
        found.ended = _date(line["ended"])
        found.copied = line.get("copied") is True
    if "fidelity" in line:
        found.fidelity = dict(line["fidelity"])
    for name in line.get("dropped", ()):
        found.dropped.add(_name(name))
    if not {"shards", "samples"} & line.keys():
        return
    for shard in line["shards"]:
        name, size = _name(shard["file"]), shard["size"]
        if type(size) is not int or not 0 <= size <= NUMBER:
            raise TypeError(f"size {size!r}")
        found.shards[name] = size
        hashes = shard["xxh3_64"]
        if not isinstance(hashes, Stored):
            _check_hashes(hashes)
        found.hashes.places[name] = hashes
    for one in line["samples"]:
        record = one if isinstance(one, Record) else Record(one["index"], one["id"], one.get("named", False), one)
        if type(record.index) is not int or not 0 <= record.index <= NUMBER:
            raise TypeError(f"index {record.index!r}")
        if not isinstance(record.id, str) or type(record.named) is not bool:
            raise TypeError(f"id {record.id!r:.80}")
        found.samples.append(record)


def _check_hashes(hashes: object) -> None:
    if not isinstance(hashes, dict) or not all(isinstance(one, str) for one in hashes.values()):
        raise TypeError(f"xxh3_64 {hashes!r:.80}")


def _name(name: object) -> str:
    if not isinstance(name, str) or not FILE.fullmatch(name):
        raise ValueError(f"the journal names {name!r:.200}, which is no name of a shard")
    return name


def _date(word: object) -> str:
    if not isinstance(word, str) or len(word) > _WORD or not word.isprintable():
        raise ValueError(f"the date {word!r:.80}")
    return word


def read_journals(path: Path) -> list[Journalled]:
    """All journals of a run, in the order in which their writers started.

    Raises
    ------
    CorruptRun
        If one is damaged.
    """
    check_directory(path / "journal")
    found = [read_journal(file) for file in journal_files(path)]
    return sorted(found, key=lambda one: (one.started, one.path.name))


def journal_files(path: Path) -> Iterator[Path]:
    """The journals' files."""
    return (path / "journal" / name for name in sorted(os.listdir(path / "journal")) if _JOURNAL.fullmatch(name))


def all_shards(journals: Iterable[Journalled]) -> set[str]:
    """The shards that journals list, those included that were set aside."""
    return set().union(*(one.shards for one in journals))


def all_dropped(journals: Iterable[Journalled]) -> set[str]:
    """The shards that were set aside, whoever wrote them."""
    return set().union(*(one.dropped for one in journals))


@dataclass
class Listed:
    """The samples of a run.

    Attributes
    ----------
    records
        By index, and which journal each comes from.
    journals
        All of them.
    """

    records: dict[int, tuple[Record, Journalled]]
    journals: list[Journalled]


def unite(journals: list[Journalled]) -> Listed:
    """Each sample once: of several attempts at a named one, the first writer's; nothing that was set aside.

    Unnamed samples of several writers may have one number; the later writer's get new ones.
    """
    dropped = all_dropped(journals)
    records: dict[int, tuple[Record, Journalled]] = {}
    owner: dict[str, Journalled] = {}
    again: list[tuple[Record, Journalled]] = []
    for journal in journals:
        for record in journal.samples:
            if dropped and not dropped.isdisjoint(shards_of(record)):
                continue
            if record.named and owner.setdefault(record.id, journal) is not journal:
                continue
            if record.index in records:
                again.append((record, journal))
            else:
                records[record.index] = record, journal
    free = max(records, default=-1) + 1
    records.update(enumerate(again, free))
    return Listed(records, journals)


def shards_of(record: Record) -> Iterator[str]:
    """The shards that a sample lies in; of a record that makes no sense, what can be told."""
    try:
        whole = record.load()
    except CorruptRun:
        return
    sequences, fields = whole.get("sequences"), whole.get("fields")
    parts = [
        part
        for sequence in (sequences.values() if isinstance(sequences, dict) else ())
        if isinstance(sequence, dict)
        for part in sequence.values()
    ]
    for one in fields if isinstance(fields, list) else ():
        blocks = one.get("blocks") if isinstance(one, dict) else None
        parts += blocks if isinstance(blocks, list) else []
    for part in parts:
        file = part.get("file") if isinstance(part, dict) else None
        if isinstance(file, str):
            yield file


def check_shards(path: Path, listed: Listed) -> None:
    """Refuse a run in which a listed shard is missing or has another size.

    Raises
    ------
    CorruptRun
        If so.
    """
    dropped = all_dropped(listed.journals)
    directory = path / "shards"
    check_directory(directory)
    for journal in listed.journals:
        for name, size in journal.shards.items():
            if name in dropped:
                continue
            try:
                there = os.stat(directory / name, follow_symlinks=False)
            except OSError:
                there = None
            if there is None or not stat.S_ISREG(there.st_mode):
                raise CorruptRun(
                    f"{directory / name} is listed and not there; restore it, or record again (attnprobe verify "
                    "--repair takes its samples off the list, and a resume redoes them)"
                )
            if there.st_size != size:
                raise CorruptRun(
                    f"{directory / name} has {there.st_size:,} bytes and should have {size:,}; restore it (attnprobe "
                    "verify --repair takes its samples off the list, and a resume redoes them)"
                )
