"""The files of a corpus: which they are, what they hold, and what tells that they are the same ones later."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from attnprobe.errors import SelectionError

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text", ".csv": "csv", ".parquet": "parquet"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
WANTED = ".jsonl, .txt, .csv, .parquet, and all but the last compressed, as in .jsonl.gz"
END = 1 << 20  # bytes at either end of a file that its checksums are of
COUNTED = 1 << 30  # files that are larger together are not read once more only to count their lines


@dataclass(frozen=True)
class Files:
    """Local files of one format, in the order in which their rows are counted.

    Attributes
    ----------
    format
        ``"jsonl"``, ``"text"``, ``"csv"`` or ``"parquet"``.
    paths
        Where they lie.
    sample_by
        Of text: what a row is, ``"line"``, ``"paragraph"`` or ``"document"``.
    """

    format: str
    paths: tuple[Path, ...]
    sample_by: str = "line"

    @property
    def label(self) -> str:
        """Short name for messages: ``a.jsonl and 3 more files``."""
        more = len(self.paths) - 1
        return self.paths[0].name + (f" and {more:,} more file{'s' if more > 1 else ''}" if more else "")

    def describe(self) -> dict[str, Any]:
        """What the rows are of, as plain data that is the same wherever the files lie.

        Raises
        ------
        SelectionError
            If a file cannot be read.
        """
        described = {"kind": "files", "format": self.format, "files": [_describe(path) for path in self.paths]}
        return described | ({"sample_by": self.sample_by} if self.format == "text" else {})

    def count(self) -> int | None:
        """Number of rows where that is cheap to know, else None."""
        if self.format == "parquet":
            from pyarrow import parquet

            return sum(int(parquet.read_metadata(path).num_rows) for path in self.paths)
        if self.format == "text" and self.sample_by == "document":
            return len(self.paths)
        lines = self.format == "jsonl" or (self.format == "text" and self.sample_by == "line")
        packed = any(path.suffix in COMPRESSED for path in self.paths)
        if lines and not packed and sum(path.stat().st_size for path in self.paths) <= COUNTED:
            return sum(map(_lines, self.paths))
        return None


def find_files(sources: Sequence[str], sample_by: str = "line") -> Files | None:
    """The files that paths, globs and directories name; None if the only source is no path, but a name on the hub.

    A directory stands for all files below it that a corpus can be read from; these, and what a glob finds, are in the
    order of their names.

    Raises
    ------
    SelectionError
        If there is no such file, one is there twice, or they are of several formats.
    """
    if len(sources) == 1 and not _is_local(sources[0]):
        return None
    paths = [path for source in sources for path in _expand(source)]
    places = set[Path]()
    for path in paths:
        if path.resolve() in places:
            raise SelectionError(f"{path} is there twice in --dataset, and so would its rows be; name it once")
        places.add(path.resolve())
    formats = {_format(path): path for path in reversed(paths)}
    if len(formats) > 1:
        named = " and ".join(f"{path.name} ({one})" for one, path in sorted(formats.items()))
        raise SelectionError(f"the files are of several formats, {named}; capture each into a run of its own")
    (found,) = formats
    if found != "text" and sample_by != "line":
        raise SelectionError(f"--sample-by {sample_by} is for .txt files; a row of {paths[0].name} is a sample")
    return Files(found, tuple(paths), sample_by)


def _is_local(source: str) -> bool:
    """Whether a source means files rather than a name on the hub."""
    return (
        os.path.exists(source)
        or glob.has_magic(source)
        or source.startswith((".", "/", "~"))
        or _suffix(Path(source)) in FORMATS
        or source.count("/") > 1
    )


def _expand(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        below = (p for p in path.rglob("*") if p.is_file() and _suffix(p) in FORMATS)
        seen = sorted(p for p in below if not any(part.startswith(".") for part in p.relative_to(path).parts))
        if not seen:
            raise SelectionError(f"the directory {source} holds no file of a corpus: {WANTED}")
        return seen
    if path.is_file():
        return [path]
    matched = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
    if not matched:
        what = "no file matches" if glob.has_magic(source) else "there is no file"
        raise SelectionError(f"{what} {source}; give files, a glob in quotes, a directory, or a name on the hub")
    return matched


def _suffix(path: Path) -> str:
    """A file's suffix, below that of its compression."""
    inner = path.with_suffix("") if path.suffix in COMPRESSED else path
    return inner.suffix.lower()


def _format(path: Path) -> str:
    found = FORMATS.get(_suffix(path))
    if found is None or (found == "parquet" and path.suffix in COMPRESSED):
        raise SelectionError(f"{path.name} is of no format that rows are read from: {WANTED}")
    return found


def _describe(path: Path) -> dict[str, Any]:
    """Name, size and checksums of a file's two ends; to read all of a terabyte would take hours."""
    try:
        with path.open("rb") as file:
            first = file.read(END)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - END, 0))
            last = file.read(END)
    except OSError as error:
        raise SelectionError(f"cannot read {path}: {error.strerror}") from error
    ends = {"first_xxh3": xxhash.xxh3_64_hexdigest(first), "last_xxh3": xxhash.xxh3_64_hexdigest(last)}
    return {"name": path.name, "bytes": size, **ends}


def _lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count, last = count + block.count(b"\n"), block[-1:]
    return count + (last != b"\n")
