"""A tile: weights of some heads and some whole rows of one call."""

from dataclasses import dataclass

from torch import Tensor

from attnprobe.call import Rows
from attnprobe.shapes import Bool, Float


@dataclass(frozen=True)
class Tile:
    """Weights in the call's own (padded) coordinates, on its device; float32, or half precision if that is kept.

    Attributes
    ----------
    weights
        ``[batch, head, query, key]``. Rows are whole: columns outside are zero. A row with no key is zeros.
    heads, rows
        Which heads and rows of the call.
    start
        The call's column that the first column is.
    sink_mass
        ``[batch, head, query]``, the share of a learned sink; None where there is none. Rows sum to one minus it.
    valid
        ``[batch, head, query]``, whether a row has any key; None where all have.
    causal
        Whether it is known that no row sees a column behind its own.
    """

    weights: Float[Tensor, "batch h r k"]
    heads: tuple[int, ...]
    rows: Rows
    start: int
    sink_mass: Float[Tensor, "batch h r"] | None = None
    valid: Bool[Tensor, "batch h r"] | None = None
    causal: bool = False
