"""The run directory, read: what the journals list; only numbers and names are loaded before more is asked for."""

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from safetensors import SafetensorError, safe_open

from attnprobe.errors import CorruptRun, StoreError
from attnprobe.fields import DTYPES, MAP, Field, Piece, Sample, TokenSequence, decode_rows
from attnprobe.shapes import Int, Shaped
from attnprobe.store.base import FORMAT, READABLE, Manifest
from attnprobe.store.journal import read_lines
from attnprobe.store.validate import PARTS, STORED, Records, check_directory, make_manifest, open_plain
from attnprobe.store.validate_fields import NUMBER

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors")
OPEN_FILES = 16
DECODED = 64  # samples whose fields are held as objects


class DirectoryReader:
    """Reads a run directory; safe while a writer adds to it (open it again to see more).

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
        self._records: dict[int, dict[str, Any]] = {}
        self._shards: dict[str, int] = {}
        self._checker = Records(path, self._sites, self._shards)
        self._checked: set[int] = set()
        self._files: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._fields: OrderedDict[int, Mapping[Field, Sequence[Piece]]] = OrderedDict()
        self._nbytes: int | None = None
        for name in ("shards", "journal"):
            check_directory(path / name)
        for journal in sorted((path / "journal").glob("*.jsonl")):
            try:
                for line in read_lines(journal):
                    self._take(journal, line)
            except OSError as error:
                raise CorruptRun(f"{journal} cannot be read: {error}; restore it, or record again") from error

    def _take(self, journal: Path, line: Mapping[str, Any]) -> None:
        try:
            for shard in line["shards"]:
                self._check(shard["file"], shard["size"])
            for record in line["samples"]:
                index = record["index"]
                if type(index) is not int or not 0 <= index <= NUMBER:
                    raise TypeError(f"index {index!r}")
                self._records[index] = record
        except (KeyError, TypeError) as error:
            raise CorruptRun(f"{journal}: a record makes no sense ({error!r}); restore it, or record again") from error

    def _check(self, name: object, size: object) -> None:
        if not isinstance(name, str) or type(size) is not int or not _FILE.fullmatch(name):
            raise CorruptRun(f"{self.path}: the journal names {name!r}, which is no name of a shard")
        file = self.path / "shards" / name
        if file.is_symlink() or not file.is_file():
            raise CorruptRun(f"{file} is listed and not there; restore it, or record again")
        if file.stat().st_size != size:
            raise CorruptRun(f"{file} has {file.stat().st_size:,} bytes and should have {size:,}; restore it")
        self._shards[name] = size

    def _record(self, index: int) -> dict[str, Any]:
        """The record of a sample, checked when it is first asked for."""
        record = self._records[index]
        if index not in self._checked:
            self._checker.check(index, record)
            self._checked.add(index)
        return record

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
        return _Samples(self, sorted(self._records))

    @property
    def nbytes(self) -> int:
        """Bytes of all listed values."""
        if self._nbytes is None:
            self._nbytes = sum(
                DTYPES[field["dtype"]] * math.prod(block["shape"])
                for index in self._records
                for field in self._record(index)["fields"]
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
        if sample not in self._records:
            return {}
        if sample not in self._fields:
            self._fields[sample] = self._decode(sample)
            if len(self._fields) > DECODED:
                self._fields.popitem(last=False)
        self._fields.move_to_end(sample)
        return self._fields[sample]

    def _decode(self, sample: int) -> Mapping[Field, Sequence[Piece]]:
        found: dict[Field, list[Piece]] = {}
        for record in self._record(sample)["fields"]:
            heads = tuple(decode_rows(record["heads"]))
            site = self._sites[record["site"]]
            field = Field(
                sample, site, record["group"], heads, record["dtype"], record["what"], tuple(record.get("axes", MAP))
            )
            found[field] = [
                Piece(
                    tuple(decode_rows(block["heads"])),
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
        file, name = piece.place
        framework = "pt" if field.dtype == "bfloat16" else "numpy"
        try:
            stored = self._open(file, framework).get_slice(name)
            is_there = stored.get_dtype(), tuple(stored.get_shape())
            if is_there != (STORED[field.dtype], piece.shape):
                raise CorruptRun(
                    f"{self.path / 'shards' / file}, tensor {name} is {is_there[0]} {is_there[1]}, and the journal has "
                    f"{STORED[field.dtype]} {piece.shape}; restore it, or record again"
                )
            part = stored[heads, rows, columns]
        except SafetensorError as error:
            raise CorruptRun(f"{self.path / 'shards' / file}, tensor {name}: {error}") from error
        array: np.ndarray = part.float().numpy() if framework == "pt" else part
        return array

    def sample(self, index: int) -> Sample:
        """One sample; of its sequences only the lengths are read before they are asked for more."""
        record = self._record(index)
        sequences = {name: _StoredSequence(self._load, data) for name, data in record["sequences"].items()}
        return Sample(index, record["id"], sequences, record["prompt_length"])

    def _load(self, part: str, sequence: Mapping[str, Any]) -> Any:
        """Ids, positions or strings of a sequence."""
        file, name = sequence[part]["file"], sequence[part]["tensor"]
        length, problem = sequence["length"], ""
        try:
            stored = self._open(file, "numpy").get_slice(name)
            dtype, shape = stored.get_dtype(), stored.get_shape()
            if dtype != PARTS[part] or len(shape) != 1 or (dtype == "I64" and shape[0] != length):
                problem = f"is {dtype} {shape}"
            elif dtype == "I64":
                return stored[:]
            else:
                strings = json.loads(stored[:].tobytes())
                if isinstance(strings, list) and len(strings) == length and all(isinstance(s, str) for s in strings):
                    return tuple(strings)
                problem = "is another list"
        except (SafetensorError, ValueError, RecursionError) as error:
            problem = f"cannot be read: {error}"
        raise CorruptRun(
            f"{self.path / 'shards' / file}, tensor {name}, which should hold {part} of {length} tokens, {problem}; "
            "restore it, or record again"
        )

    def _open(self, name: str, framework: str) -> Any:
        if name not in self._shards:
            raise CorruptRun(f"{self.path}: a record names the shard {name!r}, which the journal does not list")
        key = (name, framework)
        if key not in self._files:
            try:
                self._files[key] = safe_open(self.path / "shards" / name, framework)
            except (OSError, SafetensorError) as error:
                raise CorruptRun(f"{self.path / 'shards' / name} cannot be read: {error}") from error
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(key)
        return self._files[key]


class _StoredSequence(TokenSequence):
    """A sequence whose ids and strings are read from the run when they are asked for."""

    def __init__(self, load: Callable[[str, Mapping[str, Any]], Any], record: Mapping[str, Any]) -> None:
        object.__setattr__(self, "length", record["length"])
        object.__setattr__(self, "_parts", (load, record))

    def _part(self, name: str) -> Any:
        load, record = self.__dict__["_parts"]
        return load(name, record) if name in record else None

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
        with open_plain(path / "manifest.json") as file:
            record = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"there is no run at {path} (no manifest.json); check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptRun(f"{path / 'manifest.json'} cannot be read: {error}") from error
    version = record.get("format") if isinstance(record, dict) else None
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
