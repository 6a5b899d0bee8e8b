"""The seam between recording and storage: what a writer takes and what a reader gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from attnprobe.fields import Block, Field, Piece, Sample, Site
from attnprobe.shapes import Shaped

FORMAT = 4
ROWS = "rows"  # in a manifest's data: the rows of the corpus
READABLE = (1, 2, 3, 4)  # 1 had weights only, 2 no routes and a main sequence in every sample, 3 one writer


@dataclass(frozen=True)
class Manifest:
    """What a run is of: written once, before the first sample.

    Attributes
    ----------
    model
        Class, name or path, revision, and a hash of the configuration.
    sites
        All attention sites of the model, whatever was selected.
    keep
        The selections, one a kept group, in plain words.
    text
        Whether token ids and strings are kept.
    versions
        Of attnprobe, torch, transformers and Python.
    created
        UTC, ISO 8601.
    data
        What the samples are of, where the user said it; a recording that goes on has to be of the same.
    """

    model: Mapping[str, Any]
    sites: Sequence[Site]
    keep: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str]
    created: str
    format: int = FORMAT
    text: bool = True
    data: Mapping[str, Any] | None = None


def rows_of(manifest: Manifest, samples: int) -> str:
    """How many rows of a corpus a run of so many samples lists: ``"6 of 12"``; empty where that is not known."""
    rows = (manifest.data or {}).get(ROWS)
    return f"{samples:,} of {rows:,}" if type(rows) is int and 0 <= samples <= rows else ""


@runtime_checkable
class Writer(Protocol):
    """Takes blocks as they come; a sample is committed whole or not at all."""

    def write(self, field: Field, block: Block) -> None:
        """Append a block. The store owns it from now on."""

    def commit(self, sample: Sample) -> None:
        """List a sample with all its fields; it may become visible later, with others, but never in part."""

    def discard(self, sample: int) -> None:
        """Forget a sample that was not committed."""

    def close(self) -> None:
        """Make every committed sample visible, drop the rest, and let go of all files."""


@runtime_checkable
class Reader(Protocol):
    """Gives what was committed; nothing is loaded before `values` is called."""

    @property
    def manifest(self) -> Manifest:
        """What the run is of."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The committed samples, in order of index."""

    def find(self, id: str) -> Sample | None:
        """The first sample of that id; None where there is none."""

    @property
    def location(self) -> str | None:
        """Path of the run, or None in memory."""

    @property
    def nbytes(self) -> int:
        """Bytes of all kept values."""

    def fields(self, sample: int) -> Mapping[Field, Sequence[Piece]]:
        """The fields of a sample and where their blocks lie."""

    def values(
        self, field: Field, piece: Piece, heads: slice, rows: slice, columns: slice
    ) -> Shaped[np.ndarray, "head query key"]:
        """A part of one block, in block coordinates; bfloat16 comes as float32."""
