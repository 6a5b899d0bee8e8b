"""In what two runs differ in what they are of, named down to the key and its two values."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from attnprobe.store.base import ROWS, Manifest

_PARTS = (
    ("model", "another model"),
    ("sites", "another model"),
    ("keep", "another selection"),
    ("text", "another selection"),
    ("data", "other data"),
)
# Of a model, what may differ between two starts of one run; so may its name, often a path, where these hashes agree.
_FREE = ("device",)
_HASHES = ("config_xxh3", "parameters_xxh3")
_WIDTH = 160  # characters of a value
_BEFORE = 20  # characters of two values that are shown ahead of where they differ


def differing(there: Mapping[str, Any], manifest: Manifest) -> str:
    """Of what a run's manifest is, by another's; empty where both are of one.

    ``"another model: name was 'a' and is 'b'"``, ``"other data: files[3]: bytes was 10 and is 12"``.
    """
    asked = json.loads(json.dumps(asdict(manifest)))
    for name, what in _PARTS:
        old, new = there.get(name), asked[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            difference = _between(old, new, _free(name, old, new))
        else:
            difference = _difference(name, old, new) if old != new else ""
        if difference:
            return f"{what}: {difference}"
    return ""


def _free(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Collection[str]:
    """Keys that may differ."""
    if name == "model":
        is_one = all(old.get(one) is not None and old.get(one) == new.get(one) for one in _HASHES)
        return (*_FREE, "name") if is_one else _FREE
    if name == "data" and not (ROWS in old and ROWS in new):  # the files tell; some starts do not count them
        return (ROWS,)
    return ()


def _between(old: Mapping[str, Any], new: Mapping[str, Any], free: Collection[str] = ()) -> str:
    """The first key in which two differ; empty where there is none."""
    for key in dict.fromkeys((*old, *new)):
        if key in free or (key in old and key in new and old[key] == new[key]):
            continue
        if key in old and key in new:
            return _difference(key, old[key], new[key])
        if key in old:
            return f"{key} was {_short(old[key])} and is not there"
        return f"{key} was not there and is {_short(new[key])}"
    return ""


def _difference(name: str, old: Any, new: Any) -> str:
    """What of two values that are not equal differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return f"{name}: {_between(old, new)}"
    if isinstance(old, list) and isinstance(new, list):
        counts = "" if len(old) == len(new) else f"{name} has {len(new):,} where it had {len(old):,}: "
        pairs = zip(old, new, strict=False)
        at = next((n for n, (before, now) in enumerate(pairs) if before != now), min(len(old), len(new)))
        if at < min(len(old), len(new)):
            return counts + _difference(f"{name}[{at}]", old[at], new[at])
        more, word = (old, "was") if at < len(old) else (new, "is")
        return f"{counts}{name}[{at}] {word} {_short(more[at])}"
    before, now = repr(old), repr(new)
    same = next((n for n, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now)))
    start = 0 if max(len(before), len(now)) <= _WIDTH else max(same - _BEFORE, 0)
    return f"{name} was {_cut(before, start)} and is {_cut(now, start)}"


def _short(value: Any) -> str:
    return _cut(repr(value), 0)


def _cut(text: str, start: int) -> str:
    """So many characters of a text from a place on."""
    part = text[start : start + _WIDTH]
    return "..." * (start > 0) + part + "..." * (start + _WIDTH < len(text))
