"""The model that is measured: made of a shape, run on random tokens."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.bench.machine import lacks_memory
from attnprobe.bench.setting import Setting, Shape
from attnprobe.errors import AttnprobeError, BudgetError, SelectionError, out_of_memory
from attnprobe.hooks import implementation_of
from attnprobe.planning.words import check_window
from attnprobe.sites import find_sites

VOCABULARY = {"gpt2": 50257, "llama": 32000}
FEED_FORWARD = 3.5  # a model like Llama: width of its feed-forward layers over its own
_SMALLER = "name a smaller --shape, or another --device"


def random_model(shape: Shape, positions: int, dtype: torch.dtype, device: torch.device, attention: str) -> nn.Module:
    """A decoder of a shape with random weights, the same each time, for up to `positions` tokens; in eval mode.

    Like GPT-2 (learned positions, as many key-value heads as heads), or like Llama where the shape has key-value heads.
    """
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    width = shape.heads * shape.dim
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config: Any
    if shape.kv_heads is None:
        config = GPT2Config(
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=width,
            n_positions=positions,
            vocab_size=VOCABULARY["gpt2"],
            **ends,
        )
    else:
        config = LlamaConfig(
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            hidden_size=width,
            head_dim=shape.dim,
            intermediate_size=int(FEED_FORWARD * width),
            max_position_embeddings=positions,
            vocab_size=VOCABULARY["llama"],
            tie_word_embeddings=True,
            **ends,
        )
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(device):
        torch.manual_seed(0)
        try:
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        except (ImportError, ValueError) as error:
            raise _not_there(attention, error) from error
    return model.eval()


def _size(shape: Shape) -> int:
    """Numbers that a `random_model` has at least: its matrices, without positions, biases and norms."""
    width = shape.heads * shape.dim
    if shape.kv_heads is None:
        return 12 * shape.layers * width**2 + VOCABULARY["gpt2"] * width
    layer = width * (2 * width + 2 * shape.kv_heads * shape.dim + 3 * int(FEED_FORWARD * width))
    return shape.layers * layer + VOCABULARY["llama"] * width


def _not_there(attention: str, error: Exception) -> AttnprobeError:
    return AttnprobeError(f"attention {attention!r} cannot be used here: {str(error).strip().splitlines()[0]}")


class Subject:
    """A model as the modes run it.

    Parameters
    ----------
    model
        In eval mode, where it is to run.
    batch
        Samples that run together.

    Attributes
    ----------
    anatomy
        The model's sites.
    maps
        Numbers of a map of all heads of all sites, or of the site that has most, for each query and key.

    Raises
    ------
    SelectionError
        If the model takes more than tokens.
    """

    def __init__(self, model: nn.Module, batch: int) -> None:
        self.model, self.batch = model, batch
        self.anatomy = find_sites(model)
        config: Any = getattr(model, "config", None)
        embed: Any = getattr(model, "get_input_embeddings", None)
        embedding = None if embed is None else embed()
        if getattr(config, "is_encoder_decoder", False) or not isinstance(embedding, nn.Embedding):
            raise SelectionError(
                f"{type(model).__name__} takes more than one sequence of tokens, or none; "
                "measure a decoder, or an encoder by itself"
            )
        self._vocabulary = embedding.num_embeddings
        self.device = embedding.weight.device
        self.dtype = embedding.weight.dtype
        taken = inspect.signature(model.forward).parameters
        # One row of logits: T rows over a vocabulary would be most of the memory, and no part of attention.
        self.one_row = "logits_to_keep" in taken
        self._options = {
            **({"use_cache": False} if "use_cache" in taken else {}),
            **({"logits_to_keep": 1} if self.one_row else {}),
        }
        heads = [site.heads for site in self.anatomy.sites]
        self.maps = sum(heads), max(heads)

    def check_window(self, tokens: int) -> None:
        """Refuse more tokens than the model takes.

        Raises
        ------
        SelectionError
            If there are more.
        """
        check_window(self.anatomy.main.backbone, tokens, 0)

    def ids(self, length: int) -> Tensor:
        """Random tokens ``[batch, token]`` on the model's device, the same each time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, self._vocabulary, (self.batch, length), generator=generator).to(self.device)

    @torch.no_grad()
    def forward(self, ids: Tensor, **options: Any) -> Any:
        """A forward pass without a cache."""
        return self.model(ids, **self._options, **options)

    @property
    def attention(self) -> str:
        """The implementation of attention that the model runs on."""
        return str(implementation_of(self.anatomy.modules[0]) or "its own")

    @contextmanager
    def on(self, attention: str) -> Iterator[None]:
        """Run on another implementation of attention inside of this block.

        Raises
        ------
        AttnprobeError
            If the model does not have it, or it is not installed.
        """
        model: Any = self.model
        before = self.attention
        if attention == before:
            yield
            return
        try:
            model.set_attn_implementation(attention)
        except (AttributeError, ImportError, ValueError) as error:
            raise _not_there(attention, error) from error
        try:
            yield
        finally:
            model.set_attn_implementation(before)


def subject_of(setting: Setting) -> Subject:
    """The random model of a setting, on its device.

    Raises
    ------
    SelectionError
        If the device cannot be used.
    BudgetError
        If the model by itself does not fit its memory.
    """
    shape, device = Shape.parse(setting.model), torch.device(setting.device)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    if device.type == "cpu":  # where a system kills whoever takes too much
        lacking = lacks_memory(_size(shape) * dtype.itemsize)
        if lacking is not None:
            raise BudgetError(f"a model of shape {shape} takes {lacking}; {_SMALLER}")
    try:
        model = random_model(shape, setting.lengths[-1] + 1, dtype, device, setting.attention)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        if out_of_memory(error):
            raise BudgetError(f"a model of shape {shape} does not fit on {device}; {_SMALLER}") from error
        raise SelectionError(f"device {setting.device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return Subject(model, setting.batch)
