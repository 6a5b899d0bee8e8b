"""What a run keeps of a sequence of tokens, as tensors."""

import json
from collections.abc import Iterator

import numpy as np
import torch

from attnprobe.fields import TokenSequence
from attnprobe.shapes import Shaped


def tensors_of(sequence: TokenSequence) -> Iterator[tuple[str, Shaped[torch.Tensor, " length"]]]:
    """Ids and positions in int64, strings as the bytes of a JSON list, each with its name; those that there are."""
    for part in ("ids", "positions"):
        numbers: np.ndarray | None = getattr(sequence, part)
        if numbers is not None:
            yield part, torch.from_numpy(np.array(numbers, np.int64))
    for part in ("tokens", "texts"):
        strings: tuple[str, ...] | None = getattr(sequence, part)
        if strings is not None:
            data = json.dumps(strings, ensure_ascii=False).encode("utf-8", "surrogatepass")
            yield part, torch.from_numpy(np.frombuffer(data, np.uint8).copy())
