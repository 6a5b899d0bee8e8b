"""What a question asks about: parameters of an untrusted client, checked, and the run, sample, site and head."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from attnprobe.errors import SelectionError
from attnprobe.explorer.opened import Opened, View
from attnprobe.fields import Site
from attnprobe.head import Head
from attnprobe.pyramid import HOWS
from attnprobe.run import SampleRun

TEXTS = ("site", "sequence", "name", "how")  # all others are numbers
LONGEST = 512  # characters of a text
LARGEST = 1 << 40
LONGEST_SIDE = 1 << 24  # rows or columns of a map
_DIGITS = re.compile(r"[0-9]{1,13}", re.ASCII)


def check(name: str, params: object, wanted: Sequence[str]) -> dict[str, int | str]:
    """Parameters as numbers and texts, each of those that are wanted, and no other.

    Raises
    ------
    SelectionError
        If one is missing, unknown, or of another kind.
    """
    if not isinstance(params, Mapping):
        raise SelectionError(f"{name}: give parameters by name")
    form = f"{name} takes {', '.join(wanted) or 'no parameters'}"
    unknown = [one for one in params if one not in wanted]
    if unknown:
        raise SelectionError(f"{name} has no parameter {_short(unknown[0])}; {form}")
    missing = [one for one in wanted if one not in params]
    if missing:
        raise SelectionError(f"{name} lacks the parameter {missing[0]}; {form}")
    return {one: (_text if one in TEXTS else _number)(name, one, params[one]) for one in wanted}


def _number(name: str, what: str, value: object) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise SelectionError(f"{name}: {what} is {_short(value)}; give a whole number from 0 on")
    return value


def _text(name: str, what: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise SelectionError(f"{name}: {what} is {_short(value)}; give a text of at most {LONGEST} characters")
    if what == "how" and value not in HOWS:
        raise SelectionError(f"{name}: how is {_short(value)}; give {' or '.join(HOWS)}")
    return value


def _short(value: object) -> str:
    """What was given, in few characters; of a huge number Python refuses to write the digits."""
    try:
        return f"{value!r:.60}"
    except (ValueError, RecursionError):
        return "no number that can be written"


@dataclass(frozen=True, eq=False)
class Asked:
    """What one question asks about.

    Attributes
    ----------
    runs
        All runs.
    params
        Its parameters, checked by `check`.
    """

    runs: Sequence[Opened]
    params: Mapping[str, int | str]

    def number(self, name: str) -> int:
        """A parameter that is a number."""
        return int(self.params[name])

    def text(self, name: str) -> str:
        """A parameter that is a text."""
        return str(self.params[name])

    @property
    def opened(self) -> Opened:
        """The run, which may grow.

        Raises
        ------
        SelectionError
            If there is no such run.
        """
        place = self.number("run")
        if place >= len(self.runs):
            raise SelectionError(f"there is no run {place}: there are {len(self.runs)}, counted from 0")
        return self.runs[place]

    @cached_property
    def view(self) -> View:
        """The run as it was last opened; the same one for the whole answer."""
        return self.opened.view

    @cached_property
    def sample(self) -> SampleRun:
        """The sample."""
        return self.view.sample(self.number("sample"))

    @cached_property
    def site(self) -> Site:
        """The attention module."""
        return self.view.site(self.sample, self.text("site"))

    @cached_property
    def head(self) -> Head:
        """The head."""
        _ = self.shape  # refuses what is too large
        return self.view.head(self.sample, self.site, self.number("head"))

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys of the site in the sample.

        Raises
        ------
        SelectionError
            If there are so many that an answer might not fit in memory: a run may say what it likes.
        """
        sequences = self.sample.sample.sequences
        queries, keys = sequences[self.site.queries].length, sequences[self.site.keys].length
        if max(queries, keys) > LONGEST_SIDE:
            raise SelectionError(f"{queries:,} x {keys:,} weights are more than are shown; read them in Python")
        return queries, keys

    def box(self) -> tuple[range, range]:
        """Rows and columns from `top` to `bottom` and from `left` to `right`, the last ones not included.

        Raises
        ------
        SelectionError
            If it is empty, or not all of it is in the map.
        """
        top, bottom, left, right = (self.number(name) for name in ("top", "bottom", "left", "right"))
        queries, keys = self.shape
        if not (top < bottom <= queries and left < right <= keys):
            raise SelectionError(
                f"rows {top} to {bottom} and columns {left} to {right} are no part of the {queries:,} x {keys:,} "
                "weights; give top < bottom and left < right within them"
            )
        return range(top, bottom), range(left, right)

    def once(self, make: Any, *key: object) -> Any:
        """What `make` makes, which is kept for those who ask the same again; `key` tells it from others."""
        return self.view.made.get((self.sample.sample.index, self.site.key, *key), make)
