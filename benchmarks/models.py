"""Random models of GPT-2's architecture, and one whose block makes a single attention call and takes its time."""

import time
from typing import Any

import torch
from torch import Tensor


def gpt2(layers: int, heads: int, width: int, length: int) -> Any:
    """A GPT-2 backbone with random weights on SDPA; a small vocabulary, since embeddings play no part here."""
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        n_positions=length,
        vocab_size=256,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    return GPT2Model(config).eval()


def token_ids(length: int) -> Tensor:
    """A batch of one row."""
    return torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(0))


class OneCall:
    """A GPT-2 of one layer whose block does nothing but call transformers' attention function.

    The model's own forward runs around it, as a recorder needs, and only the call is timed. Query, key and value are
    views of one projection, as in GPT-2.
    """

    def __init__(self, heads: int, dim: int, length: int) -> None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.gpt2.modeling_gpt2 import eager_attention_forward

        self.model = gpt2(1, heads, heads * dim, length)
        self.ids = token_ids(length)
        self.module = self.model.h[0].attn
        self.registry = ALL_ATTENTION_FUNCTIONS
        self.eager = eager_attention_forward
        projected = torch.randn(1, length, 3 * heads * dim, generator=torch.Generator().manual_seed(1))
        parts = projected.split(heads * dim, dim=2)
        self.query, self.key, self.value = (part.view(1, length, heads, dim).transpose(1, 2) for part in parts)
        # The additive mask that transformers makes for eager attention, made beforehand.
        lowest = torch.finfo(torch.float32).min
        self.mask = torch.full((length, length), lowest).triu(1)[None, None]
        self.model.h[0].forward = self._block
        self._repeat = 1
        self._seconds = 0.0

    def _block(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._seconds = self.sdpa(self._repeat)
        return hidden

    @torch.no_grad()
    def sdpa(self, repeat: int = 1) -> float:
        """Seconds of the registry's SDPA function, per call."""
        function, scaling = self.registry["sdpa"], self.module.scaling
        began = time.perf_counter()
        for _ in range(repeat):
            output = function(self.module, self.query, self.key, self.value, None, scaling=scaling)
        seconds = time.perf_counter() - began
        del output
        return seconds / repeat

    @torch.no_grad()
    def eager_weights(self) -> tuple[float, Tensor]:
        """Seconds of eager attention, and its weights."""
        began = time.perf_counter()
        output = self.eager(self.module, self.query, self.key, self.value, self.mask, scaling=self.module.scaling)
        return time.perf_counter() - began, output[1]

    @torch.no_grad()
    def inside(self, repeat: int = 1) -> float:
        """Seconds of the SDPA function inside of a forward pass, per call."""
        self._repeat = repeat
        self.model(self.ids, use_cache=False)
        return self._seconds
