"""One shard, checked from its first byte to its last: its header against the journal, and each tensor."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import xxhash

from attnprobe.errors import CorruptRun
from attnprobe.store import files
from attnprobe.store.base import READABLE
from attnprobe.store.header import ITEMSIZE, BadHeader, Entry, header_length, parse_header
from attnprobe.verifying.findings import Counts, Finding
from attnprobe.verifying.values import Check
from attnprobe.verifying.wanted import Checks, Wanted

CHUNK = 4 << 20  # bytes that are read together, or one row if that is longer


class ShardCheck:
    """Checks one shard, in bounded memory.

    Parameters
    ----------
    path
        The file.
    size, hashes
        Its bytes and the xxh3 of its tensors, as its journal has them.
    wanted
        What samples say of its tensors. It may hold others, of samples that were discarded.
    checks
        Makes the checks of tensors.
    progress
        Is told how many more bytes were read.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        hashes: Mapping[str, str],
        wanted: Sequence[Wanted],
        checks: Checks,
        progress: Callable[[int], None],
    ) -> None:
        self._path, self._size, self._hashes = path, size, hashes
        self._wanted, self._checks, self._progress = wanted, checks, progress
        self.counts = Counts()
        self.findings: list[Finding] = []

    def run(self) -> "ShardCheck":
        """Check it; gives itself."""
        self.counts.shards += 1
        try:
            file = files.open_plain(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self._wrong("missing", "it is listed and not there")
            return self
        except CorruptRun as error:
            self._wrong("unreadable", str(error))
            return self
        try:
            self._read(file)
        except OSError as error:
            self._wrong("unreadable", f"it cannot be read: {error.strerror or error}")
        finally:
            os.close(file)
        return self

    def _wrong(self, problem: str, message: str, tensor: str | None = None, offset: int | None = None) -> None:
        sample = next((one for one in self._wanted if one.name == tensor), None)
        of = (None, None) if sample is None else (str(sample.record["id"]), sample.site)
        self.findings.append(Finding(problem, f"shards/{self._path.name}", message, tensor, offset, *of))

    def _read(self, file: int) -> None:
        size = os.fstat(file).st_size
        if size != self._size:
            self._wrong("size", f"it has {size:,} bytes, and should have {self._size:,}", offset=min(size, self._size))
            return
        try:
            length = header_length(files.read(file, 8, 0), size)
            text = files.read(file, length, 8)
            entries = parse_header(text, size)
        except BadHeader as error:
            self._wrong("header", str(error), offset=0)
            return
        self.counts.nbytes += 8 + length
        self._progress(8 + length)
        self._check_header(text, entries)
        wanted: dict[str, list[Wanted]] = {}
        for one in self._wanted:
            if self._fits(one, entries):
                wanted.setdefault(one.name, []).append(one)
        for name, entry in sorted(entries.items(), key=lambda pair: pair[1].start):
            self._check_tensor(file, name, entry, wanted.get(name, ()))

    def _check_header(self, text: bytes, entries: Mapping[str, Entry]) -> None:
        metadata = json.loads(text).get("__metadata__")
        if metadata not in [{"format": "pt", "attnprobe.format": str(one)} for one in READABLE]:
            self._wrong("header", f"its metadata are {str(metadata)[:200]}", offset=8)
        for name in entries.keys() - self._hashes.keys():
            self._wrong("header", "the journal does not list this tensor", name, entries[name].start)
        for name in sorted(self._hashes.keys() - entries.keys()):
            self._wrong("header", "the journal lists this tensor, and the header has none", name, 8)

    def _fits(self, wanted: Wanted, entries: Mapping[str, Entry]) -> bool:
        """Whether a tensor is what a record says; what the header lacks is said already where the journal lists it."""
        entry = entries.get(wanted.name)
        if entry is None:
            if wanted.name not in self._hashes:
                self._wrong("header", "a sample has this tensor, and the header has none", wanted.name, 8)
            return False
        if entry.dtype != wanted.dtype or len(entry.shape) != len(wanted.shape or entry.shape[:1]):
            problem = True
        else:
            problem = wanted.shape is not None and entry.shape != wanted.shape
        if problem:
            shape = "one axis" if wanted.shape is None else list(wanted.shape)
            message = f"it is {entry.dtype} {list(entry.shape)}, and the journal has {wanted.dtype} {shape}"
            self._wrong("header", message, wanted.name, entry.start)
        return not problem

    def _check_tensor(self, file: int, name: str, entry: Entry, wanted: Sequence[Wanted]) -> None:
        """One tensor: its checksum and its values, chunk by chunk."""
        self.counts.tensors += 1
        digest = xxhash.xxh3_64()
        checks: list[Check] = [self._checks.make(one, self.counts) for one in wanted]
        item = ITEMSIZE[entry.dtype]
        row = max(1, entry.shape[-1] if entry.shape else 1) * item
        step = max(1, CHUNK // row) * row
        if any(one.part is not None for one in wanted):  # a list is one row, whatever its length
            step = max(item, CHUNK // item * item)
        for start in range(entry.start, entry.stop, step):
            data = files.read(file, min(step, entry.stop - start), start)
            digest.update(data)
            for check in checks:
                check.feed(data, (start - entry.start) // item)
            self.counts.nbytes += len(data)
            self._progress(len(data))
        known = self._hashes.get(name)
        if known is not None and digest.hexdigest() != known:
            message = f"its checksum is {digest.hexdigest()}, and the journal has {known}"
            self._wrong("checksum", message, name, entry.start)
        for check in checks:
            for problem, wrong in sorted(check.finish().found.items(), key=lambda pair: (pair[1].first, pair[0])):
                more = f" ({wrong.count:,} such in this tensor)" if wrong.count > 1 else ""
                self._wrong(problem, wrong.words + more, name, entry.start + wrong.first * item)
