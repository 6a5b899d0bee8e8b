"""Working memory that is taken once and used again."""

import torch
from torch import Tensor


class Scratch:
    """Named buffers; what is taken under a name is valid until the next one takes it."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory of a shape, with whatever it holds."""
        key = name, dtype, device
        size = 1
        for length in shape:
            size *= length
        if key not in self._held or self._held[key].numel() < size:
            self._held.pop(key, None)  # before the larger one is made
            self._held[key] = torch.empty(size, dtype=dtype, device=device)
        return self._held[key][:size].view(shape)
