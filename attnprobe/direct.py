"""What attention outside of transformers' registry means: SDPA's own calls, nn.MultiheadAttention, given weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from attnprobe.call import AttentionCall, GivenWeights, attends
from attnprobe.errors import UnsupportedCall


def sdpa_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """The call that ``F.scaled_dot_product_attention`` was given.

    Raises
    ------
    UnsupportedCall
        If queries or keys are not ``[batch, head, token, dim]``, or are nested.
    """
    if query.dim() != 4 or key.dim() != 4 or query.is_nested:
        what = "nested" if query.is_nested else f"{query.dim()}-dimensional"
        raise UnsupportedCall(f"SDPA was called with {what} queries; [batch, head, token, dim] are recorded")
    batch = max(query.shape[0], key.shape[0])
    if key.shape[1] > query.shape[1]:
        query = query.expand(-1, key.shape[1], -1, -1)
    mask = None if attn_mask is None else attn_mask.detach()
    if mask is not None:
        mask = mask.view(*[1] * (4 - mask.dim()), *mask.shape) if mask.dim() < 4 else mask
    return AttentionCall(
        query=query.detach().expand(batch, -1, -1, -1),
        key=key.detach().expand(batch, -1, -1, -1),
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        mask=mask,
        causal="upper-left" if is_causal else "none",
    )


def multihead_call(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> AttentionCall:
    """The call inside of an ``nn.MultiheadAttention``: its inputs, projected once more.

    Raises
    ------
    UnsupportedCall
        If the module adds keys of its own.
    """
    if module.bias_k is not None or module.add_zero_attn:
        raise UnsupportedCall("nn.MultiheadAttention with add_bias_kv or add_zero_attn adds keys that are no tokens")
    padding, ragged = key_padding_mask, query.is_nested
    if ragged:
        padding = padding_of(key)
        query, key = (part.to_padded_tensor(0.0) for part in (query, key))
    query, key = query.detach(), key.detach()
    if query.dim() == 2:
        query, key = query[None], key[None]
        padding = None if padding is None else padding[None]
    elif not module.batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    if module._qkv_same_embed_dim:
        of_query, of_key, _ = module.in_proj_weight.detach().chunk(3)
    else:
        of_query, of_key = module.q_proj_weight.detach(), module.k_proj_weight.detach()
    own, its = (None, None) if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)[:2]
    heads = module.num_heads
    with torch.no_grad():
        projected = F.linear(query, of_query, own), F.linear(key, of_key, its)
        split = [rearrange(part, "batch token (head dim) -> batch head token dim", head=heads) for part in projected]
        mask = _allowed(attn_mask, padding, query.shape[0], heads)
    return AttentionCall(split[0], split[1], split[0].shape[-1] ** -0.5, mask, ragged=ragged)


def widened(call: AttentionCall, count: int) -> AttentionCall:
    """A call of ragged rows, with so many rows and columns: those behind its longest row are padding."""
    more = count - call.queries
    query, key = (F.pad(part, (0, 0, 0, more)) for part in (call.query, call.key))
    mask = call.mask if call.mask is not None else query.new_zeros(1, 1, 1, call.keys)
    return replace(call, query=query, key=key, mask=F.pad(mask, (0, more), value=-torch.inf))


def padding_of(nested: Tensor) -> Tensor:
    """Which columns of a nested tensor are padding once it is padded, ``[batch, token]``."""
    lengths = torch.tensor([len(part) for part in nested.unbind()], device=nested.device)
    return torch.arange(int(lengths.max()), device=nested.device) >= lengths[:, None]


def _allowed(attn_mask: Tensor | None, padding: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """Both masks as one that is added; in those of ``nn.MultiheadAttention``, True excludes."""
    total = None
    if attn_mask is not None:
        added = _added(attn_mask.detach())
        if added.dim() == 3:
            added = rearrange(added, "(batch head) query key -> batch head query key", batch=batch)
        total = added if added.dim() == 4 else added[None, None]
    if padding is not None:
        added = _added(padding.detach())[:, None, None, :]
        total = added if total is None else total + added
    return total


def _added(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(mask, -torch.inf)


def layer_call(layer: nn.TransformerEncoderLayer, source: Tensor, masks: Mapping[str, Any]) -> AttentionCall:
    """The call inside of an encoder layer that took its fast path, past its attention module."""
    with torch.no_grad():
        source = source.detach()
        if layer.norm_first:
            source = layer.norm1(source)
    return multihead_call(
        layer.self_attn,
        source,
        source,
        key_padding_mask=masks.get("src_key_padding_mask"),
        attn_mask=masks.get("src_mask"),
    )


def _drops(module: nn.Module) -> bool:
    """Whether a module may apply dropout while it trains: by a module, or by a probability that it holds."""
    held = [getattr(module, name, None) for name in ("dropout", "attention_dropout", "attn_dropout", "dropout_p")]
    parts = [part.p for part in module.modules() if isinstance(part, nn.Dropout)]
    return any(isinstance(p, float) and p > 0 for p in (*held, *parts))


def given_weights(module: nn.Module, heads: int, output: Any) -> GivenWeights:
    """The weights that a module returned beside its output.

    Raises
    ------
    UnsupportedCall
        If there are none, or dropout was applied to them.
    """
    if module.training and _drops(module):
        raise UnsupportedCall(
            "the module returns its weights after dropout, which in training are not the attention; call model.eval()"
        )
    parts = output if isinstance(output, tuple | list) else ()
    if parts and isinstance(parts[0], tuple):  # the output itself is a pair, as in I-BERT
        parts = parts[0]
    for part in parts[1:]:
        if isinstance(part, Tensor) and part.dim() == 4 and part.shape[1] == heads and part.is_floating_point():
            return GivenWeights(part.detach())
    raise UnsupportedCall(
        "the module builds its weights, and did not return them; run the model with output_attentions=True"
    )


def seen_columns(call: AttentionCall) -> Tensor | None:
    """Which columns any row attends to, ``[batch, key]``: where no tokens are known, the others are padding.

    None where nothing tells: a mask by which no row sees itself leaves columns unseen that are tokens.
    """
    if not isinstance(call.mask, Tensor):
        return None
    seen = attends(call.mask)
    if seen.shape[2] == seen.shape[3] > 1 and not bool(seen.diagonal(dim1=2, dim2=3).any()):
        return None
    return seen.flatten(1, 2).any(1)
