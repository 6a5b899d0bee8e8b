"""A model and its tokenizer by name: ``demo``, a directory, or a name on the Hugging Face hub."""

import logging
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from attnprobe.errors import AttnprobeError, SelectionError, out_of_memory


class Named:
    """A model that is not loaded yet: its tokenizer and its context window come first, and cost little."""

    def __init__(self, name: str, progress: bool) -> None:
        _silence(progress)
        from transformers import AutoConfig, AutoTokenizer

        self.name = name
        self._where = name
        if name == "demo":
            from attnprobe import demo

            self._where = str(demo.path)
            if not (demo.path / "config.json").is_file():
                raise AttnprobeError("the bundled model is missing from this installation; install attnprobe again")
        elif not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
            raise AttnprobeError(f"there is no model directory {name}")
        self._config: Any = self._try(AutoConfig)
        self._tokenizer = AutoTokenizer
        window = getattr(self._config, "max_position_embeddings", None)
        self.window: int | None = window if isinstance(window, int) and window > 0 else None
        self.encodes = bool(getattr(self._config, "is_encoder_decoder", False))

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._try(self._tokenizer)

    def _try(self, factory: Any, **options: Any) -> Any:
        return self._explained(lambda: factory.from_pretrained(self._where, **options))

    def _explained(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except Exception as error:
            if out_of_memory(error):
                raise
            raise AttnprobeError(f"cannot load {self.name}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        if not Path(self._where).is_dir() and isinstance(error, OSError):
            return (
                "it is neither a directory nor in the local cache, and the Hugging Face hub does not have it or cannot "
                "be reached; check the name, log in if it is gated, or give a directory"
            )
        first = str(error).strip().splitlines()
        return first[0] if first else type(error).__name__

    def outline(self) -> Any:
        """The model without its numbers, made of its configuration on the meta device."""
        import torch

        options = {"dtype": torch.float32} if self.name == "demo" else {}  # as it is loaded

        def make() -> Any:
            cls = self._class
            from_config = getattr(cls, "_from_config", None) or cls.from_config  # an auto class has the latter alone
            with torch.device("meta"):
                return from_config(self._config, **options).eval()

        return self._explained(make)

    @property
    def _class(self) -> Any:
        """The class that the checkpoint was saved as; where that is not told, an auto class."""
        import transformers
        from transformers.models.auto import modeling_auto as auto

        saved = getattr(transformers, (getattr(self._config, "architectures", None) or [""])[0] or "?", None)
        if isinstance(saved, type) and issubclass(saved, transformers.PreTrainedModel):
            return saved
        kinds = {
            "AutoModelForCausalLM": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            "AutoModelForSeq2SeqLM": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
            "AutoModelForMaskedLM": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
            "AutoModelForImageClassification": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        }
        able = (name for name, table in kinds.items() if self._config.model_type in table)
        return getattr(transformers, next(able, "AutoModel"))

    def load(self, device: str) -> Any:
        """The model in eval mode on a device, on SDPA where its class has it."""
        import torch

        if self.name == "demo":
            from attnprobe import demo

            model = demo.load()[0]
        else:
            model = self._try(self._class).eval()
        try:
            return model.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
            if out_of_memory(error):
                raise
            raise SelectionError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def pick_device(name: str, local_rank: int | None = None) -> str:
    """A device by name; ``"auto"`` is CUDA where there is one, of workers on one machine each the next."""
    if name != "auto":
        return name
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return "cuda" if local_rank is None else f"cuda:{local_rank % torch.cuda.device_count()}"


def _silence(progress: bool) -> None:
    """Keep the libraries' own bars and warnings off stderr, downloads on a terminal excepted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not progress:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # after the import, which sets it too
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
