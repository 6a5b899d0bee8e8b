"""A run directory is untrusted: every file is opened, and every record checked, here before anything uses it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from attnprobe.errors import CorruptRun
from attnprobe.fields import Site
from attnprobe.selection import Indices
from attnprobe.store.base import Manifest
from attnprobe.store.validate_fields import LENGTH, WHAT, Tops, Wrong, check_field, is_int

STORED = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "log-uint8": "U8",
}  # in safetensors' words
PARTS = {"ids": "I64", "positions": "I64", "tokens": "U8", "texts": "U8"}
HEADS = 1 << 16  # heads of a site
PLACES = 1 << 20  # layers of the model times heads of a layer: tables have a place for each
DEPTH = 100  # of what a manifest holds
UNIT = 64  # characters of a measure's unit


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
    except (Wrong, KeyError, TypeError, RecursionError) as error:
        raise CorruptRun(f"{path} is not a manifest: {error}; restore it, or record again") from error


def _check_depth(value: object, depth: int = 0) -> None:
    """Refuse what is so deep that it cannot be compared or printed."""
    if depth > DEPTH:
        raise Wrong(f"it is more than {DEPTH} lists and dicts deep")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(part, depth + 1)


def _check_manifest(record: Mapping[str, Any]) -> None:
    _check_depth(record)
    for name, kind in (("model", dict), ("versions", dict), ("sites", list), ("keep", list), ("created", str)):
        if not isinstance(record.get(name), kind):
            raise Wrong(f"{name} is no {kind.__name__}")
    if type(record.get("text", True)) is not bool:
        raise Wrong("text is no bool")
    if not isinstance(record.get("data"), dict | None):
        raise Wrong("data is no dict")
    if not all(isinstance(version, str) for version in record["versions"].values()):
        raise Wrong("a version is no str")
    for site in record["sites"]:
        if not isinstance(site, dict):
            raise Wrong("a site is no dict")
        for field in fields(Site):
            value = site.get(field.name, "main")
            least = 0 if field.name == "layer" else 1
            if not (is_int(value, least, HEADS) if field.type is int else isinstance(value, str)):
                raise Wrong(f"{field.name} of a site is {value!r}")
    if len({site["key"] for site in record["sites"]}) != len(record["sites"]):
        raise Wrong("two sites have one key")
    layers, heads = (max((site[name] for site in record["sites"]), default=0) for name in ("layer", "heads"))
    if (layers + 1) * heads > PLACES:
        raise Wrong(f"it has layer {layers}, and {heads} heads in a layer: more than {PLACES:,} places")
    for kept in record["keep"]:
        if not isinstance(kept, dict):
            raise Wrong("an item of keep is no dict")
        for name in ("what", "dtype", "keys", "queries", "layers", "generated", "kind"):
            if not isinstance(kept.get(name, ""), str):
                raise Wrong(f"{name} of keep is {kept[name]!r}")
        _check_measures(kept.get("measures", []))
        _check_keys(kept.get("keys", "all"))


def _check_keys(keys: str) -> None:
    """Columns that were kept are one range: what lies between them is in no block, and would be read as 0."""
    try:
        parts = Indices.parse(keys, "keys").parts
    except ValueError as error:  # a SelectionError, or a number of thousands of digits
        raise Wrong(f"keys of keep are {keys!r:.80}") from error
    part = parts[0] if len(parts) == 1 else None
    if not isinstance(part, slice) or (part.step or 1) != 1 or min(part.start or 0, part.stop or 0) < 0:
        raise Wrong(f"keys of keep are {keys!r:.80}, which is no one range")


def _check_measures(measures: object) -> None:
    for one in measures if isinstance(measures, list) else [None]:
        name, unit, axes = map(one.get, ("name", "unit", "axes")) if isinstance(one, dict) else (None, None, None)
        if not isinstance(axes, list) or not all(isinstance(word, str) for word in [name, unit, *axes]):
            raise Wrong(f"measures of keep hold {one!r}")
        if not WHAT.fullmatch(str(name)) or len(str(unit)) > UNIT or not str(unit).isprintable():
            raise Wrong(f"measures of keep hold the name {name!r} and the unit {unit!r}")  # both are printed


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
        except (Wrong, RecursionError) as error:  # what is very deep can be neither compared nor printed
            problem = error
        else:
            return
        raise CorruptRun(
            f"{self._path}: the record of sample {index} makes no sense ({problem}); restore the journal, or record "
            "again"
        )

    def _sample(self, record: Mapping[str, Any]) -> None:
        if not isinstance(record["id"], str):
            raise Wrong(f"id is {record['id']!r}")
        sequences = record["sequences"]
        if not isinstance(sequences, dict) or not sequences:
            raise Wrong("there is no sequence")
        for name, sequence in sequences.items():
            if not isinstance(sequence, dict) or not is_int(sequence.get("length"), 0, LENGTH):
                raise Wrong(f"the sequence {name!r} has no length of 0 to {LENGTH}")
            for part in PARTS:
                if part in sequence:
                    self._place(sequence[part])
        main = sequences.get("main") or next(iter(sequences.values()))
        if not is_int(record["prompt_length"], 0, main["length"]):
            raise Wrong(f"prompt_length is {record['prompt_length']!r}")
        if not isinstance(record["fields"], list):
            raise Wrong("fields is no list")
        seen: set[tuple[str, int, str]] = set()
        tops, total = Tops(), 0
        for field in record["fields"]:
            key, nbytes = self._field(field, sequences, tops)
            total += nbytes
            if key in seen:
                raise Wrong(f"{key[2]} of group {key[1]} of site {key[0]!r} is there twice")
            seen.add(key)
        tops.check()
        if total > sum(self._shards.values()):
            raise Wrong(f"its values have {total:,} bytes, more than all shards")

    def _place(self, place: object) -> int:
        """Bytes of the shard that a tensor lies in."""
        if not isinstance(place, dict) or not isinstance(place.get("tensor"), str):
            raise Wrong("a tensor has no name")
        file = place.get("file")
        if not isinstance(file, str) or file not in self._shards:
            raise Wrong(f"it names the shard {file!r}, which the journal does not list")
        return self._shards[file]

    def _field(self, field: object, sequences: Mapping[str, Any], tops: Tops) -> tuple[tuple[str, int, str], int]:
        """What tells a field from others, and its bytes."""
        if not isinstance(field, dict):
            raise Wrong("a field is no dict")
        key, group = field["site"], field["group"]
        site = self._sites.get(key) if isinstance(key, str) else None
        if site is None:
            raise Wrong(f"site {key!r} is not in the manifest")
        if not is_int(group, 0):
            raise Wrong(f"group is {group!r}")
        if site.queries not in sequences or site.keys not in sequences:
            raise Wrong(f"{site.label} lies on a sequence that the sample lacks")
        lengths = {"query": sequences[site.queries]["length"], "key": sequences[site.keys]["length"]}
        nbytes, width = check_field(field, site, lengths, self._place)
        tops.take(key, group, field["what"], field["heads"], width)
        return (key, group, field["what"]), nbytes
