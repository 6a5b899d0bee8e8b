"""A fixed ring of buffers between a recording and the disk: where the disk is slower, the recording waits.

What is small is copied to buffers. What is large is written from where it lies, which the ring then owns; as little of
it may wait as of buffers.
"""

import errno
import threading
from collections import deque
from itertools import chain
from typing import NamedTuple

import numpy as np

from attnprobe.profiling import here, stage, written
from attnprobe.shapes import Shaped
from attnprobe.store import files

BUFFERS = 4
SIZE = 2 << 20  # bytes of a buffer, which is one write
LENT = 16 << 20  # bytes of memory of others that may wait
THREADS = 1  # several that write one file only wait for each other, and busily


class _Job(NamedTuple):
    """Bytes to write to a file, and the buffer that they lie in, if it is the ring's."""

    file: int
    data: memoryview
    offset: int
    buffer: Shaped[np.ndarray, " byte"] | None


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
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()  # taken by itself: Condition's own `with` may be interrupted halfway
        self._changed = threading.Condition(self._lock)
        self._busy: list[_Job] = []  # what is being written now
        self._failed: dict[int, OSError] = {}
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._profiler = here()

    def borrow(self) -> Shaped[np.ndarray, " byte"]:
        """A buffer to fill; the one that was given back last, which the processor's cache may still hold."""
        with self._lock:
            while not self._free:
                with stage("wait"):
                    self._changed.wait()
            return self._free.pop()

    def give_back(self, buffer: Shaped[np.ndarray, " byte"]) -> None:
        """Take a buffer that needs no writing."""
        with self._lock:
            self._free.append(buffer)
            self._changed.notify_all()

    def write(self, file: int, buffer: Shaped[np.ndarray, " byte"], count: int, offset: int) -> None:
        """Write the first `count` bytes of a borrowed buffer, some time, and take it back."""
        self._start()
        with self._lock:
            self._jobs.append(_Job(file, buffer.data[:count], offset, buffer))
            self._changed.notify_all()

    def lend(self, file: int, data: Shaped[np.ndarray, " byte"], offset: int) -> None:
        """Write memory that nobody changes any more, some time; waits while more than `LENT` bytes would wait."""
        self._start()
        with self._lock:
            while (waiting := self._lent()) and waiting + data.nbytes > LENT:
                with stage("wait"):
                    self._changed.wait()
            self._jobs.append(_Job(file, data.data, offset, None))
            self._changed.notify_all()

    def _lent(self) -> int:
        """Bytes of memory of others that wait."""
        return sum(job.data.nbytes for job in chain(self._jobs, self._busy) if job.buffer is None)

    def _start(self) -> None:
        while len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, daemon=True)
            thread.start()
            self._threads.append(thread)

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
        with self._lock:
            self._changed.notify_all()  # of a job that was put in, and interrupted before it was told of
            while any(job.file == file for job in chain(self._jobs, self._busy)):
                with stage("wait"):
                    self._changed.wait()
            error = self._failed.pop(file, None)  # the number may soon be another file's
        if error is not None:
            raise error

    def close(self) -> None:
        """End the threads once all is written."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._busy.append(job)
                error = self._failed.get(job.file)
            if error is None:
                try:
                    with self._profiler.behind("write"):
                        files.write(job.file, job.data, job.offset)
                        files.begin_sync(job.file, job.offset, job.data.nbytes)
                        written(job.data.nbytes)
                except Exception as problem:  # whatever it is, nobody may wait for ever
                    error = problem if isinstance(problem, OSError) else OSError(errno.EIO, repr(problem))
            with self._lock:
                if error is not None:
                    self._failed[job.file] = error
                self._busy = [one for one in self._busy if one is not job]
                if job.buffer is not None:
                    self._free.append(job.buffer)
                del job  # memory of others goes back now, not with the next one
                self._changed.notify_all()
