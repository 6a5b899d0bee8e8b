"""One shard, read: its header once, then slices by `os.pread`, from any thread."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from attnprobe.errors import CorruptRun
from attnprobe.shapes import Shaped
from attnprobe.store import files
from attnprobe.store.header import BadHeader, Entry, header_length, parse_header

OPEN_FILES = 64
GAP = 16 << 10  # bytes between two rows up to which both are read at once, with what lies between

RAW: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}  # bfloat16 as its bits


class ShardFile:
    """An open shard. It is closed when nobody holds it any more.

    Raises
    ------
    CorruptRun
        If it is not there, is no regular file, has another size, or its header makes no sense.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._file = -1
        try:
            self._file = files.open_plain(path)
            if os.fstat(self._file).st_size != size:
                raise BadHeader(f"it has {os.fstat(self._file).st_size:,} bytes and should have {size:,}")
            length = header_length(os.pread(self._file, 8, 0), size)
            self.entries = parse_header(files.read(self._file, length, 8), size)
        except (BadHeader, OSError) as error:
            raise CorruptRun(f"{path} cannot be read: {error}; restore it, or record again") from error

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be gone before it
        if self._file >= 0:
            close(self._file)

    def read(self, offset: int, count: int) -> bytes:
        """Some bytes of the file, all of them.

        Raises
        ------
        CorruptRun
            If it has fewer, or cannot be read.
        """
        try:
            return files.read(self._file, count, offset)
        except OSError as error:
            raise CorruptRun(f"{self.path} cannot be read: {error}; restore it, or record again") from error

    def entry(self, name: str, dtype: str, shape: tuple[int, ...] | None) -> Entry:
        """Where a tensor lies.

        Raises
        ------
        CorruptRun
            If it is not there, or is not what the journal says.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise CorruptRun(f"{self.path} has no tensor {name}; restore it, or record again")
        if entry.dtype != dtype or (shape is not None and entry.shape != shape):
            raise CorruptRun(
                f"{self.path}, tensor {name} is {entry.dtype} {entry.shape}, and the journal has {dtype} "
                f"{shape if shape is not None else ''}; restore it, or record again"
            )
        return entry

    def whole(self, entry: Entry) -> Shaped[np.ndarray, "..."]:
        """A tensor."""
        return np.frombuffer(self.read(entry.start, entry.stop - entry.start), RAW[entry.dtype]).reshape(entry.shape)

    def part(self, entry: Entry, heads: range, rows: range, columns: range) -> Shaped[np.ndarray, "head query key"]:
        """Runs of heads, rows and columns of a ``[head, query, key]`` tensor."""
        dtype = RAW[entry.dtype]
        _, height, width = entry.shape
        shape = len(heads), len(rows), len(columns)
        if not all(shape):
            return np.zeros(shape, dtype)
        item = dtype.itemsize
        if len(columns) == width and (len(rows) == height or len(heads) == 1):
            first = (heads[0] * height + rows[0]) * width
            data = self.read(entry.start + first * item, shape[0] * shape[1] * width * item)
            return np.frombuffer(data, dtype).reshape(shape)
        together = (width - len(columns)) * item <= GAP
        result = np.empty(shape, dtype)
        for number, head in enumerate(heads):
            at = (head * height + rows[0]) * width + columns[0]
            if together or len(rows) == 1:
                count = (len(rows) - 1) * width + len(columns)
                flat = np.frombuffer(self.read(entry.start + at * item, count * item), dtype)
                result[number] = np.lib.stride_tricks.as_strided(flat, shape[1:], (width * item, item))
                continue
            for row in range(len(rows)):
                data = self.read(entry.start + (at + row * width) * item, len(columns) * item)
                result[number, row] = np.frombuffer(data, dtype)
        return result


class ShardFiles:
    """The open shards of a run, the last used ones; safe from several threads, and pickled without what is open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ShardFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self._directory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["directory"])  # type: ignore[misc]

    def get(self, name: str, size: int) -> ShardFile:
        """A shard by its name, which was checked, and its size."""
        with self._lock:
            file = self._open.get(name)
            if file is not None:
                self._open.move_to_end(name)
                return file
        file = ShardFile(self._directory / name, size)
        with self._lock:
            self._open[name] = file
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return file
