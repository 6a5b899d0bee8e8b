"""What each key receives: the scores by which caches are pruned."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attnprobe.measures.base import PROMPT
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float

H2O = "heavy hitters: Zhang et al. 2023, H2O (arXiv:2306.14048)"
SNAPKV = "observation window: Li et al. 2024, SnapKV (arXiv:2404.14469), before its pooling over neighbours"


@dataclass(frozen=True)
class Received:
    """Mass that each key receives from the rows: their sum or the largest; over all rows, or the prompt's last `last`.

    Unit: ``"rows"`` for the sum (a key at which every row looks fully gets as many as there are rows), ``"mass"`` for
    the largest weight.
    """

    name: str
    largest: bool = False
    last: int | None = None

    axes = ("key",)
    dtype = "float32"

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return "mass" if self.largest else "rows"

    @property
    def formula(self) -> str:
        """What is computed."""
        over = "i" if self.last is None else f"{{n - {self.last} <= i < n}}, n the prompt's length,"
        return f"{'max' if self.largest else 'sum'}_{over} w_ij"

    @property
    def source(self) -> str:
        """Where it was defined."""
        return H2O if self.last is None else SNAPKV

    @property
    def needs(self) -> frozenset[str]:
        """A window at the prompt's end has to know that end."""
        return frozenset() if self.last is None else frozenset({PROMPT})

    def init(self, heads: int, rows: SampleRows) -> Float[Tensor, "head key"]:
        """Nothing received."""
        return rows.weights.new_zeros(heads, rows.key_length)

    def update(self, state: Float[Tensor, "head key"], rows: SampleRows) -> Float[Tensor, "head key2"]:
        """Add what these rows give."""
        state = _widen(state, rows.key_length)
        weights = rows.weights
        if self.last is not None:
            wanted = [
                i for i, row in enumerate(rows.rows) if rows.prompt_length - self.last <= row < rows.prompt_length
            ]
            if not wanted:
                return state
            weights = weights[:, wanted[0] : wanted[-1] + 1]  # rows ascend, so the wanted ones stand together
        part = state[rows.at, rows.start : rows.stop]
        if self.largest:
            torch.maximum(part, weights.amax(1), out=part)
        else:
            part += weights.sum(1)
        return state

    def absorb(
        self, state: Float[Tensor, "head key"], part: Float[Tensor, "some key2"], rows: SampleRows
    ) -> Float[Tensor, "head key3"]:
        """Add what these rows give, by position of the key."""
        state = _widen(state, rows.key_length)
        into = state[rows.at, : part.shape[1]]
        if self.largest:
            torch.maximum(into, part, out=into)
        else:
            into += part
        return state

    def merge(self, first: Float[Tensor, "head key"], second: Float[Tensor, "head key2"]) -> Float[Tensor, "head key3"]:
        """Sum, or the larger."""
        width = max(first.shape[1], second.shape[1])
        first, second = _widen(first, width)[:, :width], _widen(second, width)[:, :width]
        return torch.maximum(first, second) if self.largest else first + second

    def finalize(
        self, state: Float[Tensor, "head key"], query_length: int, key_length: int
    ) -> Float[Tensor, "head length"]:
        """What the sample's keys received."""
        return _widen(state, key_length)[:, :key_length]


def _widen(state: Float[Tensor, "head key"], width: int) -> Float[Tensor, "head wide"]:
    """At least as wide; somewhat wider where it grows, since generation adds one key at a time."""
    have = state.shape[1]
    return state if width <= have else torch.nn.functional.pad(state, (0, max(width, have + have // 8) - have))


received = Received("received")
received_max = Received("received_max", largest=True)


def received_last(w: int = 64) -> Received:
    """Sum over the last `w` rows of the prompt."""
    return Received(f"received_last({w})", last=w)


def received_last_max(w: int = 64) -> Received:
    """Largest over the last `w` rows of the prompt."""
    return Received(f"received_last_max({w})", largest=True, last=w)
