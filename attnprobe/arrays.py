"""One kept thing of all samples as one array, ``[sample, layer, head, *axes]``: read in part, never made as a whole.

Where a sample is shorter, or a layer, head, row or column was not kept, there is no value, and nothing is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attnprobe.fields import WEIGHT_DTYPES, Field, Piece
from attnprobe.held import Held
from attnprobe.shapes import Int, Shaped
from attnprobe.store.base import Reader
from attnprobe.store.reading import Wanted, kept_columns, make_array

AT_ONCE = 32 << 20  # bytes that are read from a block at once, beside the result
GAP = 16 << 10  # bytes that are read rather than skipped

Positions = Int[np.ndarray, " _"]  # of no common length


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
    samples: Positions
    key_lengths: Positions
    sites: tuple[str | None, ...]
    heads: Positions
    lengths: tuple[int, ...]
    dtype: np.dtype[np.generic]
    only: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array, which may be far larger than the run."""
        inner = self.lengths if self.only is None else ()
        return len(self.samples), len(self.sites), len(self.heads), *inner

    def read(self, *positions: Positions) -> Shaped[np.ndarray, "..."]:
        """The values at some positions of each axis; the result has as many axes.

        Raises
        ------
        BudgetError
            If the result does not fit in memory.
        """
        places, layers, heads, *inner = positions
        if self.only is not None:
            inner = [np.array([self.only])]
        rows, columns = inner if len(inner) == 2 else (inner[0], np.zeros(1, np.int64))
        missing = -1.0 if self.dtype.kind == "i" else np.nan
        values = make_array((len(places), len(layers), len(heads), len(rows), len(columns)), missing, self.dtype)
        for a, place in enumerate(places.tolist()):
            fields = self._held(int(self.samples[place]))
            for b, layer in enumerate(layers.tolist()):
                for field, pieces in fields.get(self.sites[layer], ()):
                    kept = None
                    if self.what == "weights":
                        kept = kept_columns(self.reader, field, int(self.key_lengths[place]))
                    fill(values[a, b], (self.heads[heads], rows, columns), self.reader, field, pieces, kept)
        return values.reshape(tuple(map(len, positions)))

    def _held(self, sample: int) -> Mapping[str | None, Held]:
        """The fields of a sample, by site; what counts most comes last: it is written over the others."""
        found: dict[str | None, list[tuple[Field, Sequence[Piece]]]] = {}
        for field, pieces in self.reader.fields(sample).items():
            alike = field.axes == self.axes and (field.dtype == "int32") == (self.dtype.kind == "i")
            if field.what == self.what and alike:
                found.setdefault(field.site.key, []).append((field, pieces))
        return {site: least_first(held) for site, held in found.items()}


def least_first(held: Held) -> Held:
    """Fields in the order to write them in: of weights the most precise last, of all others what was named first."""
    return sorted(held, key=lambda one: (_precision(one[0]), one[0].group), reverse=True)


def _precision(field: Field) -> int:
    return WEIGHT_DTYPES.index(field.dtype) if field.what == "weights" else 0


def fill(
    into: Shaped[np.ndarray, "head query key"],
    wanted: tuple[Positions, Positions, Positions],
    reader: Reader,
    field: Field,
    pieces: Sequence[Piece],
    kept: range | None,
) -> None:
    """Write what a field has of some heads, rows and columns; all else is left as it is.

    Parameters
    ----------
    into
        What is written to.
    wanted
        Of each axis of `into`, which numbers or positions it is of; columns ascend.
    reader, field, pieces
        What is read.
    kept
        The columns that were kept: there, outside of the blocks of a kept row, is zero. None where nothing is.
    """
    heads, rows, columns = map(Wanted, wanted)
    low, high = (0, 0) if kept is None else np.searchsorted(wanted[2], [kept.start, kept.stop]).tolist()
    for piece in pieces:
        into_rows, from_rows = rows.of(piece.rows)
        into_heads, from_heads = heads.of(piece.heads)
        if not len(into_rows) or not len(into_heads):
            continue
        into[_at(into_heads, into_rows, np.arange(low, high))] = 0
        into_columns, from_columns = columns.of(range(piece.start, piece.start + piece.shape[2]))
        if not len(into_columns):
            continue
        across = _span(from_columns)
        row = (across.stop - across.start) * 4  # bytes, as floats
        for some_rows in _near(from_rows, max(1, AT_ONCE // row), GAP // row):
            down = _span(from_rows[some_rows])
            part = row * (down.stop - down.start)
            for some_heads in _near(from_heads, max(1, AT_ONCE // part), 0):
                of = _span(from_heads[some_heads])
                values = reader.values(field, piece, of, down, across)
                at = _at(
                    from_heads[some_heads] - of.start, from_rows[some_rows] - down.start, from_columns - across.start
                )
                into[_at(into_heads[some_heads], into_rows[some_rows], into_columns)] = values[at]


def _span(positions: Positions) -> slice:
    return slice(int(positions[0]), int(positions[-1]) + 1)


def _near(positions: Positions, span: int, gap: int) -> list[slice]:
    """Runs of ascending positions that lie within a span, and next to each other but for gaps."""
    parts, first = [], 0
    ends = [*(np.flatnonzero(np.diff(positions) > gap + 1) + 1).tolist(), len(positions)]
    for end in ends:
        while first < end:
            stop = min(end, int(np.searchsorted(positions, positions[first] + span)))
            parts.append(slice(first, stop))
            first = stop
    return parts


def _at(*axes: Positions) -> tuple[slice, ...] | tuple[np.ndarray, ...]:
    """An index of some positions of each axis: of slices, which numpy copies quickly, where these are evenly spaced."""
    slices = [_evenly(axis) for axis in axes]
    regular = [one for one in slices if one is not None]
    return tuple(regular) if len(regular) == len(axes) else np.ix_(*axes)


def _evenly(axis: Positions) -> slice | None:
    if len(axis) < 2:
        return _span(axis) if len(axis) else slice(0, 0)
    step = int(axis[1] - axis[0])
    return slice(int(axis[0]), int(axis[-1]) + 1, step) if step > 0 and (np.diff(axis) == step).all() else None
