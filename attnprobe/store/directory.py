"""The run directory, written: a manifest, shards of row blocks, one journal a writer (docs/format.md).

::

    run/manifest.json                   what the run is of
    run/shards/WRITER-00000.safetensors row blocks and token ids
    run/journal/WRITER.jsonl            which shards and samples are whole
"""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from attnprobe.errors import CorruptRun, RunExists, StoreError
from attnprobe.fields import Block, Field, Sample, TokenSequence, encode_rows
from attnprobe.store import files
from attnprobe.store.base import FORMAT, Manifest
from attnprobe.store.files import explained
from attnprobe.store.join import RowJoiner
from attnprobe.store.journal import Journal, host, now
from attnprobe.store.leftovers import clear_leftovers
from attnprobe.store.listing import Listing
from attnprobe.store.pyramids import Pyramids
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.ring import Ring
from attnprobe.store.sequences import tensors_of
from attnprobe.store.shard import HEADER, LARGEST_HEADER, ShardWriter
from attnprobe.store.target import Target
from attnprobe.store.validate import Records

GROUP = 32 << 20  # small samples are listed together once this many bytes wait,
PATIENCE = 30.0  # or the first of them has waited for so many seconds
_heads = lru_cache(1024)(encode_rows)  # the same ones for all samples
METADATA = {"format": "pt", "attnprobe.format": str(FORMAT)}


class DirectoryWriter:
    """Streams blocks to shards; a sample is listed once every shard that it lies in is whole.

    Parameters
    ----------
    path
        The run directory; it must not exist, or be empty, or hold a run and `overwrite` or `resume` be set.
    manifest
        What the run is of.
    overwrite
        Replace a run that is there. It is moved aside at once, and deleted when the new one lists its first samples.
    held
        Bytes of small blocks that may wait to be joined; half as many of levels of maps may wait for their patches.
    resume
        Go on with the run that is there, or start it. Several writers may do so at once.
    workers
        Rank of this writer, and how many work together.

    Attributes
    ----------
    done
        Ids of the named samples that were listed when this writer started.
    next_index
        The first number above those of all samples that were listed then.

    Raises
    ------
    RunExists
        If the path is taken.
    StoreError
        If it cannot be written, or the run to go on with is of something else.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        overwrite: bool = False,
        held: int = 16 << 20,
        resume: bool = False,
        workers: tuple[int, int] = (0, 1),
    ) -> None:
        path = path.resolve() if path.name == ".." else path.absolute()  # os.chdir must not move it
        self.path = path
        self.done: frozenset[str] = frozenset()
        self.next_index = 0
        self._writer = secrets.token_hex(4)
        self._shards = 0
        self._room = HEADER
        self._shard: ShardWriter | None = None
        self._finished: list[ShardWriter] = []  # full, not handed to the listing yet
        self._blocks: dict[int, dict[Field, list[dict[str, Any]]]] = {}
        self._committed: list[dict[str, Any]] = []
        self._indices: set[int] = set()
        self._failed: BaseException | None = None
        self._done = False
        self._waiting = 0
        self._oldest = 0.0
        self._sizes: dict[str, int] = {}  # of all shards
        self._records = Records(path, {site.key: site for site in manifest.sites}, self._sizes)
        self._lock = threading.RLock()  # threads may record, flush and close at once
        self._ending: dict[str, Any] = {}
        self._pyramids = Pyramids(self._put, manifest, held // 2)
        self._joiner = RowJoiner(self._pyramids.write, held)
        self._ring = Ring()
        self._target = Target(path, self._writer)
        self._resumes = resume
        try:
            if resume:
                self._target.join(manifest)
                self._look_around()
            else:
                self._target.make(manifest, overwrite)
            start = {"started": now(), "host": host(), "rank": workers[0], "world": workers[1]}
            self._journal = Journal(path / "journal" / f"{self._writer}.jsonl", {"writer": start})
        except BaseException as error:
            if not resume:  # what was joined is others' too
                self._target.undo()
            if not isinstance(error, OSError) or isinstance(error, RunExists):
                raise
            raise StoreError(
                f"cannot write the run {path}: {error.strerror}; free space there, or choose another directory"
            ) from error
        self._listing = Listing(self._journal, self._target.drop_replaced)

    def _look_around(self) -> None:
        """What is listed already; what was left behind goes."""
        reader = DirectoryReader(self.path)
        for one in reader.journals:
            if one.samples and not one.ended:  # its writer may have been killed before it made them durable
                files.sync_file(one.path)
        clear_leftovers(self.path)
        self.done, self.next_index = reader.named, reader.next_index

    @contextmanager
    def _taking(self, sample: int) -> Iterator[None]:
        """Refuse what would be listed in part: after a failure nobody knows which blocks a sample lacks."""
        with self._lock:
            if self._done:
                raise StoreError(f"the run {self.path} is closed; open a new recording")
            self._failed = self._failed or self._listing.failed
            if self._failed is not None:
                raise StoreError(f"the run {self.path} takes no more since a write failed: {self._failed}")
            if sample in self._indices:
                raise StoreError(f"sample {sample} is committed already; write another sample")
            try:
                yield
            except BaseException as error:
                self._failed = error
                raise

    def write(self, field: Field, block: Block) -> None:
        """Append a block."""
        with self._taking(field.sample):
            self._joiner.write(field, block)
            if self._committed and time.monotonic() - self._oldest > PATIENCE:
                self._list()

    def _put(self, field: Field, block: Block) -> None:
        pieces = self._blocks.setdefault(field.sample, {}).setdefault(field, [])
        name = f"{field.name}/{len(pieces):05d}"
        place = self._append(name, block.values)
        pieces.append(
            {
                **place,
                "tensor": name,
                "heads": _heads(block.heads),
                "rows": encode_rows(block.rows),
                "start": block.start,
                "shape": list(block.values.shape),
                **{known: True for known in ("causal", "sink") if getattr(block, known)},
            }
        )

    def _append(self, name: str, tensor: torch.Tensor) -> dict[str, Any]:
        nbytes = tensor.numel() * tensor.element_size()
        if self._shard is not None and not self._shard.takes(name, nbytes):
            if not self._shard.names(name):
                self._room = min(4 * self._room, LARGEST_HEADER)
            self._finish_shard()
            shards, self._finished = self._finished, []
            self._listing.put(shards)  # made durable while the next one fills
        if self._shard is None:
            path = self.path / "shards" / f"{self._writer}-{self._shards:05d}.safetensors"
            self._shard = ShardWriter(path, METADATA, self._ring, self._room)
            self._shards += 1
        self._shard.append(name, tensor)
        self._sizes[self._shard.path.name] = self._shard.nbytes
        self._waiting += nbytes
        return {"file": self._shard.path.name}

    def commit(self, sample: Sample) -> None:
        """Take a sample as whole; it is listed with the next group."""
        with self._taking(sample.index):
            self._commit(sample)

    def _commit(self, sample: Sample) -> None:
        self._joiner.flush_sample(sample.index)
        self._pyramids.finish_sample(sample)
        fields = self._blocks.pop(sample.index, {})
        record = {
            "index": sample.index,
            "id": sample.id,
            "named": sample.named,
            "prompt_length": sample.prompt_length,
            "sequences": {n: self._put_sequence(sample.index, n, s) for n, s in sample.sequences.items()},
            "fields": [
                {
                    "site": field.site.key,
                    "group": field.group,
                    "heads": _heads(field.heads),
                    "dtype": field.dtype,
                    "what": field.what,
                    "axes": list(field.axes),
                    "blocks": pieces,
                }
                for field, pieces in fields.items()
            ],
        }
        try:
            self._records.check(sample.index, record)
        except CorruptRun as error:
            raise StoreError(f"sample {sample.id} could not be read again, so it is not listed: {error}") from error
        if not self._committed:
            self._oldest = time.monotonic()
        self._committed.append(record)
        self._indices.add(sample.index)
        if self._waiting >= GROUP or time.monotonic() - self._oldest > PATIENCE:
            self._list()

    def _put_sequence(self, sample: int, name: str, sequence: TokenSequence) -> dict[str, Any]:
        record: dict[str, Any] = {"length": sequence.length}
        for part, tensor in tensors_of(sequence):
            place = f"{sample}/sequences/{name}/{part}"
            record[part] = {"tensor": place, **self._append(place, tensor)}
        return record

    def discard(self, sample: int) -> None:
        """Forget a sample; what was written of it stays unlisted."""
        with self._lock:
            self._joiner.drop_sample(sample)
            self._pyramids.drop_sample(sample)
            self._blocks.pop(sample, None)

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self._shard.finish()
            shard, self._shard = self._shard, None  # where an interrupt comes, it is lost, and never closed twice
            self._finished.append(shard)

    def _list(self) -> None:
        """Hand what is committed to the listing."""
        self._waiting = 0
        if self._committed:
            self._finish_shard()
            samples, self._committed = self._committed, []
            shards, self._finished = self._finished, []
            self._listing.put(shards, samples)

    def flush(self) -> None:
        """List what was committed, and wait until it is durable.

        Raises
        ------
        StoreError
            If something of it could not be listed.
        """
        with self._lock:
            self._list()
            self._listing.wait()
            if self._listing.failed is not None:
                raise self._listing.failed

    def note(self, name: str, value: Any) -> None:
        """Let the journal's last line say something of the recording."""
        self._ending[name] = value

    def close(self) -> None:
        """List what was committed; remove shards of samples that were not.

        Raises
        ------
        StoreError
            If something that was committed could not be listed.
        """
        with self._lock:
            if not self._done:
                self._done = True
                self._close()

    def _close(self) -> None:
        try:
            self._list()
            self._listing.wait()
            if self._listing.failed is None:
                self._end()
        finally:
            self._listing.end()
            for shard in (self._shard, *self._finished):
                if shard is not None:
                    shard.abort()
            self._shard, self._finished = None, []
            self._ring.close()
            with explained(self.path):
                self._journal.close()
        if self._listing.failed is not None and self._listing.failed is not self._failed:
            raise self._listing.failed

    def _end(self) -> None:
        try:
            self._journal.append({"ended": now(), **self._ending})
        except OSError as error:
            if self._failed is None:  # else there is worse to tell
                raise StoreError(
                    f"cannot end the journal {self._journal.path}: {error.strerror}; all samples are listed, and "
                    "nothing has to be recorded again"
                ) from error

    def remove_if_empty(self) -> None:
        """Where a recording failed and lists nothing: take its directory away, and put back the run it replaced."""
        if self._done and not self._listing.samples and not self._resumes:
            self._target.undo()

    def drop_replaced(self) -> None:
        """Delete the run that this one replaces, for good; listing the first samples does it too."""
        self._target.drop_replaced()
