"""What a plan is of: how much a model is run on, and what its attention modules are like."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from attnprobe.engines.layout import Layout, lay_out
from attnprobe.errors import BudgetError
from attnprobe.fields import Site
from attnprobe.keep import Kept
from attnprobe.precision import ieee_float32
from attnprobe.selection import Selection
from attnprobe.shapes import Int
from attnprobe.sites import MAIN, attribute

COMMON_DIM = 64  # of a module that does not say how long its keys are


@dataclass(frozen=True)
class Load:
    """A batch of equally long samples: one forward pass of the prompt, then one for each token that is fed back.

    Attributes
    ----------
    batch
        Samples.
    tokens
        Of each prompt.
    fed
        Generated tokens that are given to the model again; the last one that `generate` returns is not.
    start
        Slots that the key cache held before.
    others
        Names and lengths of the other sequences that run: the ``"source"`` of an encoder, the ``"image"`` of a tower.
    name
        Of the sequence that the tokens are.
    """

    batch: int
    tokens: int
    fed: int = 0
    start: int = 0
    others: tuple[tuple[str, int], ...] = ()
    name: str = MAIN

    @property
    def prompt(self) -> int:
        """Tokens of a sample when generation starts."""
        return self.start + self.tokens

    @property
    def length(self) -> int:
        """Tokens of a sample at the end."""
        return self.prompt + self.fed

    def length_of(self, name: str) -> int:
        """Length of a sequence at the end; 0 where it does not run."""
        return self.length if name == self.name else dict(self.others).get(name, 0)

    @property
    def total(self) -> int:
        """Tokens of a sample at the end, those of all its sequences together."""
        return self.length + sum(length for _, length in self.others)

    def of(self, name: str) -> "Load":
        """The load as the attention modules of a sequence meet it: only the one that is named grows."""
        if name == self.name:
            return self
        return Load(self.batch, self.length_of(name), others=self.others, name=name)

    def rows(self, selection: Selection) -> Sequence[int]:
        """Positions of the prompt's rows that are kept."""
        return selection.queries.within(self.start, self.prompt, self.prompt)

    def kept_rows(self, selection: Selection) -> int:
        """Rows of one head that are kept."""
        return len(self.rows(selection)) + (self.fed if selection.generated == "all" else 0)


@dataclass(frozen=True)
class Geometry:
    """What a plan needs to know of an attention module; sites that are alike in it are planned once.

    Attributes
    ----------
    heads, dim
        Query heads, and numbers of each.
    queries, keys
        Names of the sequences that its rows and its columns are.
    causal
        Whether a row sees only columns up to its own.
    sink
        Whether a learned sink stands beside the keys.
    grouped
        Whether query heads share key heads.
    given, itemsize
        Bytes of a number of the keys, and of one in which products are taken.
    """

    heads: int
    dim: int
    queries: str
    keys: str
    causal: bool
    sink: bool
    grouped: bool
    given: int
    itemsize: int

    @classmethod
    def of(cls, site: Site, module: nn.Module) -> "Geometry":
        """Of a module, on a device or not."""
        computed = torch.float32 if ieee_float32() else torch.float64
        config: Any = getattr(module, "config", None)
        width = attribute(config, "hidden_size") or 0
        dims = attribute(module, "head_dim"), attribute(config, "head_dim"), width // site.heads, COMMON_DIM
        given = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        cross = site.queries != site.keys
        return cls(
            heads=site.heads,
            dim=next(int(dim) for dim in dims if dim),
            queries=site.queries,
            keys=site.keys,
            causal=bool(getattr(module, "is_causal", not cross and site.part == "decoder")),
            sink=getattr(module, "sinks", None) is not None,
            grouped=site.kv_heads < site.heads,
            given=given.itemsize,
            itemsize=computed.itemsize,
        )

    @property
    def cross(self) -> bool:
        """Whether its keys are of another sequence."""
        return self.queries != self.keys

    def runs(self, load: Load) -> bool:
        """Whether it is called at all."""
        return load.length_of(self.queries) > 0 and load.length_of(self.keys) > 0

    @property
    def copied(self) -> bool:
        """Whether keys are converted before products are taken."""
        return self.given != self.itemsize

    def columns(self, load: Load, step: int) -> int:
        """Columns of a call: `step` 0 is the prompt's, 1 that of the first token fed back."""
        return load.length_of(self.keys) if self.cross else load.prompt + step

    def lay_out(self, load: Load, step: int, heads: int, rows: int, on_cpu: bool, budget: int) -> Layout:
        """How the engine cuts the call of a step."""
        return lay_out(
            batch=load.batch,
            heads=heads,
            rows=rows,
            keys=self.columns(load, step),
            dim=self.dim,
            itemsize=self.itemsize,
            copied=self.copied,
            on_cpu=on_cpu,
            budget=budget,
        )


@dataclass(frozen=True)
class Tiles:
    """The tiles of one group of heads.

    Attributes
    ----------
    first, heads
        The first of the selected heads, and how many.
    counts
        Rows of each tile.
    stops
        Column behind the last one that each tile has.
    pack, all_columns
        Whether the engine copies the keys so that they lie in order, and how many there are.
    """

    first: int
    heads: int
    counts: Int[np.ndarray, " tile"]
    stops: Int[np.ndarray, " tile"]
    pack: bool
    all_columns: int

    @property
    def rows(self) -> int:
        """Rows of the tallest tile."""
        return int(self.counts.max())

    @property
    def columns(self) -> int:
        """Columns of the widest tile."""
        return int(self.stops.max())

    @property
    def weights(self) -> int:
        """Weights of one head in all tiles."""
        return int((self.counts * self.stops).sum())


@dataclass(frozen=True)
class Setting:
    """What all parts of a plan are computed from.

    Attributes
    ----------
    sites, shapes
        The model's sites, and what is known of their modules.
    kept
        The `keep` items, resolved.
    load
        What is run.
    budget
        Bytes of working memory.
    on_cpu
        Whether tiles are made on the CPU.
    held
        Bytes of small blocks that the store holds back at most.
    on_disk
        Whether the store is a run directory.
    """

    sites: tuple[Site, ...]
    shapes: tuple[Geometry, ...]
    kept: tuple[Kept, ...]
    load: Load
    budget: int
    on_cpu: bool
    held: int
    on_disk: bool

    def runs(self, site: int) -> bool:
        """Whether a site is called at all: without a source, cross-attention is not."""
        return self.shapes[site].runs(self.load)

    def load_of(self, site: int) -> Load:
        """The load as a site meets it."""
        return self.load.of(self.shapes[site].queries)

    def tiles(self, site: int, kept: Kept, step: int = 0) -> tuple[Tiles, ...]:
        """How the call of a step is cut for an item.

        Raises
        ------
        BudgetError
            If one row does not fit the budget.
        """
        load = self.load_of(site)
        rows: Sequence[int] = load.rows(kept.selection)
        if step:
            rows = range(load.prompt + step - 1, load.prompt + (step if follows(kept) else step - 1))
        if not len(rows) or step > load.fed:
            return ()
        try:
            return _cut(self.shapes[site], load, step, len(kept.heads[site]), rows, self.on_cpu, self.budget)
        except BudgetError as error:
            raise BudgetError(f"{error}\n  at {self.sites[site].label}") from None


def follows(kept: Kept) -> bool:
    """Whether an item keeps rows of generated tokens."""
    return kept.selection.generated == "all"


@lru_cache(maxsize=256)
def _cut(
    shape: Geometry, load: Load, step: int, heads: int, rows: range | tuple[int, ...], on_cpu: bool, budget: int
) -> tuple[Tiles, ...]:
    layout = shape.lay_out(load, step, heads, len(rows), on_cpu, budget)
    at = np.asarray(rows)
    found = []
    for first in range(0, heads, layout.heads):
        own = min(layout.heads, heads - first)
        begins = np.arange(0, len(at), layout.height(own))
        ends = np.append(begins[1:], len(at))
        stops = at[ends - 1] + 1 if shape.causal else np.full(len(ends), shape.columns(load, step))
        found.append(Tiles(first, own, ends - begins, stops, layout.pack, shape.columns(load, step)))
    return tuple(found)
