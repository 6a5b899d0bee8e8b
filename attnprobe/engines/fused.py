"""What an engine may do at once for a call, without a float32 tile: measures, top-k, weights as they are stored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, Rows
from attnprobe.engines.tile import Tile
from attnprobe.measures import Chosen, Tokens
from attnprobe.shapes import Bool, Float, Int


@dataclass(frozen=True)
class Place:
    """Where some rows of a call are in one sample, which has one run of the call's columns.

    Attributes
    ----------
    batch
        The sample's row of the batch.
    row_shift, column_shift
        What makes a position of a row's or a column's number in the call. A column is the sample's where that is from 0
        to `key_length`.
    query_length, key_length
        Tokens of the sample's sequences.
    prompt_length
        Tokens of the prompt.
    tokens
        Of the sequence that rows and columns belong to, if they are known.
    """

    batch: int
    row_shift: int
    column_shift: int
    query_length: int
    key_length: int
    prompt_length: int = 0
    tokens: Tokens | None = None

    def shifted(self, rows: Rows) -> Rows:
        """The positions of the call's rows."""
        if isinstance(rows, range):
            return range(rows.start + self.row_shift, rows.stop + self.row_shift, rows.step)
        return tuple(row + self.row_shift for row in rows)


@dataclass(frozen=True)
class Measured:
    """What an engine found of some heads and rows of a sample.

    Attributes
    ----------
    heads
        Which.
    values
        By name: of a measure of rows ``[head, row]``; of another what its `absorb` takes.
    valid
        Whether a row has any key; None where all have.
    sink
        Mass of a learned sink; None where there is none.
    stray
        The largest weight on a column that is not of the sample.
    """

    heads: tuple[int, ...]
    values: Mapping[str, Any]
    valid: Bool[Tensor, "head row"] | None
    sink: Float[Tensor, "head row"] | None
    stray: Tensor


@dataclass(frozen=True)
class Top:
    """The largest weights of some heads and rows, ``[head, row, k]``, as `attnprobe.topk.largest` gives them.

    `rest` is the mass of the others, `stray` the largest weight on a column that is not of the sample.
    """

    heads: tuple[int, ...]
    values: Float[Tensor, "head row k"]
    positions: Int[Tensor, "head row k"]
    rest: Float[Tensor, "head row"]
    stray: Tensor


@runtime_checkable
class Fused(Protocol):
    """The fused forms of an engine."""

    def measures(self, chosen: Sequence[Chosen], rows: Rows, place: Place) -> bool:
        """Whether all of these measures have a fused form for such rows of a sample."""

    def measure(
        self,
        call: AttentionCall,
        heads: tuple[int, ...],
        rows: Rows,
        place: Place,
        chosen: Sequence[Chosen],
        budget: int,
    ) -> Iterator[Measured]:
        """The measures of rows of a call's sample, some of the heads at a time: as many as fit `budget` bytes."""

    def weights(
        self, call: AttentionCall, heads: tuple[int, ...], rows: Rows, dtype: torch.dtype, budget: int
    ) -> Iterator[Tile]:
        """Tiles in another dtype than float32, rounded once, each of at most a quarter of `budget` bytes."""

    @property
    def most(self) -> int:
        """Of how many weights a row the largest are found at most."""

    def top(
        self, call: AttentionCall, heads: tuple[int, ...], rows: Rows, place: Place, k: int, keys: slice, budget: int
    ) -> Iterator[Top]:
        """The `k` largest weights of rows of a call's sample on a range of keys, some of the heads at a time."""
