"""One kept thing of all samples as one array, ``[sample, layer, head, *axes]``: read in part, never made as a whole.

Where a sample is shorter, or a layer, head, row or column was not kept, there is no value, and nothing is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from attnprobe.errors import BudgetError
from attnprobe.fields import WEIGHT_DTYPES, Field, Piece, Rows
from attnprobe.held import Held
from attnprobe.shapes import Int, Shaped
from attnprobe.sizes import format_bytes
from attnprobe.store.base import Reader
from attnprobe.store.reading import kept_columns

AT_ONCE = 32 << 20  # bytes that are read from a block at once, beside the result


@dataclass(frozen=True, eq=False)
class SampleArray:
    """Weights, or a measure, of all samples and some layers.

    Attributes
    ----------
    reader
        Where they lie.
    what
        What the values are, as in `Field`.
    axes
        Its axes behind the head, one or two.
    samples
        Numbers of the samples in the store.
    key_lengths
        Keys of each sample.
    sites
        The module of each layer, by its name; None where there is none.
    heads
        Numbers of the heads, ascending.
    lengths
        Of each axis of `axes`, over all samples.
    dtype
        float32, NaN where there is no value; or int32, -1 where there is none.
    only
        The one place on the first of `axes` that is meant, such as the mean among statistics; then the array has no
        axis behind the head.
    """

    reader: Reader
    what: str
    axes: tuple[str, ...]
    samples: Int[np.ndarray, " sample"]
    key_lengths: Int[np.ndarray, " sample"]
    sites: tuple[str | None, ...]
    heads: Int[np.ndarray, " head"]
    lengths: tuple[int, ...]
    dtype: np.dtype[np.generic]
    only: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array, which may be far larger than the run."""
        inner = self.lengths if self.only is None else ()
        return len(self.samples), len(self.sites), len(self.heads), *inner

    def read(self, *positions: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, "..."]:
        """The values at ascending positions of each axis; the result has as many axes.

        Raises
        ------
        BudgetError
            If the result does not fit in memory.
        """
        places, layers, heads, *inner = positions
        first = inner[0] if self.only is None else np.array([self.only])
        second = inner[1] if len(inner) > 1 else np.zeros(1, np.int64)
        values = self._empty((len(places), len(layers), len(heads), len(first), len(second)))
        wanted = self.heads[heads]
        for a, place in enumerate(places.tolist()):
            fields = self._held(int(self.samples[place]))
            for b, layer in enumerate(layers.tolist()):
                for field, pieces in fields.get(self.sites[layer], ()):
                    kept = None
                    if self.what == "weights":
                        kept = kept_columns(self.reader, field, int(self.key_lengths[place]))
                    fill(values[a, b], self.reader, field, pieces, wanted, first, second, kept)
        return values.reshape(tuple(map(len, positions)))

    def _empty(self, shape: tuple[int, ...]) -> Shaped[np.ndarray, "..."]:
        try:
            return np.full(shape, -1 if self.dtype.kind == "i" else np.nan, self.dtype)
        except (MemoryError, ValueError) as error:  # numpy has no array of more bytes than an address can tell
            size = format_bytes(prod(shape) * self.dtype.itemsize)
            raise BudgetError(
                f"{self.what} of {shape[0]} samples and {shape[1]} layers would take {size}, more than there is; read "
                "fewer samples, layers or rows at once, or open the run with chunks={}, which works part by part"
            ) from error

    def _held(self, sample: int) -> Mapping[str | None, Held]:
        """The fields of a sample, by site; what counts most comes last: it is written over the others."""
        found: dict[str | None, list[tuple[Field, Sequence[Piece]]]] = {}
        for field, pieces in self.reader.fields(sample).items():
            alike = field.axes == self.axes and (field.dtype == "int32") == (self.dtype.kind == "i")
            if field.what == self.what and alike:
                found.setdefault(field.site.key, []).append((field, pieces))
        return {site: sorted(held, key=_rank, reverse=True) for site, held in found.items()}


def _rank(one: tuple[Field, Sequence[Piece]]) -> tuple[int, int]:
    """Of weights the most precise counts most, then what was named first."""
    field = one[0]
    return (WEIGHT_DTYPES.index(field.dtype) if field.what == "weights" else 0), field.group


def fill(
    into: Shaped[np.ndarray, "head query key"],
    reader: Reader,
    field: Field,
    pieces: Sequence[Piece],
    heads: Int[np.ndarray, " head"],
    rows: Int[np.ndarray, " query"],
    columns: Int[np.ndarray, " key"],
    kept: range | None,
) -> None:
    """Write what a field has of some heads, rows and columns; all else is left as it is.

    Parameters
    ----------
    into
        What is written to.
    reader, field, pieces
        What is read.
    heads, rows, columns
        Of each axis of `into`, which numbers or positions it is of, ascending.
    kept
        The columns that were kept: there, outside of the blocks of a kept row, is zero. None where nothing is.
    """
    low, high = (0, 0) if kept is None else np.searchsorted(columns, [kept.start, kept.stop]).tolist()
    for piece in pieces:
        into_rows, from_rows = _common(rows, piece.rows)
        into_heads, from_heads = _common(heads, piece.heads)
        if not len(into_rows) or not len(into_heads):
            continue
        if high > low:
            into[_at(into_heads, into_rows, np.arange(low, high))] = 0
        into_columns, from_columns = _common(columns, range(piece.start, piece.start + piece.shape[2]))
        if not len(into_columns):
            continue
        spans = [_span(from_heads), _span(from_columns)]
        row = 4 * prod(part.stop - part.start for part in spans)
        for part in _together(from_rows, max(1, AT_ONCE // row)):
            some = _span(from_rows[part])
            values = reader.values(field, piece, spans[0], some, spans[1])
            at = _at(from_heads - spans[0].start, from_rows[part] - some.start, from_columns - spans[1].start)
            into[_at(into_heads, into_rows[part], into_columns)] = values[at]


def _common(wanted: Int[np.ndarray, " n"], kept: Rows) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Indices into what is wanted, which ascends, and into `kept`, of the positions that both have."""
    if not len(kept) or not len(wanted) or kept[-1] < wanted[0] or kept[0] > wanted[-1]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, stop = np.searchsorted(wanted, [kept[0], kept[-1] + 1])
    near = wanted[first:stop]
    if isinstance(kept, range):
        at, rest = np.divmod(near - kept.start, kept.step)
        there = rest == 0
    else:
        places = np.asarray(kept, np.int64)
        at = np.searchsorted(places, near)
        there = places[at] == near
    return first + np.flatnonzero(there), at[there]


def _span(positions: Int[np.ndarray, " n"]) -> slice:
    return slice(int(positions[0]), int(positions[-1]) + 1)


def _together(positions: Int[np.ndarray, " n"], span: int) -> list[slice]:
    """Runs of ascending positions that lie within a span."""
    parts, first = [], 0
    while first < len(positions):
        stop = int(np.searchsorted(positions, positions[first] + span))
        parts.append(slice(first, stop))
        first = stop
    return parts


def _at(*axes: Int[np.ndarray, " n"]) -> tuple[slice, ...] | tuple[np.ndarray, ...]:
    """An index of some positions of each axis: of slices, which numpy copies quickly, where these are evenly spaced."""
    slices = [_evenly(axis) for axis in axes]
    regular = [one for one in slices if one is not None]
    return tuple(regular) if len(regular) == len(axes) else np.ix_(*axes)


def _evenly(axis: Int[np.ndarray, " n"]) -> slice | None:
    if len(axis) < 2:
        return _span(axis) if len(axis) else slice(0, 0)
    step = int(axis[1] - axis[0])
    return slice(int(axis[0]), int(axis[-1]) + 1, step) if step > 0 and (np.diff(axis) == step).all() else None
