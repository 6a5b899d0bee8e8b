"""Fused forms of measures: a pass over keys for all numbers of rows, and one for all that rows are folded into."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, Rows
from attnprobe.engines.fused import Measured, Place, Top
from attnprobe.engines.layout import SHARE
from attnprobe.engines.tile import Tile
from attnprobe.engines.triton.exact import kernel_tiles
from attnprobe.engines.triton.launch import launch
from attnprobe.engines.triton.operands import Operands, of_sample
from attnprobe.engines.triton.ranking import MOST, top_of_rows
from attnprobe.measures import Chosen
from attnprobe.measures.distances import BINS
from attnprobe.measures.pooled import cell_size
from attnprobe.shapes import Float

# Number of a row, by the measure's name; the order is the kernel's.
ROWS = {
    "entropy": 4,
    "max": 5,
    "argmax": 6,
    "first_mass": 7,
    "self": 8,
    "previous": 9,
    "local_mass": 10,
    "distance": 11,
    "duplicate": 12,
    "induction": 13,
    "sink_mass": 2,
    "entropy_with_sink": 4,
}
LSE, VALID, SINK, STRAY, PREVIOUS, NUMBERS = 0, 1, 2, 3, 9, 14
POSITIONS = {"self", "previous", "local_mass", "distance"}
IDS = {"duplicate", "induction"}
FOLDS = {"received": 0, "received_max": 1, "received_last": 2, "received_last_max": 3}
GRID = {"pooled_mean": 0, "pooled_max": 1}
FLOAT = 4
KERNEL_BINS = 32
_NAME = re.compile(r"(\w+?)(?:\((\d+)\))?")


def parse(name: str) -> tuple[str, int]:
    """A measure's name and its argument: ``"first_mass(4)"`` is ``("first_mass", 4)``."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2] or 0)) if match is not None else (name, 0)


class KernelMeasures:
    """What the kernels measure; a `Fused`."""

    def measures(self, chosen: Sequence[Chosen], rows: Rows, place: Place) -> bool:
        """Whether all of these have a fused form; what rows fold into has one only where rows follow each other."""
        names = {parse(one.name)[0] for one in chosen}
        if names & IDS and place.tokens is None:
            return False
        folds = names - ROWS.keys()
        known = not any(one.own for one in chosen) and folds <= FOLDS.keys() | GRID.keys() | {"distances"}
        return known and (not folds or (isinstance(rows, range) and rows.step == 1))

    def measure(
        self,
        call: AttentionCall,
        heads: tuple[int, ...],
        rows: Rows,
        place: Place,
        chosen: Sequence[Chosen],
        budget: int,
    ) -> Iterator[Measured]:
        """The measures of rows of a call's sample, some of the heads at a time: as many as fit `budget` bytes."""
        own, asked = of_sample(call, place.batch), [parse(one.name) for one in chosen]
        folds = any(name not in ROWS for name, _ in asked)
        several = max(1, budget // SHARE // _bytes_of_head(len(rows), place, folds))
        for first in range(0, len(heads), several):
            yield self._measure(own, heads[first : first + several], rows, place, asked)

    def weights(
        self, call: AttentionCall, heads: tuple[int, ...], rows: Rows, dtype: torch.dtype, budget: int
    ) -> Iterator[Tile]:
        """Tiles that are made in another dtype than float32, rounded once."""
        return kernel_tiles(call, heads, rows, budget, None, dtype)

    @property
    def most(self) -> int:
        """Of how many weights a row the largest are found at most."""
        return MOST

    def top(
        self, call: AttentionCall, heads: tuple[int, ...], rows: Rows, place: Place, k: int, keys: slice, budget: int
    ) -> Iterator[Top]:
        """The `k` largest weights of rows of a call's sample on a range of keys, some of the heads at a time."""
        return top_of_rows(call, heads, rows, place, k, keys, budget)

    def _measure(
        self, own: AttentionCall, heads: tuple[int, ...], rows: Rows, place: Place, asked: Sequence[tuple[str, int]]
    ) -> Measured:
        operands, names = Operands.of(own, heads, rows), {name for name, _ in asked}
        firsts = sorted({k for name, k in asked if name == "first_mass"}) or [1]
        locals_ = sorted({w for name, w in asked if name == "local_mass"}) or [1]
        ids = place.tokens if names & IDS else None
        values: dict[str, Any] = {}
        numbers = None
        for turn in range(max(len(firsts), len(locals_))):  # one argument a pass; more than one is rare
            k, w = firsts[min(turn, len(firsts) - 1)], locals_[min(turn, len(locals_) - 1)]
            found = _measure_rows(operands, place, k, w, bool(names & POSITIONS), ids is not None, "argmax" in names)
            numbers = found if numbers is None else numbers
            values[f"first_mass({k})"] = found[ROWS["first_mass"]]
            values[f"local_mass({w})"] = found[ROWS["local_mass"]]
        assert numbers is not None
        for name in names & ROWS.keys() - {"first_mass", "local_mass"}:
            values[name] = numbers[ROWS[name]]
        values["max"] = numbers[ROWS["max"]]
        sink = numbers[SINK] if own.sinks is not None else None
        if "entropy_with_sink" in names and sink is not None:
            values["entropy_with_sink"] = numbers[ROWS["entropy"]] + torch.special.entr(sink)
        if "previous" in names and rows[0] + place.row_shift == 0:
            values["previous"] = numbers[PREVIOUS].clone()
            values["previous"][:, 0] = torch.nan
        for name in names & IDS:
            assert ids is not None, "a measure that needs ids is not computed without them"
            values[name] = numbers[ROWS[name]].masked_fill(ids.new(place.shifted(rows), operands.device), torch.nan)
        if names - ROWS.keys():
            values.update(_fold(operands, rows, place, asked, numbers))
        valid = numbers[VALID] != 0 if own.may_empty else None
        return Measured(heads, values, valid, sink, numbers[STRAY].amax())


def smallest_block() -> int:
    """Columns of the narrowest block: parts of a pooled cell are no wider."""
    from attnprobe.engines.triton.kernels.tuning import NARROWEST

    return int(NARROWEST)


def _measure_rows(
    operands: Operands, place: Place, first: int, reach: int, positions: bool, with_ids: bool, with_place: bool
) -> Float[Tensor, "number head row"]:
    from attnprobe.engines.triton.kernels.rows import measure as kernel

    _, heads, rows = operands.shape
    numbers = torch.empty(NUMBERS, heads, rows, device=operands.device)
    ids = place.tokens.before(operands.device) if with_ids and place.tokens is not None else operands.common["rows"]
    launch(
        kernel,
        operands,
        operands.blocks,
        **operands.sinks,
        row_shift=place.row_shift,
        column_shift=place.column_shift,
        length=place.key_length,
        first=first,
        reach=reach,
        ids=ids,
        numbers=numbers,
        POSITIONS=positions,
        IDS=with_ids,
        PLACE=with_place,
    )
    return numbers


def _fold(
    operands: Operands,
    rows: Rows,
    place: Place,
    asked: Sequence[tuple[str, int]],
    numbers: Float[Tensor, "number head row"],
) -> dict[str, Any]:
    """What rows fold into; of several windows at the prompt's end, a pass each."""
    names = {name for name, _ in asked}
    lasts = sorted({w for name, w in asked if name in ("received_last", "received_last_max")}) or [0]
    found: dict[str, Any] = {}
    for turn, last in enumerate(lasts):
        received, pooled, distances = _fold_once(operands, rows, place, last, numbers, "distances" in names)
        found[f"received_last({last})"], found[f"received_last_max({last})"] = received[2], received[3]
        if not turn:
            found.update(received=received[0], received_max=received[1], distances=distances)
            found.update(pooled_mean=pooled[0], pooled_max=pooled[1])
    return found


def _fold_once(
    operands: Operands,
    rows: Rows,
    place: Place,
    last: int,
    numbers: Float[Tensor, "number head row"],
    with_distances: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    from attnprobe.engines.triton.kernels.folds import fold as kernel

    heads, keys = operands.shape[1], place.key_length
    tall, wide = cell_size(place.query_length), cell_size(keys)
    unit = min(wide, smallest_block())
    down, units, blocks = -(-place.query_length // tall), -(-keys // unit), -(-keys // smallest_block())
    received = torch.empty(4, heads, keys, device=operands.device)
    # What no program owns stays zero.
    pooled = torch.zeros(2, heads, down, units, device=operands.device)
    distances = torch.zeros(heads, blocks, KERNEL_BINS, device=operands.device)
    launch(
        kernel,
        operands,
        lambda sizes: (-(-keys // sizes["BLOCK_N"]), heads),
        row_shift=place.row_shift,
        column_shift=place.column_shift,
        length=keys,
        first=rows[0] + place.row_shift,
        last_low=place.prompt_length - last,
        last_high=place.prompt_length if last else 0,
        lse=numbers[LSE],
        received=received,
        pooled=pooled,
        distances=distances,
        down_count=down,
        unit_count=units,
        block_count=blocks,
        DISTANCES=with_distances,
        LAST=last > 0,
        CELL=tall,
        UNIT=unit,
    )
    several = wide // unit
    padded = torch.nn.functional.pad(pooled, (0, -units % several)).reshape(2, heads, down, -1, several)
    return received, (padded[0].sum(-1), padded[1].amax(-1)), distances.sum(1)[:, :BINS]


def _bytes_of_head(rows: int, place: Place, folds: bool) -> int:
    """Of all that is made of one head, the pooled map's narrow parts included."""
    if not folds:
        return FLOAT * NUMBERS * rows
    keys, unit = place.key_length, min(cell_size(place.key_length), smallest_block())
    pooled = 2 * -(-place.query_length // cell_size(place.query_length)) * -(-keys // unit)
    return FLOAT * (NUMBERS * rows + 5 * keys + 2 * pooled)
