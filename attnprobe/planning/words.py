"""What a user says that a plan is of."""

import re
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.errors import SelectionError
from attnprobe.sites import Anatomy

_NUMBER = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([km]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}


def parse_tokens(tokens: object) -> tuple[int, int | None]:
    """A number of tokens, and of samples where token ids were given: of 512, ``"32k"`` (32 x 1024), a list, a tensor.

    Raises
    ------
    SelectionError
        If it is none of these, or no token.
    """
    count, rows = 0, None
    if isinstance(tokens, str):
        match = _NUMBER.fullmatch(tokens.strip())
        count = int(float(re.sub("[_,]", "", match[1])) * _UNITS[match[2].lower()]) if match else 0
    elif isinstance(tokens, Tensor) and tokens.dim() in (1, 2):
        count, rows = tokens.shape[-1], len(tokens) if tokens.dim() == 2 else 1
    elif isinstance(tokens, Sequence):
        count, rows = len(tokens), 1
    elif hasattr(tokens, "__index__") and not isinstance(tokens, bool):
        count = index(tokens)
    if count < 1 or rows == 0:
        raise SelectionError(f'tokens={tokens!r}: write a number, "32k" (32 x 1024), or token ids')
    return count, rows


def parse_others(anatomy: Anatomy, others: Mapping[str, object]) -> dict[str, int]:
    """Lengths of sequences beside the main one, by name.

    Raises
    ------
    SelectionError
        If the model has none of a name, or a length is not one.
    """
    there = {stream.name for stream in anatomy.streams} | {site.keys for site in anatomy.sites}
    names = sorted(there - {anatomy.main.name})
    for name in others:
        if name not in names:
            raise SelectionError(f"the model has no sequence {name!r} beside its tokens; it has {names or 'none'}")
    return {name: parse_tokens(length)[0] for name, length in others.items()}


def parse_device(device: str | torch.device) -> torch.device:
    """A device by name.

    Raises
    ------
    SelectionError
        If there is none of that name.
    """
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise SelectionError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def check_window(backbone: nn.Module, tokens: int, generate: int) -> None:
    """Refuse more tokens than a model takes.

    Raises
    ------
    SelectionError
        If there are more.
    """
    config: Any = getattr(backbone, "config", None)
    window = getattr(config, "max_position_embeddings", None)
    if isinstance(window, int) and 0 < window < tokens + generate:
        have = f"{tokens:,} tokens" + (f" and {generate:,} generated" if generate else "")
        raise SelectionError(f"{have} do not fit the context window of {window:,}; plan fewer")
