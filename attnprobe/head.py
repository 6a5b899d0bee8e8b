"""One head of one site in one sample: a lazy, labelled map of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import Field, Piece, Sample, TokenSequence, describe_rows
from attnprobe.labels import labels_of, position_of
from attnprobe.shapes import Float
from attnprobe.store import Reader
from attnprobe.store.reading import kept_rows, read_rows

if TYPE_CHECKING:
    import matplotlib.axes
    import torch

Position = str | int
Axis = int | slice


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """The weights of one head: rows are queries, columns are keys, both absolute positions in the sample.

    Nothing is read before it is asked for. ``head[20_000:20_256, :512]`` reads that slice as a numpy array.

    Attributes
    ----------
    sample
        The sample.
    layer, number
        Layer and head, from 0.
    """

    reader: Reader
    sample: Sample
    fields: tuple[tuple[Field, Sequence[Piece]], ...]
    number: int
    labels: tuple[tuple[str, ...] | None, tuple[str, ...] | None] = (None, None)

    @property
    def layer(self) -> int:
        """Layer number."""
        return self.fields[0][0].site.layer

    @property
    def _queries(self) -> TokenSequence:
        return self.sample.sequences[self.fields[0][0].site.queries]

    @property
    def _keys(self) -> TokenSequence:
        return self.sample.sequences[self.fields[0][0].site.keys]

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys of the sample, whether kept or not."""
        return self._queries.length, self._keys.length

    @property
    def dtype(self) -> str:
        """The dtype that values are stored in; bfloat16 is read as float32."""
        return self.fields[0][0].dtype

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Positions of the rows that were kept."""
        return tuple(sorted({row for _, pieces in self.fields for row in kept_rows(self._mine(pieces))}))

    def _mine(self, pieces: Sequence[Piece]) -> list[Piece]:
        return [piece for piece in pieces if self.number in piece.heads]

    @property
    def nbytes(self) -> int:
        """Bytes that this head's rows take in the store."""
        sizes = {"float32": 4, "float16": 2, "bfloat16": 2}
        return sum(
            sizes[field.dtype] * len(piece.rows) * piece.shape[2]
            for field, pieces in self.fields
            for piece in self._mine(pieces)
        )

    @property
    def query_labels(self) -> tuple[str, ...]:
        """One label a row."""
        return labels_of(self._queries, self.labels[0])

    @property
    def key_labels(self) -> tuple[str, ...]:
        """One label a column."""
        return labels_of(self._keys, self.labels[1])

    def with_labels(self, queries: Sequence[str], keys: Sequence[str] | None = None) -> "Head":
        """The same head with labels of your own (words, image patches), one a position.

        Parameters
        ----------
        queries, keys
            Labels of rows and of columns; columns have the rows' where `keys` is None.
        """
        keys = queries if keys is None else keys
        for given, length, axis in ((queries, self.shape[0], "queries"), (keys, self.shape[1], "keys")):
            if len(given) != length:
                raise SelectionError(f"{len(given)} labels for {length} {axis}; give one a position")
        return replace(self, labels=(tuple(map(str, queries)), tuple(map(str, keys))))

    # --- reading -----------------------------------------------------------------------------------------------

    def __getitem__(self, index: Axis | tuple[Axis, Axis]) -> Any:
        """Weights of a slice: ``head[rows, columns]``, as numpy; an int drops its axis.

        Raises
        ------
        NotKept
            If a row was not kept.
        """
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        chosen_rows, chosen_columns = _range(rows, self.shape[0], "row"), _range(columns, self.shape[1], "column")
        span = range(min(chosen_columns, default=0), max(chosen_columns, default=-1) + 1)
        values = self._read(chosen_rows, span)[:, [column - span.start for column in chosen_columns]]
        if not isinstance(rows, slice):
            values = values[0]
        return values if isinstance(columns, slice) else values[..., 0]

    def _read(self, rows: Sequence[int], columns: range) -> Float[np.ndarray, "query key"]:
        problem: NotKept | None = None
        for field, pieces in self.fields:
            try:
                return read_rows(self.reader, field, pieces, [self.number], rows, columns)[0]
            except NotKept as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def numpy(self) -> Float[np.ndarray, "query key"]:
        """The whole map.

        Raises
        ------
        NotKept
            If some rows were not kept.
        """
        whole: np.ndarray = self[:, :]
        return whole

    def torch(self) -> "torch.Tensor":
        """The whole map as a tensor, ``[query, key]``."""
        import torch

        return torch.from_numpy(self.numpy())

    def row(self, query: Position) -> pd.Series:
        """What one token attends to: key label to weight.

        Parameters
        ----------
        query
            A position, or a token as the tokenizer shows it (``"Ġexplore"``) or as text (``" explore"``).

        Raises
        ------
        TokenError
            If the token is not in the sample, or in it more than once.
        """
        at = position_of(query, self._queries, self.labels[0], f"sample {self.sample.id}")
        return pd.Series(self[at], index=pd.Index(self.key_labels, name="key"), name=self.query_labels[at])

    def col(self, key: Position) -> pd.Series:
        """How much each kept row attends to one token: query label to weight."""
        at = position_of(key, self._keys, self.labels[1], f"sample {self.sample.id}")
        index = pd.Index([self.query_labels[row] for row in self.kept], name="query")
        return pd.Series(self._read(self.kept, range(at, at + 1))[:, 0], index=index, name=self.key_labels[at])

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` largest weights of the kept rows, largest first, ties in order of position."""
        best = pd.DataFrame({"query": [], "key": [], "weight": []})
        for first in range(0, len(self.kept), 256):
            rows = self.kept[first : first + 256]
            values = self._read(rows, range(self.shape[1])).astype(np.float32)
            order = np.argsort(-values, axis=None, kind="stable")[:k]
            at, key = np.unravel_index(order, values.shape)
            part = pd.DataFrame({"query": np.array(rows)[at], "key": key, "weight": values[at, key]})
            best = pd.concat([best, part]) if len(best) else part
            best = best.sort_values("weight", ascending=False, kind="stable").head(k)
        best = best.astype({"query": int, "key": int}).reset_index(drop=True)
        best.insert(2, "from", [self.query_labels[i] for i in best["query"]])
        best.insert(3, "to", [self.key_labels[i] for i in best["key"]])
        return best

    def to_pandas(self) -> pd.DataFrame:
        """The table of the kept rows, queries by keys, both labelled."""
        index = pd.Index([self.query_labels[row] for row in self.kept], name="query")
        columns = pd.Index(self.key_labels, name="key")
        return pd.DataFrame(self._read(self.kept, range(self.shape[1])), index=index, columns=columns)

    def to_circuitsvis(self) -> dict[str, Any]:
        """Arguments of ``circuitsvis.attention.attention_pattern``: ``tokens`` and ``attention`` ``[query, key]``."""
        return {"tokens": list(self.key_labels), "attention": self.numpy().astype(np.float32)}

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw the kept rows as a heatmap (needs the ``plots`` extra)."""
        from attnprobe.show.plots import plot_map

        values = self._read(self.kept, range(self.shape[1]))
        rows = [self.query_labels[row] for row in self.kept]
        return plot_map(values, rows, self.key_labels, f"layer {self.layer}, head {self.number}", ax, self.kept)

    def __repr__(self) -> str:
        """Say where, how large, what kept."""
        queries, keys = self.shape
        rows = "" if len(self.kept) == queries else f", rows {describe_rows(self.kept)} kept"
        return f"<Head {self.fields[0][0].site.label} head {self.number}: {queries} x {keys}, {self.dtype}{rows}>"

    def _repr_html_(self) -> str:
        head = f"<p><code>{escape(repr(self))}</code></p>"
        small = max(self.shape) <= 32
        return head + (self.to_pandas().to_html(float_format="%.2f") if small else "")


def _range(index: Axis, length: int, what: str) -> range:
    if isinstance(index, slice):
        return range(length)[index]
    number = index.__index__()
    if not -length <= number < length:
        raise SelectionError(f"{what} {number} is out of range: there are {length} (0 to {length - 1})")
    return range(number % length, number % length + 1)
