"""The journal of one writer: append-only lines, each with its own checksum. What it does not list does not exist."""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnprobe.errors import CorruptRun
from attnprobe.store.validate import open_plain


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
    """The records of a journal; a last line without its end was never vouched for, and is not there.

    Raises
    ------
    CorruptRun
        If a whole line is damaged.
    """
    with open_plain(path) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            text = line[9:-1]
            try:
                if line[:9] != b"%08x " % zlib.crc32(text):
                    raise ValueError("its checksum does not fit")
                record = json.loads(text)
                if not isinstance(record, dict):
                    raise ValueError("it holds no record")
            except (ValueError, RecursionError) as error:
                raise CorruptRun(
                    f"{path}, line {number} is damaged ({error}); restore the file, or record again"
                ) from error
            yield record
