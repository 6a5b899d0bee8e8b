"""A run as it is shown: with some of its samples, or with labels of the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np

from attnprobe.fields import Field, Piece, Sample
from attnprobe.run import Run
from attnprobe.shapes import Shaped
from attnprobe.store.base import Manifest, Reader


class SomeSamples:
    """A reader of some samples of another one.

    Parameters
    ----------
    reader
        The other one.
    samples
        The samples, by index.
    location
        Where it says that the run lies.
    """

    def __init__(self, reader: Reader, samples: Sequence[Sample], location: str | None) -> None:
        self._reader = reader
        self._samples = samples
        self._location = location

    @property
    def manifest(self) -> Manifest:
        """What the run is of."""
        return self._reader.manifest

    @property
    def samples(self) -> Sequence[Sample]:
        """Those that were chosen."""
        return self._samples

    def find(self, id: str) -> Sample | None:
        """The first of them of that id."""
        return next((sample for sample in self._samples if sample.id == id), None)

    @property
    def location(self) -> str | None:
        """Where the run lies, or as much of it as is told."""
        return self._location

    @property
    def nbytes(self) -> int:
        """Bytes of the whole run."""
        return self._reader.nbytes

    def fields(self, sample: int) -> Mapping[Field, Sequence[Piece]]:
        """What was kept of a sample."""
        return self._reader.fields(sample)

    def values(
        self, field: Field, piece: Piece, heads: slice, rows: slice, columns: slice
    ) -> Shaped[np.ndarray, "head query key"]:
        """A part of one block."""
        return self._reader.values(field, piece, heads, rows, columns)


def some_samples(run: Run, places: Sequence[int]) -> Run:
    """The run with the samples at some places alone, in that order; of where it lies, the name, for files are sent."""
    name = None if run.reader.location is None else PurePath(run.reader.location).name
    return Run(SomeSamples(run.reader, [run.sample(place).sample for place in places], name), run.fidelity)


class _Instead(Sequence[Sample]):
    """Samples of which one is another; nothing is read of the others."""

    def __init__(self, samples: Sequence[Sample], sample: Sample) -> None:
        self._samples = samples
        self._sample = sample

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[place] for place in range(len(self))[at]]
        found = self._samples[at]
        return self._sample if found.index == self._sample.index else found


def labelled_run(run: Run, sample: Sample, labels: Mapping[str, Sequence[str]]) -> Run:
    """The run, the tokens of whose sample have labels of the user's own; by sequence, for those that have some."""
    sequences = {
        name: replace(sequence, tokens=tuple(labels[name]), texts=None) if name in labels else sequence
        for name, sequence in sample.sequences.items()
    }
    named = replace(sample, sequences=sequences)
    return Run(SomeSamples(run.reader, _Instead(run.samples, named), run.reader.location), run.fidelity)
