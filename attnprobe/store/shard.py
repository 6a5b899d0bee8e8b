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
from attnprobe.store.ring import LENT, Ring

HEADER = 64 << 10  # reserved; a shard whose header would not fit is closed, and the next one has more room,
LARGEST_HEADER = 1 << 20  # up to this: small tensors come by the thousand
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

    def __init__(self, path: Path, metadata: dict[str, str], ring: Ring, room: int = HEADER) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.hashes: dict[str, str] = {}
        self._ring = ring
        self._room = room  # for the header and its length
        self._entries = {"__metadata__": f'"__metadata__":{json.dumps(metadata, separators=(",", ":"))}'}
        self._header = 1 + len(self._entries["__metadata__"])  # and a comma or a brace behind each
        self._end = 0  # of the data so far
        self._buffer: Shaped[np.ndarray, " byte"] | None = None
        self._filled = 0
        self._start = 0  # of the buffer, in the data
        self._reach = 0  # how far the data that was handed out goes
        with explained(self.partial):
            self._file = files.create(self.partial)
            try:  # take the header's room now: a disk that fills up later must not cost what was written
                files.write(self._file, memoryview(bytes(room)), 0)
            except OSError:
                self.abort()
                raise

    @property
    def nbytes(self) -> int:
        """Bytes of the file so far."""
        return self._room + self._end

    def describe(self) -> dict[str, Any]:
        """What the journal says of it."""
        return {"file": self.path.name, "size": self.nbytes, "xxh3_64": self.hashes}

    def takes(self, name: str, nbytes: int) -> bool:
        """Whether one more tensor fits; the first one always does. A sample that is begun again repeats its names."""
        if name in self._entries:
            return False
        return len(self._entries) == 1 or (self.names(name) and self.nbytes + nbytes <= SIZE)

    def names(self, name: str) -> bool:
        """Whether the header has room for one more tensor."""
        entry = len(json.dumps(name)) + 160  # its shape and offsets are shorter
        return self._header + entry < self._room - 8

    def append(self, name: str, tensor: Tensor) -> None:
        """Write a tensor behind the others; nobody may change it any more.

        Raises
        ------
        StoreError
            If something of this shard could not be written.
        """
        if name in self._entries or not self.names(name):
            problem = "is there already" if name in self._entries else "has a name that is too long for a header"
            raise StoreError(f"{self.path}: tensor {name!r:.200} {problem}")
        data = _bytes_of(tensor)
        with explained(self.partial):
            self._ring.check(self._file)
        lent = self._ring.size // 2 <= len(data) <= LENT
        checksum = self._lend(data) if lent else self._copy(data)
        end = self._end + len(data)
        dtype, shape = NAMES[tensor.dtype], ",".join(map(str, tensor.shape))
        # What json.dumps makes of it, in a tenth of the time: small tensors come by the million.
        place = f'{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{self._end},{end}]}}'
        entry = f"{json.dumps(name)}:{place}"
        header = self._header + len(entry) + 1
        # Without a call between, at which an interrupt comes: the tensor is there whole or not at all.
        self._header, self._end, self.hashes[name], self._entries[name] = header, end, checksum, entry

    def _lend(self, data: Shaped[np.ndarray, " byte"]) -> str:
        """Have bytes written from where they lie; their hash."""
        self._flush(self._end)
        checksum = xxhash.xxh3_64_hexdigest(data.data)
        self._reach = max(self._reach, self._end + len(data))
        self._ring.lend(self._file, data, self._room + self._end)
        return checksum

    def _copy(self, data: Shaped[np.ndarray, " byte"]) -> str:
        """Copy bytes to the buffer, and to further ones; their hash."""
        digest = xxhash.xxh3_64()
        done = 0
        while done < len(data):
            if self._buffer is None:
                self._buffer, self._filled, self._start = self._ring.borrow(), 0, self._end + done
            part = data[done : done + self._ring.size - self._filled]
            target = self._buffer[self._filled : self._filled + len(part)]
            np.copyto(target, part)
            digest.update(target.data)  # of what is written, while the cache still holds it
            self._filled += len(part)
            done += len(part)
            if self._filled == self._ring.size:
                self._flush(self._end + done)
        return digest.hexdigest()

    def _flush(self, end: int) -> None:
        """Hand the buffer, as far as byte `end` of the data, to the writing threads."""
        if self._buffer is not None:
            self._reach = max(self._reach, end)
            self._ring.write(self._file, self._buffer, max(end - self._start, 0), self._room + self._start)
            self._buffer = None

    def finish(self) -> None:
        """No more tensors will come. Of one that was interrupted nothing stays."""
        self._flush(self._end)

    def close(self) -> None:
        """Vouch for the data: header after data, name after header, each on disk before the next.

        Raises
        ------
        StoreError
            If that fails; the unfinished file is removed, since what a failed write or fsync left is not known.
        """
        text = f"{{{','.join(self._entries.values())}}}".encode().ljust(self._room - 8, b" ")
        with explained(self.partial):
            try:
                self._ring.drain(self._file)
                if self._reach > self._end:
                    files.truncate(self._file, self.nbytes)
                files.sync(self._file)
                files.write(self._file, memoryview(struct.pack("<Q", len(text)) + text), 0)
                files.sync(self._file)
                files.rename(self.partial, self.path)
                files.sync_directory(self.path.parent)
            except OSError:
                self.abort()
                raise
            files.close(self._file)

    def abort(self) -> None:
        """Remove the file, as far as it got. What cannot be removed now is unlisted, and cleared by a resume."""
        if self._buffer is not None:
            self._ring.give_back(self._buffer)
            self._buffer = None
        with contextlib.suppress(OSError):  # nothing of it is kept
            self._ring.drain(self._file)
        with contextlib.suppress(OSError):
            files.close(self._file)
        for path in (self.partial, self.path):
            with contextlib.suppress(OSError):
                files.remove(path)


def _bytes_of(tensor: Tensor) -> Shaped[np.ndarray, " byte"]:
    """The bytes of a tensor, without a copy where they lie in order."""
    numbers = tensor.detach().contiguous()
    array: np.ndarray = (numbers.view(torch.int16) if numbers.dtype == torch.bfloat16 else numbers).numpy()
    return array.reshape(-1).view(np.uint8)
