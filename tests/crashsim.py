"""A disk that forgets: what a run directory may look like after a loss of power, at any moment of a recording.

The model is that of POSIX, and harsher than ext4, XFS and btrfs:

- What was written to a file is durable once the file was synced, its size included. Before, any part of it may be
  there: each write or none, later ones without earlier ones, single sectors of 512 bytes of one write. What is missing
  below the end of a file reads as zeros, and a file may have its size and not its data.
- Names belong to their directory. That a file is synced says nothing of its name: a name that was made, linked, renamed
  or taken away is so for certain once the directory was synced, and before it each change may be there without the
  others, the two halves of a rename too. What lies in a directory whose own name is lost is lost.
- A sync that failed makes nothing durable, and what was written before it stays in doubt for ever: a later sync that
  succeeds does not bring it back (Linux marks the pages as clean).
- When a process is killed, nothing is forgotten; what it had not synced is in doubt still, also for the next process.

`Disk` stands in for the module `os` beneath `attnprobe.store.files`: it does what it is asked to and writes it down.
`Remains` is what a part of that log makes certain and leaves in doubt, and puts one outcome of it on a real disk.
"""

import os
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

SECTOR = 512
DIRECTORY = -1  # stands for the inode of a directory

Op = tuple[Any, ...]


class Disk:
    """The module `os`, which keeps a log of what is changed below `root`, and fails where it is told to.

    Attributes
    ----------
    log
        What was done, in order, and what the recording was promised (`promise`).
    before
        Called before each change with its number among the changes and its kind; the call raises what it raises.
    """

    def __init__(self, root: Path, log: Sequence[Op] = ()) -> None:
        self.root = root
        self.log = list(log)
        self.before: Callable[[int, str], None] = lambda number, kind: None
        self._lock = threading.RLock()
        self._names = Remains(log).names_in_memory()
        self._inodes = max((op[1] for op in log if op[0] == "create"), default=0)
        self._open: dict[int, int | str] = {}
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def promise(self, samples: Sequence[str] | frozenset[str]) -> None:
        """The recording was told that these are durable."""
        with self._lock:
            self.log.append(("promise", frozenset(samples)))

    def killed(self, root: Path, length: int) -> "Disk":
        """The same after a process was killed behind `length` entries of the log, laid out in another place."""
        Remains(self.log[:length]).lay_out(root, None)
        return Disk(root, self.log[:length])

    def _place(self, path: Any) -> str | None:
        path = Path(path)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None

    def _change(self, kind: str) -> None:
        with self._lock:
            number, self._count = self._count, self._count + 1
        self.before(number, kind)  # it may wait

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        place = self._place(path)
        made = bool(flags & os.O_CREAT) and place is not None
        if made:
            self._change("create")
        with self._lock:
            file = os.open(path, flags, mode)
            if made:
                self._inodes += 1
                self._names[str(place)] = self._inodes
                self.log.append(("create", self._inodes, place))
            if place is not None:
                self._open[file] = place if flags & os.O_DIRECTORY else self._names[place]
            return file

    def close(self, file: int) -> None:
        with self._lock:
            self._open.pop(file, None)
            os.close(file)

    def pwrite(self, file: int, data: Any, offset: int) -> int:
        self._change("write")
        with self._lock:
            written = os.pwrite(file, data, offset)
            self.log.append(("write", self._open[file], offset, bytes(data[:written])))
            return written

    def ftruncate(self, file: int, size: int) -> None:
        self._change("truncate")
        with self._lock:
            os.ftruncate(file, size)
            self.log.append(("truncate", self._open[file], size))

    def fsync(self, file: int) -> None:
        what = self._open.get(file)
        if what is None:
            return  # a directory above
        kind = "sync directory" if isinstance(what, str) else "sync"
        try:
            self._change(kind)
        except OSError:
            kind = "failed sync"
            raise
        finally:
            with self._lock:
                self.log.append((kind, what))

    def mkdir(self, path: Any) -> None:
        self._change("mkdir")
        with self._lock:
            os.mkdir(path)
            self._names[str(self._place(path))] = DIRECTORY
            self.log.append(("mkdir", DIRECTORY, self._place(path)))

    def link(self, path: Any, to: Any) -> None:
        self._change("link")
        with self._lock:
            os.link(path, to)
            old, new = str(self._place(path)), str(self._place(to))
            self._names[new] = self._names[old]
            self.log.append(("link", self._names[new], new))

    def rename(self, path: Any, to: Any) -> None:
        self._change("rename")
        with self._lock:
            os.rename(path, to)
            old, new = str(self._place(path)), str(self._place(to))
            self._names[new] = self._names.pop(old)
            self.log.append(("rename", self._names[new], new, old))

    def unlink(self, path: Any) -> None:
        self._change("unlink")
        with self._lock:
            os.unlink(path)
            del self._names[str(self._place(path))]
            self.log.append(("unlink", None, self._place(path)))


@dataclass
class _Write:
    """A change of a file's data, and whether it is certain."""

    op: Op
    certain: bool = False
    doubted: bool = False  # for ever


@dataclass
class Remains:
    """What a log leaves.

    Attributes
    ----------
    log
        Of a `Disk`, or the beginning of one.
    promised
        The samples that the recording was told are durable.
    """

    log: Sequence[Op]
    promised: frozenset[str] = frozenset()
    _data: dict[int, list[_Write]] = field(default_factory=lambda: defaultdict(list))
    _names: dict[str, int] = field(default_factory=dict)  # certain
    _changes: dict[str, list[tuple[str, int | None]]] = field(default_factory=lambda: defaultdict(list))  # in doubt

    def __post_init__(self) -> None:
        for op in self.log:
            kind = op[0]
            if kind == "promise":
                self.promised |= op[1]
            elif kind in ("write", "truncate"):
                self._data[op[1]].append(_Write(op))
            elif kind == "sync":
                for write in self._data[op[1]]:
                    write.certain = write.certain or not write.doubted
            elif kind == "failed sync":
                if not isinstance(op[1], str):
                    for write in self._data[op[1]]:
                        write.doubted = write.doubted or not write.certain
            elif kind == "sync directory":
                _apply(self._names, self._changes.pop(op[1], []))
            else:
                self._rename(op[2], op[1])
                if kind == "rename":
                    self._rename(op[3], None)

    def _rename(self, path: str, inode: int | None) -> None:
        self._changes[PurePath(path).parent.as_posix()].append((path, inode))

    def names_in_memory(self) -> dict[str, int]:
        """The names as a process sees them while nothing is lost."""
        names = dict(self._names)
        for changes in self._changes.values():
            _apply(names, changes)
        return names

    def lay_out(self, root: Path, chance: random.Random | None) -> None:
        """Put one outcome below `root`, which is empty; without `chance` the one in which nothing is lost."""
        names = dict(self._names)
        share = 1.0 if chance is None else chance.choice((0.0, 0.5, 0.9, 1.0))
        for changes in self._changes.values():
            _apply(names, [change for change in changes if chance is None or chance.random() < share])
        kept = 1.0 if chance is None else chance.choice((0.0, 0.3, 0.7, 1.0))
        data: dict[int, bytes] = {}  # two names of one file hold the same
        root.mkdir(parents=True, exist_ok=True)
        for path in sorted(names):
            inode = names[path]
            if not (root / path).parent.is_dir():
                continue
            if inode == DIRECTORY:
                (root / path).mkdir()
                continue
            if inode not in data:
                data[inode] = self._contents(inode, kept, chance)
            (root / path).write_bytes(data[inode])

    def _contents(self, inode: int, kept: float, chance: random.Random | None) -> bytes:
        data = bytearray()
        torn = chance is not None and chance.random() < 0.5
        for write in self._data[inode]:
            kind, _, offset, *rest = write.op
            if chance is None or write.certain:
                parts = [(offset, *rest)]
            elif not torn:
                parts = [(offset, *rest)] if chance.random() < kept else []
            elif kind == "truncate":
                parts = [(offset,)] if chance.random() < kept else []
            else:
                parts = [part for part in _sectors(offset, rest[0]) if chance.random() < kept]
            if chance is not None and not parts and kind == "write" and chance.random() < 0.3:
                _write(data, offset + len(rest[0]), b"")  # its size, not its data
            for start, *piece in parts:
                if kind == "truncate":
                    del data[start:]
                    _write(data, start, b"")
                else:
                    _write(data, start, piece[0])
        return bytes(data)


def _apply(names: dict[str, int], changes: Sequence[tuple[str, int | None]]) -> None:
    for path, inode in changes:
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _write(data: bytearray, offset: int, piece: bytes) -> None:
    data.extend(bytes(max(0, offset + len(piece) - len(data))))
    data[offset : offset + len(piece)] = piece


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        stop = start + SECTOR - (offset + start) % SECTOR
        yield offset + start, data[start:stop]
        start = stop
