"""Runs that benchmarks write: tiles that lie in memory, and many small samples."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.shapes import Float
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from benchmarks.measure import settle

HEADS, ROWS, LENGTH = 8, 256, 1024  # a tile: 4 MiB of float16
SHORT = 4  # tokens of a small sample


def manifest(sites: int) -> Manifest:
    """Of a model of so many layers."""
    return Manifest(
        model={"class": "Benchmark"},
        sites=tuple(Site(f"transformer.h.{n}.attn", "self", "decoder", n, HEADS, HEADS) for n in range(sites)),
        keep=({"what": "weights", "keys": "all"},),
        versions={},
        created="2026-01-01T00:00:00+00:00",
    )


def make_tiles(count: int) -> Float[Tensor, "tile head query key"]:
    """Tiles of float16 that lie in memory; no two are the same."""
    tiles = torch.empty(count, HEADS, ROWS, LENGTH, dtype=torch.float16)
    one = torch.rand(HEADS, ROWS, LENGTH, generator=torch.Generator().manual_seed(0))
    for number in range(count):
        tiles[number] = one.roll(number, 2)
    return tiles


def stream(tiles: Float[Tensor, "tile head query key"], path: Path) -> float:
    """Seconds to write tiles as a run of one sample, durably: a map has as many tiles as make it square."""
    settle()
    os.sync()
    began = time.perf_counter()
    each = LENGTH // ROWS
    of = manifest(-(-len(tiles) // each))
    heads = tuple(range(HEADS))
    writer = DirectoryWriter(path, of)
    for number, tile in enumerate(tiles):
        start = number % each * ROWS
        field = Field(0, of.sites[number // each], 0, heads, "float16")
        writer.write(field, Block(heads, range(start, start + ROWS), 0, tile))
    writer.commit(Sample(0, "0", {"main": TokenSequence(LENGTH)}, LENGTH))
    writer.close()
    return time.perf_counter() - began


def save(tiles: Float[Tensor, "tile head query key"], path: Path) -> float:
    """Seconds to write tiles by one `save_file`, and to make the file and its name durable."""
    settle()
    os.sync()
    began = time.perf_counter()
    save_file({str(number): tile for number, tile in enumerate(tiles)}, path)
    for name, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        file = os.open(name, flags)
        os.fsync(file)
        os.close(file)
    return time.perf_counter() - began


def write_small(path: Path, samples: int, sites: int) -> float:
    """Seconds to write many named samples of a few tokens each, a small map a site."""
    began = time.perf_counter()
    of, heads, ids = manifest(sites), tuple(range(HEADS)), np.arange(SHORT)
    values = torch.rand(HEADS, SHORT, SHORT)
    writer = DirectoryWriter(path, of)
    for index in range(samples):
        for site in of.sites:
            writer.write(Field(index, site, 0, heads), Block(heads, range(SHORT), 0, values))
        main = TokenSequence(SHORT, ids, tuple("abcd"))
        writer.commit(Sample(index, f"sample {index}", {"main": main}, SHORT, named=True))
    writer.close()
    return time.perf_counter() - began


def fresh(path: Path, work: Callable[[Path], float]) -> float:
    """What `work` gives for a path, which is taken away behind it."""
    try:
        return work(path)
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Take a file or a directory away."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
