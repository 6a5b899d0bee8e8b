"""What a call of transformers' attention registry means: how each backend reads its mask. One function a backend."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attnprobe.call import AttentionCall
from attnprobe.errors import UnsupportedCall

# Attention classes that rescale their output by a learned sink: the weights themselves are a plain softmax.
RESCALING = {"GraniteSWAAttention", "GraniteMoeSWAAttention"}

Meaning = dict[str, Any]  # of `AttentionCall`: mask, allowed, causal, window; cap and sinks where they do not count


def _causal(module: Any, extras: Mapping[str, Any]) -> bool:
    said = extras.get("is_causal")
    return bool(getattr(module, "is_causal", True) if said is None else said)


def _sdpa(module: Any, query: Tensor, mask: Any, extras: Mapping[str, Any]) -> Meaning:
    """SDPA: without a mask, ``is_causal`` holds for more than one row, upper-left; neither soft cap nor sinks."""
    causal = mask is None and query.shape[2] > 1 and _causal(module, extras)
    # Older versions of transformers run a model that has these on SDPA without them: then so are the weights.
    return {
        "mask": _tensor(mask, "sdpa"), "causal": "upper-left" if causal else "none", "cap": None, "sinks": None,
    }  # fmt: skip


def _eager(module: Any, query: Tensor, mask: Any, extras: Mapping[str, Any]) -> Meaning:
    """Eager: only the additive mask counts; without one, every row sees every column."""
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        raise UnsupportedCall("eager attention adds its mask, and a boolean one adds 0 or 1; pass a float mask")
    return {"mask": _tensor(mask, "eager")}


def _flex(module: Any, query: Tensor, mask: Any, extras: Mapping[str, Any]) -> Meaning:
    """FlexAttention: a BlockMask tells by its function; a tensor is added, that of the first head for all."""
    if type(mask).__name__ == "BlockMask":
        return {"allowed": mask.mask_mod}
    mask = _tensor(mask, "flex_attention")
    return {"mask": mask if mask is None else mask[:, :1]}


def _flash(module: Any, query: Tensor, mask: Any, extras: Mapping[str, Any]) -> Meaning:
    """FlashAttention: causal bottom-right, a window to both sides, padding as a 2D mask, packed rows by positions."""
    meaning: Meaning = {
        "causal": "bottom-right" if _causal(module, extras) else "none",
        "window": extras.get("sliding_window"),
    }
    mask = _tensor(mask, "flash attention")
    if mask is not None:
        return {**meaning, "mask": mask.bool()[:, None, None, :] if mask.dim() == 2 else mask}
    positions, lengths = extras.get("position_ids"), extras.get("cu_seq_lens_q")
    if isinstance(lengths, Tensor):
        ends = lengths[1:], extras.get("cu_seq_lens_k", lengths)[1:]
        meaning["allowed"] = lambda b, h, i, j: (
            torch.bucketize(i, ends[0], right=True) == torch.bucketize(j, ends[1], right=True)
        )
    elif isinstance(positions, Tensor) and query.shape[0] == 1 and positions.shape[-1] == query.shape[2] > 1:
        own = positions.reshape(-1, positions.shape[-1])[0]
        numbers = (own == own.min()).cumsum(0)  # a sequence starts wherever the smallest position is
        meaning["packed"] = lambda b, h, i, j: numbers[i] == numbers[j]
    return meaning


MEANINGS: dict[str, Callable[[Any, Tensor, Any, Mapping[str, Any]], Meaning]] = {
    "sdpa": _sdpa,
    "eager": _eager,
    "flex_attention": _flex,
    "flash_attention_2": _flash,
    "flash_attention_3": _flash,
    "flash_attention_4": _flash,
}


def meaning_of(implementation: str) -> Callable[[Any, Tensor, Any, Mapping[str, Any]], Meaning] | None:
    """How a backend reads its arguments; None where that is not known. A kernel from the hub is a FlashAttention."""
    plain = implementation.partition("|")[2] if implementation.startswith("kernels|") else implementation
    return MEANINGS.get(plain) or (_flash if "/" in plain and "flash" in plain and "paged" not in plain else None)


def _tensor(mask: Any, backend: str) -> Tensor | None:
    if mask is not None and not isinstance(mask, Tensor):
        raise UnsupportedCall(f"mask of type {type(mask).__name__} on {backend} has no exact meaning here")
    return mask if mask is None else mask.detach()


def unknown(implementation: str) -> str:
    """What to say of a backend whose meaning is not known."""
    return (
        f"attention ran on {implementation!r}, and only {', '.join(MEANINGS)} (and hub kernels of FlashAttention) are "
        'recorded exactly; load the model with attn_implementation="sdpa"'
    )


def no_product(module: Any, extras: Mapping[str, Any]) -> str:
    """Why what a function returns is no product of the weights and the values; empty where it is."""
    if type(module).__name__ in RESCALING:
        return "the model rescales what the kernel returns"
    return "dropout was applied to the weights" if extras.get("dropout") else ""


def registry_call(
    implementation: str,
    module: Any,
    query: Tensor,
    key: Tensor,
    mask: Any,
    extras: Mapping[str, Any],
) -> AttentionCall:
    """The call that a function of transformers' attention registry was given.

    Raises
    ------
    UnsupportedCall
        If the implementation or one of its arguments has no exact meaning here.
    """
    meaning = meaning_of(implementation)
    if meaning is None:
        raise UnsupportedCall(unknown(implementation))
    if extras.get("cache") is not None:
        raise UnsupportedCall("a paged cache changes the keys inside the attention function; use a dynamic cache")
    found = meaning(module, query, mask, extras)
    packed = found.pop("packed", None)
    if packed is not None and key.shape[2] == query.shape[2]:  # a chunk on a filled cache has more columns, and is one
        found["allowed"] = packed
    scale = extras.get("scaling")
    rescaling = type(module).__name__ in RESCALING
    sinks = extras.get("sinks") if extras.get("sinks") is not None else extras.get("s_aux")
    return AttentionCall(
        query=query.detach(),
        key=key.detach(),
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        bias=None if (bias := extras.get("position_bias")) is None else bias.detach(),
        **{
            "cap": extras.get("softcap"),
            "sinks": None if sinks is None or rescaling else sinks.detach(),
            **found,
        },
    )
