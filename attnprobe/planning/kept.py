"""The bytes that are kept, to the byte: the blocks that the engine's cutting makes, joined as the stores join them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from attnprobe.fields import DTYPES, Site
from attnprobe.keep import Kept, Measures, TopK, Weights
from attnprobe.measures import RowMeasure
from attnprobe.planning.joined import Joining, Outline, Place, Writes
from attnprobe.planning.levels import level_bytes, waiting_levels
from attnprobe.planning.load import Geometry, Setting, Tiles, follows
from attnprobe.planning.metered import Folding, fold, present
from attnprobe.store.join import BLOCK

FOLLOWED = 50_000  # blocks of generated rows that are followed one by one; of more, those of one sample of a site


@dataclass(frozen=True)
class KeptBytes:
    """Bytes kept of each item, and bytes at most of small blocks that wait to be joined, and of levels."""

    items: tuple[int, ...]
    held: int


def kept_bytes(setting: Setting) -> KeptBytes:
    """The bytes of every item.

    To the byte, but for weights kept beside other items, or of very many generated rows, where the store's bound on
    waiting blocks is met: these differ by some zeros at the sides of joined blocks.

    Raises
    ------
    BudgetError
        If one row does not fit the budget.
    """
    items, held = _maps(setting)
    for kept in setting.kept:
        if not isinstance(kept.item, Weights):
            items[kept.group], waiting = _rows(setting, kept)
            held += waiting
        else:
            items[kept.group] += level_bytes(setting, kept)
    total = tuple(items[kept.group] for kept in setting.kept)
    return KeptBytes(total, min(held, setting.held) + waiting_levels(setting))


def _maps(setting: Setting) -> tuple[dict[int, int], int]:
    """Bytes of the `Weights` items, by group, and of their blocks that wait."""
    weights = [kept for kept in setting.kept if isinstance(kept.item, Weights)]
    sites = [site for site in range(len(setting.sites)) if setting.runs(site)]
    load = setting.load
    samples, times = load.batch, dict.fromkeys(sites, 1)  # how many blocks one that is followed stands for
    bound: int | float = setting.held
    if load.fed * load.batch * len(sites) * len(weights) > FOLLOWED:
        samples, times, bound = 1, _kinds(setting, sites, weights), float("inf")
    joining = Joining(bound)
    _write_prompt(setting, weights, times, samples, joining)
    for step in range(1, load.fed + 1):
        for site in times:
            for kept in weights:
                if site in kept.heads and follows(kept):
                    for tiles in setting.tiles(site, kept, step):
                        for sample, block in _blocks(kept, tiles, samples):
                            joining.write(_place(site, kept, tiles), sample, block)
    joining.finish()
    found = {kept.group: 0 for kept in weights}
    for ((site, group, *_), _), nbytes in joining.handed_on.items():
        found[group] += nbytes * times[site]
    return found, joining.peak * max(times.values(), default=1)


def _kinds(setting: Setting, sites: Sequence[int], weights: Sequence[Kept]) -> dict[int, int]:
    """The first site of each kind, with the samples of all sites of that kind."""
    first: dict[object, int] = {}
    found: dict[int, int] = {}
    for site in sites:
        kind = setting.shapes[site], tuple(len(kept.heads.get(site, ())) for kept in weights)
        one = first.setdefault(kind, site)
        found[one] = found.get(one, 0) + setting.load.batch
    return found


def _write_prompt(
    setting: Setting, weights: Sequence[Kept], sites: Iterable[int], samples: int, joining: Joining
) -> None:
    """The prompt's rows, groups of heads that are alike being taken apart once."""
    apart: dict[object, tuple[Writes, Joining]] = {}
    for site in sites:
        for kept in weights:
            if site not in kept.heads:
                continue
            for tiles in setting.tiles(site, kept):
                kind = setting.shapes[site], kept.group, tiles.heads
                if kind not in apart:
                    apart[kind] = list(_blocks(kept, tiles, samples)), Joining(float("inf"))
                    for sample, block in apart[kind][0]:
                        apart[kind][1].write(_place(site, kept, tiles), sample, block)
                joining.write_alike(_place(site, kept, tiles), *apart[kind])


def _place(site: int, kept: Kept, tiles: Tiles) -> Place:
    """What blocks are joined by, but for their sample."""
    return site, kept.group, tiles.first, tiles.heads


def _blocks(kept: Kept, tiles: Tiles, samples: int) -> Iterator[tuple[int, Outline]]:
    """The blocks that are cut out of tiles, each with its sample, as they are written."""
    assert isinstance(kept.item, Weights)
    itemsize, keys = DTYPES[kept.item.dtype], kept.selection.keys
    for count, stop in zip(tiles.counts.tolist(), tiles.stops.tolist(), strict=True):
        start = keys.start or 0
        end = stop if keys.stop is None else min(stop, keys.stop)
        block = Outline(tiles.heads, count, start, max(start, end), itemsize)
        for sample in range(samples):
            yield sample, block


def _rows(setting: Setting, kept: Kept) -> tuple[int, int]:
    """Bytes of an item whose rows have the same length everywhere, and of its blocks that wait."""
    total = waiting = 0
    for site, heads in kept.heads.items():
        load = setting.load_of(site)
        rows = load.kept_rows(kept.selection)
        if not rows or not setting.runs(site):
            continue
        fields = _row_fields(kept, setting.sites[site], setting.shapes[site])
        own = sum(fields)
        if isinstance(kept.item, Measures):
            total += load.batch * folding(setting, site, kept).kept
        total += load.batch * len(heads) * rows * own
        waiting += load.batch * sum(min(len(heads) * rows * field, BLOCK) for field in fields)
    return total, waiting


def _row_fields(kept: Kept, site: Site, shape: Geometry) -> list[int]:
    """Bytes of one row of one head of each field that is written as rows come."""
    if isinstance(kept.item, TopK):
        return [kept.item.k * DTYPES[kept.item.dtype], kept.item.k * 4, 4]
    assert isinstance(kept.item, Measures)
    there = present(kept.item, site, shape.sink)
    return [DTYPES[one.measure.dtype] for one in there if one.rows and isinstance(one.measure, RowMeasure)]


def folding(setting: Setting, site: int, kept: Kept) -> Folding:
    """What a `Measures` item folds rows of one sample into at a site."""
    assert isinstance(kept.item, Measures)
    there = present(kept.item, setting.sites[site], setting.shapes[site].sink)
    shape, load = setting.shapes[site], setting.load
    return fold(there, len(kept.heads[site]), load.length_of(shape.queries), load.length_of(shape.keys))
