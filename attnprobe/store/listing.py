"""Closes shards and lists samples behind the recording, in order: the recording does not wait for the disk's word."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprobe.errors import StoreError
from attnprobe.profiling import here, stage
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
        self._lock = threading.Lock()  # taken by itself: Condition's own `with` may be interrupted halfway
        self._changed = threading.Condition(self._lock)
        self._closed: list[ShardWriter] = []  # whole, not listed yet
        self._whole: set[str] = set()  # all shards that were closed
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._busy = False
        self._ended = False
        self.failed: StoreError | None = None
        self.samples = 0
        self._profiler = here()

    def put(self, shards: Sequence[ShardWriter], samples: Sequence[dict[str, Any]] = ()) -> None:
        """Close shards, then list samples, some time; waits where too many groups wait."""
        if not self._thread.is_alive():
            self._thread.start()
        with self._lock:
            while len(self._groups) >= WAITING:
                with stage("wait"):
                    self._changed.wait()
            self._groups.append(_Group(shards, samples))
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all of it is done, well or not."""
        with self._lock:
            self._changed.notify_all()  # of a group that was put in, and interrupted before it was told of
            while self._groups or self._busy:
                with stage("wait"):
                    self._changed.wait()

    def end(self) -> None:
        """End the thread once all is done, and remove shards of samples that were never listed."""
        with self._lock:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        if not self._journal.unsure:
            for shard in self._closed:
                with contextlib.suppress(OSError):  # it is unlisted, and a resume clears it
                    files.remove(shard.path)

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._groups and not self._ended:
                    self._changed.wait()
                if not self._groups:
                    return
                group, self._busy = self._groups.popleft(), True
                self._changed.notify_all()
            try:
                with self._profiler.behind("write"):
                    self._finish(group)
            except StoreError as error:
                self.failed = self.failed or error
            except Exception as error:
                self.failed = self.failed or StoreError(f"cannot list samples in {self._journal.path}: {error!r}")
            finally:
                with self._lock:
                    self._busy = False
                    self._changed.notify_all()

    def _finish(self, group: _Group) -> None:
        problem: StoreError | None = None
        for shard in group.shards:
            try:
                shard.close()
            except StoreError as error:
                problem = problem or error
            else:
                self._closed.append(shard)
                self._whole.add(shard.path.name)
        whole = [record for record in group.samples if _files(record) <= self._whole]
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
        if problem is None and len(whole) < len(group.samples):
            problem = StoreError(
                f"{self._journal.path}: {len(group.samples) - len(whole)} samples lie in a shard that was not "
                "finished, since the recording was interrupted; record them again (--resume)"
            )
        if problem is not None:
            raise problem


def _files(record: dict[str, Any]) -> set[str]:
    """The shards that a sample lies in."""
    parts = [part for sequence in record["sequences"].values() for part in sequence.values() if isinstance(part, dict)]
    return {place["file"] for place in parts} | {b["file"] for field in record["fields"] for b in field["blocks"]}
