"""A loss of power at any moment costs nothing that was promised; leaving out any part of the protocol would."""

import errno
import functools
import json
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crashsim import Disk, Op, Remains
from fault_checks import ALL, GROUPS, incomplete, make_small, name_of, problems, record
from store_contract import MANIFEST

from attnprobe.errors import StoreError
from attnprobe.store import directory, files, journal, shard, target
from attnprobe.store.read_directory import DirectoryReader

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def small(monkeypatch: Patch) -> None:
    """One log whenever it is made."""
    make_small(monkeypatch.setattr)
    numbers = count(1)
    monkeypatch.setattr(directory, "secrets", SimpleNamespace(token_hex=lambda length: f"{next(numbers):08x}"))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: Patch) -> Disk:
    """A disk beneath the store."""
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    monkeypatch.setattr(files, "os", disk)
    return disk


def log_of(disk: Disk) -> list[Op]:
    """What recording does to a disk."""
    record(disk.root / "run", promise=disk.promise)
    return disk.log


def contents(root: Path) -> list[tuple[str, bytes | None]]:
    """Names and contents of all that lies below a directory."""
    return [
        (path.relative_to(root).as_posix(), path.read_bytes() if path.is_file() else None)
        for path in sorted(root.rglob("*"))
    ]


class Outcomes:
    """Judges what a log may leave behind; of outcomes that are the same to the byte, the first."""

    def __init__(self, scratch: Path, patch: Patch) -> None:
        self._scratch, self._patch = scratch, patch
        self._sure = SimpleNamespace(**{**vars(os), "fsync": lambda file: None})
        self._numbers = count()
        self._judged: dict[Any, list[str]] = {}
        self.count = 0

    def judge(self, log: Sequence[Op], length: int, seed: int) -> list[str]:
        """What is wrong with one outcome of the first entries of a log, and with a run that goes on from there."""
        self.count += 1
        root = self._scratch / str(next(self._numbers))
        remains = Remains(log[:length])
        remains.lay_out(root, random.Random(f"{length} {seed}"))
        outcome = (remains.promised, *contents(root))
        if outcome not in self._judged:
            self._judged[outcome] = self._judge(root, remains)
        return self._judged[outcome]

    def _judge(self, root: Path, remains: Remains) -> list[str]:
        with self._patch.context() as patch:
            patch.setattr(files, "os", self._sure)
            wrong = list(problems(root / "run", remains.promised))
            try:
                record(root / "run")
            except StoreError as error:
                return [*wrong, f"is not gone on with: {error}"]
            return wrong + [f"gone on with, {one}" for one in incomplete(root / "run")]

    def all(self, log: Sequence[Op], seeds: int, first: int = 0) -> list[str]:
        """What is wrong with any outcome, from an entry on."""
        return [
            f"{length} of {len(log)} entries, to {log[length - 1][:1]}, seed {seed}: {one}"
            for length in range(first, len(log) + 1)
            for seed in range(seeds)
            for one in self.judge(log, length, seed)
        ]

    def any(self, log: Sequence[Op], seeds: int = 20, first: int = 0) -> list[str]:
        """What is wrong with the first outcome of which something is; in which order is drawn."""
        places = [(length, seed) for length in range(first, len(log) + 1) for seed in range(seeds)]
        random.Random(0).shuffle(places)
        return next((wrong for place in places if (wrong := self.judge(log, *place))), [])


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: Patch) -> Outcomes:
    return Outcomes(tmp_path / "outcomes", monkeypatch)


# --- the model itself ---------------------------------------------------------------------------------------------


def laid_out(log: Sequence[Op], scratch: Path, seeds: int = 200) -> set[tuple[tuple[str, bytes], ...]]:
    """All outcomes of a log: names and contents."""
    found = set()
    for seed in range(seeds):
        root = scratch / str(seed)
        Remains(log).lay_out(root, random.Random(seed))
        found.add(tuple((path.name, path.read_bytes()) for path in sorted(root.iterdir())))
    return found


def test_the_model_keeps_what_was_synced_and_doubts_the_rest(tmp_path: Path) -> None:
    log: list[Op] = [("create", 1, "a"), ("write", 1, 0, b"old"), ("sync", 1), ("sync directory", ".")]
    assert laid_out(log, tmp_path / "0") == {(("a", b"old"),)}
    log += [("write", 1, 3, b"new")]
    sized = b"old" + bytes(3)
    assert laid_out(log, tmp_path / "1") == {(("a", data),) for data in (b"old", b"oldnew", sized)}
    assert laid_out([*log, ("failed sync", 1), ("sync", 1)], tmp_path / "2") == laid_out(log, tmp_path / "1")
    assert laid_out([*log, ("sync", 1), ("rename", 1, "b", "a")], tmp_path / "3") == {
        tuple((name, b"oldnew") for name in names) for names in ("a", "b", "ab", "")
    }
    assert laid_out([("create", 1, "a"), ("write", 1, 0, b"x"), ("sync", 1)], tmp_path / "4") == {(), (("a", b"x"),)}


def test_the_model_tears_writes_at_sectors_and_reorders_them(tmp_path: Path) -> None:
    data = b"a" * 212 + b"b" * 512
    log: list[Op] = [("create", 1, "a"), ("sync directory", "."), ("write", 1, 300, data), ("write", 1, 0, b"c" * 300)]
    ((name, _),) = max(laid_out(log, tmp_path))
    found = {dict(outcome)[name] for outcome in laid_out(log, tmp_path / "again")}
    whole = b"c" * 300 + data
    assert {b"", whole, bytes(300) + data, bytes(512) + data[212:], whole[:512]} <= found
    assert all(one[at] in (0, whole[at]) for one in found for at in range(len(one)))


# --- the protocol -------------------------------------------------------------------------------------------------


def seeds(few: int, many: int) -> Any:
    """Few outcomes of each moment, or many where faults are asked for."""
    return pytest.mark.parametrize("seeds", [few, pytest.param(many, marks=pytest.mark.faults)])


@seeds(5, 100)
def test_a_loss_of_power_costs_nothing_that_was_promised(disk: Disk, outcomes: Outcomes, seeds: int) -> None:
    assert outcomes.all(log_of(disk), seeds) == []
    assert outcomes.count > 50 * seeds


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.faults)])
def test_nor_where_a_process_had_been_killed_before(
    disk: Disk, outcomes: Outcomes, tmp_path: Path, monkeypatch: Patch, step: int
) -> None:
    whole = log_of(disk)
    for length in range(1, len(whole), step):
        second = disk.killed(tmp_path / f"killed{length}", length)
        monkeypatch.setattr(files, "os", second)
        assert outcomes.all(log_of(second), 1, length) == []
    assert outcomes.count > 1000 // step


def fail_at(number: int, code: int, once: bool) -> Callable[[int, str], None]:
    def before(at: int, kind: str) -> None:
        if at == number or (at > number and not once):
            raise OSError(code, os.strerror(code))

    return before


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_nor_where_the_disk_had_failed_before(
    outcomes: Outcomes, tmp_path: Path, monkeypatch: Patch, step: int, once: bool, code: int
) -> None:
    failed = 0
    for number in range(code % step, 54, step):
        disk = Disk(tmp_path / f"failing{number}")
        disk.root.mkdir()
        disk.before = fail_at(number, code, once)
        monkeypatch.setattr(files, "os", disk)
        try:
            record(disk.root / "run", promise=disk.promise)
        except StoreError as error:
            failed += 1
            assert os.strerror(code) in str(error)
        assert outcomes.all(disk.log, 2, max(len(disk.log) - 8, 0)) == [], number
    assert failed > 40 // step


@pytest.mark.faults
def test_nor_where_shards_are_written_and_listed_at_once(disk: Disk, outcomes: Outcomes, monkeypatch: Patch) -> None:
    monkeypatch.undo()
    make_small(monkeypatch.setattr, in_turn=False)
    monkeypatch.setattr(files, "os", disk)
    assert outcomes.all(log_of(disk), 30) == []


# --- without a part of it -----------------------------------------------------------------------------------------


def instead(patch: Patch, module: Any, **functions: Callable[..., Any]) -> None:
    """Let one module of the store use other functions in place of those in `files`."""
    patch.setattr(module, "files", SimpleNamespace(**{**vars(files), **functions}))


def nothing(*_: Any) -> None:
    pass


def header_and_data_in_one_sync(patch: Patch) -> None:
    seen: set[int] = set()

    def every_second(file: int) -> None:
        if file in seen:
            files.sync(file)
        seen.symmetric_difference_update({file})

    instead(patch, shard, sync=every_second)


def in_place_header_first(patch: Patch) -> None:
    class InPlace(shard.ShardWriter):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            files.rename(self.partial, self.path)
            self.partial = self.path

        def close(self) -> None:
            text = json.dumps(self._entries).encode().ljust(shard.HEADER - 8)
            files.write(self._file, memoryview(struct.pack("<Q", len(text)) + text), 0)
            self._ring.drain(self._file)
            files.sync(self._file)
            files.close(self._file)
            files.sync_directory(self.path.parent)

    patch.setattr(directory, "ShardWriter", InPlace)


def journal_first(patch: Patch) -> None:
    def finish(self: Any, group: Any) -> None:
        shards = [one.describe() for one in group.shards]
        self._journal.append({"shards": shards, "samples": group.samples})
        for one in group.shards:
            one.close()

    patch.setattr(directory.Listing, "_finish", finish)


def unsynced_manifest(patch: Patch) -> None:
    def write_whole(path: Path, text: bytes) -> None:
        file = files.create(path)
        files.write(file, memoryview(text), 0)
        files.close(file)

    instead(patch, target, write_whole=write_whole)


def manifest_in_place(patch: Patch) -> None:
    def publish(self: target.Target, manifest: Any) -> bool:
        files.write_whole(self.path / "manifest.json", json.dumps(manifest.__dict__, default=vars).encode())
        files.sync_directory(self.path)
        return True

    patch.setattr(target.Target, "_publish", publish)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    "shards are not synced": lambda patch: instead(patch, shard, sync=nothing),
    "journals are not synced": lambda patch: instead(patch, journal, sync=nothing),
    "the manifest is not synced": unsynced_manifest,
    "the directory of shards is not synced": lambda patch: instead(patch, shard, sync_directory=nothing),
    "the directory of journals is not synced": lambda patch: instead(patch, journal, sync_directory=nothing),
    "the run's directory is not synced": lambda patch: instead(patch, target, sync_directory=nothing),
    "header and data in one sync": header_and_data_in_one_sync,
    "in place, header first": in_place_header_first,
    "journal first": journal_first,
    "the manifest is written in place": manifest_in_place,
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(disk: Disk, outcomes: Outcomes, monkeypatch: Patch, mutant: str) -> None:
    with monkeypatch.context() as patch:
        MUTANTS[mutant](patch)
        log = log_of(disk)
    assert outcomes.any(log)


# What a writer that goes on makes sure of, since the one before it may have been killed before it did.
HEIRS: dict[str, Callable[[Patch], None]] = {
    "names are taken to be durable": lambda patch: instead(patch, target, sync_directory=nothing),
    "journals are taken to be durable": lambda patch: instead(patch, directory, sync_file=nothing),
}


@pytest.mark.parametrize("mutant", HEIRS)
def test_a_mutant_that_goes_on_is_caught(
    disk: Disk, outcomes: Outcomes, tmp_path: Path, monkeypatch: Patch, mutant: str
) -> None:
    whole = log_of(disk)
    (manifest,) = (at for at, op in enumerate(whole) if op[0] == "link")
    journals = [op[1] for op in whole if op[0] == "create" and op[2].endswith(".jsonl")]
    lines = [at for at, op in enumerate(whole) if op[0] == "write" and op[1] in journals and len(op[3]) > 500]
    assert len(lines) == 3
    caught = []
    for length in (manifest + 1, *(at + 1 for at in lines)):  # killed before the next sync
        second = disk.killed(tmp_path / f"killed{length}", length)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", second)
            HEIRS[mutant](patch)
            log = log_of(second)
        caught += outcomes.any(log, 2, length)
    assert caught


@pytest.mark.parametrize("synced", [True, False], ids=["real", "mutant"])
def test_a_line_that_failed_is_taken_back_for_good(
    disk: Disk, outcomes: Outcomes, tmp_path: Path, monkeypatch: Patch, synced: bool
) -> None:
    def append(self: journal.Journal, line: dict[str, Any]) -> None:
        text = json.dumps(line).encode()
        data = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            files.write(self._file, memoryview(data), self._end)
            files.sync(self._file)
        except OSError:
            files.truncate(self._file, self._end)  # and no sync
            raise
        self._end += len(data)

    kinds: list[str] = []
    disk.before = lambda number, kind: kinds.append(kind)
    log_of(disk)
    # A journal's line is written and synced behind the directory of shards.
    line = ["sync directory", "write", "sync"]
    lines = [at + 2 for at in range(len(kinds)) if kinds[at : at + 3] == line]
    assert len(lines) == 3
    caught = []
    for number in lines:
        failing = Disk(tmp_path / f"failing{number}")
        failing.root.mkdir()
        failing.before = fail_at(number, errno.EIO, once=True)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", failing)
            if not synced:
                patch.setattr(journal.Journal, "append", append)
            with pytest.raises(StoreError, match="Input/output error"):
                record(failing.root / "run", promise=failing.promise)
        caught += outcomes.any(failing.log, 60, len(failing.log))
    assert bool(caught) is not synced


# --- two that start a run at once ---------------------------------------------------------------------------------


def beside(disk: Disk, number: int, first: Callable[[], None], second: Callable[[], None]) -> list[Exception]:
    """Hold `first` before its change of that number, until `second` is done."""
    held, go = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def before(at: int, kind: str) -> None:
        if at == number:
            held.set()
            assert go.wait(30)

    def run() -> None:
        try:
            first()
        except Exception as error:
            errors.append(error)
        held.set()

    disk.before = before
    thread = threading.Thread(target=run)
    thread.start()
    assert held.wait(30)
    try:
        second()
    finally:
        go.set()
        thread.join(30)
    assert not thread.is_alive()
    return errors


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.faults)])
def test_two_may_start_a_run_at_once(outcomes: Outcomes, tmp_path: Path, monkeypatch: Patch, step: int) -> None:
    for number in range(0, 30, step):
        disk = Disk(tmp_path / f"disk{number}")
        disk.root.mkdir()
        monkeypatch.setattr(files, "os", disk)
        run = functools.partial(record, disk.root / "run", promise=disk.promise)
        errors = beside(disk, number, lambda: run(GROUPS[:1]), lambda: run(GROUPS[1:]))  # noqa: B023 (called at once)
        assert errors == []
        assert list(incomplete(disk.root / "run", ALL)) == []
        assert outcomes.all(disk.log, 1, len(disk.log) // 2) == []


@pytest.mark.parametrize("exclusive", [True, False], ids=["real", "mutant"])
def test_of_two_that_start_different_runs_one_is_refused(disk: Disk, monkeypatch: Patch, exclusive: bool) -> None:
    if not exclusive:
        instead(monkeypatch, target, publish=lambda path, to: files.rename(path, to) or True)  # whoever comes last
    probe = Disk(disk.root.with_name("probe"))
    probe.root.mkdir()
    kinds: list[str] = []
    probe.before = lambda number, kind: kinds.append(kind)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", probe)
        record(probe.root / "run")
    other = replace(MANIFEST, text=False)
    run = disk.root / "run"
    errors = beside(
        disk, kinds.index("create"), lambda: record(run, GROUPS[:1], manifest=other), lambda: record(run, GROUPS[1:])
    )
    refused = [str(error) for error in errors if "of another selection: text was True and is False" in str(error)]
    kept = DirectoryReader(run).manifest.text and name_of(0) not in {one.id for one in DirectoryReader(run).samples}
    assert (bool(refused), kept) == (exclusive, exclusive)
