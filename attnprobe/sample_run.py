"""One sample of a run: its heads, measures and words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from attnprobe.aggregate import RunMeasures
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import Field, Piece, Sample, Site, TokenSequence, describe_rows
from attnprobe.head import Head
from attnprobe.held import Held
from attnprobe.labels import labels_of, repeats_of
from attnprobe.selection import head_name
from attnprobe.shapes import Float
from attnprobe.show.colors import MAP
from attnprobe.show.scales import SCALE
from attnprobe.spans import Span, spans_of, words_of
from attnprobe.store.base import Reader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attnprobe.explorer.widget import Explorer
    from attnprobe.plotting import HeadsLike


@dataclass(frozen=True, eq=False, repr=False)
class SampleRun:
    """One sample of a run: ``run.sample(0)[layer, head]``."""

    reader: Reader
    sample: Sample
    labels: tuple[str, ...] | None = None

    @property
    def tokens(self) -> tuple[str, ...]:
        """One label a position of the main sequence."""
        return labels_of(self.sample.main, self._labels)

    @property
    def _labels(self) -> tuple[str, ...] | None:
        """Labels of the user's own; without text, which token comes again."""
        if self.labels is not None or self.reader.manifest.text:
            return self.labels
        return repeats_of(self.sample.main)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The sites that this sample was recorded at, in the model's order."""
        return tuple(site for site in self.reader.manifest.sites if site in self._by_site)

    @cached_property
    def _by_site(self) -> Mapping[Site, Held]:
        """All that was kept of each site."""
        found: dict[Site, list[tuple[Field, Sequence[Piece]]]] = {}
        for field, pieces in self.reader.fields(self.sample.index).items():
            found.setdefault(field.site, []).append((field, pieces))
        return found

    def with_labels(self, labels: Sequence[str]) -> "SampleRun":
        """The same sample with labels of your own (words, image patches), one a token."""
        length = self.sample.main.length
        if len(labels) != length:
            raise SelectionError(f"{len(labels)} labels for {length} tokens; give one a token")
        return SampleRun(self.reader, self.sample, tuple(map(str, labels)))

    def site(self, layer: SupportsIndex | str, kind: str = "self") -> Site:
        """The site of a layer number (the only one of its kind there), or of a module name.

        Raises
        ------
        NotKept
            If it was not recorded.
        SelectionError
            If several sites fit.
        """
        layers = sorted({site.layer for site in self.sites if site.kind == kind})
        if isinstance(layer, str):
            fitting = [site for site in self.sites if site.key == layer]
        else:
            layer = index(layer)
            count = 1 + max((site.layer for site in self.reader.manifest.sites), default=-1)
            number = layer + count if layer < 0 else layer
            fitting = [site for site in self.sites if (site.layer, site.kind) == (number, kind)]
        if not fitting:
            others = ", ".join(s.key for s in self.sites if s.kind != kind)
            kept = f"kept are {kind}-attention layers {describe_rows(layers)}" if layers else f"no {kind}-attention was"
            raise NotKept(
                f"layer {layer!r} was not kept of sample {self.sample.id}; {kept}"
                + (f'; by name there are {others}: write run["{others.split(", ")[0]}", 0]' if others else "")
            )
        if len(fitting) > 1:
            raise SelectionError(f"layer {layer!r} has several sites; name one: {', '.join(s.key for s in fitting)}")
        return fitting[0]

    def __getitem__(self, key: tuple[SupportsIndex | str, SupportsIndex] | SupportsIndex | str) -> Any:
        """``sample[layer, head]`` or ``sample["L5H1"]``: a `Head`; ``sample[layer]``: a dict of its kept heads."""
        if isinstance(key, str):
            key = head_name(key) or key
        parts = key if isinstance(key, tuple) else (key, 0)
        if (
            len(parts) != 2
            or not hasattr(parts[1], "__index__")
            or not (isinstance(parts[0], str) or hasattr(parts[0], "__index__"))
        ):
            raise SelectionError(f'[{key!r}]: write [layer, head], ["L5H1"], [layer] or ["module name", head]')
        if not isinstance(key, tuple):
            site = self.site(key)
            return {head: self[site.key, head] for head in self._kept_heads(site)}
        layer, head = key[0], index(key[1])
        site = self.site(layer)
        number = head + site.heads if head < 0 else head
        if not 0 <= number < site.heads:
            raise SelectionError(
                f"head {head} is out of range: {site.label} has {site.heads} heads (0 to {site.heads - 1})"
            )
        mine = tuple((field, pieces) for field, pieces in self._by_site[site] if number in field.heads)
        if not mine:
            kept = describe_rows(self._kept_heads(site))
            raise NotKept(f"head {head} of {site.label} was not kept; kept are heads {kept}")
        rows, columns = (self._labels if sequence == "main" else None for sequence in (site.queries, site.keys))
        return Head(self.reader, self.sample, mine, number, (rows, columns))

    def _kept_heads(self, site: Site) -> list[int]:
        return sorted({head for field, _ in self._by_site[site] for head in field.heads})

    @property
    def measures(self) -> RunMeasures:
        """The measures of all heads: ``sample.measures["entropy"]`` is ``[layer, head, query]``."""
        return RunMeasures(self.reader, (self.sample,), several=False, labels=self.labels)

    def words(self, sequence: str = "main") -> list[Span]:
        """The words that the tokens make up, for ``head.group(words)`` and ``measures["entropy"].group(words)``.

        A word starts behind white space; punctuation belongs to the word that it is written against; special tokens
        are words of their own. Every token is in one word.

        Raises
        ------
        SelectionError
            If tokens have no text.
        """
        return words_of(self._sequence(sequence))

    def spans(
        self,
        spans: Sequence[tuple[int, int]],
        offsets: Sequence[tuple[int, int]] | None = None,
        sequence: str = "main",
    ) -> list[Span]:
        """The tokens that overlap spans of characters of the text.

        Parameters
        ----------
        spans
            First character, and the one behind the last.
        offsets
            The tokenizer's ``offset_mapping`` of the text; without it, the lengths of the tokens' texts are added up.
        sequence
            Of which sequence.

        Raises
        ------
        SelectionError
            If offsets do not fit the tokens, texts do not tell them, or a span has no token.
        """
        return spans_of(self._sequence(sequence), spans, offsets, self.sample.prompt_length)

    def _sequence(self, name: str) -> TokenSequence:
        if name not in self.sample.sequences:
            raise SelectionError(f"there is no sequence {name!r}; there are {', '.join(self.sample.sequences)}")
        return self.sample.sequences[name]

    def layer_array(self, layer: SupportsIndex | str) -> Float[np.ndarray, "head query key"]:
        """All heads of a layer.

        Raises
        ------
        NotKept
            If a head or a row was not kept.
        """
        site = self.site(layer)
        return np.stack([self[site.key, head].numpy() for head in range(site.heads)])

    def to_bertviz(self, layers: Sequence[int] | None = None) -> dict[str, Any]:
        """Arguments of BertViz's ``head_view`` and ``model_view``.

        These are ``attention``, a ``[1, head, query, key]`` tensor a layer, and ``tokens``.
        """
        import torch

        own = [site for site in self.sites if site.kind == "self" and site.queries == site.keys == "main"]
        with_weights = [site for site in own if any(field.what == "weights" for field, _ in self._by_site[site])]
        chosen = [site.key for site in with_weights or own] if layers is None else layers
        attention = tuple(torch.from_numpy(self.layer_array(n)).float()[None] for n in chosen)
        return {"attention": attention, "tokens": list(self.tokens)}

    def to_circuitsvis(self, layer: int) -> dict[str, Any]:
        """Arguments of ``circuitsvis.attention.attention_patterns``: ``tokens``, and ``attention`` of a layer."""
        return {"tokens": list(self.tokens), "attention": self.layer_array(layer).astype(np.float32)}

    def view(
        self,
        layer: SupportsIndex | str | None = None,
        head: SupportsIndex | None = None,
        height: int = 600,
        **state: Any,
    ) -> "Explorer":
        """See `Run.view`, with this sample first, and labels of your own where it has some."""
        from attnprobe.explorer.widget import explore_sample

        own = {} if self.labels is None else {"main": self.labels}
        return explore_sample(self.reader, self.sample, layer, head, height, state, own)

    def plot_grid(
        self,
        measure: str | None = None,
        ax: "Axes | None" = None,
        *,
        map: str = MAP,
        scale: str = SCALE,
        how: str = "max",
        kind: str | None = None,
        part: str | None = None,
    ) -> "Axes":
        """Draw all heads, layers downwards: small maps, or with a `measure` its means (needs the ``plots`` extra).

        `map`, `scale` and `how` are as of `Head.plot`, `kind` and `part` as of `RunMeasures.select`.

        Raises
        ------
        NotKept
            If neither weights nor pooled maps were kept, or not the measure.
        """
        from attnprobe.plotting import plot_measure_grid, plot_thumbnails

        if measure is None:
            return plot_thumbnails(self, ax, map, scale, how, kind, part)
        return plot_measure_grid(self.measures.select(kind, part), measure, ax, map)

    def plot_measures(
        self,
        names: str | Sequence[str] | None = None,
        heads: "HeadsLike | None" = None,
        *,
        scatter: tuple[str, str] | None = None,
        kind: str | None = None,
        part: str | None = None,
    ) -> "Figure":
        """Draw measures: curves over position, histograms of distance, heads by two means (needs ``plots``).

        Parameters
        ----------
        names
            Which; all that were kept of rows, keys or distances if None.
        heads
            Heads that are drawn beside the median and the middle 80 % of all: ``"L0H3,L1H6"``.
        scatter
            Two measures whose means are the places of heads in a last panel; if None, two that were kept, where no
            `names` are given.
        kind, part
            As of `RunMeasures.select`.

        Raises
        ------
        NotKept
            If a measure was not kept, or none.
        """
        from attnprobe.plotting import plot_run_measures

        return plot_run_measures(self.measures.select(kind, part), names, heads, scatter)

    def __repr__(self) -> str:
        """Say which sample."""
        return f"<sample {self.sample.id}: {self.sample.main.length} tokens, {len(self.sites)} sites>"
