"""How a call is cut into tiles: pure arithmetic, so that it can be planned before anything runs."""

from dataclasses import dataclass
from math import isqrt

from attnprobe.errors import BudgetError

# A tile is written, scanned and normalised in place: one that fits a CPU's last-level cache goes to memory once, and
# a large one repays what a tile costs by itself, some hundred small operations.
CPU_TILE = 16 << 20
GPU_TILE = 64 << 20
SHARE = 4  # the tile, its keys, masks and the copy that leaves: each at most this part of the budget
# Half of a tile's last rows x rows is above the diagonal, and in vain. On a CPU a tile by itself costs about as much as
# so many weights, so higher tiles lose more than they save.
CORNER = 200_000
PACK = 64  # from so many rows on, products on a CPU repay a dense copy of strided keys


@dataclass(frozen=True)
class Layout:
    """Heads and bytes of a tile.

    Attributes
    ----------
    heads
        At most so many heads at a time.
    tile
        Bytes of a tile at most.
    line
        Bytes of one row of one head, over the batch.
    pack
        Whether the keys of a tile's heads are copied, so that products read them in order.
    corner
        At most so many weights in a tile's last rows x rows, over its heads; None: any number.
    """

    heads: int
    tile: int
    line: int
    pack: bool
    corner: int | None = None

    def height(self, heads: int) -> int:
        """Rows of a tile of so many heads."""
        most = self.tile // (self.line * heads)
        return max(1, most if self.corner is None else min(most, isqrt(self.corner // heads)))


def lay_out(
    *, batch: int, heads: int, rows: int, keys: int, dim: int, itemsize: int, copied: bool, on_cpu: bool, budget: int
) -> Layout:
    """The layout of a call of `heads` and `rows` over `keys` columns, products taken in `itemsize` bytes a number.

    Raises
    ------
    BudgetError
        If one row or, where they have to be copied, the keys of one head do not fit.
    """
    share = min(budget // SHARE, CPU_TILE if on_cpu else GPU_TILE)
    line = batch * keys * itemsize
    copied = copied or batch > 1
    least = line * (dim if copied else 1)
    if least > budget // SHARE:
        raise BudgetError(
            f"{'the keys' if copied else 'a row'} of one head, {keys} columns for a batch of {batch}, take "
            f"{least:,} bytes, and a quarter of the budget is {budget // SHARE:,}; raise budget= (--budget) to at "
            f"least {least * SHARE:,} (64 MiB and more are quick), or record smaller batches"
        )
    # Few heads at a time, so that a block has enough rows to make a good matrix product, and their keys fit too.
    group = max(1, min(heads, share // (line * max(min(rows, 64), dim if copied else 1))))
    pack = on_cpu and rows >= PACK and line * group * dim <= budget // SHARE
    return Layout(group, share, line, pack, CORNER if on_cpu else None)
