"""On CUDA: whole maps of four heads to disk, over the slower of the copy to the host and a plain sequential write."""

import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

import attnprobe as ap
from benchmarks.measure import environment, ratio, spread
from benchmarks.models import gpt2, token_ids
from benchmarks.report import Table

TARGET = 0.85
TOKENS, HEADS, ROUNDS = 32768, 4, 3
CHUNK = 64 << 20


def measure(quick: bool) -> dict[str, Any]:
    """Run it."""
    if not torch.cuda.is_available():
        raise click.ClickException("streaming is measured on CUDA, and there is none here")
    tokens = 512 if quick else TOKENS
    model = gpt2(2, 12, 768, tokens).cuda().bfloat16()
    ids = token_ids(tokens).cuda()
    place = Path(tempfile.mkdtemp(prefix="attnprobe-streaming-"))
    times: dict[str, list[float]] = {name: [] for name in ("stream", "levels", "write", "copy", "bare")}
    nbytes = 0
    try:
        for turn in range(-1, 1 if quick else ROUNDS):
            seconds, nbytes = _stream(model, ids, place / "run", False)
            found = {"stream": seconds, "write": _write(place / "plain", nbytes), "copy": _copy(nbytes)}
            found["bare"] = _bare(model, ids)
            found["levels"] = _stream(model, ids, place / "run", True)[0] if turn == 0 else found["stream"]
            if turn >= 0:
                for name, value in found.items():
                    times[name].append(value)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    times["levels"] = times["levels"][:1]
    times["limit"] = [max(pair) for pair in zip(times["write"], times["copy"], strict=True)]
    return {
        "benchmark": "streaming",
        "quick": quick,
        "environment": environment("cuda"),
        "targets": {"of_limit": TARGET},
        "tokens": tokens,
        "heads": HEADS,
        "nbytes": nbytes,
        "of_limit": ratio(times, "limit", "stream"),
        "seconds": {name: spread(values) for name, values in times.items()},
        "host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


@torch.no_grad()
def _stream(model: Any, ids: torch.Tensor, path: Path, levels: bool) -> tuple[float, int]:
    """Seconds until all is durable, and bytes on disk."""
    os.sync()
    began = time.perf_counter()
    with ap.record(model, to=path, layers=[1], heads=[0, 3, 6, 9], dtype="float16", pyramid=levels):
        model(ids, use_cache=False)
    seconds = time.perf_counter() - began
    nbytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return seconds, nbytes


@torch.no_grad()
def _bare(model: Any, ids: torch.Tensor) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    model(ids, use_cache=False)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _write(path: Path, nbytes: int) -> float:
    """Seconds to write as many bytes to one file, one chunk after the other, durably."""
    chunk = torch.randint(0, 255, (CHUNK,), dtype=torch.uint8).numpy()
    os.sync()
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for start in range(0, nbytes, CHUNK):
            file.write(chunk[: nbytes - start])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def _copy(nbytes: int) -> float:
    """Seconds to copy as many bytes from the device into pinned memory."""
    size = min(nbytes, 4 * CHUNK)
    device, host = (
        torch.empty(size, dtype=torch.uint8, device="cuda"),
        torch.empty(size, dtype=torch.uint8).pin_memory(),
    )
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(-(-nbytes // size)):
        host.copy_(device, non_blocking=True)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def table(result: dict[str, Any]) -> Table:
    """One row."""
    seconds = result["seconds"]
    rows = [
        (
            f"{result['heads']} heads of {result['tokens']:,} tokens, float16, {result['nbytes'] / 1e9:.2f} GB",
            f"{result['of_limit']['median']:.0%} ({result['of_limit']['low']:.0%} to {result['of_limit']['high']:.0%})",
            f"{seconds['stream']['median']:.2f}",
            f"{seconds['write']['median']:.2f}",
            f"{seconds['copy']['median']:.2f}",
            f"{seconds['bare']['median']:.3f}",
        )
    ]
    met = "met" if result["of_limit"]["median"] >= result["targets"]["of_limit"] else "MISSED"
    note = (
        f"Seconds until all is durable; target {result['targets']['of_limit']:.0%} of the slower of the two: {met}. "
        f"Without the coarser levels of the map; with them {seconds['levels']['median']:.2f} s (once). Largest "
        f"resident memory of the process {result['host_peak'] / 1e9:.1f} GB."
    )
    columns = ("what", "of the slower of both", "recorded to disk", "plain write", "copy to the host", "model alone")
    return Table("Streaming", columns, rows, note)


TABLES = (table,)
