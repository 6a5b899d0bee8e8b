"""Everything that was recorded: a lazy reader of samples, layers and heads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import Field, Piece, Sample, Site, describe_rows
from attnprobe.head import Head
from attnprobe.labels import labels_of
from attnprobe.selection import head_name
from attnprobe.shapes import Float
from attnprobe.sizes import format_bytes
from attnprobe.store.base import Manifest, Reader
from attnprobe.store.read_directory import DirectoryReader


@dataclass(frozen=True, eq=False, repr=False)
class SampleRun:
    """One sample of a run: ``run.sample(0)[layer, head]``."""

    reader: Reader
    sample: Sample
    labels: tuple[str, ...] | None = None

    @property
    def tokens(self) -> tuple[str, ...]:
        """One label a position of the main sequence."""
        return labels_of(self.sample.sequences["main"], self._labels)

    @property
    def _labels(self) -> tuple[str, ...] | None:
        """Labels of the user's own; without text, which token comes again: ``~0 ~1 ~0``."""
        if self.labels is not None or self.reader.manifest.text:
            return self.labels
        ids = self.sample.sequences["main"].ids
        if ids is None:
            return None
        return tuple(f"~{rank}" if rank >= 0 else f"[{i}]" for i, rank in enumerate(ids.tolist()))

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The sites that this sample was recorded at, in the model's order."""
        there = {field.site for field in self.reader.fields(self.sample.index)}
        return tuple(site for site in self.reader.manifest.sites if site in there)

    def with_labels(self, labels: Sequence[str]) -> "SampleRun":
        """The same sample with labels of your own (words, image patches), one a token."""
        length = self.sample.sequences["main"].length
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
        fields = self._fields(site)
        mine = tuple((field, pieces) for field, pieces in fields if number in field.heads)
        if not mine:
            kept = describe_rows(self._kept_heads(site))
            raise NotKept(f"head {head} of {site.label} was not kept; kept are heads {kept}")
        rows, columns = (self._labels if sequence == "main" else None for sequence in (site.queries, site.keys))
        return Head(self.reader, self.sample, mine, number, (rows, columns))

    def _kept_heads(self, site: Site) -> list[int]:
        return sorted({head for field, _ in self._fields(site) for head in field.heads})

    def _fields(self, site: Site) -> list[tuple[Field, Sequence[Piece]]]:
        fields = self.reader.fields(self.sample.index)
        return [(field, pieces) for field, pieces in fields.items() if field.site == site]

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

        keys = [site.key for site in self.sites if site.kind == "self" and site.queries == site.keys == "main"]
        chosen = keys if layers is None else layers
        attention = tuple(torch.from_numpy(self.layer_array(n)).float()[None] for n in chosen)
        return {"attention": attention, "tokens": list(self.tokens)}

    def to_circuitsvis(self, layer: int) -> dict[str, Any]:
        """Arguments of ``circuitsvis.attention.attention_patterns``: ``tokens``, and ``attention`` of a layer."""
        return {"tokens": list(self.tokens), "attention": self.layer_array(layer).astype(np.float32)}

    def __repr__(self) -> str:
        """Say which sample."""
        return f"<sample {self.sample.id}: {self.sample.sequences['main'].length} tokens, {len(self.sites)} sites>"


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A recording. Nothing is read before it is asked for.

    ``run[layer, head]`` is a `Head` (with one sample); ``run.sample(i)[layer, head]`` with several.
    """

    reader: Reader

    @property
    def manifest(self) -> Manifest:
        """Model, selection and versions."""
        return self.reader.manifest

    @property
    def samples(self) -> Sequence[Sample]:
        """The recorded samples."""
        return self.reader.samples

    @property
    def sites(self) -> tuple[Site, ...]:
        """All attention modules of the model; `manifest.keep` says what was selected."""
        return tuple(self.manifest.sites)

    @property
    def num_layers(self) -> int:
        """Layers of the model."""
        return len({site.layer for site in self.sites})

    @property
    def num_heads(self) -> int:
        """Heads a layer of the model (the most, where layers differ)."""
        return max(site.heads for site in self.sites)

    @property
    def nbytes(self) -> int:
        """Bytes of the kept weights."""
        return self.reader.nbytes

    @property
    def path(self) -> Path | None:
        """Where the run lies, or None in memory."""
        return None if self.reader.location is None else Path(self.reader.location)

    def sample(self, which: SupportsIndex | str = 0) -> SampleRun:
        """One sample, by its place (from 0, negative from the end) or its id.

        Raises
        ------
        NotKept
            If there is no such sample.
        """
        samples = self.samples
        if isinstance(which, str):
            for sample in samples:
                if sample.id == which:
                    return SampleRun(self.reader, sample)
            raise NotKept(f"there is no sample {which!r}; there are {', '.join(s.id for s in samples[:8])}")
        if not -len(samples) <= index(which) < len(samples):
            have = f"{len(samples)} (0 to {len(samples) - 1})" if len(samples) else "none"
            raise NotKept(f"there is no sample {which}; the run has {have}")
        return SampleRun(self.reader, samples[index(which)])

    def _only(self) -> SampleRun:
        if len(self.samples) != 1:
            names = ", ".join(sample.id for sample in self.samples[:8]) or "none"
            names += ", ..." if len(self.samples) > 8 else ""
            raise SelectionError(
                f"the run has {len(self.samples)} samples ({names}), so run[layer, head] is not one map; "
                "write run.sample(i)[layer, head]"
            )
        return self.sample(0)

    def __getitem__(self, key: tuple[SupportsIndex | str, SupportsIndex] | SupportsIndex | str) -> Any:
        """``run[layer, head]``, of the only sample."""
        return self._only()[key]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __iter__(self) -> Iterator[SampleRun]:
        """One sample after the other."""
        return (SampleRun(self.reader, sample) for sample in self.samples)

    def with_labels(self, labels: Sequence[str]) -> SampleRun:
        """The only sample, with labels of your own, one a token."""
        return self._only().with_labels(labels)

    def to_bertviz(self, layers: Sequence[int] | None = None) -> dict[str, Any]:
        """See `SampleRun.to_bertviz`, of the only sample."""
        return self._only().to_bertviz(layers)

    def to_circuitsvis(self, layer: int) -> dict[str, Any]:
        """See `SampleRun.to_circuitsvis`, of the only sample."""
        return self._only().to_circuitsvis(layer)

    def describe(self) -> dict[str, Any]:
        """The run in plain data: samples, layers, heads, tokens, dtype, bytes."""
        lengths = [sample.sequences["main"].length for sample in self.samples]
        fields = list(self.reader.fields(self.samples[0].index)) if lengths else []
        by_site: dict[Site, set[int]] = {}
        for field in fields:
            by_site.setdefault(field.site, set()).update(field.heads)
        heads = [len(kept) for kept in by_site.values()]
        return {
            "samples": len(lengths),
            "layers": len({site.layer for site in by_site}),
            "heads": _span(heads),
            "tokens": _span(lengths),
            "dtype": ", ".join(sorted({field.dtype for field in fields})),
            "bytes": self.nbytes,
        }

    def __repr__(self) -> str:
        """Say how much of what."""
        it = self.describe()
        samples = "1 sample" if it["samples"] == 1 else f"{it['samples']} samples"
        if not it["samples"]:
            return samples
        counts = (f"{it[what]} {what[:-1]}{'s' * (str(it[what]) != '1')}" for what in ("layers", "heads", "tokens"))
        return f"{' x '.join((samples, *counts))}, {it['dtype']}, {format_bytes(it['bytes'])}"

    def _repr_html_(self) -> str:
        it = self.describe()
        it |= {"bytes": format_bytes(it["bytes"]), "model": self.manifest.model.get("class")}
        cells = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in it.items())
        return f"<table>{cells}</table>"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low} to {high}"


def open_run(path: str | Path) -> Run:
    """Open a run directory; nothing is loaded yet.

    Raises
    ------
    StoreError
        If there is no run, or one that this version does not read.
    """
    return Run(DirectoryReader(Path(path)))
