"""A run of weights that others computed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from attnprobe.errors import SelectionError
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.run import Run
from attnprobe.store import Manifest, MemoryStore


def from_attentions(attentions: Sequence[Any], tokens: Sequence[str] | Sequence[Sequence[str]] | None = None) -> Run:
    """Make a run of ``outputs.attentions``, or of what ``generate(..., return_dict_in_generate=True)`` returned.

    Parameters
    ----------
    attentions
        A tensor ``[batch, head, query, key]`` a layer; or such a tuple a generation step.
    tokens
        Labels of one sample, or a list of them a batch row.

    Raises
    ------
    SelectionError
        If there are no weights (fused attention never builds them), or shapes do not fit.
    """
    steps = [attentions] if not len(attentions) or isinstance(attentions[0], torch.Tensor) else list(attentions)
    if not steps or not all(len(step) for step in steps) or any(w is None for step in steps for w in step):
        raise SelectionError(
            "there are no weights in these attentions: fused attention never builds them, and returns an empty tuple; "
            "record the model with attnprobe.record(model), which needs no eager attention"
        )
    for step in steps:
        for layer, weights in enumerate(step):
            if not isinstance(weights, torch.Tensor) or weights.dim() != 4:
                raise SelectionError(f"layer {layer}: want a tensor [batch, head, query, key], got {_shape(weights)}")
    first, last = steps[0], steps[-1]
    batch, length = first[0].shape[0], last[0].shape[3]
    sites = tuple(Site(f"layer.{n}", "self", "decoder", n, w.shape[1], w.shape[1]) for n, w in enumerate(first))
    manifest = Manifest(
        model={"class": "unknown (from_attentions)"},
        sites=sites,
        keep=({"what": "weights"},),
        versions={},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store = MemoryStore(manifest)
    for b in range(batch):
        names = _names(tokens, b, length)
        for site in sites:
            row = 0
            field = Field(b, site, 0, tuple(range(site.heads)))
            for step in steps:
                weights = step[site.layer][b].detach().to("cpu", torch.float32, copy=True)
                rows = range(row, row + weights.shape[1])
                store.write(field, Block(field.heads, rows, 0, weights))
                row = rows.stop
        sequence = TokenSequence(length, None, names, names)
        store.commit(Sample(b, str(b), {"main": sequence}, prompt_length=first[0].shape[2]))
    store.close()
    return Run(store)


def _names(tokens: Any, b: int, length: int) -> tuple[str, ...] | None:
    if tokens is None:
        return None
    names = tuple(tokens) if tokens and isinstance(tokens[0], str) else tuple(tokens[b])
    if len(names) != length:
        raise SelectionError(f"{len(names)} tokens for maps of {length} columns; give one a column")
    return names


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
