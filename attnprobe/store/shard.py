"""One safetensors file, written as tensors come: room for the header first, data, the header last, then the name.

A file that was not finished keeps the suffix ``.partial`` and a header length of zero, and no reader opens it.
"""

import json
import math
import os
import struct
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from attnprobe.errors import StoreError

HEADER = 64 << 10  # reserved; a shard whose header would not fit is closed and the next one opened
SIZE = 2 << 30
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint8: "U8",
}


class ShardWriter:
    """Appends tensors to ``path.partial``; `close` makes it ``path``."""

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.hashes: dict[str, str] = {}
        self._entries: dict[str, object] = {"__metadata__": metadata}
        self._header = len(json.dumps(self._entries))
        self._end = 0
        with _explained(self.partial):
            self._file = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:  # take the header's room now: a disk that fills up later must not cost what was written
                _pwrite(self._file, memoryview(bytes(HEADER)), 0)
            except OSError:
                self.abort()
                raise

    @property
    def nbytes(self) -> int:
        """Bytes of the file so far."""
        return HEADER + self._end

    def takes(self, name: str, nbytes: int) -> bool:
        """Whether one more tensor fits; the first one always does."""
        entry = len(json.dumps(name)) + 160  # its shape and offsets are shorter
        return len(self._entries) == 1 or (self._header + entry < HEADER - 8 and self.nbytes + nbytes <= SIZE)

    def append(self, name: str, tensor: Tensor) -> None:
        """Write a tensor behind the others."""
        if name in self._entries:
            raise StoreError(f"{self.path}: tensor {name!r} is there already")
        data = memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        with _explained(self.partial):
            _pwrite(self._file, data, HEADER + self._end)
        stop = self._end + data.nbytes
        entry = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [self._end, stop]}
        assert data.nbytes == math.prod(tensor.shape) * tensor.element_size()
        self._entries[name] = entry
        self._header += len(json.dumps({name: entry}))
        self._end = stop
        self.hashes[name] = xxhash.xxh3_64_hexdigest(data)

    def close(self) -> None:
        """Vouch for the data: header after data, name after header, each on disk before the next.

        Raises
        ------
        StoreError
            If that fails; the unfinished file is removed, since what a failed fsync left is not known.
        """
        with _explained(self.partial):
            try:
                text = json.dumps(self._entries, separators=(",", ":")).encode().ljust(HEADER - 8, b" ")
                os.ftruncate(self._file, self.nbytes)  # a tensor that failed may have left a part of itself
                os.fsync(self._file)
                _pwrite(self._file, memoryview(struct.pack("<Q", len(text)) + text), 0)
                os.fsync(self._file)
            except OSError:
                self.abort()
                raise
            os.close(self._file)
            os.rename(self.partial, self.path)
            sync_directory(self.path.parent)

    def abort(self) -> None:
        """Remove the unfinished file."""
        os.close(self._file)
        self.partial.unlink(missing_ok=True)


class _explained:
    """Turns an `OSError` into a `StoreError` that says what is safe."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(
                f"cannot write {self.path}: {error.strerror}; samples that the run lists already are whole. "
                "Free space or choose another directory"
            ) from error


def _pwrite(file: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < data.nbytes:  # one call writes at most 2 GiB, and less when a signal comes
        written += os.pwrite(file, data[written:], offset + written)


def sync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
