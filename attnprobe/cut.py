"""From a tile, in a call's padded coordinates, to the block of one sample."""

import numpy as np
import torch
from torch import Tensor

from attnprobe.codes import encode
from attnprobe.errors import UnsupportedCall
from attnprobe.fields import Block, Rows
from attnprobe.shapes import Bool, Float, Int

OUTSIDE = 1e-6  # weight on columns that are not of the sample, above which the call was misread


def cut(
    weights: Float[Tensor, "head r k"],
    heads: tuple[int, ...],
    positions: Int[np.ndarray, " r"],
    wanted: Bool[np.ndarray, " r"],
    columns: Int[np.ndarray, " k"],
    keys: slice,
    dtype: str,
) -> Block | None:
    """The wanted rows and the sample's own columns of one batch row's weights.

    Parameters
    ----------
    weights, heads
        On the CPU, of these `heads`; the block may be a view of it.
    positions, columns
        Position in the sample of each row and each column, -1 where it is none.
    wanted
        Which rows to keep.
    keys
        Which key positions to keep.
    dtype
        Of the field that the block is of.

    Raises
    ------
    UnsupportedCall
        If a wanted row attends to a column that is not of the sample.
    """
    rows = np.flatnonzero(wanted & (positions >= 0))
    if not len(rows):
        return None
    part = weights[:, index_of(rows)]
    inside = columns >= 0
    if not inside.all():
        stray = part[:, :, index_of(np.flatnonzero(~inside))]
        if stray.numel():
            refuse_stray(float(stray.max()))
    kept = np.flatnonzero(inside & (columns >= (keys.start or 0)))
    if keys.stop is not None:
        kept = kept[columns[kept] < keys.stop]
    # Columns behind the last row's own one are empty under a causal rule, and then not worth keeping.
    late = kept[columns[kept] > positions[rows[-1]]]
    if len(late) and not part[:, :, index_of(late)].any():
        kept = kept[: len(kept) - len(late)]
    start = int(columns[kept[0]]) if len(kept) else 0
    values = encode(part[:, :, index_of(kept)], dtype).contiguous()
    return Block(heads, as_runs(positions[rows]), start, values)


def refuse_stray(weight: float) -> None:
    """Refuse weight on columns that are not of the sample.

    Raises
    ------
    UnsupportedCall
        If there is some.
    """
    if weight > OUTSIDE:
        raise UnsupportedCall(
            f"a row attends with weight {weight:.3g} to a column that is padding or unused; the mask that "
            "the attention function was given differs from the model's attention_mask"
        )


def as_runs(ascending: Int[np.ndarray, " n"]) -> Rows:
    """Positions as a range where they have no gap."""
    first, last = int(ascending[0]), int(ascending[-1])
    return range(first, last + 1) if last - first + 1 == len(ascending) else tuple(ascending.tolist())


def index_of(ascending: Int[np.ndarray, " n"]) -> slice | Int[Tensor, " n"]:
    """Index of these numbers, as a slice (a view, no copy) where they have no gap."""
    if len(ascending) and ascending[-1] - ascending[0] + 1 == len(ascending):
        return slice(int(ascending[0]), int(ascending[-1]) + 1)
    return torch.from_numpy(ascending)
