"""A small picture of every head of a site, of whatever was kept of it that is quickest to read."""

from typing import Any

import numpy as np

from attnprobe.explorer.asked import Asked
from attnprobe.explorer.cells import pool, read_cells, rows_in
from attnprobe.explorer.frames import Answer, bfloat16
from attnprobe.head import Head
from attnprobe.levels import Levels
from attnprobe.shapes import Float

SIDE = 64  # cells of a picture, at most
CELLS = 1 << 22  # that a picture is made of, at most, where a run keeps levels
AT_ONCE = 1 << 22  # weights, or cells, that are read together
QUICK = 2048  # maps up to so many rows and columns are read, however many heads there are,
WEIGHTS = 1 << 27  # and larger ones if all heads have no more weights than this
Picture = Float[np.ndarray, "down across"] | None


def thumbnails(asked: Asked) -> Answer:
    """All heads of a site, in cells of one size; NaN where there is nothing that a picture can be made of."""
    return Answer(*asked.once(lambda: _thumbnails(asked), "thumbnails", asked.text("how")))


def _thumbnails(asked: Asked) -> tuple[dict[str, Any], Any]:
    shape, how = asked.shape, asked.text("how")
    numbers = asked.view.heads(asked.sample, asked.site)
    heads = [asked.sample[asked.site.key, number] for number in numbers]
    # Apart for rows and columns if that can be had, such as of 20 words that look at 3,000 patches of a picture.
    apart = _level(shape[0]), _level(shape[1])
    cover = apart
    readable = max(shape) <= QUICK or shape[0] * shape[1] * len(heads) <= WEIGHTS
    for cover in dict.fromkeys((apart, (max(apart), max(apart)))):
        pictures = [_picture(head, cover, how, readable) for head in heads]
        if all(one is not None for one in pictures):
            break
    size = tuple(-(-length >> level) for length, level in zip(shape, cover, strict=True))
    nothing = np.full(size, np.nan, np.float32)
    values = np.stack([nothing if one is None else one for one in pictures])
    covers = [1 << level for level in cover]
    return {"heads": numbers, "size": size, "covers": covers}, bfloat16(values)


def _level(length: int) -> int:
    """The finest level of which at most `SIDE` cells cover a length."""
    return max(0, (-(-length // SIDE) - 1).bit_length())


def _picture(head: Head, cover: tuple[int, int], how: str, readable: bool) -> Picture:
    """One head in cells of ``2 ** cover`` rows and columns; None where nothing of it can be had in these."""
    if head.has_weights:
        fitting = [level for level in head.levels.kept_of(how) if level <= min(cover)]
        if fitting and np.prod(head.levels.shape(fitting[-1])) <= CELLS:
            return _of_levels(head.levels, fitting[-1], cover, how)
    pooled = _of_pooled(head, cover, how)
    if pooled is not None or not readable or not head.has_weights:
        return pooled
    return _of_levels(head.levels, min(cover), cover, how)


def _of_levels(levels: Levels, level: int, cover: tuple[int, int], how: str) -> Float[np.ndarray, "down across"]:
    """A level, kept or made of the weights, pooled further; some rows of the picture after the other."""
    tall, wide = (1 << (one - level) for one in cover)
    height, width = levels.shape(level)
    read = width if level in levels.kept_of(how) else width << 2 * level  # for one row of cells
    together = max(1, AT_ONCE // max(1, read * tall)) * tall
    parts = []
    for first in range(0, height, together):
        down = range(first, min(height, first + together))
        values = read_cells(levels, level, down, range(width), how)
        parts.append(pool(values, rows_in(levels, level, down), (tall, wide), how))
    return np.concatenate(parts)


def _of_pooled(head: Head, cover: tuple[int, int], how: str) -> Picture:
    """The pooled map that measures keep."""
    name = f"pooled_{how}"
    if name not in head.measures:
        return None
    pooled = head.measures[name]
    values = pooled.values.astype(np.float32)
    places = [np.asarray(pooled.coords[dim]) for dim in pooled.dims]
    sizes = [1 << one if len(at) < 2 else int(at[1] - at[0]) for one, at in zip(cover, places, strict=True)]
    factors = [(1 << one) // size for one, size in zip(cover, sizes, strict=True)]
    whole = tuple(-(-length >> one) for length, one in zip(head.shape, cover, strict=True))
    if min(factors) < 1 or any(-(-n // f) != w for n, f, w in zip(values.shape, factors, whole, strict=True)):
        return None  # a run is untrusted
    rows, columns = (np.minimum(size, length - at) for size, length, at in zip(sizes, head.shape, places, strict=True))
    if how == "mean":  # theirs is over the columns that there are
        values = values * (columns / sizes[1]).astype(np.float32)
    return pool(values, rows, (factors[0], factors[1]), how)
