"""Levels of large maps, made of the row blocks that pass: memory is a strip of patches a level, whatever the map."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from attnprobe.codes import decode
from attnprobe.fields import Block, Field, Sample
from attnprobe.pyramid import FIRST, SMALL
from attnprobe.scratch import Scratch
from attnprobe.shapes import Float, Shaped
from attnprobe.store.base import Manifest
from attnprobe.store.cells import Cells
from attnprobe.store.fold import Fold

AT_ONCE = 1 << 19  # weights that are pooled together: what comes of them stays in cache
WORKING = 2 * 4 * AT_ONCE  # bytes that pooling works in at most


class Pyramids:
    """Takes the weights of maps, hands them on, and their levels behind them.

    Parameters
    ----------
    forward
        Takes blocks.
    manifest
        Tells which items have levels kept of their maps.
    bound
        Bytes that may wait for others of their strip; beyond it strips are written in pieces, and if that is not
        enough, the rest of the largest maps has no levels (who reads makes them of the weights).
    """

    def __init__(self, forward: Callable[[Field, Block], None], manifest: Manifest, bound: int) -> None:
        self._forward = forward
        self._groups = {group for group, kept in enumerate(manifest.keep) if kept.get("pyramid")}
        self._bound = bound
        self._scratch = Scratch()
        self._folds: dict[Field, list[Fold] | None] = {}  # None where a map was given up
        self._waiting = 0

    def write(self, field: Field, block: Block) -> None:
        """Hand a block on, and fold it if it is of weights whose levels are kept."""
        self._forward(field, block)
        folds = self._folds.setdefault(field, []) if self._has_levels(field, block) else None
        if folds is not None:
            for fold in _of_heads(folds, field, block.heads, self._forward):
                before = fold.nbytes
                self._fold(fold, field.dtype, block)
                self._waiting += fold.nbytes - before
            if self._waiting > self._bound:
                self._make_room()

    def _has_levels(self, field: Field, block: Block) -> bool:
        small = 0 < block.longest <= SMALL
        return field.what == "weights" and field.group in self._groups and not small and block.values.numel() > 0

    def _fold(self, fold: Fold, dtype: str, block: Block) -> None:
        at = [block.heads.index(head) for head in fold.heads]
        values = block.values if len(at) == len(block.heads) else block.values[at]
        heads, height, width = values.shape
        fold.rows, fold.columns = max(fold.rows, block.rows[-1] + 1), max(fold.columns, block.start + width)
        rows = np.asarray(block.rows, np.int64)
        step = max(1, AT_ONCE // (heads * width) >> FIRST) << FIRST
        # The first part ends where a cell does, so that all others are of whole cells.
        for start, stop in pairwise([0, *range(step - block.rows[0] % step, height, step), height]):
            part = self._floats(values[:, start:stop], dtype)
            fold.take(
                Cells(rows[start:stop], np.ones(stop - start, np.int64), block.start, part, part).pooled(1 << FIRST)
            )

    def _floats(self, values: Shaped[Tensor, "head row key"], dtype: str) -> Float[np.ndarray, "head row key"]:
        """Stored values as float32."""
        if dtype == "log-uint8":
            return decode(values.numpy(), dtype)
        if dtype != "float32":  # by torch: numpy takes 20 times as long for float16
            values = self._scratch.take("pyramid", tuple(values.shape), torch.float32, values.device).copy_(values)
        found: np.ndarray = values.numpy()
        return found

    def _make_room(self) -> None:
        """Write what waits, the fullest first, down to half of the bound, so that this is rare; then give maps up."""
        full = [of for of, folds in self._folds.items() if folds]
        full.sort(key=lambda of: -sum(fold.nbytes for fold in self._folds[of] or ()))
        for of in full:
            for fold in self._folds[of] or ():
                self._waiting -= fold.spill()
            if self._waiting <= self._bound // 2:
                return
        for of in full:
            if self._waiting <= self._bound:
                return
            self._waiting -= sum(fold.nbytes for fold in self._folds[of] or ())
            self._folds[of] = None

    def finish_sample(self, sample: Sample) -> None:
        """Write the rest of a sample's levels."""
        lengths = {name: sequence.length for name, sequence in sample.sequences.items()}
        for field, folds in self._take(sample.index):
            for fold in folds:
                fold.finish(lengths[field.site.queries], lengths[field.site.keys])

    def drop_sample(self, sample: int) -> None:
        """Forget what waits of a sample."""
        self._take(sample)

    def _take(self, sample: int) -> list[tuple[Field, list[Fold]]]:
        own = [field for field in self._folds if field.sample == sample]
        found = [(field, self._folds.pop(field) or []) for field in own]
        self._waiting -= sum(fold.nbytes for _, folds in found for fold in folds)
        return found


def _of_heads(
    folds: list[Fold], field: Field, heads: tuple[int, ...], forward: Callable[[Field, Block], None]
) -> list[Fold]:
    """The folds of some heads, which may have come in other groups before; new ones where they did not come at all."""
    found, missing = [], set(heads)
    for fold in list(folds):
        common = [head for head in fold.heads if head in missing]
        if not common:
            continue
        missing.difference_update(common)
        if len(common) < len(fold.heads):
            folds.remove(fold)
            fold, rest = fold.split(common)
            folds += [fold, rest]
        found.append(fold)
    if missing:
        fold = Fold(field, tuple(head for head in heads if head in missing), forward)
        folds.append(fold)
        found.append(fold)
    return found
