"""What one thread said of the forward passes to come: the generation that it is in, the name of the next sample."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attnprobe.errors import UnsupportedCall
from attnprobe.lineage import Generation, Lineage
from attnprobe.samples import Growing


@dataclass
class SampleName:
    """What `rec.sample` says of the sample that starts inside of it."""

    name: str | None = None
    prompt_length: int | None = None
    used: bool = False


class Told(threading.local):
    """What one thread said: the generation that it is in, the lineages grown there, the name of the next sample."""

    def __init__(self) -> None:
        self.generation: Generation | None = None
        self.grown: list[Lineage] = []
        self.name = SampleName()

    @contextmanager
    def naming(self, name: str | None, prompt_length: int | None) -> Iterator[None]:
        """Samples that start inside of this block have this name."""
        before, self.name = self.name, SampleName(name, prompt_length)
        try:
            yield
        finally:
            self.name = before

    @contextmanager
    def generating(self, generation: Generation) -> Iterator[list[Lineage]]:
        """Forward passes inside of this block are of one `generate`; the lineages that they grow."""
        before = self.generation, self.grown
        self.generation, self.grown = generation, []
        try:
            yield self.grown
        finally:
            self.generation, self.grown = before

    def open(self, index: int, row: int, batch: int) -> Growing:
        """A sample that starts now, under the name that was told.

        Raises
        ------
        UnsupportedCall
            If another one has that name.
        """
        told = self.name
        if told.name is not None and row == 0:
            if told.used:
                raise UnsupportedCall(f"a second sample starts inside of rec.sample({told.name!r}); name each one")
            told.used = True
        label = str(index) if told.name is None else told.name if batch == 1 else f"{told.name}/{row}"
        return Growing(index, label, row, told.prompt_length, told.prompt_length is not None)
