"""How each kind of attention module is seen: its route, or why there is none. One table row a peculiar class."""

import inspect
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any

import torch.nn.functional as F
from torch import nn

REGISTRY = "registry"  # transformers' attention functions, whatever the backend
SDPA = "sdpa"  # calls F.scaled_dot_product_attention itself
MULTIHEAD = "multihead"  # nn.MultiheadAttention, alone or in a layer of nn.TransformerEncoder or -Decoder
RETURNED = "returned"  # builds its weights and returns them

# Classes that build their weights and return them after their output; those that do so only where the caller asks for
# attentions are told apart when they run.
RETURNING = {
    "BigBirdSelfAttention",
    "BigBirdPegasusSelfAttention",
    "BlipAttention",
    "BlipTextSelfAttention",
    "BloomAttention",
    "CodeGenAttention",
    "ConvBertSelfAttention",
    "DisentangledSelfAttention",
    "FlavaSelfAttention",
    "GPTJAttention",
    "GPTNeoSelfAttention",
    "GPTNeoXJapaneseAttention",
    "GitSelfAttention",
    "GroupViTAttention",
    "IBertSelfAttention",
    "LEDDecoderAttention",
    "MPNetSelfAttention",
    "MgpstrAttention",
    "MegatronBertSelfAttention",
    "MptAttention",
    "MvpAttention",
    "RemBertSelfAttention",
    "RoFormerSelfAttention",
    "SpeechT5Attention",
    "TapasSelfAttention",
    "TrOCRAttention",
    "VisualBertSelfAttention",
    "VitsAttention",
    "XGLMAttention",
    "ImageGPTAttention",
}
# Classes that compute one map several times in a forward pass, for different values.
SAME_MAP = {"DiffLlamaAttention": 2}
# Classes of the same kind whose names say too little, by the module that defines them.
RETURNING_IN = {
    ("modeling_openai", "Attention"),
    ("modeling_fsmt", "Attention"),
    ("modeling_xlm", "MultiHeadAttention"),
    ("modeling_flaubert", "MultiHeadAttention"),
}

NO_SOFTMAX = "it is no softmax attention: there are no weights to record"
_SPARSE = "its weights are of a block-sparse pattern of its own, and not [head, query, key]"
_WINDOWS = "it attends within windows or between stages of an image: its rows and columns are not the image's tokens"
REFUSED = {
    **dict.fromkeys(
        (
            "SwinAttention",
            "SwinSelfAttention",
            "DonutSwinSelfAttention",
            "MaskFormerSwinSelfAttention",
            "Swinv2SelfAttention",
            "HieraMaskUnitAttention",
            "NeighborhoodAttention",
            "PvtEfficientSelfAttention",
            "PvtV2SelfAttention",
            "SegformerAttention",
            "SegformerEfficientSelfAttention",
        ),
        _WINDOWS,
    ),
    "PegasusXGlobalLocalAttention": _SPARSE,
    "DeepseekV4Attention": "its keys hold compressed blocks beside the tokens",
    "BltCrossAttention": "its rows are patches and bytes, sequences of several kinds in one forward pass",
    "BltSelfAttention": "its rows are patches and bytes, sequences of several kinds in one forward pass",
    "CpmAntAttention": "the model puts tokens of its own before the text",
    "SqueezeBertSelfAttention": "it returns scores from before the softmax",
    "ProphetNetAttention": "what it returns is no softmax map",
    "XLNetRelativeAttention": "it returns weights of two streams, and their axes are not [batch, head, query, key]",
    "PerceiverSelfAttention": "its queries are latents of its own, and no tokens",
    "MiniMaxLightningAttention": NO_SOFTMAX,
    "RwkvSelfAttention": NO_SOFTMAX,
    "MobileViTV2LinearSelfAttention": NO_SOFTMAX,
    "NystromformerSelfAttention": "it approximates softmax attention, and never has the weights",
    "YosoSelfAttention": "it approximates softmax attention, and never has the weights",
    "MraSelfAttention": "it approximates softmax attention, and never has the weights",
    "FNetBasicFourierTransform": NO_SOFTMAX,
    "BigBirdBlockSparseAttention": _SPARSE,
    "BigBirdPegasusBlockSparseAttention": _SPARSE,
    "LongformerSelfAttention": _SPARSE,
    "LEDEncoderSelfAttention": _SPARSE,
    "LongT5LocalAttention": _SPARSE,
    "LongT5TransientGlobalAttention": _SPARSE,
    "LSHSelfAttention": _SPARSE,
    "LocalSelfAttention": _SPARSE,
    "T5Gemma2MergedAttention": "one softmax runs over two sequences, its own and the encoder's",
    "ProphetNetNgramSelfAttention": "one softmax runs over a main stream and predicting streams",
    "FunnelRelMultiheadAttention": "its queries are pooled, so a row is no token",
    "CvtSelfAttention": "it builds its weights and does not return them",
    "LevitAttention": "it builds its weights and does not return them",
    "LevitAttentionSubsample": "it builds its weights and does not return them",
    "MobileViTSelfAttention": "it builds its weights and does not return them",
    "LukeSelfAttention": "one softmax runs over words and entities",
    "Inkling2BlockAttentionResidual": "it is a residual over layers, and no attention over tokens",
}


def route_of(module: nn.Module) -> str | None:
    """The route of an attention module; None for modules of other kinds."""
    cls: Any = type(module)
    return _route(cls, _forward(cls))


def calls_of(module: nn.Module) -> int:
    """How often a module computes its map in a forward pass."""
    return next((SAME_MAP[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in SAME_MAP), 1)


def refusal(module: nn.Module) -> str | None:
    """Why the attention of a module of this class is never recorded; None if it is, or if it has none."""
    for cls in type(module).__mro__:
        if cls.__name__ in REFUSED:
            return REFUSED[cls.__name__]
    if isinstance(module, nn.MultiheadAttention) and route_of(module) is None:
        return "its forward is not that of nn.MultiheadAttention, so what it projects is not known"
    config: Any = getattr(module, "config", None)
    if getattr(module, "reorder_and_upcast_attn", False) and getattr(config, "_attn_implementation", "") == "eager":
        return (
            "reorder_and_upcast_attn on eager attention takes a way of its own, past the attention function; "
            'load the model with attn_implementation="sdpa" (which ignores the flag), or set it to False'
        )
    return None


def _forward(cls: type) -> Any:
    """The function that runs a module of a class."""
    own = next((vars(base)["forward"] for base in cls.__mro__ if "forward" in vars(base)), None)
    return None if own is None else inspect.unwrap(own)


@lru_cache(maxsize=4096)
def _route(cls: type, forward: Any) -> str | None:
    if forward is nn.MultiheadAttention.forward:
        return MULTIHEAD
    names = set(_names(cls, forward))
    if "ALL_ATTENTION_FUNCTIONS" in names:
        return REGISTRY
    if any(
        c.__name__ in RETURNING or (c.__module__.rpartition(".")[2], c.__name__) in RETURNING_IN for c in cls.__mro__
    ):
        return RETURNED
    if "scaled_dot_product_attention" in names and not cls.__module__.startswith("torch."):
        return SDPA
    return None


def _names(cls: type, forward: Any) -> Iterator[str]:
    """Names that the forward of a class uses; of a user's own class, those of its methods and functions too.

    A function that was imported under another name goes by its own.
    """
    own = not cls.__module__.startswith(("transformers.", "torch."))
    functions: list[Any] = [forward]
    seen: set[CodeType] = set()
    while functions:
        function = functions.pop()
        code, there = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        if code is None or code in seen:
            continue
        seen.add(code)
        for name in _used(code):
            found = there.get(name)
            yield "scaled_dot_product_attention" if found is F.scaled_dot_product_attention else name
            if own:
                functions += [f for f in (vars(cls).get(name), found) if getattr(f, "__module__", 0) == cls.__module__]


def _used(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _used(inner)
