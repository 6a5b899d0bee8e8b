"""The largest weights of each row, where these were kept instead of the rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd

from attnprobe.errors import CorruptRun, NotKept
from attnprobe.fields import Field, Piece, describe_rows
from attnprobe.held import Held
from attnprobe.shapes import Float, Int
from attnprobe.store.base import Reader
from attnprobe.store.reading import kept_rows, read_rows


@dataclass(frozen=True, eq=False, repr=False)
class TopRows:
    """The `k` largest weights of each kept row of one head, largest first, their keys, and the mass of the others.

    Where several `keep` items kept them, those of the largest `k` are read.

    Attributes
    ----------
    reader, fields
        Where they lie.
    number
        The head.
    where
        Which head this is, for errors.
    position
        From a token to its row.
    labels
        Of queries and of keys.
    """

    reader: Reader
    fields: Held
    number: int
    where: str
    position: Callable[[str | SupportsIndex], int]
    labels: tuple[tuple[str, ...], tuple[str, ...]]

    @cached_property
    def _group(self) -> int:
        top = [(field, pieces) for field, pieces in self.fields if field.what == "top" and pieces]
        return max(top, key=lambda one: (one[1][0].shape[2], -one[0].group))[0].group

    def _own(self, what: str) -> tuple[Field, Sequence[Piece]]:
        return next(one for one in self.fields if (one[0].what, one[0].group) == (what, self._group))

    @property
    def k(self) -> int:
        """Weights a row."""
        return self._own("top")[1][0].shape[2]

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Positions of the rows that were kept."""
        return tuple(kept_rows([piece for piece in self._own("top")[1] if self.number in piece.heads]))

    def _read(self, what: str, rows: Sequence[int]) -> Any:
        field, pieces = self._own(what)
        values = read_rows(self.reader, field, pieces, [self.number], rows, range(pieces[0].shape[2]))[0]
        length = len(self.labels[1])
        if what == "top_keys" and values.size and not -1 <= values.min() <= values.max() < length:
            raise CorruptRun(
                f"{self.reader.location or 'the run'}: the largest weights of {self.where} are at keys {values.min()} "
                f"to {values.max()}, and there are {length} keys; restore the shard, or record again"
            )
        return values

    def numpy(
        self,
    ) -> tuple[Float[np.ndarray, "query k"], Int[np.ndarray, "query k"], Float[np.ndarray, " query"]]:
        """Values, keys and the mass of the others, of the rows `kept`.

        Where a row has fewer than `k` weights above zero, the others are 0 at key -1.
        """
        return self._read("top", self.kept), self._read("top_keys", self.kept), self._read("top_rest", self.kept)[:, 0]

    def row(self, query: str | SupportsIndex) -> "pd.Series[float]":
        """What one token attends to most: key label to weight, largest first; ``.attrs["rest"]`` is the others' mass.

        Raises
        ------
        TokenError
            If the token is not in the sample, or in it more than once.
        NotKept
            If its row was not kept.
        """
        at = self.position(query)
        values, keys, rest = self.at(at)
        row = pd.Series(
            values, index=pd.Index([self.labels[1][key] for key in keys], name="key"), name=self.labels[0][at]
        )
        row.attrs["rest"] = rest
        return row

    def at(self, position: int) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], float]:
        """Values and keys of one row, largest first, and the mass of the others; `n` is `k`, or what is above zero.

        Raises
        ------
        NotKept
            If the row was not kept.
        """
        if position not in self.kept:
            raise NotKept(f"row {position} of {self.where} was not kept; kept are rows {describe_rows(self.kept)}")
        values, keys = self._read("top", [position])[0], self._read("top_keys", [position])[0]
        return values[keys >= 0], keys[keys >= 0], float(self._read("top_rest", [position])[0, 0])

    @property
    def rest(self) -> "pd.Series[float]":
        """Of each kept row, the mass of the weights that are not among the largest: query label to mass."""
        index = pd.Index([self.labels[0][row] for row in self.kept], name="query")
        return pd.Series(self._read("top_rest", self.kept)[:, 0], index=index, name="rest")

    def to_pandas(self) -> pd.DataFrame:
        """A line a weight: query, rank (from 0), key, labels from and to, weight."""
        values, keys, _ = self.numpy()
        row, rank = np.nonzero(keys >= 0)
        queries, columns = np.asarray(self.kept, np.int64)[row], keys[row, rank].astype(np.int64)
        return pd.DataFrame(
            {
                "query": queries,
                "rank": rank,
                "key": columns,
                "from": [self.labels[0][i] for i in queries],
                "to": [self.labels[1][i] for i in columns],
                "weight": values[row, rank],
            }
        )

    def __repr__(self) -> str:
        """Say of which head, and how many."""
        return f"<the {self.k} largest weights of each row of {self.where}: rows {describe_rows(self.kept)}>"
