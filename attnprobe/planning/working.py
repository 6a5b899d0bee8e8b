"""Peak memory beside what is kept: tiles, copied keys, masks, what measures work in, and copies on their way."""

from collections.abc import Iterator
from dataclasses import dataclass

from attnprobe.codes import WORKING
from attnprobe.fields import DTYPES
from attnprobe.keep import Kept, Measures, TopK, Weights, together
from attnprobe.measures import RowMeasure
from attnprobe.planning.kept import folding
from attnprobe.planning.load import Setting, Tiles
from attnprobe.planning.metered import meter, present

FLOAT = 4
PICKED, ORDERED = 12, 44  # bytes of one of the largest weights with its place, and while these are put in order
COMPARED = 1  # bytes of comparing one weight with the smallest of these ...
SUMMED = 8  # ... and of the integer that a CPU makes of it to count


@dataclass(frozen=True)
class Working:
    """Bytes at most, at one time.

    Attributes
    ----------
    tiles
        Tiles and all that is made with one, on the device of the weights.
    states
        What rows are folded into until the samples end, on the same device.
    ends
        What states become, and is kept.
    flying
        Pinned host memory of copies from a device that is no CPU.
    """

    tiles: int
    states: int
    ends: int
    flying: int


def working(setting: Setting, in_memory: bool) -> Working:
    """The working memory of a recording, the store's being in memory or not.

    Raises
    ------
    BudgetError
        If one row does not fit the budget.
    """
    scratch: dict[str, int] = {}
    transient = flying = 0
    for site, group in _calls(setting):
        for step in {0, setting.load_of(site).fed}:
            cut = setting.tiles(site, group[0], step)
            for tiles in {(one.heads, one.rows, one.columns): one for one in cut}.values():
                own, held, leaving = _of_tile(setting, site, group, tiles, in_memory)
                transient = max(transient, own)
                for name, nbytes in held.items():
                    scratch[name] = max(scratch.get(name, 0), nbytes)
                flying = max(flying, _in_flight(setting, leaving, sum(len(one.counts) * len(group) for one in cut)))
    folded = [
        folding(setting, site, kept)
        for kept in setting.kept
        if isinstance(kept.item, Measures)
        for site in kept.heads
        if setting.runs(site) and setting.load_of(site).kept_rows(kept.selection)
    ]
    return Working(
        tiles=sum(scratch.values()) + max(transient, *(one.ending for one in folded), 0),
        states=setting.load.batch * sum(one.state for one in folded),
        ends=setting.load.batch * sum(one.kept for one in folded),
        flying=0 if setting.on_cpu else flying,
    )


def _calls(setting: Setting) -> Iterator[tuple[int, list[Kept]]]:
    """Sites and items of which tiles are made, one of those that are alike."""
    seen = set()
    for group in together(setting.kept):
        for site, heads in group[0].heads.items():
            kind = setting.shapes[site], group[0].group, len(heads)
            if kind not in seen and setting.runs(site):
                seen.add(kind)
                yield site, group


def _of_tile(
    setting: Setting, site: int, group: list[Kept], tiles: Tiles, in_memory: bool
) -> tuple[int, dict[str, int], int]:
    """Of the largest tile: bytes that come and go, bytes that stay to work in, bytes that are copied to the host."""
    shape, batch = setting.shapes[site], setting.load.batch
    heads, rows, columns = tiles.heads, tiles.rows, tiles.columns
    rectangle = rows * columns
    one = heads * rectangle  # weights of a sample
    made = batch * one * shape.itemsize
    holds = any(isinstance(kept.item, Weights) for kept in group)
    whole = setting.on_cpu and in_memory and batch == 1 and all(_as_made(kept) for kept in group)
    # A held tile is there until the next one is made; one that is kept as it is counts as kept.
    fresh = 0 if not holds or whole else 2 * made
    fresh += made // 2 if shape.itemsize > FLOAT else 0
    fresh += 2 * made if shape.sink else 0  # beside a sink, weights are made out of place
    fresh += _copied_keys(setting, site, tiles)
    fresh += batch * heads * rows * shape.dim * shape.itemsize  # queries
    fresh += 2 * batch * rectangle if batch > 1 else rows * min(rows, columns)  # a mask, or the causal corner
    scratch = {} if holds else {"tile": made}
    temporary = leaving = 0
    for kept in group:
        own, held, out = _of_item(setting, site, kept, tiles, in_memory)
        temporary, leaving = max(temporary, own), leaving + out
        for name, nbytes in held.items():
            scratch[name] = max(scratch.get(name, 0), nbytes)
    return fresh + temporary, scratch, leaving


def _as_made(kept: Kept) -> bool:
    """Whether whole tiles are kept, with no copy."""
    return isinstance(kept.item, Weights) and kept.item.dtype == "float32" and kept.selection.keys == slice(None)


def _copied_keys(setting: Setting, site: int, tiles: Tiles) -> int:
    shape, load = setting.shapes[site], setting.load
    numbers = load.batch * tiles.heads * tiles.all_columns * shape.dim
    copied = shape.copied or shape.grouped or load.batch > 1 or tiles.pack
    return numbers * shape.itemsize * copied + numbers * shape.given * (shape.copied and shape.grouped)


def _of_item(setting: Setting, site: int, kept: Kept, tiles: Tiles, in_memory: bool) -> tuple[int, dict[str, int], int]:
    """What an item takes of a tile: bytes that come and go, bytes that stay, bytes that are copied to the host."""
    heads, rows, columns, batch = tiles.heads, tiles.rows, tiles.columns, setting.load.batch
    weights = heads * rows * columns
    if isinstance(kept.item, Weights):
        narrow = min(columns, kept.selection.keys.stop or columns) - (kept.selection.keys.start or 0)
        copied = not in_memory and not _as_made(kept)
        stored = heads * rows * max(narrow, 0) * DTYPES[kept.item.dtype] * copied
        encoding = min(FLOAT * weights, WORKING) if kept.item.dtype == "log-uint8" else 0
        return stored + encoding, {}, FLOAT * batch * weights
    if isinstance(kept.item, TopK):
        k = min(kept.item.k, columns)
        leaving = heads * rows * (kept.item.k * (DTYPES[kept.item.dtype] + FLOAT) + FLOAT)
        counted = COMPARED + SUMMED * setting.on_cpu
        largest = heads * rows * k
        return max(PICKED * largest + counted * weights, ORDERED * largest), {}, batch * leaving
    where, cross, sink = setting.sites[site], setting.shapes[site].cross, setting.shapes[site].sink
    there = present(kept.item, where, sink)
    found = meter(there, cross, sink, heads, rows, columns)
    leaving = batch * heads * rows * FLOAT * sum(one.rows for one in there if isinstance(one.measure, RowMeasure))
    return found.temporary, dict(found.scratch), leaving


def _in_flight(setting: Setting, leaving: int, count: int) -> int:
    """Pinned bytes of copies of this size, `count` of them: within half the budget and one more, in powers of two."""
    if not leaving:
        return 0
    many = min(count, setting.budget // 2 // leaving + 1)
    return many * (1 << (leaving - 1).bit_length())
