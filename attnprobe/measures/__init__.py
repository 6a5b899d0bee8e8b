"""Measures fold whole rows of weights into something of size O(T) or O(1). A new one is a function and a row here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnprobe.errors import SelectionError
from attnprobe.fields import MEASURE_DTYPES, Site
from attnprobe.measures import received
from attnprobe.measures.base import IDS, NEEDS, POSITIONS, FoldMeasure, Measure, RowMeasure, row_measure
from attnprobe.measures.distances import Distances
from attnprobe.measures.entropy import entropy, entropy_with_sink, sink_mass
from attnprobe.measures.peak import _max, argmax
from attnprobe.measures.pooled import pooled_max, pooled_mean
from attnprobe.measures.position import distance, first_mass, local_mass, own, previous
from attnprobe.measures.repeats import duplicate, induction
from attnprobe.measures.rows import SampleRows
from attnprobe.measures.tokens import Tokens

# Name -> measure, or a function that makes one of a number, "first_mass(4)".
MEASURES: Mapping[str, Measure | Callable[..., Measure]] = {
    "entropy": entropy,
    "entropy_with_sink": entropy_with_sink,
    "max": _max,
    "argmax": argmax,
    "first_mass": first_mass,
    "self": own,
    "previous": previous,
    "local_mass": local_mass,
    "distance": distance,
    "duplicate": duplicate,
    "induction": induction,
    "sink_mass": sink_mass,
    "received": received.received,
    "received_max": received.received_max,
    "received_last": received.received_last,
    "received_last_max": received.received_last_max,
    "distances": Distances(),
    "pooled_max": pooled_max,
    "pooled_mean": pooled_mean,
}
_ROWS = (
    *("entropy", "entropy_with_sink", "sink_mass", "max", "first_mass", "self", "previous", "local_mass", "distance"),
    *("duplicate", "induction"),
)
# A name ending in .mean keeps the mean over rows, and no row.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "pooled": ("pooled_max", "pooled_mean"),
    "means": tuple(f"{name}.mean" for name in _ROWS),
    "default": (
        *("entropy", "max", "first_mass", "self", "previous", "distance"),
        *("received", "distances", "pooled", "means"),
    ),
    "all": tuple(MEASURES),
}
_NAME = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:\((?P<number>[1-9]\d{0,8})\))?(?P<mean>\.mean)?")


@dataclass(frozen=True)
class Chosen:
    """A measure that is kept.

    Attributes
    ----------
    measure
        What.
    rows
        Of a row measure, whether its values are kept, or just their mean.
    asked
        Whether it was named by itself, so that it is refused where it has no meaning; else it is absent there.
    own
        Whether it is the user's.
    """

    measure: Measure
    rows: bool
    asked: bool
    own: bool = False

    @property
    def name(self) -> str:
        """The measure's name."""
        return self.measure.name

    def fits(self, site: Site) -> bool:
        """Whether the measure has a meaning at a site."""
        return site.queries == site.keys or not self.measure.needs & {POSITIONS, IDS}

    def describe(self) -> dict[str, Any]:
        """In plain data, for a manifest."""
        return {
            "name": self.name if self.rows else f"{self.name}.mean",
            "unit": self.measure.unit,
            "axes": list(self.measure.axes) if self.rows else [],
            **({"own": True} if self.own else {}),
        }


def choose(names: "str | Measure | Sequence[str | Measure]") -> tuple[Chosen, ...]:
    """The measures that names, groups of names and measures of one's own mean, each once.

    Raises
    ------
    SelectionError
        If a name is unknown, or a measure is malformed.
    """
    given = [names] if isinstance(names, str) or not isinstance(names, Sequence) else list(names)
    chosen: dict[str, Chosen] = {}
    for one in given:
        for name, asked in _expand(one):
            new = _one(name, asked)
            old = chosen.get(new.name)
            if old is None:
                chosen[new.name] = new
            elif (old.own or new.own) and old.measure is not new.measure:
                raise SelectionError(f"two measures are called {new.name!r}; give one another name")
            else:
                chosen[new.name] = Chosen(new.measure, old.rows or new.rows, old.asked or new.asked, new.own)
    if not chosen:
        raise SelectionError(f"no measure is named: nothing would be recorded; {_forms()}")
    return tuple(chosen.values())


def _expand(one: "str | Measure") -> "list[tuple[str | Measure, bool]]":
    """Groups to their members, which are not asked for one by one."""
    if not isinstance(one, str):
        return [(one, True)]
    if "," in one:
        return [pair for part in one.split(",") for pair in _expand(part)]
    name = one.strip()
    if name not in GROUPS:
        return [(name, True)]
    return [(member, name == "pooled") for part in GROUPS[name] for member, _ in _expand(part)]


def _one(name: "str | Measure", asked: bool) -> Chosen:
    if not isinstance(name, str):
        return Chosen(_checked(name), True, asked, own=True)
    match = _NAME.fullmatch(name)
    made = MEASURES.get(match["name"]) if match is not None else None
    if match is None or made is None:
        raise SelectionError(f"there is no measure {name!r}; {_forms()}")
    if isinstance(made, RowMeasure | FoldMeasure):
        if match["number"]:
            raise SelectionError(f"{name!r}: {match['name']} takes no number")
        measure: Measure = made
    else:
        measure = made(int(match["number"])) if match["number"] else made()
    if match["mean"] and not isinstance(measure, RowMeasure):
        raise SelectionError(f"{name!r}: only a measure of rows has a mean, and {measure.name} is one of a whole head")
    if match["mean"] and measure.dtype != "float32":
        raise SelectionError(f"{name!r}: a mean of positions says nothing; write {measure.name!r}")
    return Chosen(measure, not match["mean"], asked)


def _forms() -> str:
    plain = [name if isinstance(made, RowMeasure | FoldMeasure) else f"{name}(N)" for name, made in MEASURES.items()]
    return f"there are {', '.join(plain)}, and the groups {', '.join(GROUPS)}"


def _checked(measure: object) -> Measure:
    """A measure of the user's own, if it is one."""
    if not isinstance(measure, RowMeasure | FoldMeasure):
        raise SelectionError(
            f"{measure!r} is no measure: write a name, a function under @attnprobe.row_measure, or an object with "
            "name, unit, formula, source, needs, axes, dtype, init, update, merge and finalize"
        )
    if not isinstance(measure.name, str) or not _NAME.fullmatch(measure.name) or measure.name.endswith(".mean"):
        raise SelectionError(f"the name of a measure is a word like 'my_mass' or 'my_mass(4)', not {measure.name!r}")
    own = {*MEASURES, *GROUPS, "weights", "top", "top_keys", "top_rest", "pyramid_max", "pyramid_mean"}
    if measure.name.partition("(")[0] in own:
        raise SelectionError(f"the name {measure.name!r} is taken; give your measure another one")
    if not frozenset(measure.needs) <= NEEDS:
        raise SelectionError(f"{measure.name} needs {sorted(measure.needs)}; it may need {', '.join(sorted(NEEDS))}")
    axes = tuple(measure.axes)
    words = all(isinstance(axis, str) and axis.isidentifier() and len(axis) <= 64 for axis in axes)
    if measure.dtype not in MEASURE_DTYPES or not 1 <= len(axes) <= 2 or not words or len(set(axes)) < len(axes):
        dtypes = ", ".join(MEASURE_DTYPES)
        raise SelectionError(f"{measure.name}: give it one or two different axes, and one of {dtypes}")
    if not isinstance(measure.unit, str) or not measure.unit.isprintable() or len(measure.unit) > 64:
        raise SelectionError(f"{measure.name}: its unit is at most 64 printable characters, not {measure.unit!r}")
    return measure


__all__ = [
    "GROUPS",
    "MEASURES",
    "Chosen",
    "FoldMeasure",
    "Measure",
    "RowMeasure",
    "SampleRows",
    "Tokens",
    "choose",
    "row_measure",
]
