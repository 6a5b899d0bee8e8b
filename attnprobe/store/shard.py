"""One safetensors file, written as tensors come: room for the header first, data, the header last, then the name.

A file that was not finished keeps the suffix ``.partial`` and a header length of zero, and no reader opens it.
"""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from attnprobe.errors import StoreError
from attnprobe.shapes import Shaped
from attnprobe.store import files
from attnprobe.store.files import explained
from attnprobe.store.ring import Ring

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
    """Appends tensors to ``path.partial``; `close` makes it ``path``.

    `append` and `finish` belong to the recording's thread; `close`, which waits for the disk, may be another's.
    """

    def __init__(self, path: Path, metadata: dict[str, str], ring: Ring) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.hashes: dict[str, str] = {}
        self._ring = ring
        self._entries: dict[str, object] = {"__metadata__": metadata}
        self._header = len(json.dumps(self._entries))
        self._end = 0  # of the data so far
        self._buffer: Shaped[np.ndarray, " byte"] | None = None
        self._filled = 0
        with explained(self.partial):
            self._file = files.create(self.partial)
            try:  # take the header's room now: a disk that fills up later must not cost what was written
                files.write(self._file, memoryview(bytes(HEADER)), 0)
            except OSError:
                self.abort()
                raise

    @property
    def nbytes(self) -> int:
        """Bytes of the file so far."""
        return HEADER + self._end

    def describe(self) -> dict[str, Any]:
        """What the journal says of it."""
        return {"file": self.path.name, "size": self.nbytes, "xxh3_64": self.hashes}

    def takes(self, name: str, nbytes: int) -> bool:
        """Whether one more tensor fits; the first one always does."""
        entry = len(json.dumps(name)) + 160  # its shape and offsets are shorter
        return len(self._entries) == 1 or (self._header + entry < HEADER - 8 and self.nbytes + nbytes <= SIZE)

    def append(self, name: str, tensor: Tensor) -> None:
        """Write a tensor behind the others; it is copied, and the caller's again.

        Raises
        ------
        StoreError
            If something of this shard could not be written.
        """
        if name in self._entries:
            raise StoreError(f"{self.path}: tensor {name!r} is there already")
        data: np.ndarray = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        with explained(self.partial):
            self._ring.check(self._file)
        digest = xxhash.xxh3_64()
        done = 0
        while done < len(data):
            if self._buffer is None:
                self._buffer, self._filled = self._ring.borrow(), 0
            part = data[done : done + self._ring.size - self._filled]
            target = self._buffer[self._filled : self._filled + len(part)]
            np.copyto(target, part)
            digest.update(target.data)  # of what is written, while the cache still holds it
            self._filled += len(part)
            done += len(part)
            if self._filled == self._ring.size:
                self._flush(self._end + done)
        entry = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [self._end, self._end + done],
        }
        self._entries[name] = entry
        self._header += len(json.dumps({name: entry}))
        self._end += done
        self.hashes[name] = digest.hexdigest()

    def _flush(self, end: int) -> None:
        """Hand the buffer, which ends with byte `end` of the data, to the writing threads."""
        if self._buffer is not None:
            self._ring.write(self._file, self._buffer, self._filled, HEADER + end - self._filled)
            self._buffer, self._filled = None, 0

    def finish(self) -> None:
        """No more tensors will come."""
        self._flush(self._end)

    def close(self) -> None:
        """Vouch for the data: header after data, name after header, each on disk before the next.

        Raises
        ------
        StoreError
            If that fails; the unfinished file is removed, since what a failed write or fsync left is not known.
        """
        text = json.dumps(self._entries, separators=(",", ":")).encode().ljust(HEADER - 8, b" ")
        with explained(self.partial):
            try:
                self._ring.drain(self._file)
                files.sync(self._file)
                files.write(self._file, memoryview(struct.pack("<Q", len(text)) + text), 0)
                files.sync(self._file)
                files.rename(self.partial, self.path)
            except OSError:
                self.abort()
                raise
            files.close(self._file)
            files.sync_directory(self.path.parent)

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._buffer is not None:
            self._ring.give_back(self._buffer)
            self._buffer = None
        with contextlib.suppress(OSError):  # nothing of it is kept
            self._ring.drain(self._file)
        files.close(self._file)
        files.remove(self.partial)
