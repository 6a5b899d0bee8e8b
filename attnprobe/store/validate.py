"""A run directory is untrusted: every file is opened, and every record checked, here before anything uses it."""

import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

from attnprobe.errors import CorruptRun, SelectionError
from attnprobe.fields import DTYPES, MAP, Site, decode_rows
from attnprobe.selection import Indices
from attnprobe.store.base import Manifest

STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int32": "I32"}  # in safetensors' words
PARTS = {"ids": "I64", "positions": "I64", "tokens": "U8", "texts": "U8"}
_WHAT = re.compile(r"[A-Za-z_]\w{0,63}(\(\d{1,9}\))?(\.mean)?")
LENGTH = 1 << 24  # tokens of a sequence
HEADS = 1 << 16  # heads of a site
NUMBER = 1 << 40  # any other number


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file; a link is not followed, and a pipe is not waited for.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If nothing is there.
    CorruptRun
        If it is anything else, or cannot be opened.
    """
    try:
        if path.is_symlink():
            raise CorruptRun(f"{path} is a link, and links in a run are not followed; put the file itself there")
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:
        raise CorruptRun(f"{path} cannot be read: {error}; restore it, or record again") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise CorruptRun(f"{path} is not a regular file; restore it, or record again")
    return os.fdopen(file, "rb")


def check_directory(path: Path) -> None:
    """Refuse what is not a directory of its own.

    Raises
    ------
    CorruptRun
        If it is a link, something else, or missing.
    """
    if path.is_symlink() or not path.is_dir():
        what = "is a link, and links in a run are not followed" if path.is_symlink() else "is not a directory"
        raise CorruptRun(f"{path} {what}; restore it, or record again")


class _Wrong(Exception):
    """What of a record makes no sense."""


def _is(value: object, low: int, high: int = NUMBER) -> bool:
    """Whether a value is an int, and no bool, in a range; the end counts."""
    return type(value) is int and low <= value <= high


def make_manifest(path: Path, record: Mapping[str, Any]) -> Manifest:
    """Make a manifest of what the file `path` holds.

    Raises
    ------
    CorruptRun
        If anything of it makes no sense.
    """
    try:
        _check_manifest(record)
        return Manifest(**{**record, "sites": tuple(Site(**site) for site in record["sites"])})
    except (_Wrong, KeyError, TypeError) as error:
        raise CorruptRun(f"{path} is not a manifest: {error}; restore it, or record again") from error


def _check_manifest(record: Mapping[str, Any]) -> None:
    for name, kind in (("model", dict), ("versions", dict), ("sites", list), ("keep", list), ("created", str)):
        if not isinstance(record.get(name), kind):
            raise _Wrong(f"{name} is no {kind.__name__}")
    if type(record.get("text", True)) is not bool:
        raise _Wrong("text is no bool")
    if not all(isinstance(version, str) for version in record["versions"].values()):
        raise _Wrong("a version is no str")
    for site in record["sites"]:
        if not isinstance(site, dict):
            raise _Wrong("a site is no dict")
        for field in fields(Site):
            value = site.get(field.name, "main")
            least = 0 if field.name == "layer" else 1
            if not (_is(value, least, HEADS) if field.type is int else isinstance(value, str)):
                raise _Wrong(f"{field.name} of a site is {value!r}")
    if len({site["key"] for site in record["sites"]}) != len(record["sites"]):
        raise _Wrong("two sites have one key")
    for kept in record["keep"]:
        if not isinstance(kept, dict):
            raise _Wrong("an item of keep is no dict")
        for name in ("what", "dtype", "keys", "queries", "layers", "generated", "kind"):
            if not isinstance(kept.get(name, ""), str):
                raise _Wrong(f"{name} of keep is {kept[name]!r}")
        _check_measures(kept.get("measures", []))
        try:
            Indices.parse(kept.get("keys", "all"), "keys")
        except SelectionError as error:
            raise _Wrong(str(error)) from error


def _check_measures(measures: object) -> None:
    for one in measures if isinstance(measures, list) else [None]:
        words = [one.get("name"), one.get("unit")] if isinstance(one, dict) else [None]
        axes = one.get("axes") if isinstance(one, dict) else None
        if not isinstance(axes, list) or not all(isinstance(word, str) for word in [*words, *axes]):
            raise _Wrong(f"measures of keep hold {one!r}")


class Records:
    """Checks the records of samples.

    Parameters
    ----------
    path
        The run, for messages.
    sites
        The manifest's, by key.
    shards
        The listed shards and their bytes.
    """

    def __init__(self, path: Path, sites: Mapping[str, Site], shards: Mapping[str, int]) -> None:
        self._path = path
        self._sites = sites
        self._shards = shards

    def check(self, index: int, record: Mapping[str, Any]) -> None:
        """Check one record; no run of rows is expanded before it is known to be small enough.

        Raises
        ------
        CorruptRun
            If anything of it makes no sense.
        """
        try:
            self._sample(record)
        except KeyError as error:
            problem: object = f"{error} is missing"
        except _Wrong as error:
            problem = error
        else:
            return
        raise CorruptRun(
            f"{self._path}: the record of sample {index} makes no sense ({problem}); restore the journal, or record "
            "again"
        )

    def _sample(self, record: Mapping[str, Any]) -> None:
        if not isinstance(record["id"], str):
            raise _Wrong(f"id is {record['id']!r}")
        sequences = record["sequences"]
        if not isinstance(sequences, dict) or not isinstance(sequences.get("main"), dict):
            raise _Wrong("there is no sequence main")
        for name, sequence in sequences.items():
            if not isinstance(sequence, dict) or not _is(sequence.get("length"), 0, LENGTH):
                raise _Wrong(f"the sequence {name!r} has no length of 0 to {LENGTH}")
            for part in PARTS:
                if part in sequence:
                    self._place(sequence[part])
        if not _is(record["prompt_length"], 0, sequences["main"]["length"]):
            raise _Wrong(f"prompt_length is {record['prompt_length']!r}")
        if not isinstance(record["fields"], list):
            raise _Wrong("fields is no list")
        seen: set[tuple[str, int, str]] = set()
        for field in record["fields"]:
            key = self._field(field, sequences)
            if key in seen:
                raise _Wrong(f"{key[2]} of group {key[1]} of site {key[0]!r} is there twice")
            seen.add(key)

    def _place(self, place: object) -> int:
        """Bytes of the shard that a tensor lies in."""
        if not isinstance(place, dict) or not isinstance(place.get("tensor"), str):
            raise _Wrong("a tensor has no name")
        file = place.get("file")
        if not isinstance(file, str) or file not in self._shards:
            raise _Wrong(f"it names the shard {file!r}, which the journal does not list")
        return self._shards[file]

    def _field(self, field: object, sequences: Mapping[str, Any]) -> tuple[str, int, str]:
        if not isinstance(field, dict):
            raise _Wrong("a field is no dict")
        key, group, heads = field["site"], field["group"], field["heads"]
        site = self._sites.get(key) if isinstance(key, str) else None
        if site is None:
            raise _Wrong(f"site {key!r} is not in the manifest")
        if not _is(group, 0):
            raise _Wrong(f"group is {group!r}")
        what, axes = field["what"], field.get("axes", list(MAP))
        known = isinstance(field["dtype"], str) and field["dtype"] in DTYPES and isinstance(what, str)
        if not known or not _WHAT.fullmatch(what):
            raise _Wrong(f"values are {what!r} in {field['dtype']!r}")
        if not isinstance(axes, list) or len(axes) not in (1, 2) or not all(isinstance(axis, str) for axis in axes):
            raise _Wrong(f"axes of {what} are {axes!r}")
        if site.queries not in sequences or site.keys not in sequences:
            raise _Wrong(f"{site.label} lies on a sequence that the sample lacks")
        _count(heads, site.heads, "heads")
        if not isinstance(field["blocks"], list):
            raise _Wrong("blocks is no list")
        lengths = {"query": sequences[site.queries]["length"], "key": sequences[site.keys]["length"]}
        rows, columns = (lengths.get(axis, LENGTH) for axis in (*axes, "")[:2])
        itemsize = DTYPES[field["dtype"]]
        own: set[int] | None = None
        for block in field["blocks"]:
            size = self._place(block)
            shape, start = block["shape"], block["start"]
            if not isinstance(shape, list) or len(shape) != 3 or not all(_is(n, 0, LENGTH) for n in shape):
                raise _Wrong(f"a shape is {shape!r}")
            if _count(block["heads"], site.heads, "heads") != shape[0]:
                raise _Wrong(f"the shape {shape} has another number of heads")
            if _count(block["rows"], rows, "rows") != shape[1] or shape[1] > size:
                raise _Wrong(f"the shape {shape} has another number of rows")
            if not _is(start, 0) or (shape[2] and start + shape[2] > columns):
                raise _Wrong(f"columns {start!r} and {shape[2]} more do not lie in {columns}")
            if math.prod(shape) * itemsize > size:
                raise _Wrong(f"the shape {shape} is larger than its shard")
            if block["heads"] != heads:
                own = set(_expand(heads)) if own is None else own
                if not own.issuperset(_expand(block["heads"])):
                    raise _Wrong("a block has heads that its field lacks")
        return key, group, what


def _expand(runs: Any) -> tuple[int, ...]:
    return tuple(decode_rows(runs))


def _count(runs: object, limit: int, what: str) -> int:
    """How many positions runs of ``[start, stop, step]`` hold, which ascend and stay below a limit."""
    if not isinstance(runs, list):
        raise _Wrong(f"{what} are {runs!r}")
    total, last = 0, -1
    for run in runs:
        if not isinstance(run, list) or len(run) != 3 or not (_is(run[0], 0) and _is(run[1], 0) and _is(run[2], 1)):
            raise _Wrong(f"{what} hold {run!r}, which is no [start, stop, step]")
        start, stop, step = run
        count = max(0, -((start - stop) // step))
        if count:
            if start <= last:
                raise _Wrong(f"{what} do not ascend at {run}")
            last = start + (count - 1) * step
            if last >= limit:
                raise _Wrong(f"{what} hold {last}, and there are {limit}")
        total += count
    return total
