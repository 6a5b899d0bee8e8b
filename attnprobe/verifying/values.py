"""What the values of a tensor may be, checked as they are read, some whole rows at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from attnprobe.codes import BOUND, LEAST, decode
from attnprobe.fields import decode_rows
from attnprobe.pyramid import level_of
from attnprobe.shapes import Bool, Float, Shaped
from attnprobe.verifying.findings import Counts

ABOVE = 1e-5  # a weight may be above 1 by so much, and the sum of a row of float32 be off
GROWTH = 2e-9  # the sum of a row may be off by so much more a column: float32 sums of a kernel's softmax are
GIVEN = 0.05  # the sum of a row that a module made itself may be off by so much, which is what a recording takes
# What storing changes a weight by at most: a share of it, and a number whatever the weight.
ROUNDING = {
    "float32": (0.0, 0.0),
    "float16": (2.0**-11, 2.0**-25),
    "bfloat16": (2.0**-8, 2.0**-134),
    "log-uint8": (BOUND, LEAST),
}
Sink = Callable[[], Float[np.ndarray, "head query"] | None]


@dataclass
class Wrong:
    """One thing that is wrong in a tensor: how often, the first value's number, what to say of it."""

    count: int
    first: int
    words: str


@dataclass
class Problems:
    """What is wrong in a tensor, by kind."""

    found: dict[str, Wrong] = field(default_factory=dict)

    def add(
        self, problem: str, where: Bool[np.ndarray, "..."], first: int, each: int, say: Callable[[int], str]
    ) -> None:
        """Take what is wrong in an array, each of whose places is `each` values, the first being number `first`."""
        places = np.flatnonzero(where)
        if not len(places):
            return
        if problem in self.found:
            self.found[problem].count += len(places)
        else:
            at = int(places[0])
            self.found[problem] = Wrong(len(places), first + at * each, say(at))


@runtime_checkable
class Check(Protocol):
    """Looks at the values of one tensor."""

    def feed(self, data: bytes, first: int) -> None:
        """Take some whole rows, of which the first value is number `first`."""

    def finish(self) -> Problems:
        """What is wrong."""


class WeightsCheck:
    """A row block of weights.

    Parameters
    ----------
    block, dtype, raw
        Its record, checked; what weights are stored as, and how numpy reads that.
    whole
        Whether all keys of a row are kept.
    sink
        What a learned sink takes of each row of the site ``[head of the model, position]``, NaN where that is not
        known; None where it is not known at all.
    has_sink
        Whether there is a learned sink; None if that is not known.
    causal
        Whether no row may look ahead.
    given
        Whether the module made the weights itself.
    counts
        Where rows are counted.
    """

    def __init__(
        self,
        block: dict[str, Any],
        dtype: str,
        raw: np.dtype[Any],
        whole: bool,
        sink: Sink,
        has_sink: bool | None,
        causal: bool,
        given: bool,
        counts: Counts,
    ) -> None:
        _, self._height, self._width = block["shape"]
        self._heads = np.asarray(decode_rows(block["heads"]))
        self._rows = np.asarray(decode_rows(block["rows"]))
        self._start = block["start"]
        self._dtype, self._raw = dtype, raw
        self._whole, self._sink, self._has_sink, self._causal = whole, sink, has_sink, causal
        share, least = ROUNDING[dtype]
        self._tolerance = (GIVEN if given else ABOVE) + GROWTH * self._width + share + least * self._width
        self._counts = counts
        self._problems = Problems()

    def feed(self, data: bytes, first: int) -> None:
        """Take some whole rows."""
        if not self._width:
            return
        stored: np.ndarray = np.frombuffer(data, self._raw).reshape(-1, self._width)
        values = decode(stored, self._dtype).astype(np.float32, copy=False)
        number = np.arange(first // self._width, first // self._width + len(values))
        heads, rows = self._heads[number // self._height], self._rows[number % self._height]
        check_shares(self._problems, values, first)
        self._check_sums(values, first, heads, rows)
        if self._causal:
            self._check_causality(values, first, rows)
        self._counts.rows += len(values)

    def _check_sums(
        self,
        values: Float[np.ndarray, "r k"],
        first: int,
        heads: Shaped[np.ndarray, " r"],
        rows: Shaped[np.ndarray, " r"],
    ) -> None:
        sums = values.sum(1)
        least = self._least(heads, rows)
        most = np.where(np.isnan(least), 1.0, least)
        with np.errstate(invalid="ignore"):
            high, low = sums > most + self._tolerance, sums < least - self._tolerance
        if self._has_sink is False:  # a row without any key is zeros; of the mass of a sink it has none
            low &= sums != 0
        self._counts.sums += int((~np.isnan(least)).sum())

        def say(at: int) -> str:
            wanted = "at most 1" if np.isnan(least[at]) else f"{least[at]:.6g}"
            return (
                f"row {rows[at]} of head {heads[at]} sums to {sums[at]:.6g}, and should to {wanted} (within "
                f"{self._tolerance:.2g})"
            )

        self._problems.add("row sum", high | low, first, self._width, say)

    def _least(self, heads: Shaped[np.ndarray, " r"], rows: Shaped[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
        """What each row sums to; NaN where that is not known."""
        unknown = np.full(len(rows), np.nan)
        if not self._whole:
            return unknown
        if self._has_sink is False:
            return np.ones(len(rows))
        mass = self._sink()
        if mass is None:
            return unknown
        inside = (heads < mass.shape[0]) & (rows < mass.shape[1])
        unknown[inside] = 1 - mass[heads[inside], rows[inside]]
        return unknown

    def _check_causality(self, values: Float[np.ndarray, "r k"], first: int, rows: Shaped[np.ndarray, " r"]) -> None:
        own = np.clip(rows - self._start + 1, 0, self._width)  # columns up to the row's own one
        begin = int(own.min())
        ahead = np.zeros(len(values), np.int64)
        if begin < self._width:
            there = values[:, begin:] != 0
            there &= np.arange(begin, self._width) >= own[:, None]
            ahead = np.where(there.any(1), there.argmax(1) + begin + 1, 0)  # the first such column, counted from 1
        self._counts.causal += len(values)
        places = np.flatnonzero(ahead)
        if len(places):
            at = int(places[0])
            column = int(ahead[at]) - 1
            words = f"row {rows[at]} looks ahead, at column {self._start + column} with {values[at, column]:.6g}"
            known = self._problems.found.setdefault("causality", Wrong(0, first + at * self._width + column, words))
            known.count += len(places)

    def finish(self) -> Problems:
        """What is wrong."""
        return self._problems


def check_shares(problems: Problems, values: Float[np.ndarray, "..."], first: int) -> None:
    """Shares of a row are from 0 to 1."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if low >= 0 and high <= 1 + ABOVE:  # not so where there is a NaN
        return
    flat = values.reshape(-1)
    with np.errstate(invalid="ignore"):
        for problem, where in (
            ("nan", np.isnan(flat)),
            ("infinite", np.isinf(flat)),
            ("negative", (flat < 0) & np.isfinite(flat)),
            ("above 1", (flat > 1 + ABOVE) & np.isfinite(flat)),
        ):
            problems.add(problem, where, first, 1, lambda at: f"the value is {flat[at]:.6g}")


class FieldCheck:
    """A block of anything else: shares of a row, or of cells of it, positions, or numbers that are finite or NaN.

    Parameters
    ----------
    what, dtype, raw
        What it is; what it is stored as.
    keys
        Length of the key axis.
    free
        Whether any number may be there, as of a user's own measure.
    """

    def __init__(self, what: str, dtype: str, raw: np.dtype[Any], keys: int, free: bool) -> None:
        self._what, self._dtype, self._raw, self._keys, self._free = what, dtype, raw, keys, free
        self._problems = Problems()

    def feed(self, data: bytes, first: int) -> None:
        """Take some values."""
        stored: np.ndarray = np.frombuffer(data, self._raw)
        # The largest and the mean of shares are shares too, and so they are once rounded: bfloat16 has 0 and 1.
        if self._what in ("top", "top_rest") or (level_of(self._what) is not None and not self._free):
            check_shares(self._problems, decode(stored, self._dtype).astype(np.float32, copy=False), first)
        elif self._what == "top_keys":
            outside = (stored < -1) | (stored >= self._keys)
            self._problems.add("position", outside, first, 1, lambda at: f"there is no key {stored[at]}")
        elif self._dtype != "int32" and not self._free:
            infinite = np.isinf(decode(stored, self._dtype))
            self._problems.add("infinite", infinite, first, 1, lambda at: "the value is infinite")

    def finish(self) -> Problems:
        """What is wrong."""
        return self._problems
