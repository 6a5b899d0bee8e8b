"""What the models of the zoo are run on, and the attention weights of their own eager runs, told by identity."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, StaticCache
from transformers.modeling_outputs import BaseModelOutput

SCENARIOS = ("plain", "left", "right", "generate", "static", "chunk", "packed")
OF_KIND = {
    "causal": SCENARIOS,
    "masked": ("plain", "left", "right"),
    "seq2seq": ("plain", "right", "generate"),
    "image": ("plain",),
}
LENGTH, PADDED, STEPS, FIRST_TOKEN = 13, 4, 4, 20
FIRST = 6  # tokens of the first of two chunks, or of two packed sequences
AGREE = 1e-5


@dataclass(frozen=True, eq=False)
class Case:
    """A tiny model of one type, as its class runs it by default and as eager attention runs the same weights."""

    kind: str
    model_type: str
    model: Any
    eager: Any
    implementation: str
    vocabulary: int
    scale: float = 1.0
    peak: float = 0.0
    """Median over rows of the largest weight times the number of keys that the row has."""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """What the model gets beside or in place of tokens."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Attention weights of an eager run, one tensor per call of a module, in order."""

    weights: dict[str, list[Tensor]]
    logits: list[Tensor]
    padding: Tensor | None
    """Which slots of the prompt and of what was decoded, or of the encoder's input, hold a token; None: all of them."""
    silent: frozenset[str]
    """Modules that return no weights: theirs were taken from the softmax that they compute."""
    unattributed: int
    """Tensors among the outputs' attentions that no module returned."""


def tokens(case: Case, batch: int = 2, length: int = LENGTH) -> Tensor:
    """Random tokens that are no special ones."""
    return torch.randint(FIRST_TOKEN, case.vocabulary, (batch, length), generator=torch.Generator().manual_seed(7))


def padding(case: Case, scenario: str) -> Tensor | None:
    """Which slots of a scenario's prompt, or encoder input, hold a token; None: all of them."""
    if scenario not in ("left", "right", "generate", "static") or (
        case.kind == "seq2seq" and scenario == "generate" and case.model.config.is_encoder_decoder
    ):
        return None
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[1, slice(-PADDED, None) if scenario == "right" else slice(PADDED)] = False
    return mask


def positions(mask: Tensor) -> Tensor:
    """Position ids as `generate` makes them from a padding mask."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def call(model: Any, more: dict[str, Any], **inputs: Any) -> Any:
    """One forward, of the inputs that the model takes."""
    known = inspect.signature(model.forward).parameters
    taken = {name: value for name, value in {**inputs, **more}.items() if name in known}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        taken.update({name: value for name, value in more.items() if name not in taken})
    with torch.no_grad():
        return model(**taken)


def forwards(model: Any, case: Case, scenario: str, **more: Any) -> Iterator[Any]:
    """The outputs of a scenario's forwards, one after another."""
    given = case.inputs
    if case.kind == "image":
        yield call(model, more, **given)
    elif case.kind == "seq2seq" and model.config.is_encoder_decoder:
        yield from sequence_to_sequence(model, case, scenario, more)
    elif scenario == "packed":
        split = torch.cat([torch.arange(FIRST), torch.arange(LENGTH - FIRST)])[None]
        given = {name: value[:1] for name, value in given.items()}
        yield call(model, more, **given, input_ids=tokens(case, batch=1), position_ids=split, use_cache=False)
    elif scenario in ("generate", "static"):
        yield from decode(model, case, scenario, more)
    elif scenario == "chunk":
        ids = tokens(case)
        cache = empty_cache(model, case, scenario)
        out = call(model, more, **given, input_ids=ids[:, :FIRST], use_cache=True, **cache)
        yield out
        cache = cache or {"past_key_values": out.past_key_values}
        told = {"position_ids": torch.arange(FIRST, LENGTH)[None].expand(2, -1), "attention_mask": torch.ones_like(ids)}
        yield call(model, more, **given, input_ids=ids[:, FIRST:], use_cache=True, **told, **cache)
    else:
        mask, ids = padding(case, scenario), tokens(case)
        told = {} if mask is None else {"attention_mask": mask.long(), "position_ids": positions(mask)}
        yield call(model, more, **given, input_ids=ids if mask is None else ids.where(mask, 0), **told)


def empty_cache(model: Any, case: Case, scenario: str) -> dict[str, Any]:
    """The cache that a first forward gets; mostly none, as models make their own."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise NotImplementedError("the model takes no past_key_values")
    config = model.config.get_text_config(decoder=True)
    if scenario == "static":
        return {"past_key_values": StaticCache(config=config, max_cache_len=LENGTH + STEPS + 3)}
    if case.model_type == "recurrent_gemma":  # does not return the one that it makes
        return {"past_key_values": DynamicCache(config=config)}
    return {}


def decode(model: Any, case: Case, scenario: str, more: dict[str, Any]) -> Iterator[Any]:
    """A left-padded prompt and greedy steps of one token, through the model's own cache or a static one."""
    mask = padding(case, scenario)
    ids, cache, place = tokens(case).where(mask, 0), empty_cache(model, case, scenario), positions(mask)
    for _ in range(STEPS + 1):
        inputs = {"attention_mask": mask.long(), "position_ids": place, "use_cache": True, **cache}
        out = call(model, more, **case.inputs, input_ids=ids, **inputs)
        yield out
        cache = cache or {"past_key_values": out.past_key_values}
        ids = out.logits[:, -1:].argmax(-1)
        mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
        place = place[:, -1:] + 1


def sequence_to_sequence(model: Any, case: Case, scenario: str, more: dict[str, Any]) -> Iterator[Any]:
    """An encoder's input and the decoder's, the latter step by step in `generate`."""
    mask, ids = padding(case, scenario), tokens(case)
    inputs: dict[str, Any] = {"input_ids": ids if mask is None else ids.where(mask, 0), **case.inputs}
    if mask is not None:
        inputs["attention_mask"] = mask.long()
    ids = tokens(case, length=9)
    if scenario != "generate":
        yield call(model, more, **inputs, decoder_input_ids=ids, use_cache=False)
        return
    for _ in range(STEPS + 1):
        out = call(model, more, **inputs, decoder_input_ids=ids, use_cache=True)
        yield out
        encoded = BaseModelOutput(last_hidden_state=out.encoder_last_hidden_state)
        encoded.router_logits = None  # which encoders with experts have
        inputs = {"past_key_values": out.past_key_values, "encoder_outputs": encoded}
        ids = out.logits[:, -1:].argmax(-1)


def run(model: Any, case: Case, scenario: str, **more: Any) -> list[Any]:
    """The logits of a scenario's forwards, of `case.model`, `case.eager` or any other model that takes their inputs."""
    return [out.logits for out in forwards(model, case, scenario, **more)]


def tensors(value: Any) -> Iterator[Tensor]:
    """Tensors of an output, nested in tuples and the like or not."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)


ATTENDS = re.compile("Attention|MLA")  # in the names of classes
# Modules whose weights have their axes elsewhere; the windows of Hiera count as batch rows, as those of Swin do.
AXES: dict[str, Callable[[Tensor], Tensor]] = {
    "XLNetRelativeAttention": lambda weights: weights.permute(2, 3, 0, 1),
    "HieraMaskUnitAttention": lambda weights: weights.transpose(1, 2).flatten(0, 1),
}
# Their softmax is over distances to keys, or over all tokens at once: there is no weight of a query and a key.
NO_MAP = ("LongformerSelfAttention", "LEDEncoderSelfAttention", "MobileViTV2LinearSelfAttention")


def is_weights(tensor: Tensor) -> bool:
    """Whether these may be attention weights: [batch, head, query, key], nothing negative, no row above 1."""
    if tensor.ndim != 4 or not tensor.is_floating_point() or not tensor.numel():
        return False
    return bool((tensor >= 0).all()) and bool((tensor.sum(-1) <= 1 + 1e-4).all()) and bool(tensor.any())


class Watch(TorchFunctionMode):
    """The weights that attention modules return while they run, each under the innermost module that returns it.

    Modules that return none have theirs taken where they compute them, from softmax.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []
        self.silent: set[str] = set()
        self.known: set[int] = set()
        self.kept: list[Tensor] = []  # an id is a tensor's only as long as the tensor lives
        self.stack: list[tuple[str, list[Tensor]]] = []
        # A dropout or softmax that returns the weights is no attention module: torch's own modules are passed over.
        named = [(name, part) for name, part in model.named_modules() if "torch.nn" not in type(part).__module__]
        self.handles = [part.register_forward_pre_hook(partial(self.enter, name)) for name, part in named]
        self.handles += [
            part.register_forward_hook(self.leave, with_kwargs=True, always_call=True) for _, part in named
        ]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") == "softmax" and self.stack:
            self.stack[-1][1].append(out)
        return out

    def enter(self, name: str, module: nn.Module, args: Any) -> None:
        """A module begins."""
        self.stack.append((name, []))

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module ends."""
        name, computed = self.stack.pop()
        kind = type(module).__name__
        if not ATTENDS.search(kind):
            return
        given = {id(tensor) for tensor in tensors([args, kwargs])} | self.known
        own = [tensor for tensor in tensors(output) if id(tensor) not in given]
        self.known.update(map(id, own))
        self.kept += own
        if kind in NO_MAP:
            return
        turn = AXES.get(kind, lambda tensor: tensor)
        weights = [turn(tensor) for tensor in own if tensor.ndim >= 4]
        weights = [tensor for tensor in weights if is_weights(tensor)]
        if not weights:
            weights = [tensor for tensor in computed if is_weights(tensor)]
            self.silent |= {name} if weights else set()
        if len(weights) > 1:
            # T5Gemma 2 returns one softmax in two pieces, that over its own keys and that over the encoder's.
            weights = [torch.cat(weights, dim=-1)]
            assert is_weights(weights[0]), f"{name} returns several weights"
        self.found += [(name, tensor) for tensor in weights]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self.handles:
            handle.remove()


def reference(case: Case, scenario: str) -> Reference:
    """Weights of `case.eager`'s own run."""
    with Watch(case.eager) as watch:
        outputs = list(forwards(case.eager, case, scenario, output_attentions=True))
    weights: dict[str, list[Tensor]] = {}
    for name, tensor in watch.found:
        weights.setdefault(name, []).append(tensor.detach())
    told = [t for out in outputs for key, value in out.items() if key.endswith("attentions") for t in tensors(value)]
    mask = padding(case, scenario)
    if mask is not None and scenario in ("generate", "static"):
        mask = torch.cat([mask, mask.new_ones(2, STEPS)], dim=1)
    unattributed = sum(id(tensor) not in watch.known for tensor in told)
    return Reference(weights, [out.logits for out in outputs], mask, frozenset(watch.silent), unattributed)


def own_agreement(case: Case, scenario: str) -> float:
    """Largest difference of logits, at tokens that are none of padding, between the two models of a case."""
    mask = None if case.model.config.is_encoder_decoder and case.kind == "seq2seq" else padding(case, scenario)
    worst = 0.0
    for one, other in zip(run(case.model, case, scenario), run(case.eager, case, scenario), strict=True):
        apart = (one.float() - other.float()).abs()
        if mask is not None and apart.shape[:2] == mask.shape:
            apart = apart[mask]
        worst = max(worst, float(apart.nan_to_num(nan=torch.inf).max()))
    return worst


def applicable(case: Case, scenario: str) -> str | None:
    """Why a scenario is none for a case; None: it is one."""
    if scenario not in OF_KIND[case.kind]:
        return f"not for {case.kind} models"
    try:
        apart = own_agreement(case, scenario)
        found = reference(case, scenario)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    if apart > AGREE:
        return f"eager and {case.implementation} differ by {apart:.1e} themselves"
    if not found.weights:
        return "no module returns weights"
    if scenario == "packed" and any(t[..., FIRST:, :FIRST].any() for calls in found.weights.values() for t in calls):
        return "attends from one packed sequence to the other"
    return None
