"""Which layers, heads, query rows and key columns are meant: parsed, validated, resolved. Pure.

An index specification is ``"all"``, numbers and inclusive ranges joined by commas (``"0,3-5"``), a negative number
counted from the end (``"-1"``), a Python slice (``"::4"``, ``"-64:"``), or an ``int``, ``slice``, ``range`` or
list of ints. Numbers count from 0. Numbers and ranges must be there; a slice is cut to what is, as Python does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

from attnprobe.errors import SelectionError

FORMS = '"all", "0,3-5", "-1", "::4", "-64:", an int, a slice, a range, or a list of ints'
_PART = re.compile(
    r"(?P<int>-?\d+)|(?P<lo>\d+)-(?P<hi>\d+)|(?P<start>(?:-?\d+)?):(?P<stop>(?:-?\d+)?)(?::(?P<step>\d*))?"
)
_HEAD = re.compile(r"[lL](\d+)[hH](\d+)")

IndexLike = str | SupportsIndex | slice | Iterable[SupportsIndex]
HeadsLike = IndexLike | Mapping[int, IndexLike]


def head_name(text: str) -> tuple[int, int] | None:
    """Layer and head of ``"L5H1"``, or None where it is no such name."""
    match = _HEAD.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Indices:
    """A parsed index specification: slices, ranges and numbers, resolved against a length when one is known."""

    parts: tuple[int | slice | range, ...]
    text: str

    @classmethod
    def parse(cls, spec: object, what: str) -> "Indices":
        """Parse a specification; `what` names the axis in errors.

        Raises
        ------
        SelectionError
            If the specification has no valid form, or is empty.
        """
        if isinstance(spec, Indices):
            return spec
        if isinstance(spec, str):
            return cls(tuple(_parse_part(part, spec, what) for part in spec.split(",")), spec)
        if isinstance(spec, slice):
            return cls((_checked(spec, what),), _slice_text(spec))
        if isinstance(spec, range) and len(spec) and min(spec) >= 0:
            return cls((spec if spec.step > 0 else spec[::-1],), _range_text(spec))
        number = _as_int(spec)
        if number is not None:
            return cls((number,), str(number))
        if not isinstance(spec, Iterable) or isinstance(spec, Mapping | bytes | bytearray):
            raise SelectionError(f"{what}={spec!r} is not a selection; write {FORMS}")
        numbers = []
        for item in spec:
            number = _as_int(item)
            if number is None:
                raise SelectionError(f"{what} holds {item!r}, which is not an int; write {FORMS}")
            numbers.append(number)
        if not numbers:
            raise SelectionError(f"{what} is empty: nothing would be recorded; write {FORMS}")
        return cls(tuple(numbers), ",".join(map(str, numbers)))

    @property
    def everything(self) -> bool:
        """Whether this selects all of any length."""
        return any(isinstance(p, slice) and (p.start or 0, p.stop, p.step or 1) == (0, None, 1) for p in self.parts)

    @property
    def from_end(self) -> bool:
        """Whether resolving needs the length, since something counts from the end."""
        for part in self.parts:
            if isinstance(part, slice):
                if min(part.start or 0, part.stop or 0) < 0:
                    return True
            elif isinstance(part, int) and part < 0:
                return True
        return False

    def resolve(self, length: int, what: str) -> tuple[int, ...]:
        """The selected numbers of ``range(length)``, ascending, each once.

        Raises
        ------
        SelectionError
            If a number is out of range, or nothing is selected.
        """
        chosen: set[int] = set()
        for part in self.parts:
            if isinstance(part, slice):
                chosen.update(range(length)[part])
                continue
            numbers = part if isinstance(part, range) else (part,)
            wrong = next((n for n in (numbers[0], numbers[-1]) if not -length <= n < length), None)
            if wrong is not None:
                raise SelectionError(
                    f"{what} {wrong} is out of range: there are {length} ({what}s 0 to {length - 1}); write {FORMS}"
                )
            chosen.update(n % length for n in numbers)
        if not chosen:
            raise SelectionError(f"{what}s {self.text!r} select nothing of {length} ({what}s 0 to {length - 1})")
        return tuple(sorted(chosen))

    def within(self, start: int, stop: int, length: int) -> range | tuple[int, ...]:
        """The selected numbers of ``range(start, stop)`` in a sequence of `length`; out of range is simply absent."""
        if self.everything:
            return range(start, stop)
        if len(self.parts) == 1 and not isinstance(self.parts[0], int):
            return _between(self.parts[0], start, stop, length)
        chosen: set[int] = set()
        for part in self.parts:
            if not isinstance(part, int):
                chosen.update(_between(part, start, stop, length))
            elif start <= (position := part + length if part < 0 else part) < stop:
                chosen.add(position)
        return tuple(sorted(chosen))


@dataclass(frozen=True)
class Selection:
    """What to record: layers, heads, query rows and key columns of the sites of a kind.

    Attributes
    ----------
    layers, heads
        Numbers from 0. `pairs` names single heads instead (``"L5H1,L6H9"`` or ``{0: [9], 5: "all"}``).
    queries
        Rows, counted in the prompt (a forward pass that is not generation is all prompt).
    generated
        Rows of generated tokens: ``"all"`` or ``"none"``.
    keys
        One contiguous range of key columns.
    kind
        ``"all"``, ``"self"`` or ``"cross"``.
    """

    layers: Indices
    heads: Indices
    pairs: tuple[tuple[int, Indices], ...] | None
    queries: Indices
    generated: str
    keys: slice
    kind: str

    @classmethod
    def parse(
        cls,
        layers: HeadsLike = "all",
        heads: HeadsLike = "all",
        queries: IndexLike = "all",
        keys: IndexLike = "all",
        generated: str = "all",
        kind: str = "all",
    ) -> "Selection":
        """Parse the user's words; nothing of a model is needed yet.

        Raises
        ------
        SelectionError
            If a word has no valid form.
        """
        if kind not in ("all", "self", "cross"):
            raise SelectionError(f'kind={kind!r}: write "all", "self" or "cross"')
        if generated not in ("all", "none"):
            raise SelectionError(f'generated={generated!r}: write "all" or "none"')
        pairs = None
        if _names_pairs(layers) or _names_pairs(heads):
            name, spec, other = ("layers", layers, heads) if _names_pairs(layers) else ("heads", heads, layers)
            if _names_pairs(other) or not Indices.parse(other, "layers").everything:
                raise SelectionError(f"heads are already named layer by layer; {other!r} beside them has no meaning")
            pairs = _pairs_of_mapping(spec, name) if isinstance(spec, Mapping) else _pairs_of_text(str(spec))
            layers = heads = "all"
        return cls(
            layers=Indices.parse(layers, "layers"),
            heads=Indices.parse(heads, "heads"),
            pairs=pairs,
            queries=Indices.parse(queries, "queries"),
            generated=generated,
            keys=_key_range(keys),
            kind=kind,
        )

    def heads_of(self, layer: int, layers: int, heads: int) -> tuple[int, ...]:
        """The selected heads of one layer (of `layers`, with `heads` each); empty if the layer is not selected.

        Raises
        ------
        SelectionError
            If a layer or head is out of range.
        """
        if self.pairs is None:
            chosen = self.layers.resolve(layers, "layer")
            return self.heads.resolve(heads, "head") if layer in chosen else ()
        picked: set[int] = set()
        for number, spec in self.pairs:
            if not -layers <= number < layers:
                raise SelectionError(f"layer {number} is out of range: there are {layers} (layers 0 to {layers - 1})")
            if number % layers == layer:
                picked.update(spec.resolve(heads, "head"))
        return tuple(sorted(picked))

    def describe(self) -> dict[str, object]:
        """The selection as plain words, for a manifest."""
        return {
            "layers": self.layers.text,
            "heads": self.heads.text if self.pairs is None else {str(n): s.text for n, s in self.pairs},
            "queries": self.queries.text,
            "keys": _slice_text(self.keys),
            "generated": self.generated,
            "kind": self.kind,
        }


def _as_int(value: object) -> int | None:
    """An int of any library; None of anything else, also of booleans and arrays, which have an index too."""
    if isinstance(value, bool):
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _between(part: slice | range, start: int, stop: int, length: int) -> range:
    """The numbers of a part that lie in ``range(start, stop)``."""
    whole = range(length)[part] if isinstance(part, slice) else part
    first = whole.start + max(0, -(-(start - whole.start) // whole.step)) * whole.step
    return range(min(first, stop), max(min(stop, whole.stop), min(first, stop)), whole.step)


def _names_pairs(spec: object) -> bool:
    return isinstance(spec, Mapping) or (isinstance(spec, str) and _HEAD.search(spec) is not None)


def _parse_part(part: str, spec: str, what: str) -> int | slice | range:
    part = part.strip()
    if part == "all":
        return slice(None)
    match = _PART.fullmatch(part)
    if match is None:
        raise SelectionError(f"{what} {spec!r}: cannot read {part!r}; write {FORMS}")
    if match["int"]:
        return int(match["int"])
    if match["lo"]:
        if int(match["hi"]) < int(match["lo"]):
            raise SelectionError(f"{what} {spec!r}: the range {part!r} runs backwards")
        return range(int(match["lo"]), int(match["hi"]) + 1)
    bounds = [int(match[name]) if match[name] else None for name in ("start", "stop", "step")]
    return _checked(slice(*bounds), what)


def _checked(part: slice, what: str) -> slice:
    bounds = [bound if bound is None else _as_int(bound) for bound in (part.start, part.stop, part.step)]
    if bounds != [part.start, part.stop, part.step]:
        raise SelectionError(f"{what}={part!r}: the bounds of a slice are ints; write {FORMS}")
    if bounds[2] is not None and bounds[2] <= 0:
        raise SelectionError(f"{what} {_slice_text(part)!r}: the step must be positive")
    return slice(*bounds)


def _range_text(part: range) -> str:
    low, high = min(part), max(part)
    return f"{low}-{high}" if abs(part.step) == 1 else f"{low}:{high + 1}:{abs(part.step)}"


def _slice_text(part: slice) -> str:
    if (part.start, part.stop, part.step) == (None, None, None):
        return "all"
    text = ":".join("" if bound is None else str(bound) for bound in (part.start, part.stop))
    return text if part.step is None else f"{text}:{part.step}"


def _pairs_of_text(spec: str) -> tuple[tuple[int, Indices], ...]:
    pairs = []
    for part in spec.split(","):
        match = _HEAD.fullmatch(part.strip())
        if match is None:
            raise SelectionError(
                f'heads {spec!r}: cannot read {part.strip()!r}; write heads across layers as "L5H1,L6H9"'
            )
        pairs.append((int(match[1]), Indices.parse(int(match[2]), "heads")))
    return tuple(pairs)


def _pairs_of_mapping(spec: Mapping[int, IndexLike], name: str) -> tuple[tuple[int, Indices], ...]:
    if not spec:
        raise SelectionError(f'{name} is empty: nothing would be recorded; write {{0: [9], 5: "all"}}')
    pairs = []
    for layer, heads in spec.items():
        number = _as_int(layer)
        if number is None:
            raise SelectionError(f'{name} names the layer {layer!r}, which is not an int; write {{0: [9], 5: "all"}}')
        pairs.append((number, Indices.parse(heads, f"heads of layer {number}")))
    return tuple(pairs)


def _key_range(spec: IndexLike) -> slice:
    parsed = Indices.parse(spec, "keys").parts
    part = parsed[0] if len(parsed) == 1 else None
    if isinstance(part, range):
        part = slice(part.start, part.stop, part.step)
    elif isinstance(part, int) and part >= 0:
        part = slice(part, part + 1)
    if not isinstance(part, slice) or (part.step or 1) != 1 or min(part.start or 0, part.stop or 0) < 0:
        raise SelectionError(
            f'keys={spec!r}: key columns are one range counted from the start: "all", ":512", "128:256"'
        )
    if part.stop is not None and part.stop <= (part.start or 0):
        raise SelectionError(f"keys={spec!r} select nothing")
    return slice(part.start, part.stop)
