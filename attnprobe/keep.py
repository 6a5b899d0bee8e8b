"""What is kept of a selection. A recording keeps one or several of these."""

from dataclasses import dataclass
from typing import Any

from attnprobe.errors import SelectionError
from attnprobe.fields import DTYPES, Site
from attnprobe.selection import HeadsLike, IndexLike, Selection


@dataclass(frozen=True)
class Weights:
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
        ``"float32"``, ``"float16"`` or ``"bfloat16"``, in which values are stored (they are computed in float32).

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

    def __post_init__(self) -> None:
        """Validate at once, before any model is there; ``torch.float16`` is as good as ``"float16"``."""
        object.__setattr__(self, "dtype", str(self.dtype).removeprefix("torch."))
        if self.dtype not in DTYPES:
            raise SelectionError(f"dtype={self.dtype!r}: write one of {', '.join(DTYPES)}")
        _ = self.selection

    @property
    def selection(self) -> Selection:
        """The parsed selection."""
        return Selection.parse(self.layers, self.heads, self.queries, self.keys, self.generated, self.kind)


@dataclass(frozen=True)
class Kept:
    """One `keep` item, resolved against a model: the heads of each site, by the site's number."""

    group: int
    selection: Selection
    dtype: str
    heads: dict[int, tuple[int, ...]]

    def describe(self) -> dict[str, object]:
        """In plain words, for a manifest."""
        return {"what": "weights", "dtype": self.dtype, **self.selection.describe()}


def resolve(keep: Weights, group: int, sites: tuple[Site, ...]) -> Kept:
    """Resolve an item against a model's sites.

    Raises
    ------
    SelectionError
        If a layer or head is out of range, or nothing is selected.
    """
    selection = keep.selection
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
    return Kept(group, selection, keep.dtype, heads)
