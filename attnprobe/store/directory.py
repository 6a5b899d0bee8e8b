"""The run directory, written: a manifest, shards of row blocks, one journal a writer (docs/format.md).

::

    run/manifest.json                   what the run is of
    run/shards/WRITER-00000.safetensors row blocks and token ids
    run/journal/WRITER.jsonl            which shards and samples are whole
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnprobe.errors import RunExists, StoreError
from attnprobe.fields import Block, Field, Sample, TokenSequence, encode_rows
from attnprobe.store.base import FORMAT, Manifest
from attnprobe.store.join import RowJoiner
from attnprobe.store.journal import append_line
from attnprobe.store.shard import ShardWriter, sync_directory
from attnprobe.store.validate import open_plain

GROUP = 32 << 20  # small samples are listed together once this many bytes wait


class DirectoryWriter:
    """Streams blocks to shards; a sample is listed once every shard that it lies in is whole.

    Parameters
    ----------
    path
        The run directory; it must not exist, or be empty, or hold a run and `overwrite` be set.
    manifest
        What the run is of.
    overwrite
        Replace a run that is there. It is moved aside at once, and deleted when the new one lists its first samples.
    held
        Bytes of small blocks that may wait to be joined.

    Raises
    ------
    RunExists
        If the path is taken.
    StoreError
        If it cannot be written.
    """

    def __init__(self, path: Path, manifest: Manifest, overwrite: bool = False, held: int = 16 << 20) -> None:
        path = path.resolve() if path.name == ".." else path.absolute()  # os.chdir must not move it
        self.path = path
        self._replaced: Path | None = None  # where the old run lies
        self._made: list[Path] = []
        self._writer = secrets.token_hex(4)
        self._shards = 0
        self._shard: ShardWriter | None = None
        self._closed: list[dict[str, Any]] = []  # whole, not listed yet
        self._blocks: dict[int, dict[Field, list[dict[str, Any]]]] = {}
        self._committed: list[dict[str, Any]] = []
        self._indices: set[int] = set()
        self._lost: set[str] = set()  # shards that could not be finished
        self._failed: BaseException | None = None
        self._done = False
        self._waiting = 0
        self._joiner = RowJoiner(self._put, held)
        try:
            self._make_room(overwrite)
            for name in ("shards", "journal"):
                (path / name).mkdir()
                self._made.append(path / name)
            text = json.dumps(asdict(manifest), indent=1) + "\n"
            partial = path / "manifest.json.partial"
            self._made += [partial, path / "manifest.json"]
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path / "manifest.json")
            sync_directory(path)
        except BaseException as error:
            self._undo()
            if not isinstance(error, OSError) or isinstance(error, RunExists):
                raise
            raise StoreError(
                f"cannot write the run {path}: {error.strerror}; free space there, or choose another directory"
            ) from error

    def _make_room(self, overwrite: bool) -> None:
        path = self.path
        if path.is_dir() and not any(path.iterdir()):
            return  # used as it is: it may be a mount point, or where the process stands
        if path.exists() or path.is_symlink():
            if not overwrite:
                raise RunExists(f"{path} exists already; choose another path, or pass overwrite=True (--overwrite)")
            if not is_run(path):
                raise RunExists(
                    f"{path} exists and is not a run of attnprobe, so it is not overwritten; choose another path"
                )
            aside = path.with_name(f".{path.name}.{self._writer}.replaced")
            path.rename(aside)
            self._replaced = aside
        path.mkdir(parents=True)
        self._made.append(path)

    def _undo(self) -> None:
        """Take away what was made, and put back what was replaced."""
        for made in reversed(self._made):
            if made.is_dir():
                shutil.rmtree(made, ignore_errors=True)
            else:
                made.unlink(missing_ok=True)
        self._made = []
        if self._replaced is not None:
            try:
                self._replaced.rename(self.path)
            except OSError as error:
                raise StoreError(
                    f"the run that was to be replaced could not be put back ({error.strerror}); it is whole, as "
                    f"{self._replaced}: rename it to {self.path}"
                ) from error
            self._replaced = None

    def drop_replaced(self) -> None:
        """Delete the run that this one replaces, for good; listing the first samples does it too."""
        if self._replaced is not None:
            shutil.rmtree(self._replaced, ignore_errors=True)
            self._replaced = None

    @contextmanager
    def _taking(self, sample: int) -> Iterator[None]:
        """Refuse what would be listed in part: after a failure nobody knows which blocks a sample lacks."""
        if self._done:
            raise StoreError(f"the run {self.path} is closed; open a new recording")
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

    def _put(self, field: Field, block: Block) -> None:
        pieces = self._blocks.setdefault(field.sample, {}).setdefault(field, [])
        name = f"{field.name}/{len(pieces):05d}"
        place = self._append(name, block.values)
        pieces.append(
            {
                **place,
                "tensor": name,
                "heads": encode_rows(block.heads),
                "rows": encode_rows(block.rows),
                "start": block.start,
                "shape": list(block.values.shape),
            }
        )

    def _append(self, name: str, tensor: torch.Tensor) -> dict[str, Any]:
        nbytes = tensor.numel() * tensor.element_size()
        if self._shard is not None and not self._shard.takes(name, nbytes):
            self._close_shard()
        if self._shard is None:
            path = self.path / "shards" / f"{self._writer}-{self._shards:05d}.safetensors"
            self._shard = ShardWriter(path, {"format": "pt", "attnprobe.format": str(FORMAT)})
            self._shards += 1
        self._shard.append(name, tensor)
        self._waiting += nbytes
        return {"file": self._shard.path.name}

    def commit(self, sample: Sample) -> None:
        """Take a sample as whole; it is listed with the next group."""
        with self._taking(sample.index):
            self._commit(sample)

    def _commit(self, sample: Sample) -> None:
        self._joiner.flush_sample(sample.index)
        fields = self._blocks.pop(sample.index, {})
        self._committed.append(
            {
                "index": sample.index,
                "id": sample.id,
                "prompt_length": sample.prompt_length,
                "sequences": {n: self._put_sequence(sample.index, n, s) for n, s in sample.sequences.items()},
                "fields": [
                    {
                        "site": field.site.key,
                        "group": field.group,
                        "heads": encode_rows(field.heads),
                        "dtype": field.dtype,
                        "what": field.what,
                        "axes": list(field.axes),
                        "blocks": pieces,
                    }
                    for field, pieces in fields.items()
                ],
            }
        )
        self._indices.add(sample.index)
        if self._waiting >= GROUP:
            self._list()

    def _put_sequence(self, sample: int, name: str, sequence: TokenSequence) -> dict[str, Any]:
        record: dict[str, Any] = {"length": sequence.length}
        prefix = f"{sample}/sequences/{name}"
        for part in ("ids", "positions"):
            numbers: np.ndarray | None = getattr(sequence, part)
            if numbers is not None:
                tensor = torch.from_numpy(np.array(numbers, np.int64))
                record[part] = {"tensor": f"{prefix}/{part}", **self._append(f"{prefix}/{part}", tensor)}
        for part in ("tokens", "texts"):
            strings: tuple[str, ...] | None = getattr(sequence, part)
            if strings is not None:
                data = np.frombuffer(json.dumps(strings, ensure_ascii=False).encode("utf-8", "surrogatepass"), np.uint8)
                tensor = torch.from_numpy(data.copy())
                record[part] = {"tensor": f"{prefix}/{part}", **self._append(f"{prefix}/{part}", tensor)}
        return record

    def discard(self, sample: int) -> None:
        """Forget a sample; what was written of it stays unlisted."""
        self._joiner.drop_sample(sample)
        self._blocks.pop(sample, None)

    def _close_shard(self) -> None:
        if self._shard is None:
            return
        shard, self._shard = self._shard, None
        try:
            shard.close()
        except BaseException:
            self._lost.add(shard.path.name)
            raise
        self._closed.append({"file": shard.path.name, "size": shard.nbytes, "xxh3_64": shard.hashes})

    def _list(self) -> None:
        self._waiting = 0
        problem: StoreError | None = None
        if self._committed:
            try:
                self._close_shard()
            except StoreError as error:
                problem = error
        whole = [record for record in self._committed if not _files(record) & self._lost]
        if whole:
            try:
                journal = self.path / "journal" / f"{self._writer}.jsonl"
                append_line(journal, {"shards": self._closed, "samples": whole})
                sync_directory(journal.parent)
            except OSError as error:
                raise StoreError(
                    f"cannot write the journal of {self.path}: {error.strerror}; free space, then record again the "
                    "samples that are not listed"
                ) from error
            self._closed = []
            self.drop_replaced()
        self._committed = []
        if problem is not None:
            raise problem

    def close(self) -> None:
        """List what was committed; remove shards of samples that were not."""
        if self._done:
            return
        self._done = True
        try:
            self._list()
            for shard in self._closed:
                (self.path / "shards" / shard["file"]).unlink(missing_ok=True)
        finally:
            if self._shard is not None:
                self._shard.abort()
                self._shard = None

    def remove_if_empty(self) -> None:
        """Where a recording failed and lists nothing: take its directory away, and put back the run it replaced."""
        if self._done and not any(file.stat().st_size for file in (self.path / "journal").glob("*")):
            self._undo()


def is_run(path: Path) -> bool:
    """Whether a directory holds a run's manifest and nothing that a run does not hold."""
    if path.is_symlink() or not path.is_dir():
        return False
    known = re.compile(r"manifest\.json(\.partial)?|fidelity\.json(\.part)?|shards|journal")
    if not all(known.fullmatch(entry.name) for entry in path.iterdir()):
        return False
    try:
        with open_plain(path / "manifest.json") as file:
            manifest = json.load(file)
    except (OSError, ValueError, RecursionError, StoreError):
        return False
    return isinstance(manifest, dict) and {"format", "sites", "keep"} <= manifest.keys()


def _files(record: dict[str, Any]) -> set[str]:
    """The shards that a sample lies in."""
    parts = [part for sequence in record["sequences"].values() for part in sequence.values() if isinstance(part, dict)]
    return {place["file"] for place in parts} | {b["file"] for field in record["fields"] for b in field["blocks"]}
