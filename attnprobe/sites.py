"""Model to sites: which modules are attention, and what each one is. One table row a model family."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from attnprobe.errors import UnsupportedModel
from attnprobe.fields import Site


@dataclass(frozen=True)
class Family:
    """How one attention class is read.

    Attributes
    ----------
    attention
        Class name of the attention module.
    backbone
        Class name of the module whose forward is given ids, mask, positions and cache.
    site
        Makes the site of a module from its name.
    refuse
        Says why a module cannot be recorded, and what to do; ``None`` if it can.
    """

    attention: str
    backbone: str
    site: Callable[[str, Any], Site]
    refuse: Callable[[Any], str | None]


def _gpt2_site(key: str, module: Any) -> Site:
    cross = module.is_cross_attention
    return Site(
        key=key,
        kind="cross" if cross else "self",
        part="decoder",
        layer=module.layer_idx,
        heads=module.num_heads,
        kv_heads=module.num_heads,
        keys="source" if cross else "main",
    )


def _gpt2_refuse(module: Any) -> str | None:
    if module.reorder_and_upcast_attn and module.config._attn_implementation == "eager":
        return (
            "reorder_and_upcast_attn on eager attention takes a way of its own, past the attention function; "
            'load the model with attn_implementation="sdpa" (which ignores the flag), or set it to False'
        )
    return None


FAMILIES = (Family("GPT2Attention", "GPT2Model", _gpt2_site, _gpt2_refuse),)


@dataclass(frozen=True)
class Anatomy:
    """What of a model is recorded: its sites with their modules, and the module that sees the tokens."""

    sites: tuple[Site, ...]
    modules: tuple[nn.Module, ...]
    backbone: nn.Module


def find_sites(model: nn.Module) -> Anatomy:
    """Find the attention modules of a model.

    Raises
    ------
    UnsupportedModel
        If there are none of a known family, if one cannot be recorded, or if the model holds several backbones.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"record() takes a torch.nn.Module, not {type(model).__name__}")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise UnsupportedModel(
            f"{type(model).__name__} is an encoder-decoder, which is not recorded as a whole yet; record its "
            "decoder, as in record(model.decoder), and run the whole model"
        )
    found: list[tuple[Site, nn.Module]] = []
    backbones: dict[int, nn.Module] = {}
    for key, module in model.named_modules():
        for family in FAMILIES:
            if _is_named(module, family.backbone):
                backbones[id(module)] = module
            if _is_named(module, family.attention):
                reason = family.refuse(module)
                if reason is not None:
                    raise UnsupportedModel(f"{key} ({type(module).__name__}): {reason}")
                found.append((family.site(key, module), module))
    known = ", ".join(family.attention for family in FAMILIES)
    if not found:
        raise UnsupportedModel(
            f"no attention module of a known kind in {type(model).__name__}; known are {known}. "
            "Pass the Hugging Face model itself, not a wrapper's output or a head"
        )
    if len(backbones) != 1:
        raise UnsupportedModel(
            f"{type(model).__name__} holds {len(backbones)} backbones that see tokens, and exactly one is needed; "
            "record the inner model that you run"
        )
    sites, modules = zip(*found, strict=True)
    return Anatomy(sites, modules, next(iter(backbones.values())))


def _is_named(module: nn.Module, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(module).__mro__)


def compiled_parts(model: nn.Module) -> Iterator[str]:
    """Names of the modules that ``torch.compile`` has replaced or marked (the model itself is ``""``)."""
    for key, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            yield key
