"""A run with some of its samples, as an HTML file shows it."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np

from attnprobe.fields import Field, Piece, Sample
from attnprobe.run import Run
from attnprobe.shapes import Shaped
from attnprobe.store.base import Manifest, Reader


class SomeSamples:
    """A reader of some samples of another one. Of where the run lies it has no more than the name.

    Parameters
    ----------
    reader
        The other one.
    samples
        The samples.
    """

    def __init__(self, reader: Reader, samples: Sequence[Sample]) -> None:
        self._reader = reader
        self._samples = tuple(samples)

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
        """The name of the run's directory: a file is sent to others."""
        place = self._reader.location
        return None if place is None else PurePath(place).name

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
    """The run with the samples at some places alone, in that order."""
    return Run(SomeSamples(run.reader, [run.sample(place).sample for place in places]), run.fidelity)
