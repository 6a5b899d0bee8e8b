"""What a backbone's forward was given and returned, read without waiting for a device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.call import attends
from attnprobe.errors import UnsupportedCall


@dataclass(frozen=True)
class ForwardInputs:
    """The arguments that tell which samples a forward pass is of; batch dimensions are flattened to one."""

    batch: int
    count: int
    ids: Tensor | None
    mask: Tensor | None
    positions: Tensor | None
    window: int | None
    source: Tensor | None
    cache: Any

    def tensors(self, start: int) -> list[Tensor | None]:
        """What `Forward.land` needs, on its device: ids, 2D mask, diagonal of a 4D mask, positions, source mask."""
        diagonal = None
        if self.mask is not None and self.mask.dim() == 4:
            if self.mask.shape[2] < self.count or self.mask.shape[3] < start + self.count:
                raise UnsupportedCall(
                    f"an attention mask of shape {tuple(self.mask.shape)} does not cover {start} cached and "
                    f"{self.count} new tokens; pass [batch, head, query, key] over all of them"
                )
            row = torch.arange(self.count, device=self.mask.device)
            diagonal = attends(self.mask[:, 0, row, start + row])
        flat = self.mask if diagonal is None else None
        return [self.ids, flat, diagonal, self.positions, self.source]


def read_inputs(arguments: Mapping[str, Any], backbone: nn.Module) -> ForwardInputs | None:
    """Read the arguments of a backbone's forward by name; None where it has nothing to run on.

    Raises
    ------
    UnsupportedCall
        If the cache or the mask is of an unknown kind.
    """
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    if ids is not None:
        ids = ids.detach().reshape(-1, ids.shape[-1])
        batch, count = ids.shape
    elif embeds is not None:
        count = embeds.shape[-2]
        batch = embeds[..., 0, 0].numel()
    else:
        return None
    cache = arguments.get("past_key_values")
    if cache is not None and not hasattr(cache, "get_seq_length"):
        raise UnsupportedCall(f"a cache of type {type(cache).__name__} is not known; pass a transformers Cache")
    mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
    if mask is not None and not isinstance(mask, Tensor):
        raise UnsupportedCall(f"an attention mask of type {type(mask).__name__} is not read; pass a tensor or None")
    if mask is not None and mask.dim() < 4:
        mask = mask.reshape(batch, -1)
    if positions is not None:
        positions = positions.reshape(-1, positions.shape[-1])
    # Positions of the user's own may well fit where slots do not: then the model itself says so.
    window = getattr(getattr(backbone, "config", None), "max_position_embeddings", None) if positions is None else None
    return ForwardInputs(batch, count, ids, mask, positions, window, _source(arguments), cache)


def _source(arguments: Mapping[str, Any]) -> Tensor | None:
    """Which slots of the encoder's sequence are tokens, ``[batch, slot]``."""
    states, mask = arguments.get("encoder_hidden_states"), arguments.get("encoder_attention_mask")
    if states is None:
        return None
    if mask is None:
        return torch.ones(states.shape[:-1], dtype=torch.bool, device=states.device)
    return attends(mask)[:, 0, -1] if mask.dim() == 4 else mask != 0


def read_cache(output: Any) -> Any:
    """The cache that a forward returned, or None."""
    if isinstance(output, tuple):
        return next((part for part in output if hasattr(part, "get_seq_length")), None)
    return getattr(output, "past_key_values", None)
