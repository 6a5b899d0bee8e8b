"""The observer of models that are compiled, as a whole or in parts: forward passes of which only tensors are seen."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from attnprobe.observer import Observer
from attnprobe.seen import refuse_captured
from attnprobe.watchers import Make


class CompiledObserver(Observer):
    """Sees forward passes inside of compiled code too.

    There, a backbone tells by tensors what it is given. Its key cache is that of the call that enters the code, and
    whether the samples go on is known when that call returns: until then a pass that ended waits.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._calls: Counter[tuple[int, bool]] = Counter()  # by site, and whether in traced code

    def before_forward(self, stream: int, arguments: Mapping[str, Any]) -> None:
        """Find out which samples this forward pass opens or continues, unless it is captured to be replayed unseen."""
        if self._watching:
            refuse_captured(arguments.values())
        super().before_forward(stream, arguments)

    def attention(self, sites: tuple[int, ...], make: Make, traced: bool = False) -> None:
        """Make the selected weights of a call, and count where it ran."""
        super().attention(sites, make, traced)
        if self._watching and not self._pauses:
            self._calls.update((site, traced) for site in sites)

    def uncompiled(self, expected: Iterable[int]) -> dict[str, tuple[int, int]]:
        """Sites that ran uncompiled though it was `expected` of them to be compiled, or other calls of theirs were.

        Names of modules, each with how many of how many calls did.
        """
        counts = {site: (self._calls[site, False], self._calls[site, True]) for site, _ in self._calls}
        due = {*expected, *(site for site, (_, within) in counts.items() if within)}
        return {
            self._anatomy.sites[site].key: (out, out + within)
            for site, (out, within) in sorted(counts.items())
            if out and site in due
        }

    def before_compiled(self, stream: int, arguments: Mapping[str, Any], cached: bool) -> None:
        """A forward pass begins inside of compiled code."""
        with self._lock:
            if self._watching:
                cache = self._streams.given_cache(stream, cached)
                self.before_forward(stream, {**arguments, "past_key_values": cache})

    def after_compiled(self, stream: int) -> None:
        """It ended well."""
        with self._lock:
            own = self._streams.take(stream) if self._watching else None
            if own is not None and not self._streams.end_within(stream, own):
                self._finish(stream, own, None)

    def entered(self, cache: Any) -> None:
        """Compiled code is about to run."""
        with self._lock:
            if self._watching:
                self._streams.enter(cache)

    def left(self, output: Any, failed: bool) -> None:
        """It returned this, or failed: then so did what ran inside."""
        with self._lock:
            if not self._watching:
                return
            ended = self._streams.leave()
            for number, (stream, own) in enumerate(ended, 1):
                if not failed:
                    self._finish(stream, own, output if number == len(ended) else None)
                elif own.forward is not None:
                    self._committer.discard(own.forward.lineage)
