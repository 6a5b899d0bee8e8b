"""The model that every peer loads from the same files, and its weights in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.peer import Peer

VOCABULARY = 256
# Of GPT-2's q and k with weights of variance SPREAD / width: logits of deviation SPREAD, so that rows are peaked.
SPREAD = 3.0


@dataclass(frozen=True)
class Shape:
    """Of a GPT-2."""

    layers: int
    heads: int
    width: int
    positions: int

    def __str__(self) -> str:
        return f"{self.layers} layers x {self.heads} heads, width {self.width}"


def write(shape: Shape, folder: Path) -> None:
    """Write a random model and a tokenizer whose words are numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.width,
        n_positions=shape.positions,
        vocab_size=VOCABULARY,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for module in attention_modules(model):
            module.c_attn.weight.normal_(0, (SPREAD / shape.width) ** 0.5)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name}_token": "0" for name in ("unk", "bos", "eos", "pad")}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


@dataclass(frozen=True)
class ModelFiles:
    """Where they lie, and how they are loaded."""

    folder: str
    device: str = "cpu"
    dtype: str = "float32"

    def load(self, attention: str) -> Any:
        """The model, evaluating and without gradients."""
        from transformers import GPT2LMHeadModel

        dtype = getattr(torch, self.dtype)
        model = GPT2LMHeadModel.from_pretrained(self.folder, attn_implementation=attention, dtype=dtype)
        return model.to(self.device).eval().requires_grad_(False)

    def tokenizer(self) -> Any:
        """Its tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    def tokens(self, length: int) -> Tensor:
        """A batch of one row; token 0 is padding's."""
        ids = torch.randint(1, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))
        return ids.to(self.device)

    def exact(self) -> Any:
        """The model that gives the weights all others are compared with: eager, in float64, of the same parameters."""
        return self.load("eager").double()


def attention_modules(model: Any) -> list[Any]:
    """One a layer."""
    return [block.attn for block in model.transformer.h]


@torch.no_grad()
def each_layer(exact: Any, ids: Tensor, look: Callable[[int, Tensor], None], **inputs: Any) -> None:
    """Run the float64 model and show each layer's weights `[batch, head, query, key]` while they are there."""
    handles = [
        module.register_forward_hook(lambda _, args, output, layer=layer: look(layer, output[1]))
        for layer, module in enumerate(attention_modules(exact))
    ]
    try:
        exact(ids, use_cache=False, **inputs)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def largest_error(exact: Any, ids: Tensor, peer: Peer, result: Any, **inputs: Any) -> tuple[float | None, float]:
    """Largest difference of a peer's weights of one unpadded batch from float64, and how peaked these are.

    Returns
    -------
    tuple of float
        The difference, None where the peer gives no weights; and the median over rows of the largest weight, as a
        multiple of what it were in an even row.
    """
    worst: list[float] = []
    peaked: list[float] = []

    def look(layer: int, wanted: Tensor) -> None:
        even = torch.arange(1, wanted.shape[-1] + 1, device=wanted.device)
        peaked.append(float((wanted[0].amax(-1) * even).median()))
        for part in peer.maps(result, layer):
            rows = range(part.first, part.first + part.values.shape[-2])
            for place, head in enumerate(part.heads or range(part.values.shape[1])):
                mine = part.values[0, place].to(wanted.device, torch.float64)
                theirs = wanted[0, head, rows.start : rows.stop, : mine.shape[-1]]
                difference = float((mine - theirs).abs().max())
                if math.isnan(difference):
                    raise ValueError(f"layer {layer}, head {head}: weights that are no numbers")
                worst.append(difference)

    each_layer(exact, ids, look, **inputs)
    return (max(worst) if worst else None), min(peaked)
