"""An answer: what it says in JSON, and numbers behind; packed into one frame of bytes."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnprobe.shapes import Float, Shaped

ALIGNED = 8  # numbers begin at a multiple of so many bytes, so that a browser takes them as they lie
_ONE, _HALF, _NAN = np.uint32(1), np.uint32(0x7FFF), np.uint16(0x7FC0)
# What numbers are called in a frame: 16 bits are always those of a bfloat16.
_NAMES = {np.dtype(np.float32): ("float32", "<f4"), np.dtype(np.uint16): ("bfloat16", "<u2")}


@dataclass(frozen=True, eq=False)
class Answer:
    """What is answered.

    Attributes
    ----------
    head
        Plain data; numbers that are none become null, since JSON has no NaN.
    values
        float32, or the bits of bfloat16 as uint16; None where there are no numbers behind.
    """

    head: Mapping[str, Any]
    values: Shaped[np.ndarray, "..."] | None = None

    def frame(self) -> bytes:
        """A little-endian uint32, so many bytes of JSON, the numbers."""
        head, data = dict(self.head), b""
        if self.values is not None:
            name, stored = _NAMES[self.values.dtype]
            head |= {"dtype": name, "shape": list(self.values.shape)}
            data = np.ascontiguousarray(self.values, stored).tobytes()
        # Escaped: a token may hold half of a surrogate pair, which UTF-8 has not.
        text = json.dumps(_plain(head), allow_nan=False, separators=(",", ":")).encode("ascii")
        text += b" " * (-(4 + len(text)) % ALIGNED)
        return len(text).to_bytes(4, "little") + text + data


def _plain(value: Any) -> Any:
    """The same in types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def bfloat16(values: Float[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The bits of the nearest bfloat16, ties to even, as uint16.

    Zero stays zero, of either sign; what is above it does not become zero, so that a picture tells the two apart.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (_HALF + ((bits >> np.uint32(16)) & _ONE))) >> np.uint32(16)).astype(np.uint16)
    small = (bits < 1 << 16) & (bits > 0)
    rounded[small] = np.maximum(rounded[small], 1)
    rounded[values == 0] = 0
    rounded[np.isnan(values)] = _NAN
    return rounded
