"""The observer of models that are compiled, as a whole or in parts: forward passes of which only tensors are seen."""

from collections.abc import Mapping
from typing import Any

from attnprobe.observer import Observer


class CompiledObserver(Observer):
    """Sees forward passes inside of compiled code too.

    There, a backbone tells by tensors what it is given. Its key cache is that of the call that enters the code, and
    whether the samples go on is known when that call returns: until then a pass that ended waits.
    """

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
