"""The journal of one writer: append-only lines, each with its own checksum. What it does not list does not exist."""

import fcntl
import json
import os
import platform
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from attnprobe.errors import CorruptRun
from attnprobe.store import files

_TRIES = 50  # to take a mark that another start holds for a moment, 10 ms apart


class Journal:
    """A new journal, open to append; while it is, it is marked, so that others can tell that its writer lives."""

    def __init__(self, path: Path, first: dict[str, Any]) -> None:
        self.path = path
        self._end = 0
        self._file = files.create(path)
        try:
            for _ in range(_TRIES):
                if _mark(self._file):
                    break
                time.sleep(0.01)
            self.append(first)
            files.sync_directory(path.parent)
        except BaseException:
            self.close()
            files.remove(path)
            raise

    def append(self, record: dict[str, Any]) -> None:
        """Append a record and make it durable; where that fails, nothing of it stays to spoil what comes after."""
        text = json.dumps(record, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            files.write(self._file, memoryview(line), self._end)
            files.sync(self._file)
        except BaseException:
            files.truncate(self._file, self._end)
            raise
        self._end += len(line)

    def close(self) -> None:
        """Let go of the file, and of the mark."""
        files.close(self._file)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; a last line that is torn was never vouched for, and is not there.

    Raises
    ------
    CorruptRun
        If a line before the last is damaged.
    """
    torn: tuple[int, Exception] | None = None
    with files.read_plain(path) as file:
        for number, line in enumerate(file, 1):
            if torn is not None:
                raise CorruptRun(
                    f"{path}, line {torn[0]} is damaged ({torn[1]}); restore the file, or let `attnprobe verify "
                    "--repair` set it aside"
                ) from torn[1]
            try:
                yield _parse(line)
            except (ValueError, RecursionError) as error:
                torn = number, error


def _parse(line: bytes) -> dict[str, Any]:
    text = line[9:-1]
    if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(text):
        raise ValueError("its checksum does not fit")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    return record


def torn_bytes(path: Path) -> int:
    """Bytes of a last line that is torn; 0 where all lines are whole."""
    last = b""
    with files.read_plain(path) as file:
        for line in file:
            last = line
    try:
        if last:
            _parse(last)
    except (ValueError, RecursionError):
        return len(last)
    return 0


def host() -> str:
    """What tells this machine from others, without its name."""
    return xxhash.xxh3_64_hexdigest(platform.node().encode())


def is_live(path: Path) -> bool:
    """Whether a journal's writer may still be at work: its mark is held, or cannot be tried."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return not _mark(file)
    finally:
        os.close(file)


def _mark(file: int) -> bool:
    """Take the mark of a journal, which is let go of when its process ends, however it does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
