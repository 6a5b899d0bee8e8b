"""Everything that was recorded: a lazy reader of samples, layers and heads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex
from uuid import uuid4

from attnprobe.aggregate import RunMeasures
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fidelity import Fidelity
from attnprobe.fields import Sample, Site
from attnprobe.held import dtypes_of, largest_k, measures_of, short
from attnprobe.sample_run import SampleRun
from attnprobe.show.colors import MAP
from attnprobe.sizes import format_bytes
from attnprobe.store.base import Manifest, Reader
from attnprobe.store.read_directory import DirectoryReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attnprobe.explorer.file import Size
    from attnprobe.explorer.widget import Explorer

__all__ = ["Run", "SampleRun", "open_run"]


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A recording. Nothing is read before it is asked for.

    ``run[layer, head]`` is a `Head` (with one sample); ``run.sample(i)[layer, head]`` with several.
    """

    reader: Reader
    fidelity: Fidelity | None = None
    """Whether recorded weights are those that the kernels used, by site; None where nobody looked."""

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
        """Bytes of all that was kept."""
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
            sample = self.reader.find(which)
            if sample is not None:
                return SampleRun(self.reader, sample)
            more = f" and {len(samples) - 8:,} more" if len(samples) > 8 else ""
            raise NotKept(f"there is no sample {which!r}; there are {', '.join(s.id for s in samples[:8])}{more}")
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

    @property
    def measures(self) -> RunMeasures:
        """The measures of all samples: a number a head, `summary` over samples; of the only sample, all values."""
        return RunMeasures(self.reader, self.samples, several=True)

    def with_labels(self, labels: Sequence[str]) -> SampleRun:
        """The only sample, with labels of your own, one a token."""
        return self._only().with_labels(labels)

    def to_bertviz(self, layers: Sequence[int] | None = None) -> dict[str, Any]:
        """See `SampleRun.to_bertviz`, of the only sample."""
        return self._only().to_bertviz(layers)

    def to_circuitsvis(self, layer: int) -> dict[str, Any]:
        """See `SampleRun.to_circuitsvis`, of the only sample."""
        return self._only().to_circuitsvis(layer)

    def view(
        self,
        layer: SupportsIndex | str | None = None,
        head: SupportsIndex | None = None,
        height: int = 600,
        **state: Any,
    ) -> "Explorer":
        """Explore the run in a notebook's cell (needs the ``notebook`` extra); `state` of what it returns can be set.

        Parameters
        ----------
        layer, head
            What is shown first; all heads if None.
        height
            In pixels, 200 to 10,000.
        **state
            More of what is shown first, by the names that a link has: ``scale="linear"``, ``query=7``, ``sample=3``.

        Raises
        ------
        AttnprobeError
            If anywidget is not installed.
        NotKept
            If nothing was kept of it.
        SelectionError
            If several sites fit, a name is none of a state, or a value is none of its name.
        """
        from attnprobe.explorer.widget import explore

        return explore(self, layer, head, height, state)

    def to_html(
        self,
        path: str | Path,
        heads: Sequence[tuple[SupportsIndex | str, SupportsIndex]] | None = None,
        samples: Sequence[SupportsIndex | str] | None = None,
        max_size: int | str = "20 MB",
        force: bool = False,
    ) -> "Size":
        """Write the explorer as one HTML file, which needs no network and no Python.

        Maps are taken as fine as there is room for, and exact weights, curves and means where there still is some.

        Parameters
        ----------
        path
            The file; one that is there is replaced, and it appears whole or not at all.
        heads
            Whose maps are taken, as layer (or a module's name) and head; all if None. Small pictures are of all.
        samples
            Places or ids; the first 8 if None.
        max_size
            That it may have.
        force
            Write it although what is needed at least takes more.

        Returns
        -------
        Size
            How large it is, what of, and what was left out; prints as a sentence.

        Raises
        ------
        BudgetError
            If what is needed at least is larger than `max_size`.
        NotKept
            If a sample or a head is not there, or has no weights.
        """
        from attnprobe.explorer.file import write_html

        return write_html(self, path, heads, samples, max_size, force)

    def plot_grid(
        self,
        measure: str | None = None,
        ax: "Axes | None" = None,
        *,
        sample: SupportsIndex | str | None = None,
        **options: Any,
    ) -> "Axes":
        """See `SampleRun.plot_grid`, of a sample or the only one; a `measure` is the mean over all if none is named."""
        from attnprobe.plotting import plot_measure_grid

        if measure is None or sample is not None or len(self.samples) == 1:
            return self._plotted(sample).plot_grid(measure, ax, **options)
        measures = self.measures.select(options.pop("kind", None), options.pop("part", None))
        for of_maps in ("scale", "how"):
            options.pop(of_maps, None)
        return plot_measure_grid(measures, measure, ax, **{"map": MAP, **options})

    def plot_measures(
        self, names: str | Sequence[str] | None = None, *, sample: SupportsIndex | str | None = None, **options: Any
    ) -> "Figure":
        """See `SampleRun.plot_measures`, of a sample, or the only one."""
        return self._plotted(sample).plot_measures(names, **options)

    def _plotted(self, sample: SupportsIndex | str | None) -> SampleRun:
        if sample is None and len(self.samples) > 1:
            raise SelectionError(f"the run has {len(self.samples)} samples; choose one with sample=0, or by its id")
        return self._only() if sample is None else self.sample(sample)

    def describe(self) -> dict[str, Any]:
        """The run in plain data: samples, layers, heads, tokens, what was kept of the first sample, bytes.

        `dtype` is the weights', None where none were kept; `top` (how many largest weights of each row) and `measures`
        (how many) are there only where they were kept.
        """
        lengths = [sample.main.length for sample in self.samples]
        held = list(self.reader.fields(self.samples[0].index).items()) if lengths else []
        by_site: dict[Site, set[int]] = {}
        for field, _ in held:
            by_site.setdefault(field.site, set()).update(field.heads)
        heads = [len(kept) for kept in by_site.values()]
        beside = {"top": largest_k(held), "measures": len(measures_of(field for field, _ in held))}
        return {
            "samples": len(lengths),
            "layers": len({site.layer for site in by_site}),
            "heads": _span(heads),
            "tokens": _span(lengths),
            "dtype": dtypes_of(field for field, _ in held) or None,
            **{what: count for what, count in beside.items() if count},
            "bytes": self.nbytes,
        }

    def __repr__(self) -> str:
        """Say how much of what."""
        it = self.describe()
        samples = "1 sample" if it["samples"] == 1 else f"{it['samples']} samples"
        if not it["samples"]:
            return samples
        counts = (f"{it[what]} {what[:-1]}{'s' * (str(it[what]) != '1')}" for what in ("layers", "heads", "tokens"))
        what = short(it["dtype"] or "", it.get("top", 0), it.get("measures", 0))
        return f"{' x '.join((samples, *counts))}, {what}, {format_bytes(it['bytes'])}"

    def __dask_tokenize__(self) -> str:
        """A name for dask, given once: its own would be made of all values, and a run may grow."""
        return uuid4().hex

    def _repr_html_(self) -> str:
        it = {what: value for what, value in self.describe().items() if value is not None}
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
    reader = DirectoryReader(Path(path))
    return Run(reader, reader.fidelity)
