"""A fixed ring of buffers between a recording and the disk: where the disk is slower, the recording waits."""

import threading
from collections import Counter, deque

import numpy as np

from attnprobe.shapes import Shaped
from attnprobe.store import files

BUFFERS = 8
SIZE = 2 << 20  # bytes of a buffer, which is one write
THREADS = 2


class Ring:
    """Buffers that are filled by one thread and written by others.

    Parameters
    ----------
    buffers, size
        How many, and bytes of each: what the ring takes at most. Memory is touched as it is used.
    threads
        How many write. They start with the first write.
    """

    def __init__(self, buffers: int = BUFFERS, size: int = SIZE, threads: int = THREADS) -> None:
        self.size = size
        self._free = [np.empty(size, np.uint8) for _ in range(buffers)]
        self._jobs: deque[tuple[int, Shaped[np.ndarray, " byte"], int, int]] = deque()
        self._changed = threading.Condition()
        self._pending: Counter[int] = Counter()
        self._failed: dict[int, OSError] = {}
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._closed = False

    def borrow(self) -> Shaped[np.ndarray, " byte"]:
        """A buffer to fill; the one that was given back last, which the processor's cache may still hold."""
        with self._changed:
            while not self._free:
                self._changed.wait()
            return self._free.pop()

    def give_back(self, buffer: Shaped[np.ndarray, " byte"]) -> None:
        """Take a buffer that needs no writing."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify_all()

    def write(self, file: int, buffer: Shaped[np.ndarray, " byte"], count: int, offset: int) -> None:
        """Write the first `count` bytes of a borrowed buffer, some time, and take it back."""
        with self._changed:
            if not self._threads:
                self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._count)]
                for thread in self._threads:
                    thread.start()
            self._pending[file] += 1
            self._jobs.append((file, buffer, count, offset))
            self._changed.notify_all()

    def check(self, file: int) -> None:
        """Raise what went wrong with a file, if something did."""
        error = self._failed.get(file)
        if error is not None:
            raise OSError(error.errno, error.strerror) from error

    def drain(self, file: int) -> None:
        """Wait until all of a file is written.

        Raises
        ------
        OSError
            If a part of it could not be.
        """
        with self._changed:
            while self._pending[file]:
                self._changed.wait()
            del self._pending[file]
            error = self._failed.pop(file, None)  # the number may soon be another file's
        if error is not None:
            raise error

    def close(self) -> None:
        """End the threads once all is written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                file, buffer, count, offset = self._jobs.popleft()
                error = self._failed.get(file)
            if error is None:
                try:
                    files.write(file, buffer.data[:count], offset)
                except OSError as problem:
                    error = problem
            with self._changed:
                if error is not None:
                    self._failed[file] = error
                self._pending[file] -= 1
                self._free.append(buffer)
                self._changed.notify_all()
