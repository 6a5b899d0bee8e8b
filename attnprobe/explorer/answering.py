"""The seam between the explorer's ways in and what they show: questions, and frames that answer them."""

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from attnprobe.shapes import Float, Shaped

Params = Mapping[str, str | int | float]
_TYPES = {"bfloat16": "<u2", "uint16": "<u2", "float32": "<f4", "int32": "<i4"}


@runtime_checkable
class Answering(Protocol):
    """What answers the front end's questions: `attnprobe.explorer.answers.Answers`."""

    def ask(self, name: str, params: Params) -> bytes:
        """The frame that answers a question, also one that says why there is no answer; in any thread."""


def unpack(frame: bytes) -> tuple[dict[str, Any], Shaped[np.ndarray, "..."] | None]:
    """What a frame says, and its numbers as they are stored: those of 16 bit are a bfloat16's."""
    length = int.from_bytes(frame[:4], "little")
    head = json.loads(frame[4 : 4 + length])
    if len(frame) == 4 + length:  # also of a head, whose dtype and shape are those of its weights
        return head, None
    values = np.frombuffer(frame, _TYPES[head["dtype"]], offset=4 + length)
    return head, values.reshape(head["shape"])


def widened(bits: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Bits of bfloat16 as float32."""
    wide: np.ndarray = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide
