"""Whether recorded weights are those that the kernel used: a few rows of each site, times the values, against it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attnprobe.errors import CorruptRun

FILE = "fidelity.json"
# Largest relative difference that rounding explains, by the dtype that the kernel ran in.
TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
LARGEST = 4 << 20  # bytes of the file; it has some hundred bytes a site


@dataclass(frozen=True)
class SiteFidelity:
    """What a few rows of one site told.

    Attributes
    ----------
    dtype
        Of the queries that the kernel was given.
    difference
        Largest difference between recorded weights times values and what the kernel returned, over the largest number
        that it returned in those rows; None where that is not applicable.
    row_sum
        Largest distance of a row's sum, a learned sink's mass included, from 1.
    lost
        Share of the weights above 0 that are below the smallest number of the dtype in which they are kept.
    reason
        Why `difference` is not applicable; empty where it is.
    """

    dtype: str
    difference: float | None
    row_sum: float
    lost: float
    reason: str = ""

    @property
    def fine(self) -> bool:
        """Whether rounding explains what was found."""
        tolerance = TOLERANCE.get(self.dtype, 1e-4)
        # NaN is not fine, so not the other way round.
        return (self.difference is None or self.difference <= tolerance) and self.row_sum <= max(tolerance, 1e-4)


def largest(values: Sequence[float]) -> Any:
    """The largest, which is NaN where any is; None of nothing."""
    return float(np.max(values)) if values else None


class Fidelity(dict[str, SiteFidelity]):
    """By the name of each site that ran."""

    @property
    def worst(self) -> float | None:
        """The largest difference of all sites; None where it is applicable to none."""
        found: float | None = largest([one.difference for one in self.values() if one.difference is not None])
        return found

    @property
    def off(self) -> tuple[str, ...]:
        """Sites whose weights are not those that the kernel used, or may not be."""
        return tuple(key for key, one in self.items() if not one.fine)

    def __str__(self) -> str:
        """In one line."""
        apart = sum(one.difference is None for one in self.values())
        worst = "not applicable" if self.worst is None else f"largest relative difference {self.worst:.1e}"
        row_sum = largest([one.row_sum for one in self.values()] or [0.0])
        lost = largest([one.lost for one in self.values()] or [0.0])
        text = f"weights times values against the kernel: {worst}, row sums within {row_sum:.1e} of 1"
        text += f", {lost:.1%} of weights below the smallest number kept" if lost else ""
        return text + (f"; {apart} of {len(self)} sites not applicable" if apart and self.worst is not None else "")

    def describe(self) -> dict[str, Any]:
        """As it is kept in a journal; numbers that are none are null, since JSON has no NaN."""
        return {key: {name: _finite(value) for name, value in vars(one).items()} for key, one in self.items()}

    @classmethod
    def read(cls, found: Mapping[str, Any], path: Path) -> "Fidelity":
        """What `path` keeps of it.

        Raises
        ------
        CorruptRun
            If it makes no sense.
        """
        try:
            return cls({str(key): _checked(one) for key, one in found.items()})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptRun(f"{path}: the fidelity makes no sense: {error}") from error

    @classmethod
    def merge(cls, parts: Sequence["Fidelity"]) -> "Fidelity":
        """Of several recordings: at each site the worst."""
        merged = cls()
        for part in parts:
            for key, one in part.items():
                merged[key] = _worse(merged[key], one) if key in merged else one
        return merged

    @classmethod
    def load(cls, directory: Path) -> "Fidelity | None":
        """Read the file of a run of format 3; None where a run has none.

        Raises
        ------
        CorruptRun
            If it makes no sense.
        """
        path = directory / FILE
        try:
            if path.is_symlink() or not path.is_file():
                return None
            if path.stat().st_size > LARGEST:
                raise ValueError("it is too large")
            return cls.read(json.loads(path.read_text()), path)
        except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise CorruptRun(f"{path} makes no sense: {error}; delete it") from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checked(record: Mapping[str, Any]) -> SiteFidelity:
    taken = ("row_sum", "lost") if record.get("reason") else ("difference", "row_sum", "lost")
    nan = {name: math.nan for name in taken if name in record and record[name] is None}
    one = SiteFidelity(**{**record, **nan})
    numbers = (0.0 if one.difference is None else one.difference, one.row_sum, one.lost)
    if not all(isinstance(n, float) for n in numbers) or not isinstance(one.dtype, str):
        raise ValueError(f"{record!r} is no site's")
    return one


def _worse(a: SiteFidelity, b: SiteFidelity) -> SiteFidelity:
    """Of two findings at one site the worst in each respect."""
    told = [one for one in (a, b) if one.difference is not None]
    worst = max(told, key=lambda one: (math.isnan(one.difference or 0.0), one.difference), default=a)
    return replace(
        worst,
        row_sum=largest([a.row_sum, b.row_sum]),
        lost=largest([a.lost, b.lost]),
        reason="" if told else a.reason,
    )
