"""A small picture of what the explorer opens with, for a saved notebook: what the front end draws needs a kernel."""

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attnprobe.explorer.answering import Answering, unpack, widened
from attnprobe.pyramid import LAST, PATCH
from attnprobe.shapes import Float, Shaped
from attnprobe.show.colors import COLORS, table
from attnprobe.show.prepare import shrink
from attnprobe.show.scales import scale_of

PIXELS = PATCH * PATCH  # of a whole picture, one byte each: so it is never larger than 66 KB, 88 KB as text
MOST = 512  # heads that are drawn beside each other; of more, one is drawn
GAP = 1
NOTHING = COLORS - 1  # the number of the colour that is transparent, at the cost of the brightest


def thumbnail(answers: Answering, state: Mapping[str, Any]) -> bytes | None:
    """A PNG of the heads of the sample, or of the map, that a state looks at; None where no weights were kept.

    Parameters
    ----------
    answers
        What answers for the run.
    state
        What is looked at; names that are not there are as when a run is opened.
    """
    place = {"run": int(state.get("run", 0)), "sample": int(state.get("sample", 0))}
    found, _ = unpack(answers.ask("sample", place))
    sites = [site for site in found.get("sites", ()) if site["weights"]]
    if not sites:
        return None
    if state.get("view", "heads") == "heads" and sum(len(site["heads"]) for site in sites) <= MOST:
        return _heads(answers, place, sites)
    site = next((site for site in sites if site["key"] == state.get("site")), sites[0])
    heads = site["weights"]
    return _map(
        answers, {**place, "site": site["key"], "head": min(heads, key=lambda n: abs(n - state.get("head", 0)))}
    )


def _map(answers: Answering, place: Mapping[str, Any]) -> bytes | None:
    """The whole map, on the finest level of which one patch shows all of it."""
    about, _ = unpack(answers.ask("head", place))
    if "error" in about:
        return None
    longest = max(about["shape"])
    level = min((-(-longest // PATCH) - 1).bit_length(), LAST)
    _, bits = unpack(answers.ask("patch", {**place, "level": level, "down": 0, "across": 0, "how": "max"}))
    if bits is None or not bits.size:
        return None
    times = max(1, PATCH // max(bits.shape))
    return _picture(np.kron(widened(bits), np.ones((times, times), np.float32)))


def _heads(answers: Answering, place: Mapping[str, int], sites: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The heads of each site in a row."""
    columns = max(len(site["heads"]) for site in sites)
    side = max(1, math.isqrt(PIXELS // (len(sites) * columns)) - GAP)
    whole = np.full((len(sites) * (side + GAP) - GAP, columns * (side + GAP) - GAP), np.nan, np.float32)
    for row, site in enumerate(sites):
        _, bits = unpack(answers.ask("thumbnails", {**place, "site": site["key"], "how": "max"}))
        for column, small in enumerate(() if bits is None else widened(bits)):
            top, left = row * (side + GAP), column * (side + GAP)
            whole[top : top + side, left : left + side] = _square(small, side)
    return _picture(whole)


def _square(values: Float[np.ndarray, "down across"], side: int) -> Float[np.ndarray, "side side"]:
    """A map on a square: cells that are too many are pooled, and too few are repeated."""
    small = shrink(np.nan_to_num(values, nan=-1), side, side)
    down, across = (np.arange(side) * count // side for count in small.shape)
    square: np.ndarray = small[np.ix_(down, across)]
    return np.where(square < 0, np.float32(np.nan), square)


def _picture(values: Float[np.ndarray, "row column"]) -> bytes:
    levels = scale_of(values).levels(values)
    known = np.isfinite(levels)
    colors = np.where(known, np.nan_to_num(levels) * (NOTHING - 1) + 0.5, NOTHING).astype(np.uint8)
    return png(colors, table(), NOTHING)


def png(
    colors: Shaped[np.ndarray, "row column"], palette: Shaped[np.ndarray, "color 3"], transparent: int | None = None
) -> bytes:
    """A PNG of numbers of colours.

    Parameters
    ----------
    colors
        Numbers of colours, as uint8.
    palette
        Red, green and blue of each of at most 256 colours.
    transparent
        The number of a colour that lets through what is below.
    """
    height, width = colors.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each starts with the number of its filter: none
    lines[:, 1:] = colors
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"tRNS", b"" if transparent is None else b"\xff" * transparent + b"\0"),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts if data or name == b"IEND")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
