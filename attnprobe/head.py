"""One head of one site in one sample: a lazy, labelled map of weights, and what else was kept of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import pandas as pd

from attnprobe.errors import SelectionError
from attnprobe.fields import Sample, Site, TokenSequence, describe_rows
from attnprobe.held import Held, dtypes_of, largest_k, measures_of, no_top, no_weights, short
from attnprobe.labels import labels_of, position_of
from attnprobe.levels import Levels
from attnprobe.maps import Axis, Map, stored_bytes
from attnprobe.measured import HeadMeasures, Labels
from attnprobe.pictures import Part
from attnprobe.pyramid import is_level
from attnprobe.shapes import Float
from attnprobe.show.colors import MAP
from attnprobe.show.scales import SCALE
from attnprobe.sizes import format_bytes
from attnprobe.spans import SpanLike, as_spans
from attnprobe.store.base import Reader
from attnprobe.toprows import TopRows

if TYPE_CHECKING:
    import matplotlib.axes
    import torch

    from attnprobe.explorer.widget import Explorer

Position = str | SupportsIndex


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """The weights of one head: rows are queries, columns are keys, both absolute positions in the sample.

    Nothing is read before it is asked for. ``head[20_000:20_256, :512]`` reads that slice as a numpy array. Tables
    (`row`, `col`, `top`, `to_pandas`, `plot`) have the rows and columns that were kept; a slice that reaches beyond
    them is refused. Where measures or the largest weights of each row were kept, `measures` and `topk` have them,
    whether the weights are there or not.

    Attributes
    ----------
    sample
        The sample.
    fields
        All that was kept of the head.
    layer, number
        Layer and head, from 0.
    """

    reader: Reader
    sample: Sample
    fields: Held
    number: int
    labels: Labels = (None, None)

    @property
    def site(self) -> Site:
        """The attention module."""
        return self.fields[0][0].site

    @property
    def layer(self) -> int:
        """Layer number."""
        return self.site.layer

    @property
    def _queries(self) -> TokenSequence:
        return self.sample.sequences[self.site.queries]

    @property
    def _keys(self) -> TokenSequence:
        return self.sample.sequences[self.site.keys]

    @property
    def _where(self) -> str:
        return f"{self.site.label} head {self.number}, sample {self.sample.id}"

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys of the sample, whether kept or not."""
        return self._queries.length, self._keys.length

    @property
    def dtype(self) -> str:
        """The dtype that weights are stored in, or several; they are read as float32, unless all are float16.

        Empty where no weights were kept.
        """
        return dtypes_of(field for field, _ in self.fields)

    @property
    def has_weights(self) -> bool:
        """Whether weights were kept, all or some."""
        return bool(self.dtype)

    @cached_property
    def _map(self) -> Map:
        weights = [(field, pieces) for field, pieces in self.fields if field.what == "weights"]
        if not weights:
            raise no_weights(self.fields, self.number, self._where)
        return Map(self.reader, weights, self.number, self.shape, self._where)

    @property
    def kept(self) -> tuple[int, ...]:
        """Positions of the rows that were kept (over all of `kept_keys`)."""
        return self._map.kept

    @property
    def kept_keys(self) -> range:
        """Positions of the columns that were kept; the widest range, where a recording keeps several."""
        return self._map.kept_keys

    @property
    def nbytes(self) -> int:
        """Bytes that this head takes in the store."""
        return stored_bytes(self.fields, self.number)

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

    @property
    def measures(self) -> HeadMeasures:
        """The measures that were kept: ``head.measures["entropy"]``."""
        return HeadMeasures(self.reader, self.sample, self.fields, self.number, self.labels)

    @property
    def topk(self) -> TopRows:
        """The largest weights of each row.

        Raises
        ------
        NotKept
            If they were not kept.
        """
        if not largest_k(self.fields):
            raise no_top(self.fields, self._where)
        names = (self.query_labels, self.key_labels)
        return TopRows(self.reader, self.fields, self.number, self._where, self._row_of, names)

    def _row_of(self, query: Position) -> int:
        return position_of(query, self._queries, self.labels[0], f"sample {self.sample.id}")

    def __getitem__(self, index: Axis | tuple[Axis, Axis]) -> Any:
        """Weights of a slice: ``head[rows, columns]``, as numpy; an int drops its axis.

        Raises
        ------
        NotKept
            If a row was not kept.
        """
        return self._map[index]

    @cached_property
    def levels(self) -> Levels:
        """The map, coarser and coarser: ``head.levels.read(3)`` has the largest weights of 8 x 8 cells.

        Raises
        ------
        NotKept
            If no weights were kept.
        """
        return Levels(self._map, [(field, pieces) for field, pieces in self.fields if is_level(field)])

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
        at = self._row_of(query)
        return pd.Series(self._map.read([at], self.kept_keys)[0], index=self._key_index, name=self.query_labels[at])

    def col(self, key: Position) -> pd.Series:
        """How much each kept row attends to one token: query label to weight."""
        at = position_of(key, self._keys, self.labels[1], f"sample {self.sample.id}")
        values = self._map.read(self.kept, range(at, at + 1))[:, 0]
        return pd.Series(values, index=self._query_index, name=self.key_labels[at])

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` largest weights of the kept rows, largest first, ties in order of position; NaN counts as largest."""
        if k < 1:
            raise SelectionError(f"top({k}): ask for at least one weight")
        queries, keys, weights = self._map.largest(k)
        names = self.query_labels, self.key_labels
        ends = {"from": [names[0][i] for i in queries], "to": [names[1][i] for i in keys]}
        return pd.DataFrame({"query": queries, "key": keys, **ends, "weight": weights})

    @property
    def _query_index(self) -> "pd.Index[str]":
        names = self.query_labels
        return pd.Index([names[row] for row in self.kept], name="query")

    @property
    def _key_index(self) -> "pd.Index[str]":
        keys = self.kept_keys
        return pd.Index(self.key_labels[keys.start : keys.stop], name="key")

    def to_pandas(self) -> pd.DataFrame:
        """The table of the kept rows and columns, queries by keys, both labelled."""
        values = self._map.read(self.kept, self.kept_keys)
        return pd.DataFrame(values, index=self._query_index, columns=self._key_index)

    def group(self, queries: Sequence[SpanLike], keys: Sequence[SpanLike] | None = None) -> pd.DataFrame:
        """Weights between runs of tokens, such as words: summed over the keys of a run, averaged over its queries.

        Parameters
        ----------
        queries, keys
            Runs of rows and of columns (``sample.words()``, ``range(3, 7)``); columns have the rows' where None.

        Raises
        ------
        SelectionError
            If a run is not in the sample.
        NotKept
            If a row or a column of one was not kept.
        """
        if keys is None and self.site.queries != self.site.keys:
            raise SelectionError("the rows and columns of this head are of two sequences; give spans of both")
        down = as_spans(queries, self.shape[0])
        across = as_spans(queries if keys is None else keys, self.shape[1])
        index = pd.Index([span.label for span in down], name="query")
        return pd.DataFrame(self._map.group(down, across), index, pd.Index([span.label for span in across], name="key"))

    def to_circuitsvis(self) -> dict[str, Any]:
        """Arguments of ``circuitsvis.attention.attention_pattern``: ``tokens`` and ``attention`` ``[query, key]``."""
        return {"tokens": list(self.key_labels), "attention": self.numpy().astype(np.float32)}

    def plot(
        self,
        ax: "matplotlib.axes.Axes | None" = None,
        *,
        map: str = MAP,
        scale: str = SCALE,
        how: str = "max",
        rows: Part = None,
        columns: Part = None,
    ) -> "matplotlib.axes.Axes":
        """Draw the map, or a part of it (``rows=slice(20_000, 20_256)``); needs the ``plots`` extra.

        Of a long map the level that fits the pixels is read, the largest weight of each cell, or with ``how="mean"``
        the mean. `map` and `scale` are of `attnprobe.show.colors` and `attnprobe.show.scales`. Without weights it is
        the pooled map, if that was kept.
        """
        from attnprobe.plotting import plot_head

        return plot_head(self, ax, map, scale, how, rows, columns)

    def view(self, height: int = 600, **state: Any) -> "Explorer":
        """See `Run.view`, with this head first; where rows and columns are one sequence, rows have the labels."""
        from attnprobe.explorer.widget import explore_sample

        given = zip((self.site.keys, self.site.queries), reversed(self.labels), strict=True)
        own = {sequence: labels for sequence, labels in given if labels is not None}
        return explore_sample(self.reader, self.sample, self.site.key, self.number, height, state, own)

    def __repr__(self) -> str:
        """Say where, how large, what kept."""
        queries, keys = self.shape
        what = short(self.dtype, largest_k(self.fields), len(measures_of(field for field, _ in self.fields)))
        rows = columns = ""
        if self.has_weights:
            rows = "" if len(self.kept) == queries else f", rows {describe_rows(self.kept)} kept"
            columns = "" if len(self.kept_keys) == keys else f", columns {describe_rows(self.kept_keys)} kept"
        where = f"{self.site.label} head {self.number}"
        return f"<Head {where}: {queries} x {keys}, {what}, {format_bytes(self.nbytes)}{rows}{columns}>"

    def _repr_html_(self) -> str:
        small = self.has_weights and max(self.shape) <= 32
        table = self.to_pandas().to_html(float_format="{:.2f}".format) if small else ""
        return f"<p><code>{escape(repr(self))}</code></p>{table}"
