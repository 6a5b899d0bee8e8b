"""The forward passes that run now, a stream each: which samples they open or continue, and when these are whole."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from attnprobe import caching
from attnprobe.arguments import ForwardInputs
from attnprobe.errors import UnsupportedCall
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


@dataclass
class Within:
    """A call of compiled code that runs: the key cache that it was given, whether a pass took it, passes that ended."""

    cache: caching.Before | None
    taken: bool = False
    ended: list[tuple[int, Pass]] = field(default_factory=list)


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
        self._within: dict[int, list[Within]] = {}

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

    # --- inside of compiled code, of which only tensors are seen -------------------------------------------------

    def enter(self, cache: Any) -> None:
        """Compiled code is entered by this thread, and given this key cache, or None."""
        within = Within(None if cache is None else caching.Before(cache))
        self._within.setdefault(threading.get_ident(), []).append(within)

    def leave(self) -> list[tuple[int, Pass]]:
        """It leaves it; the passes that ended inside, with their streams."""
        return self._within[threading.get_ident()].pop().ended

    def given_cache(self, stream: int, cached: bool) -> caching.Before | None:
        """The key cache of a pass that begins in compiled code, which tells only whether there is one.

        Raises
        ------
        UnsupportedCall
            If which one it is cannot be known, or the pass is of one of two sequences, one for the other.
        """
        if self._sources[stream] is not None or self.feeds(stream):
            raise UnsupportedCall(
                "an encoder and its decoder run inside of compiled code, where it is not seen whose output is looked "
                "at; compile their layers, not the whole: for layer in ...: layer.compile()"
            )
        if not cached:
            return None
        within = next(reversed(self._within.get(threading.get_ident(), ())), None)
        if within is None or within.cache is None:
            raise UnsupportedCall(
                "the model goes on with a key cache inside of compiled code, and which cache is not seen; compile the "
                "model or its layers, not a function around it, before recording starts, and record what torch.compile "
                "returned; a generate that compiles by itself takes disable_compile=True"
            )
        if within.taken:
            raise UnsupportedCall(
                "compiled code runs several forward passes on one key cache; compile the model, not what runs it "
                "several times"
            )
        within.taken = True
        return within.cache

    def end_within(self, stream: int, own: Pass) -> bool:
        """A pass ended inside of compiled code; whether somebody waits for what that returns."""
        within = next(reversed(self._within.get(threading.get_ident(), ())), None)
        if within is not None:
            within.ended.append((stream, own))
        return within is not None

    # -------------------------------------------------------------------------------------------------------------

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
