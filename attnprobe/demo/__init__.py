"""The bundled model, a small trained GPT-2 with its own tokenizer, and the text that it is shown on."""

from pathlib import Path
from typing import Any

from attnprobe.errors import AttnprobeError

path = Path(__file__).parent / "model"


def load(directory: Path | None = None, positions: int | None = None) -> tuple[Any, Any]:
    """Load the bundled model, in float32 on SDPA, and its tokenizer. No network is used.

    Parameters
    ----------
    directory
        Another directory of the same layout; `path` if None.
    positions
        A longer context window than the model's 1,024 tokens. Its first 512 position embeddings, which training saw
        most, are repeated, so it runs on any length and cannot tell positions 512 apart.

    Returns
    -------
    tuple
        The model in eval mode, and the tokenizer.

    Raises
    ------
    AttnprobeError
        If the model's files are missing.
    """
    directory = path if directory is None else directory
    if not (directory / "config.json").is_file():
        raise AttnprobeError("the bundled model is missing from this installation; install attnprobe again")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # batches pad, as with GPT-2's own tokenizer
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    if positions is not None:
        _stretch(model, positions)
    model.config.name_or_path = "demo"  # a run names the model, not where this installation lies
    return model.eval(), tokenizer


def _stretch(model: Any, positions: int) -> None:
    from torch import nn

    embedding = model.transformer.wpe.weight.detach()[:512]
    repeated = embedding.repeat(-(-positions // len(embedding)), 1)[:positions]
    model.transformer.wpe = nn.Embedding(positions, repeated.shape[1], _weight=repeated.clone())
    model.config.n_positions = positions


def text() -> str:
    """The bundled text: a tale of a few thousand words, in which phrases come back."""
    return (Path(__file__).parent / "text.txt").read_text(encoding="utf-8")
