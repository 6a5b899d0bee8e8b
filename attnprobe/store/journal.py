"""The journal of one writer: append-only lines, each with its own checksum. What it does not list does not exist."""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append a record and make it durable; where that fails, nothing of it stays to spoil what comes after."""
    text = json.dumps(record, separators=(",", ":")).encode()
    line = b"%08x %s\n" % (zlib.crc32(text), text)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    before = os.fstat(file).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(file, line[written:])
        os.fsync(file)
    except BaseException:
        os.ftruncate(file, before)
        raise
    finally:
        os.close(file)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records up to the first damaged line; a torn last line was never vouched for."""
    with path.open("rb") as file:
        for line in file:
            try:
                checksum, text = int(line[:8], 16), line[9:-1]
                if not line.endswith(b"\n") or checksum != zlib.crc32(text):
                    return
                record = json.loads(text)
            except (ValueError, RecursionError):
                return
            if not isinstance(record, dict):
                return
            yield record
