"""Working memory that is taken once and used again."""

from math import prod

import torch
from torch import Tensor


class Scratch:
    """Named buffers; what is taken under a name is valid until the next one takes it."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device, int], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory of a shape, with whatever it holds."""
        # A stream of its own: kernels of another one may still read what was taken there.
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        key = name, dtype, device, stream
        size = prod(shape)
        if key not in self._held or self._held[key].numel() < size:
            self._held.pop(key, None)  # before the larger one is made
            self._held[key] = torch.empty(size, dtype=dtype, device=device)
        return self._held[key][:size].view(shape)

    def sizes(self) -> dict[str, int]:
        """Bytes held under each name."""
        found: dict[str, int] = {}
        for (name, *_), memory in self._held.items():
            found[name] = found.get(name, 0) + memory.numel() * memory.element_size()
        return found

    def clear(self) -> None:
        """Give all memory back."""
        self._held.clear()
