"""The forward passes that run now, a stream each: which samples they open or continue, and when these are whole."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attnprobe.arguments import ForwardInputs
from attnprobe.lineage import Forward, Generation, Lineage
from attnprobe.samples import MAIN, Growing
from attnprobe.sites import Anatomy
from attnprobe.tracker import Tracker


@dataclass
class Pass:
    """A forward pass of a stream that runs; without `forward` until an attention call tells its size."""

    inputs: ForwardInputs
    generation: Generation | None
    forward: Forward | None = None


class Streams:
    """The passes of all streams, by thread.

    Parameters
    ----------
    anatomy
        The model's streams.
    open_sample
        Makes a sample for a row of a batch.
    """

    def __init__(self, anatomy: Anatomy, open_sample: Callable[[int, int], Growing]) -> None:
        self._anatomy = anatomy
        self.trackers = tuple(Tracker(stream.name, open_sample) for stream in anatomy.streams)
        self._sources = tuple(anatomy.source_of(number) for number in range(len(anatomy.streams)))
        self._passes: dict[tuple[int, int], Pass] = {}

    def take(self, stream: int) -> Pass | None:
        """The pass that this thread runs, no more to be found."""
        return self._passes.pop((threading.get_ident(), stream), None)

    def get(self, stream: int) -> Pass | None:
        """The pass that this thread runs."""
        return self._passes.get((threading.get_ident(), stream))

    def start(self, stream: int, inputs: ForwardInputs, generation: Generation | None) -> Pass:
        """A pass of this thread begins."""
        own = Pass(inputs, generation if self._anatomy.streams[stream].name == MAIN else None)
        self._passes[threading.get_ident(), stream] = own
        return own

    def begin(self, stream: int, own: Pass, batch: int, count: int) -> Forward:
        """The pass is of so many rows and tokens."""
        source, inputs = self._sources[stream], own.inputs
        encoder = None
        if source is not None and inputs.states is not None:
            states = inputs.states
            encoder = self.trackers[source].of_output(states, batch, states.shape[-2])
        own.forward = self.trackers[stream].begin(batch, count, inputs.cache, own.generation, inputs.window, encoder)
        own.forward.last = inputs.last
        return own.forward

    def feeds(self, stream: int) -> bool:
        """Whether another stream looks at this one."""
        return stream in self._sources

    @property
    def running(self) -> Iterator[Forward]:
        """The passes that have begun and not ended."""
        return (own.forward for own in self._passes.values() if own.forward is not None)

    @property
    def open(self) -> list[Lineage]:
        """Every lineage that was not taken or discarded."""
        return [lineage for tracker in self.trackers for lineage in tracker.open]

    def end_all(self) -> None:
        """No more tokens will come."""
        for tracker in self.trackers:
            for lineage in tracker.open:
                tracker.end(lineage)

    def take_ended(self) -> list[tuple[Lineage, Growing]]:
        """The samples that are whole since the last call: no lineage may add to them any more."""
        whole = []
        for tracker in self.trackers:
            for lineage in tracker.take_ended():
                for sample in lineage.samples:
                    sample.users -= 1
                    if not sample.users:
                        whole.append((lineage, sample))
        return whole

    def discard(self, lineage: Lineage) -> None:
        """Forget a lineage whose forward pass failed, and the one that shares its samples."""
        samples = {id(sample) for sample in lineage.samples}
        for tracker in self.trackers:
            for other in [*tracker.open, lineage]:
                if any(id(sample) in samples for sample in other.samples):
                    other.failed = True  # what is in flight of it is dropped when it lands
                    tracker.discard(other)
