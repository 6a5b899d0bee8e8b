"""What one thread said of the forward passes to come: the generation that it is in, the names of the next samples."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import index as whole
from typing import Any

from attnprobe.errors import SelectionError, UnsupportedCall
from attnprobe.lineage import Generation, Lineage
from attnprobe.samples import Growing

Names = str | Sequence[str] | None
Places = int | Sequence[int] | None  # NumPy's whole numbers are taken too


@dataclass
class SampleName:
    """What `rec.sample` says of the samples that start inside of it.

    Attributes
    ----------
    names
        The only sample's name, or that of a batch, to which ``/0``, ``/1``, ... are added; or one a row of the batch.
    places
        Places in the run, one a row of the batch.
    prompt_length
        Tokens of the prompt.
    used
        Rows of the batch whose sample has started.
    """

    names: str | tuple[str, ...] | None = None
    places: tuple[int, ...] | None = None
    prompt_length: int | None = None
    used: set[int] = field(default_factory=set)

    @property
    def label(self) -> str:
        """What was told, for messages."""
        told = self.names if self.names is not None else self.places
        return repr(told) if isinstance(told, str) else _short(told or ())

    def start(self, row: int, batch: int) -> None:
        """Note that a row's sample starts.

        Raises
        ------
        UnsupportedCall
            If it has started already, or the batch has another number of rows than was told.
        """
        lists = (self.names if isinstance(self.names, tuple) else None, self.places)
        told = next((len(one) for one in lists if one is not None), None)
        if told is not None and told != batch:
            raise UnsupportedCall(
                f"rec.sample({self.label}) tells of {told} {'sample' if told == 1 else 'samples'} and the batch has "
                f"{batch} {'row' if batch == 1 else 'rows'}; give id and index one entry a row"
            )
        if row in self.used and (self.names is not None or self.places is not None):
            raise UnsupportedCall(f"a second sample starts inside of rec.sample({self.label}); name each one")
        self.used.add(row)

    def name(self, row: int, batch: int) -> str | None:
        """The name of a row's sample, if it has one."""
        if self.names is None or isinstance(self.names, tuple):
            return None if self.names is None else self.names[row]
        return self.names if batch == 1 else f"{self.names}/{row}"


class Numbers:
    """The places of a recording's samples in the run: those that were told, and for others the next that is free.

    Parameters
    ----------
    automatic
        Places for samples that are told none, ascending.
    """

    def __init__(self, automatic: Iterator[int]) -> None:
        self._automatic = automatic
        self._taken: set[int] = set()

    def refuse(self, places: Iterable[int]) -> None:
        """Refuse places that other samples have.

        Raises
        ------
        UnsupportedCall
            If one does.
        """
        twice = next((place for place in places if place in self._taken), None)
        if twice is not None:
            raise UnsupportedCall(
                f"rec.sample(index={twice}): an earlier sample of this recording has that place; give each sample an "
                "index of its own, or none to any"
            )

    def take(self, told: int | None = None) -> int:
        """The place of a sample that starts."""
        place = next(place for place in self._automatic if place not in self._taken) if told is None else told
        self._taken.add(place)
        return place

    def free(self, place: int) -> None:
        """Nothing is kept of a sample: another may have its place."""
        self._taken.discard(place)


class Told(threading.local):
    """What one thread said: the generation that it is in, the lineages grown there, the names of the next samples."""

    def __init__(self) -> None:
        self.generation: Generation | None = None
        self.grown: list[Lineage] = []
        self.name = SampleName()

    @contextmanager
    def naming(self, names: Names, prompt_length: int | None, places: Places = None) -> Iterator[None]:
        """Samples that start inside of this block have these names and places.

        Raises
        ------
        SelectionError
            If two rows have the same name or place, there are not as many names as places, or one is malformed.
        """
        before, self.name = self.name, SampleName(_read_names(names), _read_places(places), prompt_length)
        try:
            told = self.name
            if isinstance(told.names, tuple) and told.places is not None and len(told.names) != len(told.places):
                raise SelectionError(
                    f"rec.sample has {len(told.names)} ids and {len(told.places)} indices; give one of each a row"
                )
            yield
        finally:
            self.name = before

    @contextmanager
    def generating(self, generation: Generation) -> Iterator[list[Lineage]]:
        """Forward passes inside of this block are of one `generate`; the lineages that they grow."""
        before = self.generation, self.grown
        self.generation, self.grown = generation, []
        try:
            yield self.grown
        finally:
            self.generation, self.grown = before

    def open(self, row: int, batch: int, numbers: Numbers) -> Growing:
        """A sample that starts now, under the name and at the place that were told, else at the next that is free.

        Raises
        ------
        UnsupportedCall
            If another one has that name or place, or the batch has not the rows that were told.
        """
        told = self.name
        if not told.used:  # for all rows, before one takes its place
            numbers.refuse(told.places or ())
        told.start(row, batch)
        place = numbers.take(None if told.places is None else told.places[row])
        name = told.name(row, batch)
        return Growing(
            place,
            str(place) if name is None else name,
            row,
            told.prompt_length,
            told.prompt_length is not None,
            named=name is not None,
        )


def _read_names(names: Names) -> str | tuple[str, ...] | None:
    if names is None or isinstance(names, str):
        return names
    found = tuple(names)
    if not found or not all(isinstance(name, str) for name in found):
        raise SelectionError(f"id={_short(found)}: write a name, or a list of names, one a row of the batch")
    _refuse_twice("id", found)
    return found


def _read_places(places: Places) -> tuple[int, ...] | None:
    if places is None:
        return None
    several: tuple[Any, ...] = tuple(places) if isinstance(places, Iterable) else (places,)
    found = tuple(whole(one) for one in several if hasattr(one, "__index__") and not isinstance(one, bool))
    if not found or len(found) != len(several) or min(found) < 0:
        raise SelectionError(
            f"index={places!r}: write a place in the run from 0, or a list of places, one a row of the batch"
        )
    _refuse_twice("index", found)
    return found


def _refuse_twice(what: str, found: tuple[Any, ...]) -> None:
    if len(set(found)) < len(found):
        twice = next(one for one in found if found.count(one) > 1)
        raise SelectionError(f"{what} {twice!r} is there twice in one batch; give each row its own")


def _short(found: Sequence[Any]) -> str:
    shown = ", ".join(repr(one) for one in found[:3])
    return f"[{shown}, ...]" if len(found) > 3 else f"[{shown}]"
