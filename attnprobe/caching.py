"""What a key cache tells without waiting for a device: its length, and whether somebody changed it."""

import weakref
from typing import Any

from attnprobe.errors import UnsupportedCall


class Before:
    """What a cache was before compiled code, which may write into it earlier than it tells that it began.

    Attributes
    ----------
    cache, print
        It itself; and its fingerprint then.
    """

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.print = fingerprint(cache)
        known = cache.get_seq_length()
        self._length = known.clone() if hasattr(known, "clone") else known
        self.is_sliding = getattr(cache, "is_sliding", None)

    def get_seq_length(self) -> Any:
        """Slots that it held."""
        return self._length


def itself(cache: Any) -> Any:
    """The cache, whose look from before may be what is given."""
    return cache.cache if isinstance(cache, Before) else cache


def length(cache: Any) -> int:
    """Slots that a cache holds; 0 for None. A static cache on a device has to be asked there."""
    return 0 if cache is None else int(cache.get_seq_length())


def fingerprint(cache: Any) -> tuple[weakref.ref[Any], int | None] | None:
    """The first layer's keys and how often they were written; None where that cannot be told.

    A dynamic cache makes new keys whenever it changes, a static one writes into the ones it has.
    """
    if isinstance(cache, Before):
        return cache.print
    cache = getattr(cache, "self_attention_cache", cache)
    keys = getattr(next(iter(getattr(cache, "layers", ())), None), "keys", None)
    if keys is None or getattr(cache, "offloading", False):  # offloaded keys move by themselves
        return None
    return weakref.ref(keys), None if keys.is_inference() else keys._version


def unchanged(cache: Any, before: tuple[weakref.ref[Any], int | None] | None, slots: int) -> bool:
    """Whether a cache is as the last forward pass left it; False if it now has another length.

    Raises
    ------
    UnsupportedCall
        If it has the same length and other contents.
    """
    now = fingerprint(cache)
    same = now is not None and before is not None and now[0]() is before[0]() and now[1] == before[1]
    known = cache.get_seq_length()
    waits = hasattr(known, "device") and known.device.type != "cpu"
    if same and waits and now is not None and now[1] is not None:
        return True  # written by nobody, so as long as before
    if int(known) != slots:
        return False
    if not same and now is not None and before is not None:
        raise UnsupportedCall(
            "the key cache was changed between forward passes (beams or rows reordered?), so its columns are no longer "
            "those of the recorded tokens; start with a fresh cache"
        )
    return True
