"""What a measure is: a function of whole rows, or a fold over them. A new one is a small file and a table row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float, Shaped

POSITIONS = "positions"  # rows and columns are positions of one sequence
IDS = "ids"  # and its token ids are known
PROMPT = "prompt"  # where the prompt ends is known
SINK = "sink"  # there is a learned sink; where there is none, a group of names leaves the measure out
NEEDS = frozenset({POSITIONS, IDS, PROMPT, SINK})


@dataclass(frozen=True)
class RowMeasure:
    """One number a query row. Its mean over the rows is kept with it.

    Attributes
    ----------
    name
        Unique; with an argument ``"first_mass(4)"``.
    compute
        Gives ``[head, query]`` of some whole rows. NaN where the measure has no meaning (the first token has no
        previous one): such a row is not part of the mean, and neither is one without keys, whatever is computed.
    unit
        ``"nats"``, ``"tokens"``, ``"mass"`` (a share of the row), ``"position"``.
    formula, source
        What is computed, and where it was defined.
    needs
        Of ``"positions"`` (rows and columns are positions of one sequence), ``"ids"`` (token ids; positions too),
        ``"prompt"`` (where the prompt ends) and ``"sink"`` (a learned sink).
    dtype
        What values are stored in: ``"float32"``, or ``"int32"`` for positions (-1 where there is none).
    """

    name: str
    compute: Callable[[SampleRows], Float[Tensor, "head query"]]
    unit: str = ""
    formula: str = ""
    source: str = ""
    needs: frozenset[str] = field(default_factory=frozenset)
    dtype: str = "float32"

    @property
    def axes(self) -> tuple[str, ...]:
        """One value a query row."""
        return ("query",)


@runtime_checkable
class FoldMeasure(Protocol):
    """Something that rows are folded into: a vector over keys, a histogram, a small map.

    A state holds all heads of a field, on the device of the weights. Rows come in any order, each once, some heads at a
    time; `merge` unites two states of the same heads and different rows.
    """

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def unit(self) -> str:
        """Unit of the values."""

    @property
    def formula(self) -> str:
        """What is computed."""

    @property
    def source(self) -> str:
        """Where it was defined."""

    @property
    def needs(self) -> frozenset[str]:
        """As of a `RowMeasure`."""

    @property
    def axes(self) -> tuple[str, ...]:
        """One or two names for the axes after ``head``."""

    @property
    def dtype(self) -> str:
        """What values are stored in."""

    def init(self, heads: int, rows: SampleRows) -> Any:
        """The state before any row."""

    def update(self, state: Any, rows: SampleRows) -> Any:
        """The state after some rows of the heads ``rows.at``; it may be the same one, changed."""

    def merge(self, first: Any, second: Any) -> Any:
        """One state of two; a recording folds all rows into one, others (workers, parts of a prompt) need this."""

    def finalize(self, state: Any, query_length: int, key_length: int) -> Shaped[Tensor, "head ..."]:
        """The values of the whole sample, ``[head, *axes]``."""


@runtime_checkable
class Absorbing(FoldMeasure, Protocol):
    """One that takes what an engine folded by itself."""

    def absorb(self, state: Any, part: Any, rows: SampleRows) -> Any:
        """The state after some rows, given what they fold into by themselves."""


Measure = RowMeasure | FoldMeasure


def row_measure(
    unit: str, formula: str, source: str, needs: tuple[str, ...] = (), dtype: str = "float32", name: str | None = None
) -> Callable[[Callable[[SampleRows], Tensor]], RowMeasure]:
    """Turn a function of rows into a measure of the function's name (or `name`)."""

    def wrap(compute: Callable[[SampleRows], Tensor]) -> RowMeasure:
        label = name or compute.__name__.strip("_")
        return RowMeasure(label, compute, unit, formula, source, frozenset(needs), dtype)

    return wrap
