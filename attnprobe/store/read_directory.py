"""The run directory, read: what the journals list; only numbers and names are loaded before more is asked for."""

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from attnprobe.codes import decode
from attnprobe.errors import CorruptRun, StoreError
from attnprobe.fidelity import Fidelity
from attnprobe.fields import DTYPES, MAP, Field, Piece, Sample, TokenSequence, decode_rows
from attnprobe.shapes import Int, Shaped
from attnprobe.store.base import FORMAT, READABLE, Manifest
from attnprobe.store.files import read_plain
from attnprobe.store.listed import Journalled, check_shards, read_journals, unite
from attnprobe.store.shard_file import ShardFiles
from attnprobe.store.validate import PARTS, STORED, Records, make_manifest

_RESTORE = (
    "restore it, or put there the manifest.json of a run that the same command begins elsewhere; attnprobe runs delete "
    "{} deletes what is there"
)
DECODED = 64  # samples whose fields are held as objects


class DirectoryReader:
    """Reads a run directory; safe while writers add to it (open it again to see more).

    Several threads may read at once, and it may be pickled: what is open is left out.

    Raises
    ------
    StoreError
        If there is no run at `path`, or one of a format that this version does not read.
    CorruptRun
        If a listed shard is missing or short, or a record makes no sense.
    """

    def __init__(self, path: Path) -> None:
        path = path.absolute()  # os.chdir must not move it
        self.path = path
        self._manifest = read_manifest(path)
        self._sites = {site.key: site for site in self._manifest.sites}
        listed = unite(read_journals(path))
        check_shards(path, listed)
        self._records = listed.records
        self._indices = sorted(listed.records)
        self.journals = listed.journals
        self._checkers = {one.path: Records(path, self._sites, one.shards) for one in listed.journals}
        self._checked: set[int] = set()
        self._loaded: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._files = ShardFiles(path / "shards")
        self._lock = threading.Lock()
        self._fields: OrderedDict[int, Mapping[Field, Sequence[Piece]]] = OrderedDict()
        self._nbytes: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_fields": OrderedDict(), "_loaded": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _record(self, index: int) -> tuple[dict[str, Any], Journalled]:
        """The record of a sample, read and checked when it is first asked for, and its journal."""
        listed, journal = self._records[index]
        with self._lock:
            if index in self._loaded:
                self._loaded.move_to_end(index)
                return self._loaded[index], journal
        record = listed.load()
        if index not in self._checked:
            self._checkers[journal.path].check(index, record)
            self._checked.add(index)
        with self._lock:
            self._loaded[index] = record
            if len(self._loaded) > DECODED:
                self._loaded.popitem(last=False)
        return record, journal

    @property
    def manifest(self) -> Manifest:
        """What the run is of."""
        return self._manifest

    @property
    def location(self) -> str | None:
        """Path of the run."""
        return str(self.path)

    @property
    def samples(self) -> Sequence[Sample]:
        """The listed samples; each is read when it is asked for."""
        return _Samples(self, self._indices)

    def find(self, id: str) -> Sample | None:
        """The first sample of that id; None where there is none."""
        index = next((index for index in self._indices if self._records[index][0].id == id), None)
        return None if index is None else self.sample(index)

    @property
    def named(self) -> frozenset[str]:
        """Ids of the samples whose names were given."""
        return frozenset(record.id for record, _ in self._records.values() if record.named)

    @property
    def next_index(self) -> int:
        """The first number above those of all samples."""
        return max(self._records, default=-1) + 1

    @property
    def fidelity(self) -> Fidelity | None:
        """What the recordings found out of the weights; None where none did."""
        parts = [Fidelity.read(one.fidelity, one.path) for one in self.journals if one.fidelity is not None]
        return Fidelity.merge(parts) if parts else Fidelity.load(self.path)

    @property
    def nbytes(self) -> int:
        """Bytes of all listed values."""
        if self._nbytes is None:
            self._nbytes = sum(
                DTYPES[field["dtype"]] * math.prod(block["shape"])
                for index in self._records
                for field in self._record(index)[0]["fields"]
                for block in field["blocks"]
            )
        return self._nbytes

    def fields(self, sample: int) -> Mapping[Field, Sequence[Piece]]:
        """The fields of a sample.

        Raises
        ------
        CorruptRun
            If its record makes no sense.
        """
        with self._lock:
            if sample in self._fields:
                self._fields.move_to_end(sample)
                return self._fields[sample]
        found = self._decode(sample) if sample in self._records else {}
        with self._lock:
            found = self._fields.setdefault(sample, found)
            if len(self._fields) > DECODED:
                self._fields.popitem(last=False)
        return found

    def _decode(self, sample: int) -> Mapping[Field, Sequence[Piece]]:
        found: dict[Field, list[Piece]] = {}
        for record in self._record(sample)[0]["fields"]:
            heads = tuple(decode_rows(record["heads"]))
            site = self._sites[record["site"]]
            field = Field(
                sample, site, record["group"], heads, record["dtype"], record["what"], tuple(record.get("axes", MAP))
            )
            found[field] = [
                Piece(
                    heads if block["heads"] == record["heads"] else tuple(decode_rows(block["heads"])),
                    decode_rows(block["rows"]),
                    block["start"],
                    tuple(block["shape"]),
                    (block["file"], block["tensor"]),
                )
                for block in record["blocks"]
            ]
        return found

    def values(
        self, field: Field, piece: Piece, heads: slice, rows: slice, columns: slice
    ) -> Shaped[np.ndarray, "head query key"]:
        """A part of a block, read from its file."""
        name, tensor = piece.place
        file = self._files.get(name, self._size(field.sample, name))
        entry = file.entry(tensor, STORED[field.dtype], piece.shape)
        height, width, depth = piece.shape
        parts = range(*heads.indices(height)), range(*rows.indices(width)), range(*columns.indices(depth))
        return decode(file.part(entry, *parts), field.dtype)

    def _size(self, sample: int, name: str) -> int:
        """Bytes of a shard that a sample lies in."""
        journal = self._records[sample][1]
        if name not in journal.shards:
            raise CorruptRun(f"{self.path}: a record names the shard {name!r}, which its journal does not list")
        return journal.shards[name]

    def sample(self, index: int) -> Sample:
        """One sample; of its sequences only the lengths are read before they are asked for more."""
        record, _ = self._record(index)
        sequences = {name: _StoredSequence(self, index, data) for name, data in record["sequences"].items()}
        return Sample(index, record["id"], sequences, record["prompt_length"], record.get("named", False))

    def load(self, sample: int, part: str, sequence: Mapping[str, Any]) -> Any:
        """Ids, positions or strings of a sequence."""
        name, tensor = sequence[part]["file"], sequence[part]["tensor"]
        length, problem = sequence["length"], ""
        try:
            file = self._files.get(name, self._size(sample, name))
            entry = file.entry(tensor, PARTS[part], None)
            if len(entry.shape) != 1 or (entry.dtype == "I64" and entry.shape[0] != length):
                problem = f"is {entry.dtype} {entry.shape}"
            elif entry.dtype == "I64":
                return file.whole(entry).copy()
            else:
                strings = json.loads(file.whole(entry).tobytes())
                if isinstance(strings, list) and len(strings) == length and all(isinstance(s, str) for s in strings):
                    return tuple(strings)
                problem = "is another list"
        except (CorruptRun, ValueError, RecursionError) as error:
            problem = f"cannot be read: {error}"
        raise CorruptRun(
            f"{self.path / 'shards' / name}, tensor {tensor}, which should hold {part} of {length} tokens, {problem}; "
            "restore it, or record again"
        )


class _StoredSequence(TokenSequence):
    """A sequence whose ids and strings are read from the run when they are asked for."""

    def __init__(self, reader: DirectoryReader, sample: int, record: Mapping[str, Any]) -> None:
        object.__setattr__(self, "length", record["length"])
        object.__setattr__(self, "_parts", (reader, sample, record))

    def _part(self, name: str) -> Any:
        reader, sample, record = self.__dict__["_parts"]
        return reader.load(sample, name, record) if name in record else None

    @cached_property
    def ids(self) -> Int[np.ndarray, " length"] | None:
        part: Int[np.ndarray, " length"] | None = self._part("ids")
        return part

    @cached_property
    def tokens(self) -> tuple[str, ...] | None:
        part: tuple[str, ...] | None = self._part("tokens")
        return part

    @cached_property
    def texts(self) -> tuple[str, ...] | None:
        part: tuple[str, ...] | None = self._part("texts")
        return part

    @cached_property
    def positions(self) -> Int[np.ndarray, " length"] | None:
        part: Int[np.ndarray, " length"] | None = self._part("positions")
        return part


class _Samples(Sequence[Sample]):
    """The samples of a run, read one by one."""

    def __init__(self, reader: DirectoryReader, indices: list[int]) -> None:
        self._reader = reader
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequence[Sample]": ...
    def __getitem__(self, index: int | slice) -> "Sample | Sequence[Sample]":
        if isinstance(index, slice):
            return _Samples(self._reader, self._indices[index])
        return self._reader.sample(self._indices[index])


def read_manifest(path: Path) -> Manifest:
    """Read what a run is of.

    Raises
    ------
    StoreError
        If there is no run, or its format is not read by this version.
    """
    try:
        with read_plain(path / "manifest.json") as file:
            record = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"there is no run at {path} (no manifest.json); check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptRun(f"{path / 'manifest.json'} cannot be read: {error}; {_RESTORE.format(path)}") from error
    version = record.get("format") if isinstance(record, dict) else None
    if version is None:
        raise CorruptRun(f"{path / 'manifest.json'} has no format, so it is no manifest; {_RESTORE.format(path)}")
    if type(version) is int and version > FORMAT:
        raise StoreError(
            f"{path} has format {version}, which a newer attnprobe wrote; this one reads up to {FORMAT}: upgrade "
            "attnprobe"
        )
    if type(version) is not int or version not in READABLE:
        raise StoreError(
            f"{path} has format {version!r}, and this version of attnprobe reads {READABLE[0]} to {FORMAT}"
        )
    return make_manifest(path / "manifest.json", record)
