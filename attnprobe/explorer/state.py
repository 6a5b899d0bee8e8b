"""What the explorer looks at, as its front end writes it (`attnprobe/show/static/state.js`)."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, SupportsIndex
from urllib.parse import quote

from attnprobe.errors import SelectionError
from attnprobe.explorer.values import allowed, fields, plain
from attnprobe.fields import Sample
from attnprobe.run import Run


def checked(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same state with numbers of Python's own.

    Raises
    ------
    SelectionError
        If a name is of no state, or a value is none of its name; the front end would leave it out without a word.
    """
    for name, value in state.items():
        if name not in fields():
            raise SelectionError(f"the explorer has no {name!r}; what it looks at is told by {', '.join(fields())}")
        words = allowed(fields()[name], value)
        if words:
            raise SelectionError(f"{name}={value!r:.60}: give {words}")
    return {name: plain(value) for name, value in state.items()}


def place_of(run: Run, sample: Sample) -> int:
    """The place of a sample among those that the run lists."""
    return bisect_left(run.samples, sample.index, key=lambda one: one.index)


def looking_at(
    run: Run, sample: int, layer: SupportsIndex | str | None, head: SupportsIndex | None = None
) -> dict[str, Any]:
    """The state that shows a site of the first run, or the map of one of its heads.

    Parameters
    ----------
    run
        The run.
    sample
        The sample's place.
    layer
        A layer's number or a module's name; None leaves it to the explorer.
    head
        A head's number; None leaves it to the explorer.

    Raises
    ------
    NotKept
        If nothing was kept of it.
    SelectionError
        If several sites fit, or there is a head without a layer.
    """
    state: dict[str, Any] = {"sample": sample} if sample else {}
    if layer is None:
        if head is not None:
            raise SelectionError(f"head {head} of which layer? give both")
        return state
    chosen = run.sample(sample)
    site = chosen.site(layer)
    if head is None:
        return {**state, "site": site.key}
    return {"view": "map", **state, "site": site.key, "head": chosen[site.key, head].number}


def link(state: Mapping[str, Any]) -> str:
    """The part of a page's address, from ``#`` on, that opens a state of names, numbers and texts; empty for none."""
    parts = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in state.items())
    return f"#{parts}" if parts else ""
