"""The seam: what code says of the stage of recording that it is in.

Nothing is handed down for it: a recording opens the first stage of a thread, and `stage` those within. Where there is
no stage around, `stage` and its like do nothing, so that a recording that is not profiled pays for a look each.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from attnprobe.fields import Site

STAGES = ("observe", "logits", "measure", "copy", "write", "wait")
NOTHING: AbstractContextManager[Any] = nullcontext()
T = TypeVar("T")


@runtime_checkable
class Taker(Protocol):
    """Whom the stages of one recording report to."""

    counts: bool  # whether it takes more than names

    def stage(
        self, name: str, site: Site | None = None, device: torch.device | None = None
    ) -> AbstractContextManager[Any]:
        """Be in a stage, for the block: the first one of a thread that others may be within."""

    def behind(self, name: str) -> AbstractContextManager[Any]:
        """The same in a thread that works beside the model, which does not wait for it."""

    def opened(self, stage: "Stage") -> None:
        """A stage begins."""

    def closed(self, stage: "Stage") -> None:
        """It ends; those within have ended."""

    def count(self, stage: "Stage", copied: int = 0, written: int = 0, calls: int = 0) -> None:
        """Bytes went to the host, or to the store or a file; or it was not a call."""

    def note(self, stage: "Stage", what: str, how: str, why: str) -> None:
        """Something of the stage's site was made in some way."""


class Stage:
    """A stage that a thread is in, as a context manager.

    Attributes
    ----------
    taker, name
        Whom it reports to, and which it is.
    site, device
        Of which module and on which device it works, where that is known.
    behind
        Whether the thread works beside the model.
    outer
        The stage around it.
    figures
        What the taker has of it so far.
    """

    __slots__ = ("behind", "device", "figures", "name", "outer", "site", "taker")

    def __init__(
        self, taker: Taker, name: str, site: Site | None, device: torch.device | None, behind: bool = False
    ) -> None:
        self.taker, self.name, self.site, self.device, self.behind = taker, name, site, device, behind
        self.outer: Stage | None = None
        self.figures: Any = None

    def __enter__(self) -> None:
        self.outer = _own.top
        self.taker.opened(self)
        _own.top = self

    def __exit__(self, *_: object) -> None:
        _own.top = self.outer
        self.taker.closed(self)


class _Own(threading.local):
    """Of one thread: the innermost stage, and whom that reports to what is made now."""

    top: Stage | None = None
    taker: Taker | None = None


_own = _Own()


def stage(name: str, site: Site | None = None, device: torch.device | None = None) -> AbstractContextManager[Any]:
    """Be in a stage, for the block; its site and device are those of the stage around it where they are not given."""
    top = _own.top
    if top is None or (top.name == name and (site is None or site is top.site)):
        return NOTHING
    return Stage(top.taker, name, site or top.site, device or top.device, top.behind)


def each(name: str, made: Iterator[T]) -> Iterator[T]:
    """The same things, each made in a stage."""
    return made if _own.top is None else _each(name, made)


def _each(name: str, made: Iterator[T]) -> Iterator[T]:
    while True:
        with stage(name):
            try:
                one = next(made)
            except StopIteration:
                if _own.top is not None:
                    _own.top.taker.count(_own.top, calls=-1)  # nothing was made
                return
        yield one


def carried(name: str, then: Callable[..., None]) -> Callable[..., None]:
    """The same work, some time later, in a stage of the site that it was made for."""
    top = _own.top
    if top is None:
        return then
    made = top.taker, name, top.site, top.device

    def work(*arguments: Any) -> None:
        with Stage(*made):
            then(*arguments)

    return work


def at(site: Site, device: torch.device) -> None:
    """The stage that the thread is in works for a site, on a device, which was not known when it began."""
    if _own.top is not None:
        _own.top.site, _own.top.device = site, device


def copied(nbytes: int) -> None:
    """So many bytes were copied from a device to the host."""
    if _own.top is not None:
        _own.top.taker.count(_own.top, copied=nbytes)


def written(nbytes: int) -> None:
    """So many bytes went to the store; in a thread beside the model, to a file."""
    if _own.top is not None:
        _own.top.taker.count(_own.top, written=nbytes)


def profiled() -> bool:
    """Whether anybody wants notes."""
    return _own.top is not None and _own.top.taker.counts


def note(what: str, how: str, why: str = "") -> None:
    """Say how something of the site is made; where that is not as asked or hoped for, why."""
    if _own.top is not None:
        _own.top.taker.note(_own.top, what, how, why)


@contextmanager
def reporting(taker: Taker) -> Iterator[None]:
    """Let what is made inside of the block, and keeps `here`, report to `taker` for good."""
    before, _own.taker = _own.taker, taker
    try:
        yield
    finally:
        _own.taker = before


def told() -> Taker | None:
    """Whom what is made now reports to, if anybody said so."""
    return _own.taker


def forget(taker: Taker) -> None:
    """Leave no stage of a taker behind in this thread; an interrupt may have."""
    while _own.top is not None and _own.top.taker is taker:
        _own.top = _own.top.outer
