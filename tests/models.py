"""Small GPT-2s whose rows are peaked, and whose eager and SDPA runs agree to 1e-5."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2DoubleHeadsModel, GPT2LMHeadModel, GPT2Model

VOCABULARY = 96
END = 95


def gpt2(cls: type = GPT2LMHeadModel, seed: int = 0, attention: str = "sdpa", **config: Any) -> Any:
    """A random GPT-2 of 3 layers with 4 heads, large weights, in eval mode."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "n_layer": 3,
        "n_head": 4,
        "n_embd": 64,
        "n_positions": 64,
        "vocab_size": VOCABULARY,
        "bos_token_id": END,
        "eos_token_id": END,
        "initializer_range": 0.2,
        **config,
    }
    model = cls._from_config(GPT2Config(**settings), attn_implementation=attention)
    return model.eval()


def cross_gpt2(**config: Any) -> Any:
    """A GPT-2 with cross-attention in every layer."""
    return gpt2(add_cross_attention=True, **config)


def ids(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random tokens without the end token."""
    return torch.randint(0, END, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(lengths: list[int], side: str, seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch of sequences of these lengths, padded on a side."""
    width = max(lengths)
    tokens = ids(len(lengths), width, seed)
    mask = torch.zeros(len(lengths), width, dtype=torch.long, device=tokens.device)
    for row, length in enumerate(lengths):
        if side == "left":
            mask[row, width - length :] = 1
        else:
            mask[row, :length] = 1
    return {"input_ids": tokens.where(mask.bool(), END), "attention_mask": mask}


def eager(model: Any, **inputs: Any) -> Any:
    """Outputs of the same weights on eager attention, with `output_attentions`."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return model(**inputs, output_attentions=True)
    finally:
        model.set_attn_implementation(before)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids as `generate` makes them from a padding mask."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


__all__ = ["END", "GPT2DoubleHeadsModel", "GPT2Model", "cross_gpt2", "eager", "gpt2", "ids", "padded", "positions"]
