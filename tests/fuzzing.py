"""What fuzz tests share: a run to spoil, ways to spoil JSON, and a reading of everything that a run holds."""

import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import deserialize
from safetensors.torch import save

import attnprobe as ap
from attnprobe.codes import encode
from attnprobe.dataset import SampleDataset
from attnprobe.errors import AttnprobeError
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.run import Run
from attnprobe.sample_run import SampleRun
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.header import BadHeader, header_length, parse_header
from attnprobe.variables import contents

Choose = Callable[[int], int]  # a number below one
LONG = 1 << 16  # tokens beyond which tables with labels are not made

SITES = (
    *(Site(f"h.{n}", "self", "decoder", n, 2, 1) for n in range(2)),
    Site("x", "cross", "decoder", 1, 2, 2, keys="s"),
)
MEASURES = [
    {"name": "entropy", "unit": "nats", "axes": ["query"]},
    {"name": "received", "unit": "1", "axes": ["key"]},
    {"name": "distances", "unit": "1", "axes": ["distance"]},
    {"name": "pooled", "unit": "1", "axes": ["query_cell", "key_cell"]},
]
MANIFEST = Manifest(
    model={"class": "Tiny", "name": "tiny"},
    sites=SITES,
    keep=({"what": "weights", "keys": "all"}, {"what": "measures", "measures": MEASURES}, {"what": "top"}),
    versions={"attnprobe": "0.4.0"},
    created="2026-01-01T00:00:00+00:00",
)
TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(1, 2, 3),
    "b/ü": torch.zeros(0, 4, dtype=torch.float16),
    "c": torch.ones(3, dtype=torch.uint8),
    "d": torch.ones((), dtype=torch.int64),
    "e": torch.ones(2, 2, dtype=torch.bfloat16),
    "f": torch.ones(1, dtype=torch.bool),
}
WHOLE = save(TENSORS, {"format": "pt"})
HEADER = json.loads(WHOLE[8 : 8 + struct.unpack("<Q", WHOLE[:8])[0]])
DEEP = "a place for something deep"  # put into the text, since `json.dumps` would not go so deep
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 4, 255, 4096, 4097, 1 << 16, 1 << 20, 1 << 24, (1 << 24) + 1, 1 << 31),
    *(
        1 << 40,
        (1 << 40) + 1,
        1 << 62,
        1 << 63,
        1 << 64,
        -(1 << 63),
        10**400,
        0.0,
        1.0,
        -0.5,
        1e308,
        math.nan,
        math.inf,
    ),
    *("", "x", "..", "/", "../x", "/etc/passwd", "\0", "\x1b[2J", "\ud800", "é", "a" * 300, "main", "s", "all", "::0"),
    *("weights", "top", "top_keys", "entropy", "entropy.mean", "float16", "int32", "log-uint8", "query", "key", "rank"),
    *([], {}, [[]], [0], [1, 1, 1], [[0, 1, 1]], [[0, 4, 1]], [[0, 1 << 24, 1]], [[0, 1, 1], [2, 3, 1]], {"": 0}, DEEP),
)


def parse_as_safetensors(file: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Dtype, shape and bytes of each tensor, as safetensors itself reads them."""
    return {name: (one["dtype"], tuple(one["shape"]), bytes(one["data"])) for name, one in deserialize(file)}


# --- to spoil -----------------------------------------------------------------------------------------------------


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key or index there."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from places(tree[key])


def spoil(tree: Any, choose: Choose) -> None:
    """Change one place of a JSON value."""
    every = list(places(tree))
    if not every:
        return
    holder, key = every[choose(len(every))]
    old, way = holder[key], choose(8)
    if way < 4:
        holder[key] = copy(HOSTILE[choose(len(HOSTILE))])
    elif way == 4:
        other, where = every[choose(len(every))]
        holder[key] = copy(other[where])
    elif way == 5:
        del holder[key]
    elif way == 6 and type(old) is int:
        holder[key] = old + (1, -1, old)[choose(3)]
    elif isinstance(holder, list):
        holder.insert(key, copy(old))
    else:
        holder[str(HOSTILE[choose(len(HOSTILE))])] = copy(old)


def copy(tree: Any) -> Any:
    return json.loads(json.dumps(tree))


def spoil_bytes(data: bytes, choose: Choose) -> bytes:
    """Flip, drop, repeat or insert some bytes."""
    at, count, way = choose(len(data) + 1), choose(16) + 1, choose(5)
    middle = data[at : at + count]
    if way == 0:
        middle = bytes([middle[0] ^ 1 << choose(8)]) + middle[1:] if middle else b""
    elif way == 1:
        middle = b""
    elif way == 2:
        middle += middle
    elif way == 3:
        middle = bytes(choose(256) for _ in range(count)) + middle
    else:
        return data[:at]
    return data[:at] + middle + data[at + count :]


def dump(tree: Any, depth: int = 100_000) -> bytes:
    """JSON, with what is deep put in."""
    deep = b"[" * depth + b"]" * depth
    return json.dumps(tree, separators=(",", ":")).encode().replace(json.dumps(DEEP).encode(), deep)


def dump_journal(records: list[Any], depth: int = 100_000) -> bytes:
    texts = [dump(record, depth) for record in records]
    return b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts)


def load_journal(path: Path) -> list[Any]:
    return [json.loads(line[9:]) for line in path.read_bytes().splitlines()]


# --- a run --------------------------------------------------------------------------------------------------------


def write_run(path: Path) -> Path:
    """Two samples of two tokens, each with fields of every kind at two sites, and a cross-attention."""
    writer = DirectoryWriter(path, MANIFEST, held=0)

    def put(sample: int, site: Site, shape: tuple[int, int, int], dtype: str = "float32", **parts: Any) -> None:
        what = parts.get("what", "weights")
        values = torch.rand(shape) if dtype != "int32" else torch.tensor([[[1, -1], [0, 1]]] * 2)[:, :, : shape[2]]
        field = Field(sample, site, {"weights": 0}.get(what, 2 if "top" in what else 1), (0, 1), dtype, **parts)
        writer.write(field, Block((0, 1), range(shape[1]), 0, encode(values, dtype)))

    for sample in range(2):
        for site, dtype in zip(SITES[:2], ("float32", "log-uint8"), strict=True):
            put(sample, site, (2, 1, 1), dtype)
            writer.write(
                Field(sample, site, 0, (0, 1), dtype), Block((0, 1), range(1, 2), 0, encode(torch.rand(2, 1, 2), dtype))
            )
            for what, axes, shape in (
                ("entropy", ("query",), (2, 2, 1)),
                ("entropy.mean", ("statistic",), (2, 3, 1)),
                ("received", ("key",), (2, 2, 1)),
                ("distances", ("distance",), (2, 3, 1)),
                ("pooled", ("query_cell", "key_cell"), (2, 1, 1)),
            ):
                put(sample, site, shape, what=what, axes=axes)
        put(sample, SITES[0], (2, 2, 2), "bfloat16", what="top", axes=("query", "rank"))
        put(sample, SITES[0], (2, 2, 2), "int32", what="top_keys", axes=("query", "rank"))
        put(sample, SITES[0], (2, 2, 1), what="top_rest", axes=("query",))
        put(sample, SITES[2], (2, 2, 3), "float16")
        main = TokenSequence(2, np.array([3, 5]), ("a", "Ġb"), ("a", " b"))
        writer.commit(Sample(sample, f"s{sample}", {"main": main, "s": TokenSequence(3)}, 1, named=bool(sample)))
    found = {"dtype": "float32", "difference": 0.0, "row_sum": 0.0, "lost": 0.0, "reason": ""}
    writer.note("fidelity", {"h.0": found, "x": {**found, "difference": None}})
    writer.close()
    return path


# --- to read ------------------------------------------------------------------------------------------------------


def with_header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + WHOLE[8 + struct.unpack("<Q", WHOLE[:8])[0] :]


def check_header(file: bytes) -> bool:
    """Whether a file is taken, which safetensors then takes too, and reads the same from; else it is a `BadHeader`."""
    try:
        length = header_length(file[:8], len(file))
        entries = parse_header(file[8 : 8 + length], len(file))
    except BadHeader as error:
        assert str(error)
        return False
    theirs = parse_as_safetensors(file)
    assert {name: (one.dtype, one.shape, file[one.start : one.stop]) for name, one in entries.items()} == theirs
    return True


def read_everything(path: Path) -> list[AttnprobeError]:
    """Read all that a run holds in every way; gives what was refused, and lets all other errors through."""
    refused: list[AttnprobeError] = []

    def attempt(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except AttnprobeError as error:
            assert str(error)
            refused.append(error)
            return None

    run = attempt(lambda: ap.open(path))
    if run is not None:
        for read in _of_run(run):
            attempt(read)
        for sample in attempt(lambda: list(run)) or ():
            for read in _of_sample(sample):
                attempt(read)
            for site, number in product(run.sites, range(2)):
                for read in _of_head(sample, site, number):
                    attempt(read)
    return refused


def _of_run(run: Run) -> Iterator[Callable[[], Any]]:
    yield lambda: repr(run)
    yield lambda: run._repr_html_()
    yield lambda: run.nbytes
    yield lambda: str(run.fidelity)
    yield lambda: run.fidelity and (run.fidelity.off, run.fidelity.worst)
    if all(max(_lengths(sample), default=0) <= LONG for sample in _samples(run)):
        yield lambda: run.measures.names
        yield lambda: [run.measures[name].to_pandas() for name in run.measures.names if name.endswith(".mean")]
        yield lambda: run.measures.numpy()
        yield lambda: run.measures.to_pandas()
        yield lambda: run.measures.summary().to_pandas()
        yield lambda: [
            one.array.read(*map(np.arange, one.array.shape)) for one in contents(run.reader).variables.values()
        ]
        yield lambda: list(SampleDataset(run))
        yield lambda: list(SampleDataset(run, measures="all"))


def _samples(run: Run) -> list[Sample]:
    try:
        return list(run.samples)
    except AttnprobeError:
        return []


def _lengths(sample: Sample) -> list[int]:
    return [sequence.length for sequence in sample.sequences.values()]


def _of_sample(sample: SampleRun) -> Iterator[Callable[[], Any]]:
    for sequence, part in product(sample.sample.sequences.values(), ("ids", "positions", "tokens", "texts")):
        yield lambda sequence=sequence, part=part: getattr(sequence, part)
    if max(_lengths(sample.sample)) <= LONG:
        yield lambda: sample.tokens
        yield lambda: sample.words()
        yield lambda: sample.sites
        yield lambda: sample.measures.numpy()
        yield lambda: sample.measures.to_pandas()
        yield lambda: sample.measures.summary()
        for kind, name in product(("self", "cross"), [one["name"] for one in MEASURES]):
            yield lambda kind=kind, name=name: sample.measures.select(kind)[name].to_pandas()
            yield lambda kind=kind, name=name: sample.measures.select(kind)[name].to_xarray()


def _of_head(sample: SampleRun, site: Site, number: int) -> Iterator[Callable[[], Any]]:
    yield lambda: repr(sample[site.key, number])
    yield lambda: sample[site.key, number].kept and sample[site.key, number][sample[site.key, number].kept[-1]]
    if max(_lengths(sample.sample)) <= LONG:
        yield lambda: sample[site.key, number].numpy()
        yield lambda: sample[site.key, number].to_pandas()
        yield lambda: sample[site.key, number].row(0)
        yield lambda: sample[site.key, number].top(3)
        yield lambda: sample[site.key, number].topk.to_pandas()
        yield lambda: sample[site.key, number].topk.rest
        yield lambda: sample[site.key, number].measures.to_pandas()
        yield lambda: sample[site.key, number].measures.numpy()
        yield lambda: sample[site.key, number].measures.to_xarray()
