"""The run directory: streaming against one `save_file`, rows against bare reads, opening, capture against its parts."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import attnprobe as ap
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from benchmarks.measure import alternate, environment, ratio, settle, spread
from benchmarks.process import MIB, forget_peak, in_fresh_process, peak
from benchmarks.report import Table, ratio_text

HEADS, ROWS, LENGTH = 8, 256, 1024  # a tile: 4 MiB of float16
TILES, ROUNDS, READS = 512, 7, 2000
SAMPLES, SITES = 10_000, 12
TARGETS = {"stream": 1.05, "rss_mib": 64, "warm_us": 10, "cold": 1.5, "open_s": 1.0, "capture": 1.1}


def measure(quick: bool) -> dict[str, Any]:
    """Run it."""
    tiles, rounds, reads, samples = (8, 2, 50, 50) if quick else (TILES, ROUNDS, READS, SAMPLES)
    with tempfile.TemporaryDirectory(dir=os.environ.get("ATTNPROBE_BENCH_DIR")) as directory:
        place = Path(directory)
        return {
            "benchmark": "storage",
            "quick": quick,
            "environment": environment(),
            "targets": TARGETS,
            "stream": _stream(place, tiles, rounds),
            "rows": _rows(place, reads),
            "open": _open(place, samples, max(3, rounds)),
            "capture": _capture(place, 64 if quick else 1024, rounds),
        }


# --- streaming ---------------------------------------------------------------------------------------------------


def make_tiles(count: int) -> torch.Tensor:
    """Tiles that lie in memory, ``[tile, head, query, key]``."""
    tiles = torch.empty(count, HEADS, ROWS, LENGTH, dtype=torch.float16)
    one = torch.rand(HEADS, ROWS, LENGTH)
    for number in range(count):
        tiles[number] = one.roll(number, 2)
    return tiles


def manifest(sites: int) -> Manifest:
    """Of a model of so many layers."""
    return Manifest(
        model={"class": "Benchmark"},
        sites=tuple(Site(f"h.{n}", "self", "decoder", n, HEADS, HEADS) for n in range(sites)),
        keep=({"what": "weights", "keys": "all"},),
        versions={},
        created="now",
    )


def stream(tiles: torch.Tensor, path: Path) -> float:
    """Seconds to write tiles as a run, durably."""
    settle()
    os.sync()
    began = time.perf_counter()
    per_map = LENGTH // ROWS
    writer = DirectoryWriter(path, of := manifest(-(-len(tiles) // per_map)))
    for number, tile in enumerate(tiles):
        field = Field(0, of.sites[number // per_map], 0, tuple(range(HEADS)), "float16")
        start = number % per_map * ROWS
        writer.write(field, Block(field.heads, range(start, start + ROWS), 0, tile))
    writer.commit(Sample(0, "0", {"main": TokenSequence(LENGTH)}, LENGTH))
    writer.close()
    return time.perf_counter() - began


def save(tiles: torch.Tensor, path: Path) -> float:
    """Seconds to write tiles by one `save_file`, durably."""
    settle()
    os.sync()
    began = time.perf_counter()
    save_file({str(number): tile for number, tile in enumerate(tiles)}, path)
    for name, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        file = os.open(name, flags)
        os.fsync(file)
        os.close(file)
    return time.perf_counter() - began


def _fresh(path: Path, work: Callable[[Path], float]) -> float:
    seconds = work(path)
    _remove(path)
    return seconds


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _stream(place: Path, count: int, rounds: int) -> dict[str, Any]:
    tiles = make_tiles(count)
    times = alternate(
        {
            "save": lambda: _fresh(place / "one.safetensors", lambda path: save(tiles, path)),
            "stream": lambda: _fresh(place / "run", lambda path: stream(tiles, path)),
            "again": lambda: _fresh(place / "one.safetensors", lambda path: save(tiles, path)),
        },
        rounds,
    )
    nbytes = tiles.nbytes
    del tiles
    settle()
    extra = [
        in_fresh_process("benchmarks.storage", {"task": "stream", "count": count, "place": str(place)})["extra"]
        for _ in range(max(1, rounds // 2))
    ]
    return {
        "bytes": nbytes,
        "ratio": ratio(times, "stream", "save"),
        "noise": ratio(times, "again", "save"),
        "seconds": {name: spread(values) for name, values in times.items()},
        "extra": spread(extra),
    }


def stream_peak(count: int, place: str) -> dict[str, int]:
    """Extra resident bytes while tiles that are in memory are streamed."""
    tiles = make_tiles(count)
    stream(tiles[:2], Path(place, "warm"))  # libraries and threads settle
    settle()
    forget_peak()
    before = peak()
    stream(tiles, Path(place, "peak"))
    extra = peak() - before
    _remove(Path(place, "warm"))
    _remove(Path(place, "peak"))
    return {"extra": extra}


# --- rows --------------------------------------------------------------------------------------------------------


def _rows(place: Path, reads: int) -> dict[str, Any]:
    """Random rows of a run: `run[layer, head][row]`, and the same bytes by a bare `os.pread`."""
    tiles = make_tiles(64)
    stream(tiles, place / "rows")
    run = ap.open(place / "rows")
    layers = len(tiles) * ROWS // LENGTH
    heads = {(layer, head): run[layer, head] for layer in range(layers) for head in range(HEADS)}
    (file,) = (place / "rows" / "shards").iterdir()
    bare = os.open(file, os.O_RDONLY)
    size, item = file.stat().st_size, 2 * LENGTH
    random = np.random.default_rng(0)

    def ours() -> Callable[[], Any]:
        head, row = heads[int(random.integers(layers)), int(random.integers(HEADS))], int(random.integers(LENGTH))
        return lambda: head[row]

    def plain() -> Callable[[], Any]:
        offset = (64 << 10) + int(random.integers((size - (64 << 10)) // item)) * item
        return lambda: os.pread(bare, item, offset)

    for head in heads.values():
        head[0]
    found: dict[str, Any] = {"bytes": item}
    for name, cold in (("warm", False), ("cold", True)):
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for number in range(reads if not cold else max(10, reads // 10)):
            for what, make in (("ours", ours), ("plain", plain)) if number % 2 else (("plain", plain), ("ours", ours)):
                work = make()
                if cold:
                    os.posix_fadvise(bare, 0, 0, os.POSIX_FADV_DONTNEED)
                began = time.perf_counter()
                work()
                times[what].append(1e6 * (time.perf_counter() - began))
        found[name] = {what: _quartiles(values) for what, values in times.items()}
    os.close(bare)
    _remove(place / "rows")
    return found


def _quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "low": float(low), "high": float(high), "count": len(values)}


# --- opening -----------------------------------------------------------------------------------------------------


def _open(place: Path, samples: int, rounds: int) -> dict[str, Any]:
    of = manifest(SITES)
    writer = DirectoryWriter(place / "many", of)
    values = torch.rand(HEADS, 8, 8)
    for index in range(samples):
        for site in of.sites:
            writer.write(
                Field(index, site, 0, tuple(range(HEADS)), "float32"), Block(tuple(range(HEADS)), range(8), 0, values)
            )
        ids = np.arange(8)
        writer.commit(Sample(index, f"n{index}", {"main": TokenSequence(8, ids, tuple("abcdefgh"))}, 8, named=True))
    writer.close()
    found = [
        in_fresh_process("benchmarks.storage", {"task": "open", "place": str(place / "many")}) for _ in range(rounds)
    ]
    journal = sum(file.stat().st_size for file in (place / "many" / "journal").iterdir())
    shards = len(list((place / "many" / "shards").iterdir()))
    _remove(place / "many")
    return {
        "samples": samples,
        "tensors": samples * (SITES + 2),
        "shards": shards,
        "journal": journal,
        "seconds": spread([one["seconds"] for one in found]),
        "extra": spread([one["extra"] for one in found]),
    }


def open_run(place: str) -> dict[str, float]:
    """Seconds to open a run and read one row of its last sample."""
    settle()
    forget_peak()
    before = peak()
    began = time.perf_counter()
    run = ap.open(place)
    assert run.sample(-1)[0, 0][3].shape == (8,)
    return {"seconds": time.perf_counter() - began, "extra": peak() - before}


# --- capture -----------------------------------------------------------------------------------------------------


def _capture(place: Path, length: int, rounds: int) -> dict[str, Any]:
    """A whole model with all weights to disk, against the same to nothing, and a plain write of the same bytes."""
    from unittest.mock import patch

    from benchmarks.models import gpt2, token_ids

    model, ids = gpt2(4, 12, 768, length), token_ids(length)

    def record(path: Path) -> float:
        began = time.perf_counter()
        with torch.no_grad(), ap.record(model, to=path, dtype="float16"):
            model(ids, use_cache=False)
        return time.perf_counter() - began

    def nothing() -> float:
        began = time.perf_counter()
        with patch("attnprobe.store.memory.MemoryStore.write", lambda *_: None), torch.no_grad():
            with ap.record(model, dtype="float16"):
                model(ids, use_cache=False)
        return time.perf_counter() - began

    record(place / "sized")
    nbytes = sum(file.stat().st_size for file in (place / "sized" / "shards").iterdir())
    _remove(place / "sized")
    data = memoryview(np.random.default_rng(0).bytes(min(nbytes, 4 << 20)))

    def plain(path: Path) -> float:
        began = time.perf_counter()
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        for offset in range(0, nbytes, len(data)):
            os.pwrite(file, data[: nbytes - offset], offset)
        os.fsync(file)
        os.close(file)
        return time.perf_counter() - began

    times = alternate(
        {
            "disk": lambda: _fresh(place / "captured", record),
            "nothing": nothing,
            "plain": lambda: _fresh(place / "plain", plain),
        },
        rounds,
    )
    times["larger"] = [max(pair) for pair in zip(times["nothing"], times["plain"], strict=True)]
    times["sum"] = [sum(pair) for pair in zip(times["nothing"], times["plain"], strict=True)]
    return {
        "bytes": nbytes,
        "length": length,
        "over_larger": ratio(times, "disk", "larger"),
        "over_sum": ratio(times, "disk", "sum"),
        "seconds": {name: spread(values) for name, values in times.items()},
    }


# --- tables ------------------------------------------------------------------------------------------------------


def _lines(result: dict[str, Any]) -> Iterator[list[str]]:
    one, rows, opened, captured = (result[name] for name in ("stream", "rows", "open", "capture"))
    yield [
        f"streaming {one['bytes'] / 1e9:.1f} GB of float16 tiles, over `save_file` of the same, both fsynced",
        ratio_text(one["ratio"], TARGETS["stream"]),
        f"noise {ratio_text(one['noise'])}",
    ]
    extra = {name: value / MIB for name, value in one["extra"].items()}
    yield ["its peak extra memory, MiB", ratio_text(extra, TARGETS["rss_mib"], 0), ""]
    warm, cold = ({name: rows[kind][name]["median"] for name in ("ours", "plain")} for kind in ("warm", "cold"))
    more = warm["ours"] - warm["plain"]
    yield [
        f"a random row of {rows['bytes']:,} bytes, warm: microseconds over the bare pread",
        f"{more:.1f}, target {TARGETS['warm_us']}: {'met' if more <= TARGETS['warm_us'] else 'MISSED'}",
        f"{warm['ours']:.1f} and {warm['plain']:.1f}",
    ]
    times = cold["ours"] / cold["plain"]
    yield [
        "the same, cold: over the bare pread",
        f"{times:.2f}, target {TARGETS['cold']}: {'met' if times <= TARGETS['cold'] else 'MISSED'}",
        f"{cold['ours']:.0f} and {cold['plain']:.0f} microseconds",
    ]
    yield [
        f"opening a run of {opened['samples']:,} samples, {opened['tensors']:,} tensors, seconds",
        ratio_text(opened["seconds"], TARGETS["open_s"]),
        f"{opened['shards']} shards, journal {opened['journal'] / MIB:.0f} MiB, extra memory "
        f"{opened['extra']['median'] / MIB:.0f} MiB",
    ]
    yield [
        f"capture to disk, T {captured['length']:,}, {captured['bytes'] / MIB:.0f} MiB, over max(to nothing, plain write)",
        ratio_text(captured["over_larger"]),
        f"over their sum {ratio_text(captured['over_sum'])}",
    ]


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    return Table(
        "The run directory",
        ["what", "measured", "beside"],
        list(_lines(result)),
        "Tiles lie in memory before either writer starts, and each starts with a synced disk. Rows are `run[layer, "
        "head][row]`; medians of single reads, half of them after the page cache let go of the file. Opening is timed in "
        "fresh processes, imports apart, and reads a row of the last sample. Where two busy cores share computing and "
        "writing, a capture cannot be as fast as the larger of the two; on a GPU the target is 1.1.",
    )


TABLES = (table,)

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    work = {"stream": stream_peak, "open": open_run}[given.pop("task")]
    print(json.dumps(work(**given)))
