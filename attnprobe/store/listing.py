"""Closes shards and lists samples behind the recording, in order: the recording does not wait for the disk's word."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprobe.errors import StoreError
from attnprobe.store import files
from attnprobe.store.journal import Journal
from attnprobe.store.shard import ShardWriter

WAITING = 4  # groups; beyond it the recording waits


@dataclass
class _Group:
    """Shards that are finished, and samples that lie in these and in earlier ones."""

    shards: Sequence[ShardWriter]
    samples: Sequence[dict[str, Any]] = field(default_factory=list)


class Listing:
    """A thread that makes shards durable, then lists the samples in them.

    Parameters
    ----------
    journal
        The writer's.
    first
        Called once the first samples are listed.
    """

    def __init__(self, journal: Journal, first: Callable[[], None]) -> None:
        self._journal = journal
        self._first = first
        self._groups: deque[_Group] = deque()
        self._changed = threading.Condition()
        self._closed: list[ShardWriter] = []  # whole, not listed yet
        self._lost: set[str] = set()  # shards that could not be finished
        self._thread: threading.Thread | None = None
        self._busy = False
        self._ended = False
        self.failed: StoreError | None = None
        self.samples = 0

    def put(self, shards: Sequence[ShardWriter], samples: Sequence[dict[str, Any]] = ()) -> None:
        """Close shards, then list samples, some time; waits where too many groups wait."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            while len(self._groups) >= WAITING:
                self._changed.wait()
            self._groups.append(_Group(shards, samples))
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all of it is done, well or not."""
        with self._changed:
            while self._groups or self._busy:
                self._changed.wait()

    def end(self) -> None:
        """End the thread once all is done, and remove shards of samples that were never listed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for shard in self._closed:
            files.remove(shard.path)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._groups and not self._ended:
                    self._changed.wait()
                if not self._groups:
                    return
                group, self._busy = self._groups.popleft(), True
                self._changed.notify_all()
            try:
                self._finish(group)
            except StoreError as error:
                self.failed = self.failed or error
            except Exception as error:
                self.failed = self.failed or StoreError(f"cannot list samples in {self._journal.path}: {error!r}")
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _finish(self, group: _Group) -> None:
        problem: StoreError | None = None
        for shard in group.shards:
            try:
                shard.close()
            except StoreError as error:
                problem = problem or error
                self._lost.add(shard.path.name)
            else:
                self._closed.append(shard)
        whole = [record for record in group.samples if not _files(record) & self._lost]
        if whole:
            try:
                self._journal.append({"shards": [shard.describe() for shard in self._closed], "samples": whole})
            except OSError as error:
                raise StoreError(
                    f"cannot write the journal {self._journal.path}: {error.strerror}; free space, then record again "
                    "(--resume) the samples that are not listed"
                ) from error
            self._closed = []
            if not self.samples:
                self._first()
            self.samples += len(whole)
        if problem is not None:
            raise problem


def _files(record: dict[str, Any]) -> set[str]:
    """The shards that a sample lies in."""
    parts = [part for sequence in record["sequences"].values() for part in sequence.values() if isinstance(part, dict)]
    return {place["file"] for place in parts} | {b["file"] for field in record["fields"] for b in field["blocks"]}
