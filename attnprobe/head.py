"""One head of one site in one sample: a lazy, labelled map of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from operator import index as as_int
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import pandas as pd

from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import DTYPES, Field, Piece, Sample, TokenSequence, describe_rows
from attnprobe.labels import labels_of, position_of
from attnprobe.shapes import Float, Int
from attnprobe.sizes import format_bytes
from attnprobe.store.base import Reader
from attnprobe.store.reading import kept_columns, kept_rows, read_rows

if TYPE_CHECKING:
    import matplotlib.axes
    import torch

Position = str | SupportsIndex
Axis = SupportsIndex | slice


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """The weights of one head: rows are queries, columns are keys, both absolute positions in the sample.

    Nothing is read before it is asked for. ``head[20_000:20_256, :512]`` reads that slice as a numpy array. Tables
    (`row`, `col`, `top`, `to_pandas`, `plot`) have the rows and columns that were kept; a slice that reaches beyond
    them is refused.

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
        """The dtype that values are stored in, or several; bfloat16 is read as float32, and several as the widest."""
        return ", ".join(sorted({field.dtype for field, _ in self.fields}))

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Positions of the rows that were kept (over all of `kept_keys`)."""
        whole = [rows for rows, columns in self._held if columns == self.kept_keys]
        return tuple(np.unique(np.concatenate(whole)).tolist())

    @cached_property
    def kept_keys(self) -> range:
        """Positions of the columns that were kept; the widest range, where a recording keeps several."""
        return max((columns for _, columns in self._held), key=len)

    @cached_property
    def _held(self) -> list[tuple[Int[np.ndarray, " row"], range]]:
        """The rows and columns of each field."""
        length = self.shape[1]
        return [
            (np.array(kept_rows(self._mine(pieces)), np.int64), kept_columns(self.reader, field, length))
            for field, pieces in self.fields
        ]

    def _mine(self, pieces: Sequence[Piece]) -> list[Piece]:
        return [piece for piece in pieces if self.number in piece.heads]

    @property
    def nbytes(self) -> int:
        """Bytes that this head's rows take in the store."""
        return sum(
            DTYPES[field.dtype] * len(piece.rows) * piece.shape[2]
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
        rows, columns = _axes(index)
        chosen_rows, chosen_columns = _range(rows, self.shape[0], "row"), _range(columns, self.shape[1], "column")
        span = chosen_columns if chosen_columns.step > 0 else chosen_columns[::-1]
        values = self._read(chosen_rows, range(span[0], span[-1] + 1) if span else range(0))
        values = values[:, :: chosen_columns.step] if span else values
        if not isinstance(rows, slice):
            values = values[0]
        return values if isinstance(columns, slice) else values[..., 0]

    def _read(self, rows: Sequence[int], columns: range) -> Float[np.ndarray, "query key"]:
        """Rows and columns, from the fields that kept them, the most precise where several did."""
        fitting = [
            (field, pieces, kept)
            for (field, pieces), (kept, wide) in zip(self.fields, self._held, strict=True)
            if not columns or (columns[0] in wide and columns[-1] in wide)
        ]
        fitting.sort(key=lambda one: one[0].dtype != "float32")
        if not fitting:
            keys = self.kept_keys
            raise NotKept(
                f"columns {describe_rows(columns)} of {self._where} were not all kept; kept are columns "
                f"{describe_rows(keys)}: write head[:, {keys.start}:{keys.stop}]"
            )
        wanted = np.asarray(rows, np.int64)
        owner = np.full(len(wanted), -1)
        for number, (_, _, kept) in enumerate(fitting):
            owner[(owner < 0) & np.isin(wanted, kept)] = number
        if (owner < 0).any():
            rows = np.unique(np.concatenate([kept for _, _, kept in fitting])).tolist()
            raise NotKept(
                f"row {wanted[owner < 0][0]} of {self._where} was not kept; kept are rows {describe_rows(rows)} "
                "(head.to_pandas() is the table of all kept rows)"
            )
        parts = {
            number: read_rows(self.reader, field, pieces, [self.number], wanted[owner == number].tolist(), columns)[0]
            for number, (field, pieces, _) in enumerate(fitting)
            if (owner == number).any() or len(fitting) == 1
        }
        wide = np.dtype(np.float16 if self.dtype == "float16" else np.float32)
        if len(parts) == 1:
            only: np.ndarray = next(iter(parts.values())).astype(wide, copy=False)
            return only
        result = np.zeros((len(wanted), len(columns)), wide)
        for number, part in parts.items():
            result[owner == number] = part
        return result

    @property
    def _where(self) -> str:
        return f"{self.fields[0][0].site.label} head {self.number}, sample {self.sample.id}"

    def numpy(self) -> Float[np.ndarray, "query key"]:
        """The whole map.

        Raises
        ------
        NotKept
            If some rows or columns were not kept.
        """
        whole: np.ndarray = self[:, :]
        return whole

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Float[np.ndarray, "query key"]:
        """``np.asarray(head)`` is `numpy`."""
        whole = self.numpy()
        return whole if dtype is None else whole.astype(dtype)

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
        return pd.Series(self._read([at], self.kept_keys)[0], index=self._key_index, name=self.query_labels[at])

    def col(self, key: Position) -> pd.Series:
        """How much each kept row attends to one token: query label to weight."""
        at = position_of(key, self._keys, self.labels[1], f"sample {self.sample.id}")
        names = self.query_labels
        index = pd.Index([names[row] for row in self.kept], name="query")
        return pd.Series(self._read(self.kept, range(at, at + 1))[:, 0], index=index, name=self.key_labels[at])

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` largest weights of the kept rows, largest first, ties in order of position; NaN counts as largest."""
        if k < 1:
            raise SelectionError(f"top({k}): ask for at least one weight")
        first, keys = 256, self.kept_keys  # rows read at once
        queries, columns, weights = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        for start in range(0, len(self.kept), first):
            rows = self.kept[start : start + first]
            values = np.nan_to_num(self._read(rows, keys).astype(np.float32).reshape(-1), nan=np.inf)
            if values.size > k:  # ties with the last one stay in, and are settled by the stable sort
                at = np.flatnonzero(values >= np.partition(values, values.size - k)[values.size - k])
            else:
                at = np.arange(values.size)
            queries = np.concatenate([queries, np.asarray(rows)[at // len(keys)]])
            columns = np.concatenate([columns, at % len(keys) + keys.start])
            weights = np.concatenate([weights, values[at]])
            best = np.argsort(-weights, kind="stable")[:k]
            queries, columns, weights = queries[best], columns[best], weights[best]
        names, weights = (self.query_labels, self.key_labels), np.where(np.isinf(weights), np.nan, weights)
        return pd.DataFrame(
            {
                "query": queries,
                "key": columns,
                "from": [names[0][i] for i in queries],
                "to": [names[1][i] for i in columns],
                "weight": weights,
            }
        )

    @property
    def _key_index(self) -> "pd.Index[str]":
        keys = self.kept_keys
        return pd.Index(self.key_labels[keys.start : keys.stop], name="key")

    def to_pandas(self) -> pd.DataFrame:
        """The table of the kept rows and columns, queries by keys, both labelled."""
        names = self.query_labels
        index = pd.Index([names[row] for row in self.kept], name="query")
        return pd.DataFrame(self._read(self.kept, self.kept_keys), index=index, columns=self._key_index)

    def to_circuitsvis(self) -> dict[str, Any]:
        """Arguments of ``circuitsvis.attention.attention_pattern``: ``tokens`` and ``attention`` ``[query, key]``."""
        return {"tokens": list(self.key_labels), "attention": self.numpy().astype(np.float32)}

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw the kept rows as a heatmap (needs the ``plots`` extra)."""
        from attnprobe.show.plots import plot_map

        values, names = self._read(self.kept, self.kept_keys), self.query_labels
        rows = [names[row] for row in self.kept]
        title = f"layer {self.layer}, head {self.number}"
        return plot_map(values, rows, list(self._key_index), title, ax, self.kept, self.kept_keys)

    def __repr__(self) -> str:
        """Say where, how large, what kept."""
        queries, keys = self.shape
        rows = "" if len(self.kept) == queries else f", rows {describe_rows(self.kept)} kept"
        columns = "" if len(self.kept_keys) == keys else f", columns {describe_rows(self.kept_keys)} kept"
        where = f"{self.fields[0][0].site.label} head {self.number}"
        return f"<Head {where}: {queries} x {keys}, {self.dtype}, {format_bytes(self.nbytes)}{rows}{columns}>"

    def _repr_html_(self) -> str:
        head = f"<p><code>{escape(repr(self))}</code></p>"
        small = max(self.shape) <= 32
        return head + (self.to_pandas().to_html(float_format="{:.2f}".format) if small else "")


def _axes(index: object) -> tuple[Axis, Axis]:
    axes = index if isinstance(index, tuple) else (index, slice(None))
    if len(axes) != 2 or not all(isinstance(axis, slice) or hasattr(axis, "__index__") for axis in axes):
        raise SelectionError(f"head[{index!r}]: write head[row, column], each an int or a slice")
    return axes


def _range(index: Axis, length: int, what: str) -> range:
    if isinstance(index, slice):
        return range(length)[index]
    number = as_int(index)
    if not -length <= number < length:
        raise SelectionError(f"{what} {number} is out of range: there are {length} (0 to {length - 1})")
    return range(number % length, number % length + 1)
