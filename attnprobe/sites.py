"""Model to sites: which modules are attention, what each one is, and which module is given the sequence it looks at."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from attnprobe.errors import UnsupportedModel
from attnprobe.fields import Site
from attnprobe.routes import refusal, route_of

HEADS = (
    "num_heads",
    "num_attention_heads",
    "n_heads",
    "n_head",
    "heads",
    "num_query_heads",
    "num_attn_heads",
    "nhead",
)
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads")
SIZES = ("head_dim", "head_size", "attention_head_size")
QUERY = ("q_proj", "query", "q", "query_proj", "wq", "to_q")
CROSS = re.compile(
    r"cross|encoder_?attn|enc_?dec|encoder_?decoder_?attention|encoder_attention|multihead_attn$", re.IGNORECASE
)
MAIN, SOURCE, IMAGE, AUDIO = "main", "source", "image", "audio"
ATTENTION = re.compile(r"(Attention|Attn)$")
POOLING = re.compile(r"PoolingHead|Pooler$|Resampler")
# Modules that run several times in a forward pass: how often, by the configuration and the name.
REPEATS: dict[str, Callable[[Any, str], int]] = {
    "AlbertAttention": lambda config, key: _albert_layers(config, int(re.findall(r"\d+", key)[0])),
    "HrmTextAttention": lambda config, key: config.H_cycles * (config.L_cycles if "L_module" in key else 1),
}


@dataclass(frozen=True)
class Stream:
    """A sequence that runs through a model.

    Attributes
    ----------
    name
        What it is called in a sample: ``"main"``, ``"source"``, ``"image"``, ...
    key
        Name of the backbone in ``model.named_modules()``.
    backbone
        The module whose forward is given the sequence: ids, embeddings, pixels, mask, positions, cache.
    """

    name: str
    key: str
    backbone: nn.Module


@dataclass(frozen=True)
class Anatomy:
    """What of a model can be recorded.

    Attributes
    ----------
    sites, modules
        The attention modules: what each is, and itself.
    streams, stream_of
        The sequences that run through the model; and of each site, which of them its rows are.
    refused
        Names of attention modules that are not recorded, and why.
    """

    sites: tuple[Site, ...]
    modules: tuple[nn.Module, ...]
    streams: tuple[Stream, ...]
    stream_of: tuple[int, ...]
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def main(self) -> Stream:
        """The stream that a model is named by."""
        return next((stream for stream in self.streams if stream.name == MAIN), self.streams[0])

    def source_of(self, stream: int) -> int | None:
        """The stream that cross-attention of another one looks at, where the model has it."""
        wanted = {site.keys for site, own in zip(self.sites, self.stream_of, strict=True) if own == stream}
        wanted -= {self.streams[stream].name}
        return next((n for n, other in enumerate(self.streams) if other.name in wanted), None)


def find_sites(model: nn.Module) -> Anatomy:
    """Find the attention modules of a model.

    Raises
    ------
    UnsupportedModel
        If there are none that can be recorded.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"record() takes a torch.nn.Module, not {type(model).__name__}")
    found: list[tuple[str, nn.Module, str]] = []
    refused: list[tuple[str, str]] = []
    # Of an nn.Transformer that is run as a whole, nothing tells which rows are which sequence's.
    pairs = [f"{key}." if key else "" for key, part in model.named_modules() if isinstance(part, nn.Transformer)]
    for key, module in _runs(model):
        reason, route = refusal(module), route_of(module)
        if reason is None and route is not None and any(key.startswith(prefix) for prefix in pairs):
            reason = "nn.Transformer has two sequences; record its .encoder or its .decoder, and run the whole"
        if reason is None and route is not None and POOLING.search(_parent(key, model)):
            reason = "it pools tokens: its rows are none"
        if reason is not None:
            refused.append((key, f"{type(module).__name__}: {reason}"))
        elif route is not None:
            found.append((key, module, route))
    refused += _unknown(model, [key.partition("@")[0] for key in (*(key for key, _, _ in found), *dict(refused))])
    if not found:
        raise UnsupportedModel(_nothing(model, refused))
    ancestors = dict(model.named_modules())
    backbones: dict[str, nn.Module] = {}
    keys = []
    halves = _halves(model)
    for key, _, _ in found:
        keys.append(next((k for k in _above(key) if is_pretrained(ancestors[k]) or id(ancestors[k]) in halves), ""))
        backbones.setdefault(keys[-1], ancestors[keys[-1]])
    streams = _streams(model, backbones)
    stream_of = tuple(list(backbones).index(key) for key in keys)
    drafts = [
        _draft(key, module, streams[number], route)
        for (key, module, route), number in zip(found, stream_of, strict=True)
    ]
    return Anatomy(
        sites=tuple(_numbered(drafts)),
        modules=tuple(module for _, module, _ in found),
        streams=streams,
        stream_of=stream_of,
        refused=tuple(refused),
    )


def _parent(key: str, model: nn.Module) -> str:
    """Class name of the module around one."""
    return type(model.get_submodule(key.partition("@")[0].rpartition(".")[0])).__name__ if "." in key else ""


def _unknown(model: nn.Module, known: list[str]) -> Iterator[tuple[str, str]]:
    """Modules whose class is called an attention, that have no part that is, and are nothing that is known."""
    named = {key: module for key, module in model.named_modules() if ATTENTION.search(type(module).__name__)}
    around = {outer for key in (*known, *named) for outer in (*_above(key), "")}
    for key, module in named.items():
        if key not in around and key not in known and not any(f"{key}.".startswith(f"{one}.") for one in known):
            yield key, f"{type(module).__name__}: how it computes attention is not known"


def _nothing(model: nn.Module, refused: list[tuple[str, str]]) -> str:
    if refused:
        return f"{type(model).__name__} has no attention that can be recorded: {refused[0][0]} is a {refused[0][1]}"
    return (
        f"no attention module of a known kind in {type(model).__name__}: none uses transformers' attention functions, "
        "F.scaled_dot_product_attention or nn.MultiheadAttention in its forward, or is known to return its weights. "
        "Pass the model itself, not a wrapper's output or a head"
    )


def _runs(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by name, once for each time that they run in a forward pass."""
    names: dict[int, str] = {}
    for key, module in model.named_modules(remove_duplicate=False):
        first = names.setdefault(id(module), key)
        # One module in several layers runs in each; one that merely has two names runs once.
        if first != key and re.sub(r"\d+", "#", first) != re.sub(r"\d+", "#", key):
            continue
        times = next((REPEATS[c.__name__] for c in type(module).__mro__ if c.__name__ in REPEATS), None)
        if times is None:
            yield key, module
        else:
            for number in range(times(module.config, key)):
                yield f"{key}@{number}", module


def _albert_layers(config: Any, group: int) -> int:
    """How many layers a group of shared weights is, as AlbertTransformer deals them out."""
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    return [int(layer / (layers / groups)) for layer in range(layers)].count(group)


def _above(key: str) -> Iterator[str]:
    """Names of the modules around one, from the inside."""
    while key:
        key = key.rpartition(".")[0]
        yield key


def is_pretrained(module: nn.Module) -> bool:
    """Whether a module is a model of transformers."""
    return any(cls.__name__ == "PreTrainedModel" for cls in type(module).__mro__)


# --- streams -----------------------------------------------------------------------------------------------------


def _streams(model: nn.Module, backbones: dict[str, nn.Module]) -> tuple[Stream, ...]:
    """Name the sequences: one alone is the main one; an encoder's is the source of its decoder."""
    if len(backbones) == 1:
        return tuple(Stream(MAIN, key, backbone) for key, backbone in backbones.items())
    sources = _encoder_parts(model)
    names: dict[str, str] = {}
    for key, backbone in backbones.items():
        given = _parameters(backbone)
        if id(backbone) in sources:
            name = SOURCE
        elif "pixel_values" in given and "input_ids" not in given:
            name = IMAGE
        elif given & {"input_features", "input_values"} and "input_ids" not in given:
            name = AUDIO
        else:
            name = MAIN
        names[key] = name if name not in names.values() else key.replace(".", "_") or "model"
    if MAIN not in names.values():  # towers of other kinds only
        names[next(iter(names))] = MAIN
    return tuple(Stream(names[key], key, backbone) for key, backbone in backbones.items())


def _half(model: nn.Module, which: str) -> nn.Module | None:
    """The encoder or decoder of an encoder-decoder."""
    for module in model.modules():
        find: Any = getattr(module, f"get_{which}", None)
        if callable(find) and getattr(getattr(module, "config", None), "is_encoder_decoder", False):
            half = find()
            if isinstance(half, nn.Module) and half is not module:
                return half
    return None


def _halves(model: nn.Module) -> set[int]:
    return {id(half) for which in ("encoder", "decoder") if (half := _half(model, which)) is not None}


def _encoder_parts(model: nn.Module) -> set[int]:
    """Modules of the encoder of an encoder-decoder."""
    encoder = _half(model, "encoder")
    return set() if encoder is None else {id(part) for part in encoder.modules()}


def _parameters(module: nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)


# --- sites -------------------------------------------------------------------------------------------------------


def _draft(key: str, module: Any, stream: Stream, route: str) -> Site:
    """A site whose layer number is the module's own, or the last number in its name."""
    is_cross = getattr(module, "is_cross_attention", None)
    cross = bool(is_cross) if is_cross is not None else bool(CROSS.search(key[len(stream.key) :]))
    heads = head_count(module, stream.backbone)
    if heads is None:
        raise UnsupportedModel(
            f"{key} ({type(module).__name__}) does not say how many heads it has; set {key or 'model'}.num_heads"
        )
    groups, own_keys = getattr(module, "num_key_value_groups", None), _first(module, KEY_HEADS)
    numbers = re.findall(r"\d+", key)
    own = getattr(module, "layer_idx", None)
    layer = int(numbers[-1]) if "@" in key or (not isinstance(own, int) and numbers) else own
    causal = cross or getattr(module, "is_causal", stream.name == MAIN)
    return Site(
        key=key,
        kind="cross" if cross else "self",
        part="vision" if stream.name == IMAGE else "decoder" if causal and stream.name != SOURCE else "encoder",
        layer=layer if isinstance(layer, int) and layer >= 0 else 0,
        heads=heads,
        kv_heads=heads // groups if isinstance(groups, int) and groups > 0 else own_keys or heads,
        queries=stream.name,
        keys=SOURCE if cross else stream.name,
        route=route,
    )


def head_count(module: Any, backbone: nn.Module) -> int | None:
    """Query heads of an attention module, by its attributes, its projection, or its configuration."""
    size = _first(module, SIZES)
    width = next((p.out_features for n in QUERY if isinstance(p := getattr(module, n, None), nn.Linear)), 0)
    projected = width // size if size and width and not width % size else None
    configs = getattr(module, "config", None), getattr(backbone, "config", None)
    return next((n for n in (_first(module, HEADS), *(_first(c, HEADS) for c in configs), projected) if n), None)


def _first(of: Any, names: tuple[str, ...]) -> int | None:
    """The first attribute of these names that is a count."""
    values = (attribute(of, name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def attribute(of: Any, name: str) -> Any:
    """An attribute or None; configurations whose layers differ refuse to tell theirs."""
    try:
        return getattr(of, name, None)
    except Exception:
        return None


def _numbered(drafts: list[Site]) -> Iterator[Site]:
    """Sites with layer numbers of their own; where two of a kind say the same, they are counted."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, site in enumerate(drafts):
        groups.setdefault((site.queries, site.kind), []).append(number)
    layers = [site.layer for site in drafts]
    for members in groups.values():
        if len({layers[n] for n in members}) < len(members):
            for layer, n in enumerate(members):
                layers[n] = layer
    for site, layer in zip(drafts, layers, strict=True):
        yield replace(site, layer=layer)
