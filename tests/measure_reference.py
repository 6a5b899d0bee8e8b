"""What each measure means: dense float64 numpy, one definition after the other. It knows nothing of attnprobe."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

GRID = 256
RTOL, ATOL = 1e-4, 1e-6


@dataclass(frozen=True, eq=False)
class Map:
    """One head of one sample: float64 weights ``[query, key]``, and which rows there are; the others are zeros."""

    weights: np.ndarray
    valid: np.ndarray
    ids: np.ndarray | None = None
    prompt: int = 0
    sink: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.weights.dtype == np.float64 and not self.weights[~self.valid].any()

    @property
    def offsets(self) -> np.ndarray:
        """``i - j``."""
        return np.arange(self.weights.shape[0])[:, None] - np.arange(self.weights.shape[1])


# --- a number a row: NaN where it has no meaning, which invalid rows get at the end ----------------------------------


def entropy(m: Map) -> np.ndarray:
    return -xlogx(m.weights).sum(-1)


def entropy_with_sink(m: Map) -> np.ndarray:
    return entropy(m) - (0 if m.sink is None else xlogx(m.sink))


def sink_mass(m: Map) -> np.ndarray:
    return np.zeros(len(m.weights)) if m.sink is None else m.sink


def largest(m: Map) -> np.ndarray:
    return m.weights.max(-1, initial=0)


def first_mass(m: Map, k: int) -> np.ndarray:
    return m.weights[:, :k].sum(-1)


def own(m: Map) -> np.ndarray:
    return np.where(m.offsets == 0, m.weights, 0).sum(-1)


def previous(m: Map) -> np.ndarray:
    mass = np.where(m.offsets == 1, m.weights, 0).sum(-1)
    return np.where(np.arange(len(mass)) == 0, np.nan, mass)


def local_mass(m: Map, w: int) -> np.ndarray:
    return np.where(np.abs(m.offsets) < w, m.weights, 0).sum(-1)


def distance(m: Map) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 in invalid rows
        return (m.weights * np.abs(m.offsets)).sum(-1) / m.weights.sum(-1)


def duplicate(m: Map) -> np.ndarray:
    same = earlier(m)
    return np.where(same.any(-1), (m.weights * same[:, : m.weights.shape[1]]).sum(-1), np.nan)


def induction(m: Map) -> np.ndarray:
    same = earlier(m)
    after = np.pad(same, ((0, 0), (1, 0)))[:, : m.weights.shape[1]]
    return np.where(same.any(-1), (m.weights * after).sum(-1), np.nan)


def earlier(m: Map) -> np.ndarray:
    """``[query, position]``: the same known token, before the row."""
    assert m.ids is not None
    ids, rows = m.ids, len(m.weights)
    before = np.arange(len(ids)) < np.arange(rows)[:, None]
    return (ids == ids[:rows, None]) & (ids >= 0) & before


def xlogx(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0)


# --- what rows are folded into ---------------------------------------------------------------------------------------


def received(m: Map) -> np.ndarray:
    return m.weights.sum(0)


def received_max(m: Map) -> np.ndarray:
    return m.weights.max(0, initial=0)


def received_last(m: Map, w: int) -> np.ndarray:
    return m.weights[max(m.prompt - w, 0) : m.prompt].sum(0)


def received_last_max(m: Map, w: int) -> np.ndarray:
    return m.weights[max(m.prompt - w, 0) : m.prompt].max(0, initial=0)


def distances(m: Map) -> np.ndarray:
    away = np.abs(m.offsets)
    edges = [0, 1]
    while edges[-1] < max(m.weights.shape):
        edges.append(2 * edges[-1])
    mass = [np.where((away >= a) & (away < b), m.weights, 0).sum() for a, b in pairwise(edges)]
    return np.array(mass) / (m.valid.sum() or np.nan)


def pooled_max(m: Map) -> np.ndarray:
    return pooled(m, lambda band, starts: np.maximum.reduceat(band.max(0), starts))


def pooled_mean(m: Map) -> np.ndarray:
    columns = m.weights.shape[1]
    return pooled(m, lambda band, starts: np.add.reduceat(band.mean(0), starts) / np.diff([*starts, columns]))


def pooled(m: Map, how: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Over valid rows of each cell, and all of its columns; NaN without a valid row."""
    rows, columns = m.weights.shape
    tall, starts = cell(rows), np.arange(0, columns, cell(columns))
    result = np.full((-(-rows // tall), len(starts)), np.nan)
    for a in range(len(result)):
        band = m.weights[a * tall : (a + 1) * tall][m.valid[a * tall : (a + 1) * tall]]
        if len(band):
            result[a] = how(band, starts)
    return result


def cell(length: int) -> int:
    """The smallest power of two so that at most `GRID` cells cover the length."""
    size = 1
    while -(-length // size) > GRID:
        size *= 2
    return size


# --- by name ---------------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[..., np.ndarray]] = {
    "entropy": entropy,
    "entropy_with_sink": entropy_with_sink,
    "sink_mass": sink_mass,
    "max": largest,
    "first_mass": first_mass,
    "self": own,
    "previous": previous,
    "local_mass": local_mass,
    "distance": distance,
    "duplicate": duplicate,
    "induction": induction,
}
FOLDS: dict[str, Callable[..., np.ndarray]] = {
    "received": received,
    "received_max": received_max,
    "received_last": received_last,
    "received_last_max": received_last_max,
    "distances": distances,
    "pooled_max": pooled_max,
    "pooled_mean": pooled_mean,
}
NAME = re.compile(r"(?P<name>\w+)(\((?P<number>\d+)\))?(?P<mean>\.mean)?")


def value(name: str, m: Map) -> np.ndarray:
    """What the name means: ``"first_mass(4)"``, ``"entropy.mean"`` (mean, standard deviation, count)."""
    parts = NAME.fullmatch(name)
    assert parts is not None, name
    arguments = [int(parts["number"])] if parts["number"] else []
    if parts["name"] in FOLDS:
        return FOLDS[parts["name"]](m, *arguments)
    values = np.where(m.valid, ROWS[parts["name"]](m, *arguments), np.nan)
    if not parts["mean"]:
        return values
    there = values[~np.isnan(values)]
    return np.array([there.mean(), there.std(), len(there)]) if len(there) else np.array([np.nan, np.nan, 0])


def scale(name: str, m: Map) -> float:
    """What is a large value."""
    longest = max(*m.weights.shape, 1)
    if name.startswith("entropy"):
        return max(float(np.log(longest)), 1.0)
    if name.startswith("distance") and name != "distances":
        return longest
    return max(len(m.weights), 1) if name == "received" or name.startswith("received_last(") else 1.0


def check(name: str, got: np.ndarray, m: Map) -> None:
    """Compare one head's values with the definition; `got` has a value for every row of the map where it has rows."""
    if name == "argmax":
        assert ((got == -1) == ~m.valid).all(), name
        rows = np.flatnonzero(m.valid)
        there, peak = m.weights[rows, got[rows]], largest(m)[rows]
        assert (there >= peak * (1 - RTOL) - ATOL).all(), f"argmax: {there} is not {peak}"
        return
    want = value(name, m)
    assert got.shape == want.shape, (name, got.shape, want.shape)
    if name.startswith("pooled"):
        want = want.astype(np.float16)
        assert got.dtype == np.float16 and (np.isnan(got) == np.isnan(want)).all(), name
        got, want = np.nan_to_num(got), np.nan_to_num(want)
        apart = np.abs(got.astype(np.float64) - want) / np.spacing(np.maximum(np.abs(got), np.abs(want)))
        assert (apart <= 1).all(), f"{name}: {apart.max()} ulp apart"
        return
    if name.endswith(".mean"):
        assert got[2] == want[2], f"{name}: {got[2]} rows, not {want[2]}"
    close = np.isclose(got, want, rtol=RTOL, atol=ATOL * scale(name, m), equal_nan=True)
    assert close.all(), f"{name}: {got[~close][:5]} is not {want[~close][:5]}, at {np.argwhere(~close)[:5].tolist()}"


def top(m: Map, k: int, keys: slice = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `k` largest weights of each row, where they are (-1 where there is none), and the mass of the others."""
    weights = np.zeros_like(m.weights)
    weights[:, keys] = m.weights[:, keys]
    order = np.argsort(-weights, axis=-1, kind="stable")[:, :k]
    values = np.take_along_axis(weights, order, 1)
    spare = ((0, 0), (0, k - order.shape[1]))
    at = np.pad(np.where(values > 0, order, -1), spare, constant_values=-1)
    return np.pad(values, spare), at, weights.sum(-1) - values.sum(-1)
