"""What recording hands to its store, seen by the profiler: bytes by site, and the stage in which it is taken."""

from attnprobe.fields import Block, Field, Sample
from attnprobe.profiling import profiled, stage, written
from attnprobe.store.base import Writer


class CountedWriter:
    """A writer that hands all on to another."""

    def __init__(self, store: Writer) -> None:
        self._store = store

    def write(self, field: Field, block: Block) -> None:
        """Append a block."""
        with stage("write", field.site):
            if profiled():
                written(block.values.numel() * block.values.element_size())
            self._store.write(field, block)

    def commit(self, sample: Sample) -> None:
        """List a sample."""
        with stage("write"):
            self._store.commit(sample)

    def discard(self, sample: int) -> None:
        """Forget a sample."""
        with stage("write"):
            self._store.discard(sample)

    def close(self) -> None:
        """Close the other."""
        self._store.close()
