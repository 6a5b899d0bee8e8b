"""How many bytes `attnprobe.store.join.RowJoiner` hands on, told from the shapes of blocks alone.

The rules are the joiner's, and a test gives both the same blocks.
"""

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from attnprobe.store.join import BLOCK, SMALL


@dataclass(frozen=True)
class Outline:
    """A block without its values: `heads` and `rows` are counts, columns are from `start` to `stop`."""

    heads: int
    rows: int
    start: int
    stop: int
    itemsize: int

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.heads * self.rows * (self.stop - self.start) * self.itemsize


@dataclass
class _Held:
    """Blocks of one place and sample that wait: what they will make together, and their own bytes."""

    heads: int
    rows: int
    start: int
    stop: int
    itemsize: int
    nbytes: int

    def joined(self, rows: int, start: int, stop: int) -> int:
        """Bytes of one block of so many rows and these columns."""
        return self.heads * rows * (stop - start) * self.itemsize


Place = tuple[int, ...]  # site, item and heads: blocks of one place and one sample are joined
Writes = Sequence[tuple[int, Outline]]  # blocks of one place, each with its sample


class Joining:
    """Takes what is written, and counts what comes out.

    Parameters
    ----------
    bound
        As the joiner's, in bytes.

    Attributes
    ----------
    handed_on
        Bytes by place and sample.
    peak
        Bytes held back at most.
    """

    def __init__(self, bound: int | float) -> None:
        self._bound = bound
        self._held: dict[tuple[Place, int], _Held] = {}
        self._places: dict[tuple[Place, int], dict[Place, None]] = {}  # by all but their heads
        self._total = 0
        self.handed_on: Counter[tuple[Place, int]] = Counter()
        self.peak = 0

    def write(self, place: Place, sample: int, block: Outline) -> None:
        """Take a block."""
        key, nbytes = (place, sample), block.nbytes
        self._flush_others(key, block.heads)
        if nbytes >= BLOCK:
            self._flush(key)
            self.handed_on[key] += nbytes
            return
        if not self._add(key, block, nbytes):
            self._flush(key)
            self._add(key, block, nbytes)
        self._total += nbytes
        self.peak = max(self.peak, self._total)
        if self._held[key].nbytes >= BLOCK:
            self._flush(key)
        if self._total > self._bound:
            for fullest in sorted(self._held, key=lambda k: -self._held[k].nbytes):
                self._flush(fullest)
                if self._total <= self._bound // 2:
                    break

    def _add(self, key: tuple[Place, int], block: Outline, nbytes: int) -> bool:
        held = self._held.get(key)
        if held is None:
            self._held[key] = _Held(block.heads, block.rows, block.start, block.stop, block.itemsize, nbytes)
            return True
        start, stop = _span((held.start, held.stop), (block.start, block.stop))
        rows, nbytes = held.rows + block.rows, held.nbytes + nbytes
        if held.joined(rows, start, stop) > max(2 * nbytes, SMALL):
            return False
        held.rows, held.start, held.stop, held.nbytes = rows, start, stop, nbytes
        return True

    def _flush_others(self, key: tuple[Place, int], heads: int) -> None:
        """Hand on what is held of the same heads in other groups: a place ends with the first, and with how many."""
        place, sample = key
        first = place[-2]
        others = self._places.setdefault((place[:-2], sample), {})
        others[place] = None
        for other in others if len(others) > 1 else ():
            if other != place and other[-2] < first + heads and first < other[-2] + other[-1]:
                self._flush((other, sample))

    def _flush(self, key: tuple[Place, int]) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._total -= held.nbytes
            self.handed_on[key] += held.joined(held.rows, held.start, held.stop)

    def write_alike(self, place: Place, writes: Writes, apart: "Joining") -> None:
        """Take all blocks of a place of which none are held; `apart` took the same of another place, and nothing else.

        What became of them there becomes of them here, unless the bound is met; then they are taken one by one.
        """
        if self._total + apart.peak > self._bound:
            for sample, block in writes:
                self.write(place, sample, block)
            return
        self.peak = max(self.peak, self._total + apart.peak)
        self._total += apart._total
        for (_, sample), held in apart._held.items():
            self._held[place, sample] = copy(held)
            self._places.setdefault((place[:-2], sample), {})[place] = None
        for (_, sample), nbytes in apart.handed_on.items():
            self.handed_on[place, sample] += nbytes

    def finish(self) -> None:
        """Hand on all that is held."""
        for key in list(self._held):
            self._flush(key)


def _span(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    if a[0] == a[1] or b[0] == b[1]:
        return b if a[0] == a[1] else a
    return min(a[0], b[0]), max(a[1], b[1])
