"""What a peer is: a tool that gives a model's attention weights. One file here and its requirements are one peer.

A file NAME.py with a `requirements/NAME.txt` beside it is found by itself; each `Peer` in it is a row of the tables. It
imports the tool when it is made, never at the top: the driver, which has no tool installed, reads titles from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.peers.files import ModelFiles

Steps = Sequence[Sequence["Tensor"]]


@dataclass(frozen=True)
class Map:
    """Weights of one layer, some of its heads and rows.

    Attributes
    ----------
    values
        `[batch, head, query, key]`, keys from 0.
    heads
        Which heads; all of them if None.
    first
        Position of the first row.
    sample
        The batch row that all of `values` belongs to; None where the batch is that of the input.
    """

    values: Tensor
    heads: Sequence[int] | None = None
    first: int = 0
    sample: int | None = None


class Peer(ABC):
    """One way to get weights of a model that lies in files. What is not overridden is what most tools do."""

    title: ClassVar[str]
    package: ClassVar[str]  # the distribution whose version is told
    attention: ClassVar[str] = "sdpa"  # the implementation that it needs
    selects: ClassVar[str]  # what can be chosen, and before or after it is computed
    generates: ClassVar[str] = ""  # what its user has to do for `generate`

    def __init__(self, files: ModelFiles, attention: str | None = None) -> None:
        self.model: Any = files.load(attention or self.attention)

    @abstractmethod
    def run(self, ids: Tensor, **inputs: Any) -> Any:
        """One forward pass `[batch, token]` with all weights in memory at its end; this is what is measured.

        By default of this class a list of steps, a forward pass each, of one `[batch, head, query, key]` a layer.
        """

    def generate(self, ids: Tensor, new: int) -> Any:
        """The same while `new` tokens are generated greedily with a cache; raises where there is no way."""
        raise NotImplementedError("no such call")

    def maps(self, result: Any, layer: int) -> Iterator[Map]:
        """The weights in what `run` or `generate` gave."""
        first = 0
        for step in result:
            if layer >= len(step) or step[layer] is None:
                raise LookupError("gives no weights")
            yield Map(step[layer], first=first)
            first += step[layer].shape[-2]
