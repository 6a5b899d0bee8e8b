"""What a backbone's forward was given and returned, read without waiting for a device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.call import attends
from attnprobe.errors import UnsupportedCall
from attnprobe.sites import is_pretrained

# Backbones whose ids are no rows of tokens: from the configuration, rows and columns of ids, the real batch and count.
PECULIAR: dict[str, Callable[[Any, int, int], tuple[int, int]]] = {
    "MusicgenDecoder": lambda config, rows, columns: (rows // config.num_codebooks, columns),
    "MusicgenMelodyDecoder": lambda config, rows, columns: (rows // config.num_codebooks, columns),
}


@dataclass(frozen=True)
class ForwardInputs:
    """The arguments that tell which samples a forward pass is of; batch dimensions are flattened to one.

    Without ids and embeddings, `batch` and `count` are 0: only the attention calls tell how large they are.
    """

    batch: int
    count: int
    ids: Tensor | None
    mask: Tensor | None
    positions: Tensor | None
    window: int | None
    states: Tensor | None
    source: Tensor | None
    cache: Any
    last: bool = False  # whether no later pass can go on with these tokens

    def tensors(self, start: int) -> list[Tensor | None]:
        """What `Forward.land` needs, on its device: ids, 2D mask, diagonal of a 4D mask, positions, source mask."""
        diagonal = None
        if self.mask is not None and self.mask.dim() == 4:
            width = self.mask.shape[3]
            first = start if width >= start + self.count else width - self.count  # of a window, the last columns
            sliding = getattr(self.cache, "is_sliding", None)
            if self.mask.shape[2] < self.count or first < 0 or (first < start and not (sliding and all(sliding))):
                raise UnsupportedCall(
                    f"an attention mask of shape {tuple(self.mask.shape)} does not cover {start} cached and "
                    f"{self.count} new tokens; pass [batch, head, query, key] over all of them"
                )
            row = torch.arange(self.count, device=self.mask.device)
            diagonal = attends(self.mask[:, 0, row, first + row])
        flat = self.mask if diagonal is None else None
        return [self.ids, flat, diagonal, self.positions, self.source]


def read_inputs(arguments: Mapping[str, Any], backbone: nn.Module) -> ForwardInputs:
    """Read the arguments of a backbone's forward by name.

    Raises
    ------
    UnsupportedCall
        If the cache or the mask is of an unknown kind.
    """
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    if not is_pretrained(backbone):
        ids = own_ids(arguments)
    elif not isinstance(ids, Tensor):
        ids = None
    batch = count = 0
    if ids is not None:
        ids = ids.detach().reshape(-1, ids.shape[-1])
        batch, count = ids.shape
        peculiar = PECULIAR.get(type(backbone).__name__)
        if peculiar is not None:
            ids, (batch, count) = None, peculiar(backbone.config, batch, count)
    elif isinstance(embeds, Tensor) and embeds.dim() >= 3:
        count = embeds.shape[-2]
        batch = embeds[..., 0, 0].numel()
    cache = arguments.get("past_key_values")
    if cache is not None and not hasattr(cache, "get_seq_length"):
        raise UnsupportedCall(f"a cache of type {type(cache).__name__} is not known; pass a transformers Cache")
    if cache is not None and not count and cache.get_seq_length():
        raise UnsupportedCall("a cache is gone on with, and there are neither input_ids nor inputs_embeds; pass them")
    mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
    if isinstance(mask, Mapping):  # made beforehand, one for each kind of layer: the widest hides padding only
        mask = mask.get("full_attention", next(iter(mask.values()), None))
        mask = mask if isinstance(mask, Tensor) else None
    if not count:
        mask = None
    if mask is not None and not isinstance(mask, Tensor):
        raise UnsupportedCall(f"an attention mask of type {type(mask).__name__} is not read; pass a tensor or None")
    if mask is not None and mask.dim() < 4:
        mask = mask.reshape(batch, -1)
    if positions is not None:
        positions = _text_positions(positions, count)
    # Positions of the user's own may well fit where slots do not: then the model itself says so.
    window = getattr(getattr(backbone, "config", None), "max_position_embeddings", None) if positions is None else None
    states, source = _source(arguments)
    last = cache is None and arguments.get("use_cache") is False
    return ForwardInputs(batch, count, ids, mask, positions, window, states, source, cache, last)


def own_ids(arguments: Mapping[str, Any]) -> Tensor | None:
    """The matrix of whole numbers that a model of somebody's own is given by name or first, whatever its name."""
    if any(isinstance(arguments.get(name), Tensor) for name in ("decoder_input_ids", "tgt")):
        return None  # whose rows the attention modules have, is not told
    named = [arguments.get("input_ids"), *arguments.values()]
    first = next((value for value in named if isinstance(value, Tensor)), None)
    if first is None or first.dim() != 2 or first.dtype == torch.bool:
        return None
    return None if first.is_floating_point() or first.is_complex() else first


def _text_positions(positions: Tensor, count: int) -> Tensor | None:
    """Positions ``[some, query]``; where there are several axes (time, height, width), the text's, which is first."""
    if positions.shape[-1] != count:
        return None
    return positions[0] if positions.dim() == 3 else positions.reshape(-1, positions.shape[-1])


def _source(arguments: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """The encoder's output, and which of its slots are tokens, ``[batch, slot]``."""
    states, mask = arguments.get("encoder_hidden_states"), arguments.get("encoder_attention_mask")
    if not isinstance(states, Tensor) or states.dim() < 3:
        return None, None
    if not isinstance(mask, Tensor):
        return states, torch.ones(states.shape[:-1], dtype=torch.bool, device=states.device)
    return states, attends(mask)[:, 0, -1] if mask.dim() == 4 else mask != 0


def read_output(output: Any) -> Tensor | None:
    """What an encoder returned for a decoder to look at."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    states = getattr(output, "last_hidden_state", first)
    return states if isinstance(states, Tensor) else None


def read_cache(output: Any) -> Any:
    """The cache that a forward returned, or None."""
    if isinstance(output, tuple):
        return next((part for part in output if hasattr(part, "get_seq_length")), None)
    return getattr(output, "past_key_values", None)
