"""What a measure is given: whole rows of one sample, in the sample's own positions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attnprobe.fields import Rows
from attnprobe.measures.tokens import Tokens
from attnprobe.precision import ieee_float32
from attnprobe.scratch import Scratch
from attnprobe.shapes import Bool, Float, Int, Shaped


@dataclass(eq=False)
class SampleRows:
    """Weights of some heads and some whole rows of one sample.

    Attributes
    ----------
    weights
        ``[head, query, key]``, float32, read-only and valid during the call only. Columns outside are zero.
    rows
        Position in the sample of each row.
    start
        Position of the first column.
    at
        Which heads of the field these are.
    query_length, key_length
        Tokens of the sample's sequences so far; more may come.
    prompt_length
        Tokens of the prompt.
    valid
        ``[head | 1, query]``, whether a row has any key; None where all have.
    sink
        ``[head, query]``, mass of a learned sink; None where there is none.
    tokens
        Of the sequence that rows and columns belong to; None where these are two, or where there are no ids.
    scratch
        Memory to work in.
    fused
        What an engine has measured already, by the measure's name: numbers of the rows, or what a fold absorbs. There
        are no weights then: these have no column.
    """

    weights: Float[Tensor, "head query key"]
    rows: Rows
    start: int
    at: slice
    query_length: int
    key_length: int
    prompt_length: int = 0
    valid: Bool[Tensor, "#head query"] | None = None
    sink: Float[Tensor, "head query"] | None = None
    tokens: Tokens | None = None
    scratch: Scratch = field(default_factory=Scratch)
    fused: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """Position behind the last column."""
        return self.start + self.weights.shape[2]

    @property
    def together(self) -> bool:
        """Whether the rows follow each other without a gap."""
        return self.rows[-1] - self.rows[0] + 1 == len(self.rows)

    @cached_property
    def positions(self) -> Int[Tensor, " query"]:
        """Position of each row, on the device."""
        device = self.weights.device
        if isinstance(self.rows, range):
            return torch.arange(self.rows.start, self.rows.stop, self.rows.step, device=device)
        return torch.tensor(self.rows, device=device)

    @cached_property
    def columns(self) -> Int[Tensor, " key"]:
        """Position of each column, on the device."""
        return torch.arange(self.start, self.stop, device=self.weights.device)

    @cached_property
    def total(self) -> Float[Tensor, "head query"]:
        """Sum of each row: 1, or 1 minus the sink's mass."""
        if self.sink is None and self.valid is None:  # softmax has seen to it
            return self.weights.new_ones(self.weights.shape[:2])
        return self.weights.sum(-1)

    @cached_property
    def peak(self) -> Float[Tensor, "head query"]:
        """The largest weight of each row."""
        if "max" in self.fused:
            peak: Tensor = self.fused["max"]
            return peak
        if not self.weights.shape[2]:
            return self.weights.new_zeros(self.weights.shape[:2])
        return self.weights.amax(-1)

    def clip(self, low: int, high: int) -> Float[Tensor, "head query some"]:
        """The columns at positions ``low`` to ``high``, those that are there."""
        first = min(max(low, self.start), self.stop)
        return self.weights[:, :, first - self.start : max(min(high, self.stop), first) - self.start]

    def buffer(self) -> Float[Tensor, "head query key"]:
        """Memory of the weights' shape, to write into; the next who asks gets the same."""
        return self.scratch.take("measure", tuple(self.weights.shape), torch.float32, self.weights.device)

    def masked_sum(self, mask: Bool[Tensor, "query key"]) -> Float[Tensor, "head query"]:
        """The mass of each row on the columns that a mask names."""
        return self.weighted(self.weights, mask)

    def weighted(
        self, part: Float[Tensor, "head query some"], factors: Shaped[Tensor, "query some"]
    ) -> Float[Tensor, "head query"]:
        """Sums over some columns, each weight times the factor of its row and column; in memory that is used again."""
        device = part.device
        factor = self.scratch.take("factors", tuple(factors.shape), torch.float32, device).copy_(factors)
        product = self.scratch.take("measure", tuple(part.shape), torch.float32, device)
        return torch.mul(part, factor, out=product).sum(-1)

    def dot(self, vector: Float[Tensor, " key"]) -> Float[Tensor, "head query"]:
        """Each row times a vector over columns, at IEEE precision whatever the global matmul settings."""
        if ieee_float32():
            return torch.matmul(self.weights, vector)
        return torch.mul(self.weights, vector, out=self.buffer()).sum(-1)
