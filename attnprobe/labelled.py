"""Values with names for their axes, as a table or for xarray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import AttnprobeError, NotKept, SelectionError
from attnprobe.shapes import Float, Int, Shaped
from attnprobe.spans import SpanLike, as_spans, means, sums

if TYPE_CHECKING:
    import xarray

Names = Sequence[Any]
TOKEN = {"query": "token"}  # what xarray calls the labels of an axis; keys' are apart, of a sequence of their own


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Values with named axes.

    Attributes
    ----------
    name, unit
        What they are.
    values
        One axis a name in `dims`; NaN (of integers, -1) where there is none.
    dims
        Names of the axes: ``sample``, ``layer``, ``head``, ``query``, ``key``, ``statistic``, ...
    coords
        Of each axis, what its places are: layer and head numbers, positions, lower edges, statistics.
    labels
        Of an axis of tokens, what these are called.
    lengths
        Of an axis of tokens, how many the sample has, kept or not.
    """

    name: str
    values: Shaped[np.ndarray, "..."]
    dims: tuple[str, ...]
    coords: Mapping[str, Names]
    labels: Mapping[str, Names] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    unit: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.values.shape

    def numpy(self) -> Shaped[np.ndarray, "..."]:
        """The values."""
        return self.values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Shaped[np.ndarray, "..."]:
        """``np.asarray(measure)`` is `numpy`."""
        return self.values if dtype is None else self.values.astype(dtype)

    def to_pandas(self) -> "pd.Series[Any] | pd.DataFrame":
        """A Series of one axis; of several, a DataFrame whose columns are the last one. Tokens go by their labels."""
        *outer, last = (self._index(dim) for dim in self.dims)
        if not outer:
            return pd.Series(self.values, index=last, name=self.name)
        rows = outer[0] if len(outer) == 1 else pd.MultiIndex.from_product(outer)
        return pd.DataFrame(self.values.reshape(-1, len(last)), index=rows, columns=last)

    def _index(self, dim: str) -> "pd.Index[Any]":
        index: pd.Index[Any] = pd.Index(list(self.labels.get(dim, self.coords[dim])), name=dim)
        return index

    def to_xarray(self) -> "xarray.DataArray":
        """The same for xarray (needs the ``xarray`` extra).

        Labels of queries are a second coordinate ``token``, those of keys ``key_token``.

        Raises
        ------
        AttnprobeError
            If xarray is not installed.
        """
        xarray = import_xarray()
        coords = {dim: (dim, np.asarray(self.coords[dim])) for dim in self.dims}
        for dim, names in self.labels.items():
            coords[TOKEN.get(dim, f"{dim}_token")] = (dim, np.asarray(names, object))
        return xarray.DataArray(self.values, coords, self.dims, self.name, {"unit": self.unit})

    def group(self, spans: Sequence[SpanLike]) -> "Labelled":
        """The values of runs of tokens, such as words: over queries the mean, over keys the sum or the maximum.

        What keys have is summed, such as the rows that they received; of a share of a row (unit ``"mass"``, such as
        `received_max`) it is the largest, as no row gave the keys of a word their sum. A query without a value is not
        counted. Coordinates of the result are the first tokens' positions, labels are
        the spans'.

        Raises
        ------
        SelectionError
            If there is no axis of tokens, or the values are positions.
        NotKept
            If a token of a span was not kept.
        """
        if not self.lengths or self.values.dtype.kind != "f":
            why = "is of positions" if self.lengths else f"is one of {', '.join(self.dims)}"
            raise SelectionError(f"{self.name} {why}, so tokens cannot be grouped; group a measure of rows or of keys")
        result = self
        for dim in self.lengths:
            result = result._grouped(dim, spans)
        return result

    def _grouped(self, dim: str, spans: Sequence[SpanLike]) -> "Labelled":
        chosen, kept = as_spans(spans, self.lengths[dim]), np.asarray(self.coords[dim])
        runs = np.array([np.searchsorted(kept, (span.start, span.stop)) for span in chosen])
        for span, (first, stop) in zip(chosen, runs, strict=True):
            if stop - first < len(span):
                raise NotKept(
                    f"not all of the tokens {span.start} to {span.stop - 1} ({span.label!r}) were kept of {self.name}; "
                    "group spans of tokens that were"
                )
        axis = self.dims.index(dim)
        over = means if dim == "query" else maxima if self.unit == "mass" else sums
        values = np.moveaxis(over(np.moveaxis(self.values, axis, -1), runs), -1, axis)
        coords = {**self.coords, dim: [span.start for span in chosen]}
        return replace(self, values=values, coords=coords, labels={**self.labels, dim: [s.label for s in chosen]})

    def __repr__(self) -> str:
        """Say what, of which shape, in which unit."""
        axes = ", ".join(f"{dim} {length}" for dim, length in zip(self.dims, self.shape, strict=True))
        return f"<{self.name}: {axes}, {self.values.dtype}{f', in {self.unit}' if self.unit else ''}>"


def maxima(values: Float[np.ndarray, "... token"], runs: Int[np.ndarray, "span 2"]) -> Float[np.ndarray, "... span"]:
    """Largest values of runs of the last axis, in float64; runs may overlap."""
    padded = np.concatenate([values.astype(np.float64), np.zeros((*values.shape[:-1], 1))], -1)
    result: np.ndarray = np.maximum.reduceat(padded, runs.reshape(-1), axis=-1)[..., ::2]
    return result


def import_xarray() -> Any:
    """The module, which is optional.

    Raises
    ------
    AttnprobeError
        If it is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise AttnprobeError("to_xarray needs xarray: pip install attnprobe[xarray]") from error
    return xarray
