"""The memory store: blocks stay as tensors on the CPU."""

from collections.abc import Mapping, Sequence

import numpy as np

from attnprobe.codes import decode
from attnprobe.errors import StoreError
from attnprobe.fields import Block, Field, Piece, Sample
from attnprobe.shapes import Shaped
from attnprobe.store.base import Manifest
from attnprobe.store.join import BLOCK, RowJoiner


class MemoryStore:
    """A writer and a reader at once."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._blocks: dict[int, dict[Field, list[Piece]]] = {}
        self._samples: dict[int, Sample] = {}
        self._joiner = RowJoiner(self._put, bound=64 * BLOCK)
        self._closed = False

    def _refuse(self, sample: int) -> None:
        if self._closed:
            raise StoreError("the store is closed; open a new recording")
        if sample in self._samples:
            raise StoreError(f"sample {sample} is committed already; write another sample")

    def write(self, field: Field, block: Block) -> None:
        """Keep a block."""
        self._refuse(field.sample)
        self._joiner.write(field, block)

    def _put(self, field: Field, block: Block) -> None:
        block = block.compact()
        head, query, key = block.values.shape
        piece = Piece(block.heads, block.rows, block.start, (head, query, key), block.values)
        self._blocks.setdefault(field.sample, {}).setdefault(field, []).append(piece)

    def commit(self, sample: Sample) -> None:
        """List a sample."""
        self._refuse(sample.index)
        self._joiner.flush_sample(sample.index)
        self._samples[sample.index] = sample

    def discard(self, sample: int) -> None:
        """Forget a sample that was not committed."""
        if sample not in self._samples:
            self._joiner.drop_sample(sample)
            self._blocks.pop(sample, None)

    def close(self) -> None:
        """Drop what was not committed."""
        self._joiner = RowJoiner(self._put, bound=0)
        for sample in self._blocks.keys() - self._samples.keys():
            del self._blocks[sample]
        self._closed = True

    @property
    def manifest(self) -> Manifest:
        """What the run is of."""
        return self._manifest

    @property
    def samples(self) -> Sequence[Sample]:
        """The committed samples."""
        return [self._samples[index] for index in sorted(self._samples)]

    def find(self, id: str) -> Sample | None:
        """The first sample of that id; None where there is none."""
        return next((sample for sample in self.samples if sample.id == id), None)

    @property
    def location(self) -> str | None:
        """None: in memory."""
        return None

    @property
    def nbytes(self) -> int:
        """Bytes of the committed values."""
        pieces = (p for s in self._samples for ps in self.fields(s).values() for p in ps)
        return sum(piece.place.numel() * piece.place.element_size() for piece in pieces)

    def fields(self, sample: int) -> Mapping[Field, Sequence[Piece]]:
        """The fields of a committed sample."""
        return self._blocks.get(sample, {}) if sample in self._samples else {}

    def values(
        self, field: Field, piece: Piece, heads: slice, rows: slice, columns: slice
    ) -> Shaped[np.ndarray, "head query key"]:
        """A part of a block; bfloat16 and codes come as float32."""
        part = piece.place[heads, rows, columns]
        if field.dtype == "bfloat16":  # which numpy does not know
            wide: np.ndarray = part.float().numpy()
            return wide
        return decode(part.numpy(), field.dtype)
