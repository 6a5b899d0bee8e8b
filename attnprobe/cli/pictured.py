"""Options of commands that draw: which part of a map, in which colours, on which scale."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from attnprobe.errors import SelectionError
from attnprobe.pyramid import HOWS
from attnprobe.show.colors import MAP, MAPS
from attnprobe.show.scales import SCALE, SCALES

SHOWN = {"max": "largest", "mean": "mean"}  # what a cell shows, in words
_PART = re.compile(r"(-?\d*):(-?\d*)")


@dataclass(frozen=True)
class Look:
    """How a map is drawn."""

    map: str
    scale: str
    how: str
    rows: slice | None
    columns: slice | None


def looks(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options; its function is called with a `Look` by the name ``look``."""

    @click.option("--map", default=MAP, show_default=True, type=click.Choice(MAPS), help="Colours.")
    @click.option(
        "--scale", default=SCALE, show_default=True, type=click.Choice(SCALES), help="From weights to colours."
    )
    @click.option("--how", default="max", show_default=True, type=click.Choice(HOWS), help="What a cell of many shows.")
    @click.option("--rows", metavar="A:B", help="Only these queries, by position: 100:200, -64:")
    @click.option("--columns", metavar="A:B", help="Only these keys; 1: leaves out the first one.")
    @functools.wraps(function)
    def run(
        *arguments: Any, map: str, scale: str, how: str, rows: str | None, columns: str | None, **options: Any
    ) -> None:
        look = Look(map, scale, how, _part("--rows", rows), _part("--columns", columns))
        function(*arguments, look=look, **options)

    return run


def _part(option: str, text: str | None) -> slice | None:
    if text is None:
        return None
    match = _PART.fullmatch(text.strip())
    if match is None:
        raise SelectionError(f"{option} {text!r}: write the first position and the one behind the last, as 100:200")
    first, last = (int(one) if one else None for one in match.groups())
    return slice(first, last)
