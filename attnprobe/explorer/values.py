"""What the values of a state may be, as the front end's file says (`attnprobe/show/static/state.js`)."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any

from attnprobe.explorer.static import static

_FIELDS = re.compile(r"^const FIELDS = \{$(.*?)^\};$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^  (\w+): \[[^,]+, ([\w()]+)\],", re.MULTILINE)
_CHOICES = re.compile(r"^export const (\w+) = \[(.*?)\];$", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\)")


@cache
def fields() -> Mapping[str, str]:
    """The names of all that a state tells, and how each is checked: ``orNull(count)``. They stand in that file only."""
    found = _FIELDS.search(static()["state.js"])
    return dict(_FIELD.findall(found[1])) if found else {}


@cache
def _choices(name: str) -> tuple[str, ...]:
    lists = {found: re.findall(r'"([^"]*)"', text) for found, text in _CHOICES.findall(static()["state.js"])}
    return tuple(lists[name])


def allowed(check: str, value: Any) -> str:
    """What a value has to be, in words; empty where it is that.

    Parameters
    ----------
    check
        How it is checked, one of the values of `fields`.
    value
        A plain value, or one that a link has, as text.
    """
    call = _CALL.fullmatch(check)
    if call and call[1] == "orNull":
        words = "" if value is None or (isinstance(value, str) and not value) else allowed(call[2], value)
        return f"{words}, or None" if words else ""
    if call:
        among = _choices(call[2])
        return "" if isinstance(value, str) and value in among else f"one of {', '.join(among)}"
    words, fits = _KINDS[check]
    return "" if fits(value) else words


def _number(value: Any) -> float | None:
    """The number that a value is or that a text tells; None for no number, and for one without an end."""
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _is_count(value: Any) -> bool:
    found = _number(value)
    return found is not None and found >= 0 and found == int(found)


def _is_positive(value: Any) -> bool:
    found = _number(value)
    return found is not None and found > 0


def _is_box(value: Any) -> bool:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or len(parts) != 4 or not all(map(_is_count, parts)):
        return False
    top, bottom, left, right = map(float, parts)
    return top < bottom and left < right


def _is_place(value: Any) -> bool:
    if isinstance(value, str):
        parts = value.split(",")
        return len(parts) > 3 and all(map(_is_count, parts[:3]))
    names = ("run", "sample", "head")
    return isinstance(value, Mapping) and all(_is_count(value.get(name)) for name in names) and "site" in value


_KINDS = {
    "count": ("a whole number from 0 on", _is_count),
    "number": ("a number", lambda value: _number(value) is not None),
    "positive": ("a number above 0", _is_positive),
    "text": ("a text", lambda value: isinstance(value, str)),
    "flag": ("True or False", lambda value: isinstance(value, bool) or value in ("0", "1")),
    "box": ("top, bottom, left and right as whole numbers, ends behind the last", _is_box),
    "place": ("a dict with run, sample, site and head", _is_place),
}


def plain(value: Any) -> Any:
    """The same as a number of Python's own, where it is one of NumPy's."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)
