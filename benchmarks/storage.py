"""The run directory: streaming against one `save_file`, rows against bare reads, opening, capture against its parts."""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import attnprobe as ap
from attnprobe.store.shard import HEADER
from benchmarks.measure import alternate, environment, ratio, settle, spread
from benchmarks.process import MIB, forget_peak, in_fresh_process, peak
from benchmarks.report import Table, ratio_text
from benchmarks.written import HEADS, LENGTH, ROWS, SHORT, fresh, make_tiles, remove, save, stream, write_small

TILES, ROUNDS = 512, 9
READ_TILES, READS, READ_ROUNDS = 64, 100, 20  # tiles of the run that rows are read of; reads a round
SAMPLES, SITES = 10_000, (12, 144)
CAPTURED = 2048  # tokens
TARGETS = {"stream": 1.05, "rss_mib": 64, "warm_us": 10, "cold": 1.5, "open_s": 1.0}


def measure(quick: bool) -> dict[str, Any]:
    """Run it, in a directory of ``ATTNPROBE_BENCH_DIR`` or of the system's for temporary files."""
    tiles, rounds, samples, length = (8, 2, 50, 64) if quick else (TILES, ROUNDS, SAMPLES, CAPTURED)
    with tempfile.TemporaryDirectory(dir=os.environ.get("ATTNPROBE_BENCH_DIR")) as directory:
        place = Path(directory)
        return {
            "benchmark": "storage",
            "quick": quick,
            "environment": environment(),
            "targets": TARGETS,
            "stream": _stream(place, tiles, rounds),
            "rows": _rows(place, rounds if quick else READ_ROUNDS),
            "open": [_open(place, samples, sites, rounds) for sites in SITES],
            "capture": _capture(place, length, rounds),
        }


# --- streaming ---------------------------------------------------------------------------------------------------


def _stream(place: Path, count: int, rounds: int) -> dict[str, Any]:
    nbytes, times = _stream_in_turn(place, count, rounds)
    settle()  # the tiles are gone
    task = {"task": "stream", "count": count, "place": str(place)}
    return {
        "bytes": nbytes,
        "ratio": ratio(times, "stream", "save"),
        "noise": ratio(times, "again", "save"),
        "seconds": {name: spread(values) for name, values in times.items()},
        "extra": spread([in_fresh_process("benchmarks.storage", task)["extra"] for _ in range(min(3, rounds))]),
    }


def _stream_in_turn(place: Path, count: int, rounds: int) -> tuple[int, dict[str, list[float]]]:
    tiles = make_tiles(count)
    return tiles.nbytes, alternate(
        {
            "save": lambda: fresh(place / "file", lambda path: save(tiles, path)),
            "stream": lambda: fresh(place / "run", lambda path: stream(tiles, path)),
            "again": lambda: fresh(place / "file", lambda path: save(tiles, path)),
        },
        rounds,
    )


def stream_peak(count: int, place: str) -> dict[str, int]:
    """Extra resident bytes of this process while tiles that are in memory are streamed."""
    tiles = make_tiles(count)
    fresh(Path(place, "warm"), lambda path: stream(tiles[:2], path))  # libraries settle
    settle()
    forget_peak()
    before = peak()
    fresh(Path(place, "run"), lambda path: stream(tiles, path))
    return {"extra": peak() - before}


# --- rows --------------------------------------------------------------------------------------------------------


def _rows(place: Path, rounds: int) -> dict[str, Any]:
    """Random rows of an open run by `head[row]`, and as many bytes of its shard by `os.pread`; microseconds."""
    stream(make_tiles(READ_TILES), place / "rows")
    run = ap.open(place / "rows")
    layers, item = READ_TILES * ROWS // LENGTH, 2 * LENGTH
    heads = [run[layer, head] for layer in range(layers) for head in range(HEADS)]
    (shard,) = (place / "rows" / "shards").iterdir()
    file = os.open(shard, os.O_RDONLY)
    offsets = range(HEADER, HEADER + READ_TILES * HEADS * ROWS * item, item)
    random = np.random.default_rng(0)

    def one() -> Callable[[], Any]:
        head, row = heads[random.integers(len(heads))], int(random.integers(LENGTH))
        return lambda: head[row]

    def bare() -> Callable[[], Any]:
        offset = offsets[random.integers(len(offsets))]
        return lambda: os.pread(file, item, offset)

    for head in heads:
        head[0]
    found = {
        "bytes": item,
        "warm": _read(one, bare, rounds, lambda: None),
        "cold": _read(one, bare, rounds, lambda: os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)),
    }
    os.close(file)
    remove(place / "rows")
    return found


def _read(
    one: Callable[[], Callable[[], Any]], bare: Callable[[], Callable[[], Any]], rounds: int, before: Callable[[], None]
) -> dict[str, Any]:
    """Medians of each round's single reads, taken in turn."""
    times: dict[str, list[float]] = {"row": [], "bare": []}
    for turn in range(-1, rounds):
        singles: dict[str, list[float]] = {"row": [], "bare": []}
        for number in range(READS):
            for name, make in (("row", one), ("bare", bare))[:: 1 if number % 2 else -1]:
                read = make()
                before()
                began = time.perf_counter()
                read()
                singles[name].append(1e6 * (time.perf_counter() - began))
        if turn >= 0:
            for name, values in singles.items():
                times[name].append(statistics.median(values))
    return {
        "more": spread([row - plain for row, plain in zip(times["row"], times["bare"], strict=True)]),
        "ratio": ratio(times, "row", "bare"),
        "microseconds": {name: spread(values) for name, values in times.items()},
    }


# --- opening -----------------------------------------------------------------------------------------------------


def _open(place: Path, samples: int, sites: int, rounds: int) -> dict[str, Any]:
    path = place / "many"
    written = write_small(path, samples, sites)
    task = {"task": "open", "place": str(path)}
    found = [in_fresh_process("benchmarks.storage", task) for _ in range(max(3, rounds))]
    tensors = samples * (sites + 2)
    result = {
        "samples": samples,
        "maps": sites,
        "tensors": tensors,
        "tensors_a_second": tensors / written,
        "shards": len(list((path / "shards").iterdir())),
        "journal": sum(file.stat().st_size for file in (path / "journal").iterdir()),
        "seconds": spread([one["seconds"] for one in found]),
        "extra": spread([one["extra"] for one in found]),
    }
    remove(path)
    return result


def open_run(place: str) -> dict[str, float]:
    """Seconds to open a run and to read one row of its last sample, and extra resident bytes."""
    settle()
    forget_peak()
    before = peak()
    began = time.perf_counter()
    row = ap.open(place).sample(-1)[0, 0][SHORT - 1]
    seconds = time.perf_counter() - began
    assert row.shape == (SHORT,)
    return {"seconds": seconds, "extra": peak() - before}


# --- capture -----------------------------------------------------------------------------------------------------


def _capture(place: Path, length: int, rounds: int) -> dict[str, Any]:
    """A whole model with all weights to disk, against the same to nothing, and a plain write of the same bytes."""
    from benchmarks.models import gpt2, token_ids

    model, ids = gpt2(4, 12, 768, length), token_ids(length)

    def record(path: Path | None) -> float:
        settle()
        os.sync()
        began = time.perf_counter()
        with torch.no_grad(), ap.record(model, to=path, dtype="float16"):
            model(ids, use_cache=False)
        return time.perf_counter() - began

    def nothing() -> float:
        with patch("attnprobe.store.memory.MemoryStore.write", lambda *_: None):
            return record(None)

    record(place / "sized")
    nbytes = sum(file.stat().st_size for file in (place / "sized" / "shards").iterdir())
    remove(place / "sized")
    data = memoryview(np.random.default_rng(0).bytes(min(nbytes, 4 << 20)))

    def plain(path: Path) -> float:
        os.sync()
        began = time.perf_counter()
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        for offset in range(0, nbytes, len(data)):
            os.pwrite(file, data[: nbytes - offset], offset)
        os.fsync(file)
        os.close(file)
        return time.perf_counter() - began

    times = alternate(
        {
            "disk": lambda: fresh(place / "captured", record),
            "nothing": nothing,
            "plain": lambda: fresh(place / "plain", plain),
        },
        rounds,
    )
    pairs = list(zip(times["nothing"], times["plain"], strict=True))
    times |= {"larger": [max(pair) for pair in pairs], "sum": [sum(pair) for pair in pairs]}
    return {
        "bytes": nbytes,
        "length": length,
        "over_larger": ratio(times, "disk", "larger"),
        "over_sum": ratio(times, "disk", "sum"),
        "seconds": {name: spread(values) for name, values in times.items()},
    }


# --- tables ------------------------------------------------------------------------------------------------------


def _lines(result: dict[str, Any]) -> Iterator[list[str]]:
    one, rows, captured = (result[name] for name in ("stream", "rows", "capture"))
    yield [
        f"{one['bytes'] / 1e9:.1f} GB of float16 tiles as a run, over one `save_file` of them",
        ratio_text(one["ratio"], TARGETS["stream"]),
        f"`save_file` over itself {ratio_text(one['noise'])}",
    ]
    extra = {name: value / MIB for name, value in one["extra"].items()}
    yield ["extra peak memory of it, MiB", ratio_text(extra, TARGETS["rss_mib"], 0), ""]
    for kind, value, target, digits, text in (
        ("warm", "more", "warm_us", 1, "microseconds over one `os.pread`"),
        ("cold", "ratio", "cold", 2, "over one `os.pread`"),
    ):
        each = {name: values["median"] for name, values in rows[kind]["microseconds"].items()}
        yield [
            f"a random row of a head, {rows['bytes']:,} bytes, {kind}, {text}",
            ratio_text(rows[kind][value], TARGETS[target], digits),
            f"{each['row']:.1f} and {each['bare']:.1f} microseconds",
        ]
    for run in result["open"]:
        yield [
            f"opening a run of {run['samples']:,} samples with {run['maps']} maps each, seconds",
            ratio_text(run["seconds"], TARGETS["open_s"]),
            f"{run['extra']['median'] / MIB:.0f} MiB of memory; a journal of {run['journal'] / MIB:.0f} MiB, "
            f"{run['shards']:,} shards; {run['tensors']:,} tensors, written {run['tensors_a_second']:,.0f} a second",
        ]
    yield [
        f"capture to disk, T {captured['length']:,}, {captured['bytes'] / MIB:.0f} MiB, over the larger of capture to "
        "nothing and a plain write",
        ratio_text(captured["over_larger"]),
        f"over their sum {ratio_text(captured['over_sum'])}",
    ]


def table(result: dict[str, Any]) -> Table:
    """The result for people."""
    return Table(
        "The run directory",
        ["what", "measured", "beside"],
        list(_lines(result)),
        "All that is written is synced, and so is the disk before each measurement. Tiles lie in memory before either "
        "side starts. Rows are of random heads of an open run; a figure is of a round's median of single reads, and "
        "cold is after the page cache let go of the file. A run is opened by a fresh process, imports apart, up to a "
        "row of its last sample. Where computing and writing share two busy cores, a capture takes longer than the "
        "larger of both.",
    )


TABLES = (table,)

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    work = {"stream": stream_peak, "open": open_run}[given.pop("task")]
    print(json.dumps(work(**given)))
