"""Open lineages: which forward pass goes on with which, and which have ended."""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from attnprobe import caching
from attnprobe.errors import UnsupportedCall
from attnprobe.lineage import Forward, Generation, Lineage
from attnprobe.samples import Growing


class Tracker:
    """Keeps the open lineages: which cache belongs to which, and which have ended."""

    def __init__(self, name: str, open_sample: Callable[[int, int], Growing]) -> None:
        self._name = name
        self._open_sample = open_sample
        self._lineages: list[Lineage] = []
        self._ended: deque[Lineage] = deque()

    def begin(
        self,
        batch: int,
        count: int,
        cache: Any,
        generation: Generation | None,
        window: int | None = None,
        source: Lineage | None = None,
    ) -> Forward:
        """The forward pass that starts now, on `cache` or None, of a model with this context window.

        Where it opens samples, these are those of the encoder's lineage `source`, if nobody else took them.

        Raises
        ------
        UnsupportedCall
            If the batch changed while its cache grew, the cache was changed, or the tokens do not fit the window.
        """
        held = caching.itself(cache)
        lineage = self._of(held) if held is not None else None
        if lineage is not None and lineage.packed:
            raise UnsupportedCall("a cache of packed sequences cannot be gone on with; give each a row of its own")
        if lineage is not None and len(lineage.samples) != batch:
            raise UnsupportedCall(
                f"the cache belongs to a batch of {len(lineage.samples)} and is used for one of {batch}; "
                "start with a fresh cache when the batch changes"
            )
        if lineage is not None and not caching.unchanged(cache, lineage.print, lineage.slots):
            self.end(lineage)  # reset, cropped, or used outside of the recording: a new sample
            lineage = None
        slots = caching.length(cache) if lineage is None else lineage.slots
        if window is not None and 0 < window < slots + count:
            have = f"{slots} cached and {count} new" if slots else f"{count}"
            raise UnsupportedCall(
                f"{have} tokens do not fit the context window of {window}; cut the text, or record it in parts"
            )
        opening = lineage is None
        if lineage is None:
            fits = source is not None and len(source.samples) == batch and not source.taken and not source.failed
            if fits and source is not None:
                samples, source.taken = source.samples, True
                for sample in samples:
                    sample.users += 1
            else:
                samples = [self._open_sample(b, batch) for b in range(batch)]
            prompt = None if generation is None else generation.prompt_slots or count
            lineage = Lineage(samples, slots, self._name, prompt, generation, source=source if fits else None)
            self._lineages.append(lineage)
        if held is not None:
            self._hold(lineage, held)

        def more(row: int) -> Growing:
            return self._open_sample(row, batch)

        forward = Forward(lineage, lineage.slots, count, opening, generation, more if opening else None)
        lineage.slots += count
        return forward

    def finish(self, forward: Forward, cache: Any, output: Any = None) -> None:
        """The forward pass is over and returned `cache` or None. Without any cache, its samples have ended.

        An encoder's go on while its `output` is there: a decoder may come.
        """
        if output is not None:
            self._hold(forward.lineage, output)
            return
        lineage = forward.lineage
        if cache is not None:
            self._hold(lineage, cache)
        else:
            cache = next((found for ref in lineage.caches.values() if (found := ref()) is not None), None)
        if cache is None:
            self.end(lineage)
        else:
            lineage.print = caching.fingerprint(cache)

    def of_output(self, output: Any, batch: int, slots: int) -> Lineage | None:
        """The open lineage of an encoder's output; of another tensor, the only one of its size: it was projected."""
        alike = [one for one in self._lineages if (len(one.samples), one.slots) == (batch, slots) and not one.taken]
        return self._of(output) or (alike[0] if len(alike) == 1 else None)

    def _of(self, cache: Any) -> Lineage | None:
        for lineage in self._lineages:
            held = lineage.caches.get(id(cache))
            if held is not None and held() is cache:
                return lineage
        return None

    def _hold(self, lineage: Lineage, cache: Any) -> None:
        key = id(cache)

        def freed(_: Any) -> None:
            # Runs wherever the garbage collector does, so it only notes; the commit comes at a safe place.
            lineage.caches.pop(key, None)
            if not lineage.caches:
                self.end(lineage)

        if key not in lineage.caches:
            lineage.caches[key] = weakref.ref(cache, freed)

    def end(self, lineage: Lineage) -> None:
        """No more tokens will come."""
        if not lineage.finished:
            lineage.finished = True
            lineage.caches.clear()
            self._ended.append(lineage)

    def discard(self, lineage: Lineage) -> None:
        """Forget a lineage whose forward pass failed."""
        lineage.finished = True
        lineage.caches.clear()
        self._lineages = [other for other in self._lineages if other is not lineage]

    def take_ended(self) -> list[Lineage]:
        """The lineages that ended since the last call."""
        taken = []
        while self._ended:
            lineage = self._ended.popleft()
            if any(lineage is other for other in self._lineages):
                taken.append(lineage)
                self._lineages = [other for other in self._lineages if other is not lineage]
        return taken

    @property
    def open(self) -> list[Lineage]:
        """Every lineage that was not taken or discarded, in order of opening."""
        return list(self._lineages)
