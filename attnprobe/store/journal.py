"""The journal of one writer: append-only lines, each with its own checksum. What it does not list does not exist."""

import errno
import fcntl
import json
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from attnprobe.errors import CorruptRun
from attnprobe.store import files

BEHIND_CHECKSUM = 9  # where a line's JSON begins
_AT_ONCE = 1 << 20  # bytes that are read together: lines have megabytes
_TRIES = 1000  # to take a mark that somebody who looks whether it is held holds for a moment, 10 ms apart


class Journal:
    """A new journal, open to append; while it is, it is marked, so that others can tell that its writer lives.

    Attributes
    ----------
    unsure
        Whether a line that nobody vouches for may still be there. The journal takes no more then.
    """

    def __init__(self, path: Path, first: dict[str, Any]) -> None:
        self.path = path
        self.unsure = False
        self._end = 0
        self._file = files.create(path)
        try:
            self._take_mark()
            self.append(first)
            files.sync_directory(path.parent)
        except BaseException:
            self.close()
            files.remove(path)
            raise

    def _take_mark(self) -> None:
        for _ in range(_TRIES):
            if _mark(self._file) is not False:
                return
            time.sleep(0.01)
        raise OSError(errno.EWOULDBLOCK, f"another process holds the mark of {self.path}")

    def append(self, record: dict[str, Any]) -> None:
        """Append a record and make it durable; where that fails, nothing of it stays to spoil what comes after."""
        if self.unsure:
            raise OSError(errno.EIO, "a line before it could be neither written nor taken back")
        line = make_line(record)
        try:
            files.write(self._file, memoryview(line), self._end)
            files.sync(self._file)
        except BaseException:
            try:
                files.truncate(self._file, self._end)
                files.sync(self._file)  # else a power loss could bring it back, when its shards are gone
            except OSError:
                self.unsure = True
            raise
        self._end += len(line)

    def close(self) -> None:
        """Let go of the file, and of the mark."""
        files.close(self._file)


def make_line(record: dict[str, Any]) -> bytes:
    """A record as a line, with its checksum."""
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; a last line that is torn was never vouched for, and is not there.

    Raises
    ------
    CorruptRun
        If a line before the last is damaged.
    """
    return parse_lines(path, lambda line, _: parse_line(line))


def parse_lines(path: Path, parse: Callable[[bytes, int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same by a parser of one's own, which is given a line and its first byte, and raises `ValueError`."""
    torn: tuple[int, Exception] | None = None
    at = 0
    with files.read_plain(path, _AT_ONCE) as file:
        for number, line in enumerate(file, 1):
            if torn is not None:
                raise CorruptRun(
                    f"{path}, line {torn[0]} is damaged ({torn[1]}); restore the file, or let `attnprobe verify "
                    "--repair` set it aside"
                ) from torn[1]
            try:
                yield parse(line, at)
            except (ValueError, RecursionError) as error:
                torn = number, error
            at += len(line)


def parse_line(line: bytes) -> dict[str, Any]:
    """The record of a line.

    Raises
    ------
    ValueError
        If the line is damaged.
    """
    check_line(line)
    record = json.loads(line[BEHIND_CHECKSUM:-1])
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    return record


def check_line(line: bytes) -> None:
    """Compare a line with its checksum.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    text = memoryview(line)[BEHIND_CHECKSUM:-1]
    if not line.endswith(b"\n") or line[:BEHIND_CHECKSUM] != b"%08x " % zlib.crc32(text):
        raise ValueError("its checksum does not fit")


def whole_lines(path: Path) -> bytes:
    """A journal's lines as they are, without a last one that is torn; they are not checked."""
    with files.read_plain(path) as file:
        lines = list(file)
    try:
        parse_line(lines[-1] if lines else b"")
    except (ValueError, RecursionError):
        lines = lines[:-1]
    return b"".join(lines)


def now() -> str:
    """The time as lines have it: UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def host() -> str:
    """What tells this machine from others, without its name."""
    return xxhash.xxh3_64_hexdigest(platform.node().encode())


def is_live(path: Path) -> bool:
    """Whether a journal's writer may still be at work: its mark is held, or cannot be tried."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return _mark(file, fcntl.LOCK_SH) is not True  # shared: others may be asking too
    finally:
        os.close(file)


def _mark(file: int, how: int = fcntl.LOCK_EX) -> bool | None:
    """Take the mark of a journal, which is let go of when its process ends, however it does; None where none can."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
