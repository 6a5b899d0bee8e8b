"""A tiny random model of every type that transformers maps to a task, with peaked attention; what each was run on.

`python tests/zoo.py causal` prints a line for each type.
"""

import argparse
import copy
import re
import statistics
import sys
import time
import warnings
from dataclasses import replace
from operator import itemgetter
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto
from transformers.pytorch_utils import Conv1D
from zoo_reference import AGREE, ATTENDS, SCENARIOS, Case, Reference, applicable, own_agreement, reference, run
from zoo_settings import FIRST_TOKEN, PATCH, VOCABULARY, WIDTH, configuration

__all__ = [
    "KINDS",
    "SCENARIOS",
    "CannotBuild",
    "Case",
    "Reference",
    "applicable",
    "build",
    "own_agreement",
    "reference",
    "run",
    "types",
]

MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
}
KINDS = tuple(MAPPINGS)
GAINS = (1.5, 1.0, 2.2, 3.2, 0.7, 5.0, 0.5)
PEAKED = 2.0
QUERY_OR_KEY = re.compile(
    r"(^|[._])(q|k|qk|qkv|kv|query|key|queries|keys|c_attn|q_attn|Wqkv|query_key_value|in_proj_qkv|q_lin|k_lin|qkv_proj"
    r"|(to_)?[qk]_?proj\w*|q_[ab]_proj|kv_[ab]_proj\w*|query_proj|key_proj|att_proj\w*|query_projection|key_projection"
    r"|query_layer|key_layer|qkv_layer)([._]|$)"
)
QUERY_OR_KEY_NORM = re.compile(r"(q|k|kv|query|key)_?(layer_?norm|norm|ln)\.weight$|qk_norm\.temp$")


class CannotBuild(Exception):
    """Why a type is not in the zoo."""


def types(kind: str) -> list[str]:
    """The model types of a kind, as the installed transformers lists them."""
    return list(getattr(modeling_auto, MAPPINGS[kind]))


def model_class(kind: str, model_type: str) -> Any:
    """The first class that transformers maps to a type and that this transformers has."""
    names = getattr(modeling_auto, MAPPINGS[kind])[model_type]
    for name in (names,) if isinstance(names, str) else names:
        if (cls := getattr(transformers, name, None)) is not None:
            return cls
    raise CannotBuild(f"transformers has no {names}")


def randomise(model: nn.Module, gain: float) -> None:
    """Weights that make rows peaked: the projections to queries and keys larger than the others by a gain.

    What models start at zero, or at one, gets noise: biases, norms, sinks, tables of relative positions.
    """
    random = torch.Generator().manual_seed(0)
    owners = {f"{name}.{own}": module for name, module in model.named_modules() for own in module._parameters}
    with torch.no_grad():
        for name, value in model.named_parameters():
            owner = owners[name]
            if not value.is_floating_point() or not value.numel() or "Sinusoid" in type(owner).__name__:
                continue
            noise = torch.randn(value.shape, generator=random)
            if isinstance(owner, nn.Embedding):
                value.copy_(noise * (0.5 if "bias" in name else 0.1))
            elif (value.ndim >= 2 and "Linear" in type(owner).__name__) or (type(owner) is Conv1D and value.ndim == 2):
                width = value.shape[0] if type(owner) is Conv1D else value.shape[-1]
                own = 0.3 if "head" in name.split(".")[0] else gain if QUERY_OR_KEY.search(name) else 1.0
                value.copy_(noise * own / width**0.5)
            elif isinstance(owner, nn.Conv1d | nn.Conv2d) and value.ndim > 2:
                value.copy_(noise * (gain if QUERY_OR_KEY.search(name) else 1.7) / value[0].numel() ** 0.5)
            elif QUERY_OR_KEY_NORM.search(name):
                value.mul_(gain).add_(noise * 0.1 + (gain - 1.0 if not value.any() else 0.0))
            elif isinstance(owner, nn.LayerNorm | nn.BatchNorm2d) and name.endswith("weight"):
                value.copy_(1 + noise * 0.1)  # some start at zero
            elif value.ndim >= 2 and not value.any():
                value.copy_(noise * 0.5)
            elif value.ndim == 3 and "expert" in name:
                value.copy_(noise / value.shape[-1] ** 0.5)
            elif value.ndim == 3 and type(owner).__name__ == "XLNetRelativeAttention":
                value.copy_(noise * (gain if name[-1] in "qkr" else 1.0) / WIDTH**0.5)
            else:
                value.add_(noise * 0.1)


def twins(cls: Any, config: Any, gain: float) -> tuple[Any, Any]:
    """A model as its class runs it by default, and an eager one with the same weights."""
    pair = []
    eager_only = {"attn_implementation": "eager"}
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)  # older versions' SDPA leaves it out
    for attention in (eager_only if capped else {}, eager_only):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pair.append(cls._from_config(copy.deepcopy(config), **attention).float().eval())
    model, eager = pair
    randomise(model, gain)
    eager.load_state_dict(model.state_dict())
    for one, other in zip(model.buffers(), eager.buffers(), strict=True):
        other.copy_(one)
    return model, eager


def implementation(model: Any) -> str:
    """What the model's attention runs on: sdpa where any part does."""
    parts = [part.config for part in model.modules() if isinstance(part, transformers.PreTrainedModel)]
    return "sdpa" if any(part._attn_implementation == "sdpa" for part in parts) else "eager"


def peaks(weights: dict[str, list[Tensor]]) -> dict[str, float]:
    """For each module the median over its rows of the largest weight times the number of keys that the row has."""
    found = {}
    for name, calls in weights.items():
        # Rows with a sink do not sum to 1, and those of one key alone, or of none, can not be peaked.
        rows = [(call.amax(-1) / call.sum(-1) * (call > 0).sum(-1))[(call > 0).sum(-1) > 1] for call in calls]
        found[name] = float(torch.cat(rows).median()) if any(map(len, rows)) else 0.0
    return found


def inputs(kind: str, model_type: str, config: Any) -> dict[str, torch.Tensor]:
    """What a model gets beside or in place of tokens."""
    random = torch.Generator().manual_seed(7)
    if model_type == "trocr":
        return {"encoder_hidden_states": torch.randn(2, 7, WIDTH, generator=random)}
    if model_type == "voxtral_realtime":
        return {"input_features": torch.randn(2, 16, 104, generator=random)}
    if kind != "image":
        return {}
    if model_type == "imagegpt":
        return {"input_ids": torch.randint(FIRST_TOKEN, VOCABULARY, (2, 13), generator=random)}
    if model_type == "siglip2":
        there = torch.ones(2, 16, dtype=torch.long)
        there[1, 12:] = 0  # an image of fewer patches
        shapes = torch.tensor([[4, 4], [3, 4]])
        patches = torch.randn(2, 16, 3 * PATCH**2, generator=random)
        return {"pixel_values": patches, "pixel_attention_mask": there, "spatial_shapes": shapes}
    side = getattr(getattr(config, "vision_config", config), "image_size", None) or 64
    side = side if isinstance(side, int) else side[0]
    pixels = {"pixel_values": torch.randn(2, 3, side, side, generator=random)}
    if model_type == "shieldgemma2":
        ids = torch.randint(FIRST_TOKEN, VOCABULARY, (2, 13), generator=random)
        ids[:, 3:7] = config.image_token_index
        return {"input_ids": ids, **pixels}
    return pixels


def told(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def build(kind: str, model_type: str) -> Case:
    """A tiny model of a type, its weights such that rows are peaked and eager agrees with the default."""
    try:
        cls = model_class(kind, model_type)
        config = configuration(model_type, cls, kind)
        given = inputs(kind, model_type, config)
        with torch.device("meta"):
            parts = {type(part).__name__ for part in cls._from_config(copy.deepcopy(config)).modules()}
    except Exception as error:
        raise CannotBuild(told(error)) from error
    if not any(map(ATTENDS.search, parts)):
        raise CannotBuild("no attention module")
    fit: list[tuple[float, Case]] = []
    reason = ""
    for gain in GAINS:
        try:
            model, eager = twins(cls, config, gain)
            case = Case(kind, model_type, model, eager, implementation(model), VOCABULARY, gain, 0.0, given)
            found = peaks(reference(case, "plain").weights)
            apart = own_agreement(case, "plain")
        except Exception as error:
            raise CannotBuild(told(error)) from error
        if not found:
            raise CannotBuild("no attention module computes softmax weights of every query and key")
        case = replace(case, peak=statistics.median(found.values()))
        if case.peak >= PEAKED and apart <= AGREE:
            fit.append((apart, case))
            if min(found.values()) >= PEAKED * 0.75 and apart <= AGREE / 4:  # other scenarios add to it
                return case
        reason += f"; at scale {gain} {case.peak:.2f} times uniform, eager and {case.implementation} {apart:.1e} apart"
    if not fit:
        raise CannotBuild(f"no scale makes rows peaked and its own runs agree{reason}")
    return min(fit, key=itemgetter(0))[1]


def describe(kind: str, model_type: str) -> str:
    """A line about a type."""
    start = time.perf_counter()
    try:
        case = build(kind, model_type)
    except CannotBuild as error:
        return f"{model_type:28} -- {error} ({time.perf_counter() - start:.1f} s)"
    built = time.perf_counter() - start
    reasons = {scenario: applicable(case, scenario) for scenario in SCENARIOS}
    able = [scenario for scenario, reason in reasons.items() if reason is None]
    found = reference(case, "plain")
    calls = sum(map(len, found.weights.values()))
    line = f"{model_type:28} {case.implementation:5} scale {case.scale:<4} peak {case.peak:.2f}"
    line += f" modules {len(found.weights)} of {calls} calls; {' '.join(able)}; {built:.1f} s"
    if found.silent:
        line += f"; {len(found.silent)} modules return no weights"
    if found.unattributed:
        line += f"; {found.unattributed} of the outputs' attentions returned by no module"
    for scenario, reason in reasons.items():
        if reason and not reason.startswith("not for"):
            line += f"\n    {scenario}: {reason}"
    return line


def main() -> None:
    """Print a line for each type of a kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("only", nargs="*")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    start, built = time.perf_counter(), 0
    chosen = options.only or types(options.kind)
    for model_type in chosen:
        line = describe(options.kind, model_type)
        built += " -- " not in line
        print(line, flush=True)
    print(f"{built} of {len(chosen)} built, {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
