"""Runs copied and united: every byte is compared with its checksum on the way, and the new run appears whole or not."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from attnprobe.errors import BudgetError, CorruptRun, RunExists, SelectionError, StoreError
from attnprobe.fidelity import FILE as FIDELITY
from attnprobe.sizes import format_bytes
from attnprobe.store import files
from attnprobe.store.base import FORMAT
from attnprobe.store.differing import differing
from attnprobe.store.journal import host, is_live, make_line, now, parse_line, whole_lines
from attnprobe.store.listed import all_dropped, check_shards, journal_files, read_journals, unite
from attnprobe.store.read_directory import read_manifest
from attnprobe.store.shard_file import ShardFile

CHUNK = 4 << 20  # bytes that are read together
_ADVICE = "see what else is wrong with attnprobe verify, and set it aside with --repair"
Progress = Callable[[int, int], None]  # bytes that were copied, and that there are


def copy_run(path: Path, to: Path, progress: Progress | None = None) -> None:
    """Copy what a run lists: no unfinished shard, nothing that was set aside.

    Raises
    ------
    RunExists
        If something is at `to`.
    BudgetError
        If the disk has too little room.
    StoreError
        If there is no run at `path`, it is damaged, or the copy cannot be written.
    SelectionError
        If `to` lies inside of a run.
    """
    read_manifest(path)
    _copy([path], to, progress)


def merge_runs(paths: Sequence[Path], to: Path, progress: Progress | None = None) -> None:
    """Unite runs of one model, selection and format. A named sample that is in several is read once.

    Raises
    ------
    RunExists
        If something is at `to`.
    BudgetError
        If the disk has too little room.
    StoreError
        If the runs differ in what they are of, two are copies of one, or one is damaged.
    SelectionError
        If `to` lies inside of a run.
    """
    manifests = [read_manifest(path) for path in paths]
    first = json.loads(json.dumps(asdict(manifests[0])))
    for path, manifest in zip(paths, manifests, strict=True):
        if manifest.format != FORMAT:
            raise StoreError(f"{path} has format {manifest.format}, and only runs of format {FORMAT} are merged")
        difference = differing(first, manifest)
        if difference:
            raise StoreError(
                f"{path} is of {difference} (first in {paths[0]}, then in it); only runs of one model, "
                "selection and data are merged"
            )
    owner: dict[str, Path] = {}
    for path in paths:
        for file in journal_files(path):
            if file.name in owner:
                raise StoreError(
                    f"{owner[file.name]} and {path} both hold what the writer {file.stem} wrote, so one is a copy of "
                    "the other, or of a part of it; merge one of them"
                )
            owner[file.name] = path
    _copy(paths, to, progress)


@dataclass(frozen=True)
class _Shard:
    """A shard that is to be copied: where it is, what the journal says of it."""

    path: Path
    size: int
    hashes: dict[str, str]


def _copy(paths: Sequence[Path], to: Path, progress: Progress | None) -> None:
    to = to.absolute()
    for path in paths:
        if path.resolve() in to.resolve().parents:
            raise SelectionError(f"{to} lies inside of the run {path}; choose a path outside of it")
    with _appearing(to) as new:
        source: dict[str, Path] = {}
        for path in paths:
            for file in journal_files(path):
                files.write_whole(new / "journal" / file.name, _copy_lines(file))
                source[file.name] = path
        listed = unite(read_journals(new))  # as it was when it was copied: somebody may be writing
        dropped = all_dropped(listed.journals)
        shards = [
            _Shard(source[one.path.name] / "shards" / name, size, dict(one.hashes[name]))
            for one in listed.journals
            for name, size in one.shards.items()
            if name not in dropped
        ]
        total, done = sum(shard.size for shard in shards), 0
        free = shutil.disk_usage(new).free
        if total > free:
            raise BudgetError(f"{format_bytes(total)} do not fit {new.parent}, which has {format_bytes(free)} free")
        for shard in shards:
            for count in _copy_shard(shard, new / "shards" / shard.path.name):
                done += count
                if progress is not None:
                    progress(done, total)
        check_shards(new, listed)
        for name in ("manifest.json", FIDELITY):
            if len(paths) == 1 or name != FIDELITY:
                with _there(paths[0] / name) as text:
                    if text is not None:
                        files.write_whole(new / name, text)


def _copy_lines(path: Path) -> bytes:
    """A journal's whole lines. Where its writer may go on, one more says that this copy ends here."""
    living = is_live(path)  # before its lines are read: it may end meanwhile
    text = whole_lines(path)
    lines = text.splitlines(keepends=True)
    try:
        first, last = parse_line(lines[0]), parse_line(lines[-1])
    except (ValueError, RecursionError, IndexError):  # who reads it says so
        return text
    writer = first.get("writer")
    if "ended" in last or not isinstance(writer, dict):
        return text
    if living or writer.get("host", host()) != host():  # which cannot be asked
        text += make_line({"ended": now(), "copied": True})
    return text


@contextmanager
def _there(path: Path) -> Iterator[bytes | None]:
    """The bytes of a file, or None."""
    try:
        file = files.read_plain(path)
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file.read()


@contextmanager
def _appearing(to: Path) -> Iterator[Path]:
    """A directory of a run's parts that is called `to` once all in it is durable, and is gone where that fails."""
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise RunExists(f"{to} exists already; choose another path")
    new = to.with_name(f".{to.name}.{secrets.token_hex(4)}.partial")
    try:
        for directory in reversed(to.parents):
            if not directory.exists():
                files.make_directory(directory)
        for directory in (new, new / "shards", new / "journal"):
            files.make_directory(directory)
        yield new
        for directory in (new / "shards", new / "journal", new):
            files.sync_directory(directory)
        try:
            files.rename(new, to)
        except OSError as error:
            raise RunExists(f"{to} was made meanwhile ({error.strerror}); choose another path") from error
        files.sync_directory(to.parent)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            there = os.path.lexists(new)
            state = f"what was copied could not be removed, delete {new}" if there else "nothing of the copy is left"
            raise StoreError(
                f"cannot copy to {to}: {files.words_of(error)}; {state}; what was to be copied is as it was"
            ) from error
        raise


def _copy_shard(shard: _Shard, to: Path) -> Iterator[int]:
    """Copy a shard, and compare each tensor with its checksum; gives how many bytes went on."""
    whole = ShardFile(shard.path, shard.size)
    if whole.entries.keys() != shard.hashes.keys():
        raise CorruptRun(f"{shard.path} has other tensors than its journal lists; {_ADVICE}")
    entries = sorted(whole.entries.items(), key=lambda pair: pair[1].start)
    file = files.create(to)
    try:
        begin = entries[0][1].start if entries else shard.size
        files.write(file, memoryview(whole.read(0, begin)), 0)
        yield begin
        for name, entry in entries:
            digest = xxhash.xxh3_64()
            for start in range(entry.start, entry.stop, CHUNK):
                data = whole.read(start, min(CHUNK, entry.stop - start))
                digest.update(data)
                files.write(file, memoryview(data), start)
                yield len(data)
            if digest.hexdigest() != shard.hashes[name]:
                raise CorruptRun(
                    f"{shard.path}, tensor {name}, byte {entry.start:,}: its checksum is {digest.hexdigest()}, and the "
                    f"journal has {shard.hashes[name]}; {_ADVICE}"
                )
        files.sync(file)
    finally:
        files.close(file)
