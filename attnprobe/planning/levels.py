"""What levels of large maps take beside the weights, in a run directory: bytes kept, and bytes that wait."""

from collections.abc import Sequence

import numpy as np

from attnprobe.engines.layout import SHARE
from attnprobe.fields import DTYPES
from attnprobe.keep import Kept, Weights
from attnprobe.planning.load import Setting, follows
from attnprobe.pyramid import DTYPE, FIRST, HOWS, PATCH, cells, levels_of
from attnprobe.store.pyramids import WORKING

CELL = DTYPES[DTYPE] * len(HOWS)  # bytes of a cell that is kept
OPEN = 4 * len(HOWS)  # and of one that is not whole yet
LEVELS = 2  # all levels together have at most so many cells of a row as the finest


def level_bytes(setting: Setting, kept: Kept) -> int:
    """Bytes of the levels of an item's maps; of rows that see all columns up to their own, or all there are."""
    return sum(
        len(heads) * setting.load.batch * sum(_strips(setting, kept, site))
        for site, heads in kept.heads.items()
        if _has_levels(setting, kept, site)
    )


def waiting_levels(setting: Setting) -> int:
    """Bytes on the host, at most, of what waits to be whole, and of pooling."""
    waiting = 0
    for kept in setting.kept:
        for site, heads in kept.heads.items():
            if _has_levels(setting, kept, site):
                shape, load = setting.shapes[site], setting.load_of(site)
                columns = LEVELS * cells(load.length_of(shape.keys), FIRST)
                rows = min(PATCH, cells(load.length_of(shape.queries), FIRST))
                waiting += len(heads) * load.batch * columns * (rows * CELL + OPEN)
    pooling = min(WORKING, 2 * setting.budget // SHARE)  # no block is larger than a tile
    return min(waiting, setting.held // 2) + pooling if waiting else 0


def _has_levels(setting: Setting, kept: Kept, site: int) -> bool:
    on_disk = isinstance(kept.item, Weights) and kept.item.pyramid and setting.on_disk
    return on_disk and setting.runs(site)


def _strips(setting: Setting, kept: Kept, site: int) -> Sequence[int]:
    """Bytes of one head, a number for each strip of patches of each level."""
    shape, load = setting.shapes[site], setting.load_of(site)
    queries, keys = load.length_of(shape.queries), load.length_of(shape.keys)
    fed = range(load.prompt, load.length) if follows(kept) else range(0)
    rows = np.concatenate([np.asarray(one, np.int64) for one in (load.rows(kept.selection), fed)])
    first, end, _ = kept.selection.keys.indices(keys)
    found = []
    for level in levels_of(queries, keys) if len(rows) else ():
        strips = rows // (PATCH << level)
        begins = np.flatnonzero(np.r_[True, strips[1:] != strips[:-1]])
        for begin, stop in zip(begins.tolist(), [*begins[1:].tolist(), len(rows)], strict=True):
            height = len(np.unique(rows[begin:stop] >> level))
            last = min(end, int(rows[stop - 1]) + 1 if shape.causal else keys)
            width = cells(last, level) - (first >> level) if last > first else 1
            found.append(height * width * CELL)
    return found
