"""A run of weights that others computed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from attnprobe.errors import SelectionError
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.run import Run
from attnprobe.shapes import Float
from attnprobe.store.base import Manifest
from attnprobe.store.memory import MemoryStore

Step = tuple[Float[Tensor, "batch head query key"], ...]


def from_attentions(
    attentions: Sequence[Any] | None, tokens: Sequence[str] | Sequence[Sequence[str]] | None = None
) -> Run:
    """Make a run of ``outputs.attentions``, or of what ``generate(..., return_dict_in_generate=True)`` returned.

    Parameters
    ----------
    attentions
        A self-attention tensor ``[batch, head, query, key]`` a layer; or such a tuple a generation step. Where there
        are more columns than rows, the rows are the last ones, as with a key-value cache.
    tokens
        Labels of the columns of one sample, or a list of them a batch row. Padding counts as a column.

    Raises
    ------
    SelectionError
        If there are no weights (fused attention never builds them), or shapes do not fit.
    """
    steps = _steps(attentions)
    batch, length = steps[0][0].shape[0], steps[-1][0].shape[3]
    names = _names(tokens, batch, length)
    sites = tuple(Site(f"layer.{n}", "self", "decoder", n, w.shape[1], w.shape[1]) for n, w in enumerate(steps[0]))
    manifest = Manifest(
        model={"class": "unknown (from_attentions)"},
        sites=sites,
        keep=({"what": "weights"},),
        versions={},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store = MemoryStore(manifest)
    for b in range(batch):
        for site in sites:
            field = Field(b, site, 0, tuple(range(site.heads)))
            for step in steps:
                weights = step[site.layer][b].detach().to("cpu", torch.float32, copy=True)
                _, count, columns = weights.shape
                store.write(field, Block(field.heads, range(columns - count, columns), 0, weights))
        own = names[b]
        # As text, in the usual spelling of byte-level BPE, so that " explore" is found as well as "Ġexplore".
        texts = None if own is None else tuple(name.replace("Ġ", " ").replace("Ċ", "\n") for name in own)
        sequence = TokenSequence(length, None, own, texts)
        store.commit(Sample(b, str(b), {"main": sequence}, prompt_length=steps[0][0].shape[3]))
    store.close()
    return Run(store)


def _steps(attentions: Sequence[Any] | None) -> list[Step]:
    """One tuple of checked tensors a forward pass."""
    given = () if attentions is None else tuple(attentions)
    nested = [(step,) if step is None else tuple(step) for step in given] if _is_nested(given) else [given]
    if not nested or any(not step or any(weights is None for weights in step) for step in nested):
        raise SelectionError(
            "there are no weights in these attentions: fused attention never builds them, and returns an empty tuple; "
            "record the model with attnprobe.record(model), which needs no eager attention"
        )
    rows = -1
    for number, step in enumerate(nested):
        where = f"step {number}, " if len(nested) > 1 else ""
        if len(step) != len(nested[0]):
            raise SelectionError(f"{where}{len(step)} layers, where step 0 has {len(nested[0])}")
        for layer, weights in enumerate(step):
            if not isinstance(weights, Tensor) or weights.dim() != 4:
                got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
                raise SelectionError(f"{where}layer {layer}: want a tensor [batch, head, query, key], got {got}")
            _check(f"{where}layer {layer}", weights, step[0], nested[0][layer])
        count, columns = step[0].shape[2:]
        if rows not in (-1, columns - count):
            raise SelectionError(
                f"{where}layer 0: {count} rows over {columns} columns, where the steps before end at row {rows}; give "
                "the maps of a dynamic cache, or record the model with attnprobe.record(model)"
            )
        rows = columns
    return nested


def _is_nested(given: tuple[Any, ...]) -> bool:
    return any(not isinstance(item, Tensor) for item in given) and not all(item is None for item in given)


def _check(where: str, weights: Tensor, first_layer: Tensor, first_step: Tensor) -> None:
    batch, heads, count, columns = weights.shape
    same = (first_layer.shape[0], first_step.shape[1], first_layer.shape[2], first_layer.shape[3])
    if first_step.shape[0] != batch or (batch, heads, count, columns) != same:
        raise SelectionError(
            f"{where}: shape {(batch, heads, count, columns)} does not go with the others'; self-attention maps of one "
            "model have one batch, and as many rows and columns in all layers"
        )
    if not batch or not heads or not 0 < count <= columns:
        raise SelectionError(
            f"{where}: {count} rows over {columns} columns; self-attention has a row a token, and each sees its own"
        )
    if count < columns and not weights[..., -1].any():
        raise SelectionError(
            f"{where}: no row attends to the last column, as where a static cache pads the maps; cut them to the "
            "tokens that are there, or record the model with attnprobe.record(model)"
        )


def _names(tokens: Any, batch: int, length: int) -> list[tuple[str, ...] | None]:
    """Labels of each batch row."""
    if tokens is None:
        return [None] * batch
    given = list(tokens) if not isinstance(tokens, str) else [tokens]
    each = [given] if all(isinstance(token, str) for token in given) else given
    if len(each) != batch:
        raise SelectionError(f"tokens for {len(each)} samples, and the maps have {batch}; give a list of them a sample")
    wrong = next((names for names in each if len(names) != length or isinstance(names, str)), None)
    if wrong is not None:
        raise SelectionError(f"{len(wrong)} tokens for maps of {length} columns; give one a column")
    return [tuple(map(str, names)) for names in each]
