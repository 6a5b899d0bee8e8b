"""A made-up run of an encoder-decoder whose every weight is a formula: what reading all samples at once is held to."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attnprobe as ap
from attnprobe.codes import encode
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore

LENGTHS, SOURCES = (7, 4, 11), (5, 9, 3)
HEADS = 3
WINDOW = 3
DECODER = [Site(f"decoder.{n}", "self", "decoder", n, HEADS, HEADS) for n in range(3)]
CROSS = [Site(f"decoder.{n}.cross", "cross", "decoder", n, HEADS, HEADS, keys="source") for n in range(3)]
ENCODER = [Site(f"encoder.{n}", "self", "encoder", n, 2, 2, queries="source", keys="source") for n in range(2)]
SITES = (*ENCODER, *(site for pair in zip(DECODER, CROSS, strict=True) for site in pair))
# Read values differ from the formula's by at most so much of them, and so much beside.
ERROR = {"float32": (2**-24, 0), "float16": (2**-11, 2**-25), "bfloat16": (2**-8, 0), "log-uint8": (0.0336, 2**-24)}


@dataclass(frozen=True)
class Kept:
    """One thing of the run: what of a module is kept, of which samples."""

    site: Site
    heads: tuple[int, ...] = (0, 1, 2)
    rows: str = ":"
    keys: str = "all"
    dtype: str = "float32"
    samples: tuple[int, ...] = (0, 1, 2)
    apart: bool = False  # heads in blocks of their own

    def places(self, queries: int, keys: int) -> tuple[range, range]:
        """The kept rows and columns, of so many."""
        return range(queries)[_slice(self.rows)], range(keys)[_slice(self.keys)]


def _slice(text: str) -> slice:
    bounds = [int(bound) if bound else None for bound in text.replace("all", ":").split(":")]
    return slice(*bounds)


# Layer 2's attention is windowed, so that its blocks start behind the first column.
KEEP = (
    Kept(DECODER[0]),
    Kept(DECODER[1], heads=(0, 2), rows="1::2", dtype="float16"),
    Kept(DECODER[2], samples=(0, 2), dtype="bfloat16", apart=True),
    Kept(CROSS[0], keys="1:4"),
    Kept(CROSS[2], heads=(1,), rows="-3:", dtype="log-uint8"),
    Kept(ENCODER[1], heads=(0, 1)),
    # A second time, more precise but less of it.
    Kept(DECODER[1], heads=(0,), rows="3:", keys=":5"),
)


def weights(sample: int, site: Site) -> np.ndarray:
    """Softmax of made-up scores, ``[head, query, key]`` in float64."""
    queries, keys = (SOURCES if name == "source" else LENGTHS for name in (site.queries, site.keys))
    random = np.random.default_rng([sample, SITES.index(site)])
    scores = 3 * random.standard_normal((site.heads, queries[sample], keys[sample]))
    if site in DECODER:
        back = np.arange(queries[sample])[:, None] - np.arange(keys[sample])
        seen = (back >= 0) & ((back < WINDOW) if site.layer == 2 else True)
        scores = np.where(seen, scores, -np.inf)
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def blocks(kept: Kept, sample: int) -> Iterator[Block]:
    """What a recording would write: a few rows a block, as wide as they need."""
    whole = weights(sample, kept.site)
    rows, columns = kept.places(*whole.shape[1:])
    for heads in ((head,) for head in kept.heads) if kept.apart else (kept.heads,):
        for first, stop in pairwise([*range(0, len(rows), 3), len(rows)]):
            part = whole[np.ix_(heads, rows[first:stop], columns)]
            some = np.flatnonzero(part.any((0, 1)))
            low, high = (some[0], some[-1] + 1) if len(some) else (0, 0)
            values = torch.from_numpy(np.ascontiguousarray(part[..., low:high], np.float32))
            yield Block(heads, rows[first:stop], columns.start + int(low), encode(values, kept.dtype))


def write(store: Any, keep: tuple[Kept, ...] = KEEP) -> None:
    """Fill a store, and close it."""
    for sample, (length, source) in enumerate(zip(LENGTHS, SOURCES, strict=True)):
        for group, kept in enumerate(keep):
            if sample in kept.samples:
                of = Field(sample, kept.site, group, kept.heads, kept.dtype)
                for block in blocks(kept, sample):
                    store.write(of, block)
        main = TokenSequence(length, np.arange(length) + 10 * sample)
        sequences = {"main": main, "source": TokenSequence(source)}
        store.commit(Sample(sample, f"text {sample}", sequences, prompt_length=length - 1))
    store.close()


def make(where: Path | None = None, keep: tuple[Kept, ...] = KEEP, **parts: Any) -> ap.Run:
    """The run, in memory or in a directory."""
    listed = tuple({"what": "weights", "keys": kept.keys} for kept in keep)
    manifest = Manifest({"class": "Made"}, SITES, listed, {"attnprobe": "0"}, "2025-01-01T00:00:00+00:00", **parts)
    store: Any = MemoryStore(manifest) if where is None else DirectoryWriter(where, manifest)
    write(store, keep)
    return ap.Run(store) if where is None else ap.open(where)


def expected(sites: list[Site], keep: tuple[Kept, ...] = KEEP) -> tuple[np.ndarray, np.ndarray]:
    """What all samples have at these modules, a layer each, and the error that it may have: NaN where nothing was kept.

    ``[sample, layer, head, query, key]``; the most precise counts.
    """
    lengths = [SOURCES if name == "source" else LENGTHS for name in (sites[0].queries, sites[0].keys)]
    shape = (len(LENGTHS), len(sites), HEADS, *map(max, lengths))
    values, errors = np.full(shape, np.nan), np.zeros(shape)
    for kept in sorted(keep, key=lambda one: list(ERROR).index(one.dtype), reverse=True):
        for sample in kept.samples if kept.site in sites else ():
            whole = weights(sample, kept.site)
            at = np.ix_(kept.heads, *kept.places(*whole.shape[1:]))
            layer = sites.index(kept.site)
            values[sample, layer][at] = whole[at]
            relative, beside = ERROR[kept.dtype]
            errors[sample, layer][at] = relative * whole[at] + beside
    return values, errors


def assert_close(found: Any, values: np.ndarray, errors: np.ndarray) -> None:
    """Same places without a value, and elsewhere within the error."""
    found = np.asarray(found)
    assert found.shape == values.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    there = ~np.isnan(values)
    assert there.any()
    assert (np.abs(found[there].astype(np.float64) - values[there]) <= errors[there] * (1 + 1e-6) + 1e-30).all()
