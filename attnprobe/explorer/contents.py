"""What an HTML file can hold of runs: the questions that it answers, the most wanted first."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any
from urllib.parse import quote

from attnprobe.errors import AttnprobeError
from attnprobe.explorer.answering import Answering, Params, unpack
from attnprobe.pyramid import PATCH, cells

BAND = 1 << 16  # weights of one answer; held.js in the front end counts alike
TOKENS = 256  # of one answer; tokens.js asks for these
EXACT = "exact weights"  # what a part is called that lines, tables and the pointer need
Question = tuple[str, Params]
_Shown = tuple[Params, Sequence[int], int]  # a head's place, the shape of its map, and the coarsest level


@dataclass(frozen=True)
class Many(Sequence[Question]):
    """Questions about several maps, one map after the other, made when they are wanted: there may be millions.

    Attributes
    ----------
    maps
        Of each map how many, and what makes one of its number.
    """

    maps: Sequence[tuple[int, Callable[[int], Question]]]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(count for count, _ in self.maps))

    def __len__(self) -> int:
        """How many of all maps."""
        return self._ends[-1] if self.maps else 0

    def __getitem__(self, at: Any) -> Any:
        """The question of a number."""
        if not 0 <= at < len(self):
            raise IndexError(at)
        place = bisect_right(self._ends, at)
        count, make = self.maps[place]
        return make(at - self._ends[place] + count)


@dataclass(frozen=True)
class Part:
    """What is taken into a file as a whole, or left out.

    Attributes
    ----------
    what
        In words.
    questions
        That are answered.
    kind
        Of parts of one kind, each needs those before it; empty for what every file needs.
    """

    what: str
    questions: Sequence[Question]
    kind: str = ""


def key_of(name: str, params: Params) -> str:
    """A question as text, as ``written`` of ``source.js`` writes it."""
    plain = [f"{quote(one, safe=_PLAIN)}={quote(str(params[one]), safe=_PLAIN)}" for one in sorted(params)]
    return f"{name}?{'&'.join(plain)}"


_PLAIN = "-_.!~*'()"  # what encodeURIComponent leaves alone


@dataclass(frozen=True)
class Contents:
    """The parts of a file of some samples.

    Attributes
    ----------
    answers
        What answers.
    samples
        How many samples each run has; all are taken.
    heads
        Whose maps are taken, as site and number, of each run; all that have weights where None.
    """

    answers: Answering
    samples: Sequence[int]
    heads: Sequence[frozenset[tuple[str, int]]] | None = None

    def parts(self) -> list[Part]:
        """All parts, in the order in which they are taken as long as there is room."""
        places = [{"run": run, "sample": sample} for run, count in enumerate(self.samples) for sample in range(count)]
        every = [(place, self._head("sample", place)) for place in places]
        maps = [one for place, found in every for one in self._maps(place, found)]
        shown = [(place, head["shape"], head["last"]) for place, head, chosen in maps if chosen]
        return [
            Part("samples and tokens", [("runs", {}), *(one for pair in every for one in _facts(*pair))]),
            Part("small pictures of all heads", [one for pair in every for one in _thumbnails(*pair, "max")]),
            Part("what is known of each head", [("head", place) for place, _, _ in maps]),
            *_levels(shown, "max"),
            Part(EXACT, Many([_bands(place, shape) for place, shape, _ in shown]), "exact"),
            *(Part(f"{name} of every token", questions, name) for name, questions in _curves(every).items()),
            Part("small pictures of means", [one for pair in every for one in _thumbnails(*pair, "mean")], "mean"),
            *_levels(shown, "mean"),
        ]

    def _maps(self, place: dict[str, int], found: Mapping[str, Any]) -> Iterator[tuple[Params, dict[str, Any], bool]]:
        """Every head with weights: its place, what is known of it, and whether its map is taken."""
        chosen = None if self.heads is None else self.heads[place["run"]]
        for site in found["sites"]:
            for head in site["weights"]:
                one = {**place, "site": site["key"], "head": head}
                yield one, self._head("head", one), chosen is None or (site["key"], head) in chosen

    def _head(self, name: str, params: Params) -> dict[str, Any]:
        head, _ = unpack(self.answers.ask(name, params))
        if "error" in head:
            raise AttnprobeError(head["error"])
        return head


def _facts(place: Params, found: Mapping[str, Any]) -> Iterator[Question]:
    yield "sample", place
    yield "scores", place
    for name, length in found["sequences"].items():
        for start in range(0, length, TOKENS):
            yield "tokens", {**place, "sequence": name, "start": start, "stop": min(length, start + TOKENS)}


def _thumbnails(place: Params, found: Mapping[str, Any], how: str) -> Iterator[Question]:
    for site in found["sites"]:
        yield "thumbnails", {**place, "site": site["key"], "how": how}


def _curves(every: Sequence[tuple[Params, Mapping[str, Any]]]) -> dict[str, list[Question]]:
    """Measures with one axis, which are asked for of all heads at once."""
    found: dict[str, list[Question]] = {}
    for place, about in every:
        for measure in about["measures"]:
            if len(measure["axes"]) == 1:
                found.setdefault(measure["name"], []).append(("stripes", {**place, "name": measure["name"]}))
    return found


def _top(shape: Sequence[int], last: int) -> int:
    """The first level at which one patch shows the whole map, as the front end counts."""
    return min((-(-max(*shape, 1) // PATCH) - 1).bit_length(), last)


def _levels(shown: Sequence[_Shown], how: str) -> Iterator[Part]:
    """Each map in one patch, and then finer and finer, of those that have so many weights."""
    tops = [_top(shape, last) for _, shape, last in shown]
    means = " of means" if how == "mean" else ""
    whole = Many([_patches(*one[:2], top, how) for one, top in zip(shown, tops, strict=True)])
    yield Part(f"maps{means} in one picture each", whole, "mean" if how == "mean" else "")
    for level in range(max(tops, default=0) - 1, -1, -1):
        finer = [one for one, top in zip(shown, tops, strict=True) if level < top]
        cell = "of every weight" if level == 0 else f"in cells of {1 << level} x {1 << level}"
        questions = Many([_patches(place, shape, level, how) for place, shape, _ in finer])
        yield Part(f"maps{means} {cell}", questions, "mean" if how == "mean" else "maps")


def _patches(place: Params, shape: Sequence[int], level: int, how: str) -> tuple[int, Callable[[int], Question]]:
    down, across = (-(-cells(length, level) // PATCH) for length in shape)

    def patch(number: int) -> Question:
        y, x = divmod(number, across)
        return "patch", {**place, "level": level, "down": y, "across": x, "how": how}

    return down * across, patch


def _bands(place: Params, shape: Sequence[int]) -> tuple[int, Callable[[int], Question]]:
    """Whole rows, as many as one answer may have; all other exact numbers are told of these."""
    queries, keys = shape
    band = max(1, BAND // max(keys, 1))

    def rows(number: int) -> Question:
        top = number * band
        return "weights", {**place, "top": top, "bottom": min(top + band, queries), "left": 0, "right": keys}

    return 0 if keys > BAND else -(-queries // band), rows
