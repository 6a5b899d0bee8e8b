"""The parts of a journal's line, found without parsing it: a run of many samples is open before all are read.

A writer puts a line's keys in one order and without white space (docs/format.md). In JSON every quotation mark inside
of a string has a backslash before it, so the first characters of a shard's and of a sample's record stand nowhere else
in such a line. A line that is written in another way is parsed whole.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnprobe.errors import CorruptRun
from attnprobe.store.files import read_plain
from attnprobe.store.journal import BEHIND_CHECKSUM

_SHARDS, _SAMPLES = b'{"shards":[', b'],"samples":['
_SHARD_BEGINS, _SAMPLE_BEGINS = b'{"file":', b'{"index":'
_SHARD = re.compile(rb'\{"file":("[^"\\]*"),"size":(\d{1,16}),"xxh3_64":')
_SAMPLE = re.compile(rb'\{"index":(0|[1-9]\d{0,15}),"id":("(?:[^"\\]|\\.)*"),"named":(true|false),')


@dataclass(frozen=True)
class Stored:
    """A part of a journal that is read and parsed when it is asked for."""

    path: Path
    start: int
    stop: int

    def load(self) -> dict[str, Any]:
        """What it holds.

        Raises
        ------
        CorruptRun
            If it is no JSON object.
        """
        try:
            with read_plain(self.path, 0) as file:
                found = json.loads(os.pread(file.fileno(), self.stop - self.start, self.start))
            if not isinstance(found, dict):
                raise ValueError("it is no object")
        except (OSError, ValueError, RecursionError) as error:
            raise CorruptRun(
                f"{self.path}, the record at byte {self.start:,} cannot be read ({error}); restore the journal, or "
                "record again"
            ) from error
        return found


class Record:
    """What a journal says of a sample. All but its number and name is read when it is asked for, and not held.

    Attributes
    ----------
    index, id, named
        As in the record.
    """

    __slots__ = ("_rest", "id", "index", "named")

    def __init__(self, index: int, id: str, named: bool, rest: dict[str, Any] | Stored) -> None:
        self.index, self.id, self.named, self._rest = index, id, named, rest

    def load(self) -> dict[str, Any]:
        """The whole record.

        Raises
        ------
        CorruptRun
            If it cannot be read, or is no longer the one that was there.
        """
        if isinstance(self._rest, dict):
            return self._rest
        found = self._rest.load()
        if (found.get("index"), found.get("id"), found.get("named")) != (self.index, self.id, self.named):
            raise CorruptRun(
                f"{self._rest.path}, the record at byte {self._rest.start:,} is another than when the run was opened; "
                "open it again"
            )
        return found


def find_parts(path: Path, line: bytes, start: int) -> dict[str, Any] | None:
    """The shards and samples of a line, with hashes and records that are left where they are.

    Parameters
    ----------
    path
        The journal.
    line, start
        A line whose checksum fits, and its first byte in the file.

    Returns
    -------
    record
        As parsing gives it, but `Stored` hashes, and a `Record` a sample; None of a line written in another way.

    Raises
    ------
    ValueError
        If the name of a sample is no string.
    """
    first = line.find(_SAMPLES)
    if first < 0 or not line.startswith(_SHARDS, BEHIND_CHECKSUM) or not line.endswith(b"}]}\n"):
        return None
    shards: list[dict[str, Any]] = []
    for begin, end in _parts(line, _SHARD_BEGINS, BEHIND_CHECKSUM + len(_SHARDS), first):
        match = _SHARD.match(line, begin, end)
        if match is None or line[end - 2 : end] != b"}}":
            return None
        hashes = Stored(path, start + match.end(), start + end - 1)
        shards.append({"file": json.loads(match[1]), "size": int(match[2]), "xxh3_64": hashes})
    samples: list[Record] = []
    for begin, end in _parts(line, _SAMPLE_BEGINS, first + len(_SAMPLES), len(line) - len(b"]}\n")):
        match = _SAMPLE.match(line, begin, end)
        if match is None or line[end - 1 : end] != b"}":
            return None
        rest = Stored(path, start + begin, start + end)
        samples.append(Record(int(match[1]), json.loads(match[2]), match[3] == b"true", rest))
    return {"shards": shards, "samples": samples}


def _parts(line: bytes, word: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where the objects of a list begin and end, if each begins with a word that is nowhere else in it."""
    begin = start
    while begin < stop:
        following = line.find(b"," + word, begin, stop)
        end = stop if following < 0 else following
        yield begin, end
        begin = end + 1
