"""More than a recording takes, told in microseconds: what fits by far need not be planned."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnprobe.fields import DTYPES, Site
from attnprobe.keep import Kept, Measures, TopK, Weights
from attnprobe.measures import Chosen, RowMeasure
from attnprobe.planning.load import Geometry, Load
from attnprobe.planning.metered import fold, present
from attnprobe.planning.plan import Room

Ends = tuple[str, str]  # names of the sequences that rows and columns are
Heads = Mapping[Ends, int]


@dataclass(frozen=True)
class _Rows:
    """An item: its heads at all sites, and bytes of one row of one head, by column or whatever its length."""

    kept: Kept
    heads: Heads
    a_column: int
    a_row: int


class Limit:
    """Bounds of what recordings of one model take.

    Parameters
    ----------
    sites, shapes, kept
        As in a `Setting`.
    budget
        Bytes of working memory, of which twice as much may be taken.
    in_memory, on_cpu
        Where the store is, and where weights are made.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        shapes: Sequence[Geometry],
        kept: Sequence[Kept],
        budget: int,
        in_memory: bool,
        on_cpu: bool,
    ) -> None:
        self._budget, self._in_memory, self._on_cpu = budget, in_memory, on_cpu
        self._rows: list[_Rows] = []
        # By item, heads of a site, its sequences and sink: measures, and how many sites are alike.
        self._measured: dict[tuple[int, int, Ends, bool], tuple[tuple[Chosen, ...], int]] = {}
        self._folds: dict[object, list[tuple[int, int]]] = {}
        for one in kept:
            heads: Counter[Ends] = Counter()
            row_measures = 0
            for number, own in one.heads.items():
                ends = shapes[number].queries, shapes[number].keys
                heads[ends] += len(own)
                if isinstance(one.item, Measures):
                    there = present(one.item, sites[number], shapes[number].sink)
                    key = one.group, len(own), ends, shapes[number].sink
                    self._measured[key] = there, self._measured.get(key, (there, 0))[1] + 1
                    row_measures = max(row_measures, sum(isinstance(c.measure, RowMeasure) for c in there))
            if isinstance(one.item, Weights):
                self._rows.append(_Rows(one, heads, DTYPES[one.item.dtype], 0))
            elif isinstance(one.item, TopK):
                self._rows.append(_Rows(one, heads, 0, one.item.k * (DTYPES[one.item.dtype] + 4) + 4))
            else:
                self._rows.append(_Rows(one, heads, 0, 4 * row_measures))

    def of(self, load: Load) -> Room:
        """Of a load without generated tokens."""
        rows = states = ends = 0
        for item in self._rows:
            for (queries, keys), heads in item.heads.items():
                columns = load.length_of(keys)
                count = load.of(queries).kept_rows(item.kept.selection)
                rows += heads * count * (item.a_row + columns * item.a_column) if columns else 0
        for kept, ended in self._folded(load):
            ends, states = ends + kept, states + ended
        rows, states, ends = (load.batch * number for number in (rows, states, ends))
        kept_in_memory = self._in_memory * (rows + ends)
        if self._on_cpu:
            host, device = kept_in_memory + states + 2 * self._budget, None
        else:
            host, device = kept_in_memory + 2 * self._budget, states + 2 * self._budget
        return Room(host, device, None if self._in_memory else 2 * (rows + ends) + (64 << 20))

    def _folded(self, load: Load) -> list[tuple[int, int]]:
        """Bytes kept and held of what rows are folded into, at lengths up to the next power of two."""
        lengths = {name: _round(length) for name, length in [(load.name, load.length), *load.others]}
        key = tuple(lengths.items())
        if key not in self._folds:
            found = []
            for (_, heads, (queries, keys), _), (there, count) in self._measured.items():
                if lengths.get(queries) and lengths.get(keys):
                    folded = fold(there, heads, lengths[queries], lengths[keys])
                    found.append((count * folded.kept, count * folded.state))
            self._folds[key] = found
        return self._folds[key]


def _round(length: int) -> int:
    """The next power of two; 0 stays."""
    return 1 << (length - 1).bit_length() if length else 0
