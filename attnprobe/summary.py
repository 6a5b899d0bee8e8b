"""Heads over all samples of a run: pooled mean, deviation and count of all rows, and the spread of samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from attnprobe.errors import NotKept
from attnprobe.kinds import KINDS, Kind, kinds_of
from attnprobe.labelled import Labelled, import_xarray
from attnprobe.shapes import Float

if TYPE_CHECKING:
    import xarray

FIGURES = ("mean", "std", "count", "spread", "samples")


@dataclass(eq=False, repr=False)
class Summary:
    """A number a head and measure, ``[layer, head]``, over all samples.

    `mean`, `std` and `count` are of all valid rows of all samples, as if these were one: a long sample counts for more.
    `spread` is the standard deviation of the samples' means, each counted once, and `samples` how many have one. Both
    deviations are of these rows and samples, not of a population (divided by n). Samples are united exactly, after
    Chan, Golub and LeVeque 1983.

    Attributes
    ----------
    layers, heads, kind
        Layers and heads of the model, and of which attention.
    size
        Samples of the run.
    units
        By measure.
    """

    layers: int
    heads: int
    kind: str
    size: int
    units: dict[str, str] = field(default_factory=dict)
    _place: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing so far."""
        self._rows, self._means = (_Moments.none(self.layers, self.heads) for _ in range(2))

    def add(self, layer: int, heads: Sequence[int], statistics: Mapping[str, Float[np.ndarray, "head 3"]]) -> None:
        """Take a sample's means, standard deviations and counts of some heads of a layer, by measure."""
        for name in statistics:
            if name not in self._place:
                self._place[name] = len(self._place)
                self._rows.grow()
                self._means.grow()
        at = np.ix_(np.array([self._place[name] for name in statistics]), np.array([layer]), np.array(heads))
        mean, std, count = np.moveaxis(np.stack(list(statistics.values())).astype(np.float64), -1, 0)[:, :, None]
        count = np.nan_to_num(count)
        there = count > 0
        mean, std = np.where(there, mean, 0), np.where(there, std, 0)
        self._rows.add(at, mean, count, std)
        self._means.add(at, mean, there.astype(np.float64), np.zeros_like(std))

    @property
    def names(self) -> tuple[str, ...]:
        """The measures."""
        return tuple(self._place)

    def __contains__(self, name: object) -> bool:
        """Whether there is a measure."""
        return name in self._place

    def __getitem__(self, name: str) -> Labelled:
        """All figures of a measure, ``[layer, head, statistic]``.

        Raises
        ------
        NotKept
            If there is none.
        """
        if name not in self._place:
            raise NotKept(f"there is no mean of {name!r}; there are {', '.join(self.names)}")
        rows, means, place = self._rows, self._means, self._place[name]
        figures = [one[place] for one in (rows.mean, rows.std, rows.count, means.std, means.count)]
        values = np.stack([np.where(rows.count[place] == 0, np.nan, one) for one in figures], -1)
        coords: dict[str, Sequence[Any]] = {
            "layer": range(self.layers),
            "head": range(self.heads),
            "statistic": FIGURES,
        }
        return Labelled(name, values, tuple(coords), coords, unit=self.units.get(name, ""))

    def numpy(self) -> dict[str, Float[np.ndarray, "layer head"]]:
        """``entropy``, ``entropy_std``, ``entropy_count``, ``entropy_spread`` and ``entropy_samples``, and so on."""
        result = {}
        for name in self.names:
            values = self[name].values
            for i, figure in enumerate(FIGURES):
                result[f"{name}_{figure}" if i else name] = values[..., i]
        return result

    def to_pandas(self) -> pd.DataFrame:
        """A line a head that has anything, indexed by layer and head; columns as of `numpy`."""
        arrays = self.numpy()
        index = pd.MultiIndex.from_product([range(self.layers), range(self.heads)], names=["layer", "head"])
        table = pd.DataFrame({name: values.reshape(-1) for name, values in arrays.items()}, index)
        return table[table[list(self.names)].notna().any(axis=1)]

    def to_xarray(self) -> "xarray.Dataset":
        """The same for xarray (needs the ``xarray`` extra)."""
        xarray = import_xarray()
        data = {name: (("layer", "head"), values) for name, values in self.numpy().items()}
        coords = {"layer": range(self.layers), "head": range(self.heads)}
        return xarray.Dataset(data, coords, {"kind": self.kind, "samples": self.size})

    def scores(self) -> Iterator[tuple[int, int, dict[str, float], tuple[Kind, ...]]]:
        """Of each head that has any: layer, head, the mean of each measure, and its kinds."""
        means = {name: self[name].values[..., 0] for name in self.names}
        for layer in range(self.layers):
            for head in range(self.heads):
                own = {name: float(values[layer, head]) for name, values in means.items()}
                if any(score == score for score in own.values()):
                    yield layer, head, own, kinds_of(own)

    def kinds(self) -> pd.DataFrame:
        """The heads of a classic kind, strongest first: layer, head, kind, score and threshold (`attnprobe.kinds`)."""
        found = [
            (KINDS.index(kind), layer, head, kind.name, scores[kind.measure], kind.threshold)
            for layer, head, scores, kinds in self.scores()
            for kind in kinds
        ]
        found.sort(key=lambda one: (one[0], -one[4]))
        return pd.DataFrame([one[1:] for one in found], columns=["layer", "head", "kind", "score", "threshold"])

    def __repr__(self) -> str:
        """Say of what."""
        samples = "1 sample" if self.size == 1 else f"{self.size} samples"
        return f"<{self.kind}-attention over {samples}: {', '.join(self.names)}>"


@dataclass(eq=False)
class _Moments:
    """Count, mean and sum of squared differences from it, ``[measure, layer, head]``."""

    count: Float[np.ndarray, "measure layer head"]
    mean: Float[np.ndarray, "measure layer head"]
    m2: Float[np.ndarray, "measure layer head"]

    @classmethod
    def none(cls, layers: int, heads: int) -> "_Moments":
        """Of no measure."""
        return cls(*np.zeros((3, 0, layers, heads)))

    def grow(self) -> None:
        """Make room for a measure."""
        zeros = np.zeros((1, *self.count.shape[1:]))
        self.count, self.mean, self.m2 = (np.concatenate([one, zeros]) for one in (self.count, self.mean, self.m2))

    def add(
        self,
        at: tuple[np.ndarray, ...],
        mean: Float[np.ndarray, "some 1 some_heads"],
        count: Float[np.ndarray, "some 1 some_heads"],
        std: Float[np.ndarray, "some 1 some_heads"],
    ) -> None:
        """Unite with groups of known mean, count and standard deviation, at some places."""
        old = self.count[at]
        new = old + count
        share = count / np.maximum(new, 1)
        apart = mean - self.mean[at]
        self.m2[at] += count * np.square(std) + np.square(apart) * old * share
        self.mean[at] += apart * share
        self.count[at] = new

    @property
    def std(self) -> Float[np.ndarray, "measure layer head"]:
        """Standard deviation."""
        deviation: np.ndarray = np.sqrt(self.m2 / np.maximum(self.count, 1))
        return deviation
