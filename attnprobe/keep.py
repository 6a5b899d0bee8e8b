"""What is kept of a selection: `Weights`, `TopK`, `Measures`. A recording keeps one or several of these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import TYPE_CHECKING, Any

from attnprobe.errors import SelectionError
from attnprobe.fields import LARGEST_K, WEIGHT_DTYPES, Site
from attnprobe.selection import HeadsLike, IndexLike, Selection

if TYPE_CHECKING:  # measures need torch, which takes seconds to import
    from attnprobe.measures import Chosen, Measure


class _Selected:
    """What items have in common: words for a selection; `keys` where an item has columns of its own."""

    layers: HeadsLike
    heads: HeadsLike
    queries: IndexLike
    generated: str
    kind: str

    @property
    def selection(self) -> Selection:
        """The parsed selection."""
        keys = getattr(self, "keys", "all")
        return Selection.parse(self.layers, self.heads, self.queries, keys, self.generated, self.kind)


@dataclass(frozen=True)
class Weights(_Selected):
    """Keep the weights themselves.

    Parameters
    ----------
    layers, heads
        Which (``"all"``, ``"0,3-5"``, ``"-1"``, ``"::4"``, ``{0: [9], 5: "all"}``, ``"L5H1,L6H9"``).
    queries
        Rows, counted in the prompt: ``"all"``, ``"-64:"``, a list.
    keys
        One range of columns, ``"all"`` or ``":512"``.
    generated
        Rows of generated tokens, ``"all"`` or ``"none"``.
    kind
        ``"all"``, ``"self"`` or ``"cross"`` attention.
    dtype
        ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"log-uint8"``, in which values are stored (they are computed
        in float32). The last is one byte a weight: within 3.35 % of it from 2**-24 up, within 2**-24 below.
    pyramid
        In a run directory, keep coarser levels of large maps too (`Head.levels`), so that any part of a map of any size
        is shown at once; they take a twelfth of the weights in float32, a sixth in float16.

    Raises
    ------
    SelectionError
        If a word has no valid form.
    """

    layers: HeadsLike = "all"
    heads: HeadsLike = "all"
    queries: IndexLike = "all"
    keys: IndexLike = "all"
    generated: str = "all"
    kind: str = "all"
    dtype: Any = "float32"
    pyramid: bool = True

    def __post_init__(self) -> None:
        """Validate at once, before any model is there; ``torch.float16`` is as good as ``"float16"``."""
        object.__setattr__(self, "dtype", _checked_dtype(self.dtype))
        _ = self.selection

    def describe(self) -> dict[str, Any]:
        """In plain words, for a manifest."""
        return {"what": "weights", "dtype": self.dtype, "pyramid": self.pyramid}


@dataclass(frozen=True)
class TopK(_Selected):
    """Keep the `k` largest weights of every row, where they are, and the mass of the others.

    Parameters
    ----------
    layers, heads, queries, keys, generated, kind, dtype
        As in `Weights`; of a range of `keys`, the largest weights inside of it.
    k
        How many a row, largest first; of equal weights the one at the lowest position comes first.

    Raises
    ------
    SelectionError
        If a word has no valid form, or `k` is no number from 1 to 4096.
    """

    layers: HeadsLike = "all"
    k: int = 8
    heads: HeadsLike = "all"
    queries: IndexLike = "all"
    keys: IndexLike = "all"
    generated: str = "all"
    kind: str = "all"
    dtype: Any = "float32"

    def __post_init__(self) -> None:
        """Validate at once, before any model is there."""
        object.__setattr__(self, "dtype", _checked_dtype(self.dtype))
        if isinstance(self.k, bool) or not hasattr(self.k, "__index__") or not 1 <= index(self.k) <= LARGEST_K:
            raise SelectionError(f"k={self.k!r}: keep 1 to {LARGEST_K} weights a row, as in TopK('all', k=8)")
        object.__setattr__(self, "k", index(self.k))
        _ = self.selection

    def describe(self) -> dict[str, Any]:
        """In plain words, for a manifest."""
        return {"what": "topk", "k": self.k, "dtype": self.dtype}


@dataclass(frozen=True)
class Measures(_Selected):
    """Keep statistics instead of weights: memory that grows with the length, not with its square.

    Parameters
    ----------
    layers, heads, queries, generated, kind
        As in `Weights`: which rows are measured. A row is always measured over all of its columns.
    names
        ``"default"``, ``"means"``, ``"all"``, one name or a list of them (``"entropy"``, ``"first_mass(4)"``,
        ``"entropy.mean"``), or measures of your own (docs/measures.md).

    Raises
    ------
    SelectionError
        If a word has no valid form, or a measure is unknown.
    """

    layers: HeadsLike = "all"
    names: "str | Measure | Sequence[str | Measure]" = "default"
    heads: HeadsLike = "all"
    queries: IndexLike = "all"
    generated: str = "all"
    kind: str = "all"

    def __post_init__(self) -> None:
        """Validate at once, before any model is there."""
        _ = self.selection, self.chosen

    @property
    def chosen(self) -> "tuple[Chosen, ...]":
        """The measures that the names mean, each once."""
        from attnprobe.measures import choose

        return choose(self.names)

    def describe(self) -> dict[str, Any]:
        """In plain words, for a manifest."""
        return {"what": "measures", "measures": [one.describe() for one in self.chosen]}


Item = Weights | TopK | Measures


def _checked_dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in WEIGHT_DTYPES:
        raise SelectionError(f"dtype={name!r}: write one of {', '.join(WEIGHT_DTYPES)}")
    return name


@dataclass(frozen=True)
class Kept:
    """One `keep` item, resolved against a model: the heads of each site, by the site's number."""

    group: int
    item: Item
    selection: Selection
    heads: dict[int, tuple[int, ...]]

    def describe(self) -> dict[str, object]:
        """In plain words, for a manifest."""
        return {**self.item.describe(), **self.selection.describe()}


def resolve(item: Item, group: int, sites: tuple[Site, ...]) -> Kept:
    """Resolve an item against a model's sites.

    Raises
    ------
    SelectionError
        If a layer or head is out of range, nothing is selected, or a measure has no meaning at a selected site.
    """
    selection = item.selection
    heads: dict[int, tuple[int, ...]] = {}
    for number, site in enumerate(sites):
        if selection.kind not in ("all", site.kind):
            continue
        layers = 1 + max(s.layer for s in sites if s.kind == site.kind)
        chosen = selection.heads_of(site.layer, layers, site.heads)
        if chosen:
            heads[number] = chosen
    if not heads:
        kinds = sorted({site.kind for site in sites})
        raise SelectionError(
            f"nothing is selected: {selection.describe()} of a model with {', '.join(kinds)} attention in "
            f"{1 + max(s.layer for s in sites)} layers"
        )
    if isinstance(item, Measures):
        for one in item.chosen:
            without = next((sites[number] for number in heads if not one.fits(sites[number])), None)
            if one.asked and without is not None:
                raise SelectionError(
                    f"the measure {one.name} compares positions or tokens of one sequence, and the rows and columns of "
                    f'{without.label} are of two; leave it out, or select kind="self"'
                )
    return Kept(group, item, selection, heads)


def together(kept: Sequence[Kept]) -> list[list[Kept]]:
    """Put items of the same heads and rows together: their tiles are made once."""
    groups: list[list[Kept]] = []
    for one in kept:
        for group in groups:
            first = group[0]
            if replace(one.selection, keys=first.selection.keys) == first.selection and one.heads == first.heads:
                group.append(one)
                break
        else:
            groups.append([one])
    return groups
