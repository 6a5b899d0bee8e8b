"""What measures cost: their own code is run on torch's meta device, where tensors have shapes and no memory."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from math import prod
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnprobe.fields import DTYPES, Field, Site
from attnprobe.keep import Measures
from attnprobe.measures import Chosen, FoldMeasure, RowMeasure, SampleRows, Tokens, choose
from attnprobe.measures.base import SINK
from attnprobe.measures.measurer import Measurer
from attnprobe.scratch import Scratch

UNKNOWN_AXIS = 256  # cells of an axis whose length is not known
PASSES = 3  # over the weights, of a measure of the user's own

P = ParamSpec("P")
T = TypeVar("T")


def _remembered(function: Callable[P, T]) -> Callable[P, T]:
    """The same, cached but where a measure of the user's own cannot be hashed."""
    cached = lru_cache(maxsize=512)(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hash(args)
        except TypeError:
            return function(*args, **kwargs)
        return cached(*args, **kwargs)  # type: ignore[arg-type]

    return call


# A measure with a number is made anew whenever it is named, and then is not equal to the one before.
_choose = _remembered(choose)


def present(item: Measures, site: Site, sink: bool) -> tuple[Chosen, ...]:
    """An item's measures that are computed at a site; token ids and the prompt's end are taken to be known."""
    names = item.names if isinstance(item.names, str) or not isinstance(item.names, Sequence) else tuple(item.names)
    return tuple(
        one for one in _choose(names) if one.fits(site) and (sink or one.asked or SINK not in one.measure.needs)
    )


@dataclass(frozen=True)
class Folding:
    """What rows of one sample at one site are folded into: bytes.

    Attributes
    ----------
    kept
        Of the values that are kept at the end.
    state
        That are held until then, on the device of the weights.
    ending
        That making the values takes beside the state.
    """

    kept: int
    state: int
    ending: int


@dataclass(frozen=True)
class Metered:
    """What measures cost beside their states.

    Attributes
    ----------
    temporary
        Bytes of memory that they take and give back at most.
    scratch
        Bytes of working memory that stays, by name.
    moved, operations
        Bytes read and written, and numbers computed, for each weight.
    """

    temporary: int
    scratch: Mapping[str, int]
    moved: float
    operations: float


class _Meter(TorchDispatchMode):
    """Counts live bytes of the tensors that are made, and what operations read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._users: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.live = self.peak = self.moved = self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        storages = {tensor.untyped_storage()._cdata for tensor in given}
        for tensor in made:
            self._hold(tensor)
        view = made and not function._schema.is_mutable
        if not (view and all(tensor.untyped_storage()._cdata in storages for tensor in made)):
            self.moved += sum(t.numel() * t.element_size() for t in {id(t): t for t in (*given, *made)}.values())
            self.operations += max((t.numel() for t in (*given, *made)), default=0)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._users:
            self._users[key], self._bytes[key] = 0, storage.nbytes()
            self.live += self._bytes[key]
            self.peak = max(self.peak, self.live)
        self._users[key] += 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.live -= self._bytes.pop(key)


@_remembered
def meter(chosen: tuple[Chosen, ...], cross: bool, sink: bool, heads: int, rows: int, columns: int) -> Metered:
    """The cost of measures of a tile of so many heads, rows and columns, at a cross site, beside a sink, or neither."""
    size = heads * rows * columns
    foreign = sum(one.own for one in chosen)  # never run before there are rows: they may have a state, or be costly
    if foreign:
        known = meter(tuple(one for one in chosen if not one.own), cross, sink, heads, rows, columns)
        return Metered(
            max(known.temporary, 4 * size),
            {**known.scratch, "measure": 4 * size},
            known.moved + 4.0 * PASSES * foreign,
            known.operations + PASSES * foreign,
        )
    scratch = Scratch()
    site = Site("", "cross" if cross else "self", "decoder", 0, heads, heads, keys="source" if cross else "main")
    measurer = Measurer(chosen, Field(-1, site, 0, tuple(range(heads))))
    with _Meter() as counted:
        tile = _rows(heads, rows, columns, scratch, cross, sink)
        measurer.update(tile)  # makes the states and what stays of the working memory
        counted.peak, counted.moved, counted.operations = counted.live, 0, 0
        before = counted.live
        measurer.update(_rows(heads, rows, columns, scratch, cross, sink, tile.weights))
        temporary = counted.peak - before
    return Metered(temporary, scratch.sizes(), counted.moved / size, counted.operations / size)


def _rows(
    heads: int, rows: int, columns: int, scratch: Scratch, cross: bool, sink: bool, weights: Tensor | None = None
) -> SampleRows:
    """The last rows of a sample, without values."""
    length, meta = max(columns, rows), torch.device("meta")
    return SampleRows(
        weights=torch.empty(heads, rows, columns, device=meta) if weights is None else weights,
        rows=range(length - rows, length),
        start=0,
        at=slice(0, heads),
        query_length=length,
        key_length=columns,
        prompt_length=length,
        sink=torch.empty(heads, rows, device=meta) if sink else None,
        tokens=None if cross else Tokens(np.zeros(length, np.int64)),
        scratch=scratch,
    )


def fold(there: Sequence[Chosen], heads: int, query_length: int, key_length: int) -> Folding:
    """What computed measures are folded into; the means of row measures too. The user's own are told by their axes."""
    rows = [one.measure for one in there if isinstance(one.measure, RowMeasure)]
    kept = 12 * heads * sum(measure.dtype == "float32" for measure in rows)  # mean, standard deviation, count
    state = 12 * heads * len(rows)
    ending = 0
    for one in there:
        if not isinstance(one.measure, RowMeasure):
            ask = _by_axes if one.own else _fold_bytes
            own = ask(one.measure, heads, query_length, key_length)
            kept, state, ending = kept + own.kept, state + own.state, max(ending, own.ending)
    return Folding(kept, state, ending)


def _by_axes(measure: FoldMeasure, heads: int, query_length: int, key_length: int) -> Folding:
    """Of one fold, as far as its axes tell."""
    lengths = {"query": query_length, "key": key_length}
    numbers = heads * prod(lengths.get(axis, UNKNOWN_AXIS) for axis in measure.axes)
    return Folding(numbers * DTYPES[measure.dtype], 4 * numbers, 4 * numbers)


@_remembered
def _fold_bytes(measure: FoldMeasure, heads: int, query_length: int, key_length: int) -> Folding:
    """Of one fold, asked by making its state and its values without memory."""
    rows = SampleRows(
        weights=torch.empty(heads, 1, key_length, device="meta"),
        rows=range(query_length - 1, query_length),
        start=0,
        at=slice(0, heads),
        query_length=query_length,
        key_length=key_length,
        prompt_length=query_length,
    )
    state = measure.init(heads, rows)
    with _Meter() as counted:
        values = measure.finalize(state, query_length, key_length)
    kept = values.numel() * DTYPES[measure.dtype]
    return Folding(kept, _nbytes(state), counted.peak)


def _nbytes(state: Any) -> int:
    """Bytes of all tensors of a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(_nbytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(_nbytes, state))
    return sum(map(_nbytes, vars(state).values())) if hasattr(state, "__dict__") else 0
