"""What compiled code tells: operators that a compiler keeps, in their order, and never looks into.

An operator whose result nobody uses is removed by a compiler without a word, and two that share nothing may change
places. So each of these says that it changes one small tensor, the same for all. What differs from layer to layer is a
tensor too (a number would be compiled in, layer by layer), and who listens is looked up when the operator runs: the
next recording, whatever it selects, finds the same code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.arguments import own_ids
from attnprobe.errors import UnsupportedCall
from attnprobe.marks import Mark, module_of
from attnprobe.registry import no_product, registry_call
from attnprobe.sites import is_pretrained
from attnprobe.watchers import observe_compiled_end, observe_compiled_start, observe_output, observe_traced

with torch.inference_mode(False):  # wherever this is imported
    _order = torch.zeros((), dtype=torch.int64, device="cpu")
# What of an attention call is no tensor or number that an operator could be given, and not None either.
_ODD = "of type {} has no exact meaning in compiled code; run the model uncompiled"


def _unkept(*_: Any) -> None:
    """What an operator gives while it is traced: nothing."""


# --- attention ---------------------------------------------------------------------------------------------------


@torch.library.custom_op("attnprobe::attention", mutates_args={"order"}, tags=(torch.Tag.cudagraph_unsafe,))
def _attention(
    order: Tensor,
    site: Tensor,
    implementation: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    mask: Tensor | None,
    position_bias: Tensor | None,
    sinks: Tensor | None,
    position_ids: Tensor | None,
    cu_seq_lens_q: Tensor | None,
    cu_seq_lens_k: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sliding_window: int | None,
    is_causal: bool | None,
    dropout: float,
    odd: str,
) -> None:
    module = module_of(site)
    if module is None:
        return
    extras = {
        "position_bias": position_bias, "sinks": sinks, "position_ids": position_ids, "cu_seq_lens_q": cu_seq_lens_q,
        "cu_seq_lens_k": cu_seq_lens_k, "scaling": scaling, "softcap": softcap, "sliding_window": sliding_window,
        "is_causal": is_causal, "dropout": dropout,
    }  # fmt: skip
    extras = {name: given for name, given in extras.items() if given is not None}

    def make() -> Any:
        if odd:
            raise UnsupportedCall(odd)
        return registry_call(implementation, module, query, key, mask, extras)

    observe_traced(module, make)
    observe_output(module, value, output.transpose(1, 2), no_product(module, extras))


_attention.register_fake(_unkept)


def tell_call(
    mark: Mark,
    implementation: str,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    mask: Any,
    extras: Mapping[str, Any],
) -> None:
    """Tell of a call of a function of the attention registry, in code that is being compiled.

    Parameters
    ----------
    mark, implementation
        The module's, and the backend that runs.
    tensors
        Query, key, value and output.
    mask, extras
        The mask that the function was given, and its keyword arguments.
    """
    query, key, value, output = tensors
    odd = ""
    if mask is not None and not isinstance(mask, Tensor):
        odd = "a mask " + _ODD.format(type(mask).__name__)
    if extras.get("cache") is not None:
        odd = "a key cache " + _ODD.format(type(extras["cache"]).__name__)
    sinks = extras.get("sinks")
    _attention(
        _order,
        mark.site,
        implementation,
        query.detach(),
        _as_read(implementation, query, key, value, mask).detach(),
        value.detach(),
        output.detach(),
        _tensor(mask),
        _tensor(extras.get("position_bias")),
        _tensor(extras.get("s_aux") if sinks is None else sinks),
        _tensor(extras.get("position_ids")),
        _tensor(extras.get("cu_seq_lens_q")),
        _tensor(extras.get("cu_seq_lens_k")),
        extras.get("scaling"),
        extras.get("softcap"),
        extras.get("sliding_window"),
        extras.get("is_causal"),
        extras.get("dropout") or 0.0,
        odd,
    )


def _as_read(implementation: str, query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
    """The keys as the kernel reads them: repeated for each query head, where the function repeats grouped ones.

    A compiler makes these in one go. Were it to make the grouped ones beside them, for us, it would cut its loops
    elsewhere, and round other numbers.
    """
    grouped = mask is None and key.shape[-1] == value.shape[-1] <= 256  # as transformers' use_gqa_in_sdpa
    if implementation not in ("sdpa", "eager") or (implementation == "sdpa" and grouped):
        return key
    batch, heads, count, size = key.shape
    times = query.shape[1] // heads
    if times == 1:
        return key
    return key[:, :, None, :, :].expand(batch, heads, times, count, size).reshape(batch, heads * times, count, size)


def _tensor(given: Any) -> Tensor | None:
    return given.detach() if isinstance(given, Tensor) else None


# --- forward passes ----------------------------------------------------------------------------------------------


@torch.library.custom_op("attnprobe::start", mutates_args={"order"}, tags=(torch.Tag.cudagraph_unsafe,))
def _start(
    order: Tensor,
    backbone: Tensor,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    encoder_hidden_states: Tensor | None,
    encoder_attention_mask: Tensor | None,
    cached: bool,
    odd: str,
) -> None:
    module = module_of(backbone)
    if module is None:
        return
    if odd:
        raise UnsupportedCall(odd)
    arguments = {
        "input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask,
        "position_ids": position_ids, "encoder_hidden_states": encoder_hidden_states,
        "encoder_attention_mask": encoder_attention_mask,
    }  # fmt: skip
    observe_compiled_start(module, arguments, cached)


_start.register_fake(_unkept)


@torch.library.custom_op("attnprobe::end", mutates_args={"order"}, tags=(torch.Tag.cudagraph_unsafe,))
def _end(order: Tensor, backbone: Tensor) -> None:
    module = module_of(backbone)
    if module is not None:
        observe_compiled_end(module)


_end.register_fake(_unkept)


def tell_start(backbone: nn.Module, mark: Mark, arguments: Mapping[str, Any]) -> None:
    """Tell that a backbone is about to run with these arguments, in code that is being compiled."""
    ids = arguments.get("input_ids") if is_pretrained(backbone) else own_ids(arguments)
    mask, odd = arguments.get("attention_mask"), ""
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is not None and not isinstance(mask, Tensor):
        odd = "an attention mask " + _ODD.format(type(mask).__name__)
    _start(
        _order,
        mark.site,
        _tensor(ids),
        _tensor(arguments.get("inputs_embeds")),
        _tensor(mask),
        _tensor(arguments.get("position_ids")),
        _tensor(arguments.get("encoder_hidden_states")),
        _tensor(arguments.get("encoder_attention_mask")),
        arguments.get("past_key_values") is not None,
        odd,
    )


def tell_end(mark: Mark) -> None:
    """Tell that it returned."""
    _end(_order, mark.site)
