"""On CUDA: the triton engine beside the flash forward and the torch engine, and both over the device's ceilings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprobe.call import AttentionCall
from attnprobe.engines import ENGINES
from attnprobe.engines.fused import Place
from attnprobe.engines.triton.measuring import KernelMeasures
from attnprobe.fields import Field, Site
from attnprobe.measures import SampleRows, choose
from attnprobe.measures.measurer import Measurer
from attnprobe.scratch import Scratch
from benchmarks.measure import environment, spread
from benchmarks.report import Table, ratio_text

ROUNDS = 20
BUDGET = 256 << 20
ROWS = ("entropy", "distance", "first_mass(1)", "self", "previous", "local_mass(64)", "max", "argmax")
FOLDS = ("received", "pooled_max", "pooled_mean")
LAST, SOME, TOP = 256, 4, 5


@dataclass(frozen=True)
class Shape:
    """One layer's attention: heads, key-value heads, width of a head, tokens."""

    heads: int
    kv_heads: int
    dim: int
    tokens: int

    @property
    def pairs(self) -> int:
        """Weights of a causal map, over all heads."""
        return self.heads * self.tokens * (self.tokens + 1) // 2


SHAPES = (Shape(12, 12, 64, 8192), Shape(12, 12, 64, 32768), Shape(32, 8, 128, 8192))
TORCH = 8192  # the longest that the torch engine is timed at


def measure(quick: bool) -> dict[str, Any]:
    """Run it."""
    if not torch.cuda.is_available():
        raise click.ClickException("kernels are measured on CUDA, and there is none here")
    shapes = (Shape(2, 1, 64, 512),) if quick else SHAPES
    rounds = 2 if quick else ROUNDS
    ceilings = _ceilings(quick)
    rows = [row for shape in shapes for row in _shape(shape, rounds)]
    return {
        "benchmark": "kernels",
        "quick": quick,
        "environment": environment("cuda"),
        "ceilings": ceilings,
        "rows": rows,
    }


def _milliseconds(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Of each, by CUDA events, in turns; two rounds warm up and tune."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-2, rounds):
        for name, work in works.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            work()
            stop.record()
            stop.synchronize()
            if turn >= 0:
                found[name].append(start.elapsed_time(stop))
    return found


def _ceilings(quick: bool) -> dict[str, Any]:
    """A large copy, bytes read and written a second, and a large product in bfloat16, operations a second."""
    size = 1 << (16 if quick else 30)
    side = 256 if quick else 8192
    one = torch.randn(size, device="cuda", dtype=torch.bfloat16)
    other, square = torch.empty_like(one), torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    times = _milliseconds({"copy": lambda: other.copy_(one), "product": lambda: square @ square}, 10)
    return {
        "copy": spread([2 * one.nbytes / (1e-3 * t) for t in times["copy"]]),
        "product": spread([2 * side**3 / (1e-3 * t) for t in times["product"]]),
    }


def _shape(shape: Shape, rounds: int) -> list[dict[str, Any]]:
    generator = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, shape.tokens, shape.dim, generator=generator, device="cuda", dtype=torch.bfloat16)
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
    )
    call = AttentionCall(query, key, shape.dim**-0.5, causal="upper-left")

    def flash() -> None:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shape.kv_heads != shape.heads)

    works = {"flash": flash, **_works(call, shape)}
    times = _milliseconds(works, rounds)
    slow = {"again": flash, **_slow(call, shape)} if shape.tokens <= TORCH else {}
    times |= _milliseconds(slow, 3) if slow else {}
    product = 2.0 * shape.pairs * shape.dim  # operations of queries times keys
    found = []
    for name in (name for name in works if name != "flash"):
        row = {
            "what": name,
            "shape": vars(shape),
            "milliseconds": spread(times[name]),
            "over_flash": spread([a / b for a, b in zip(times[name], times["flash"], strict=True)]),
            "flash_milliseconds": spread(times["flash"]),
        }
        if name not in ("rows of some heads",):
            row["products"] = spread([product / (1e-3 * t) for t in times[name]])
            row["exponentials"] = spread([shape.pairs / (1e-3 * t) for t in times[name]])
        if f"{name} torch" in slow:
            row["torch_over_it"] = spread([t / row["milliseconds"]["median"] for t in times[f"{name} torch"]])
        found.append(row)
    return found


def _works(call: AttentionCall, shape: Shape) -> dict[str, Callable[[], Any]]:
    """What the kernels do, each whole: all heads of one layer."""
    by, heads, rows = KernelMeasures(), tuple(range(shape.heads)), range(shape.tokens)
    place = Place(0, 0, 0, shape.tokens, shape.tokens)
    some, last = heads[:: max(1, shape.heads // SOME)][:SOME], rows[-LAST:]

    def measured(names: tuple[str, ...]) -> Callable[[], Any]:
        chosen = choose(list(names))
        return lambda: list(by.measure(call, heads, rows, place, chosen, BUDGET))

    return {
        "measures of rows": measured(ROWS),
        "and mass by key, pooled maps": measured(ROWS + FOLDS),
        f"largest {TOP} of each row": lambda: list(by.top(call, heads, rows, place, TOP, slice(None), BUDGET)),
        "rows of some heads": lambda: list(by.weights(call, some, last, torch.float16, BUDGET)),
    }


def _slow(call: AttentionCall, shape: Shape) -> dict[str, Callable[[], Any]]:
    """The same measures by the torch engine, tile by tile."""
    heads, rows = tuple(range(shape.heads)), range(shape.tokens)

    def measured(names: tuple[str, ...]) -> Callable[[], Any]:
        chosen = choose(list(names))

        def run() -> None:
            scratch, field = Scratch(), Field(0, Site("it", "self", "", 0, shape.heads, shape.kv_heads), 0, heads)
            measurer = Measurer(chosen, field)
            for tile in ENGINES["torch"](call, heads, rows, BUDGET, scratch):
                at = slice(tile.heads[0], tile.heads[-1] + 1)
                length = shape.tokens
                measurer.update(SampleRows(tile.weights[0], tile.rows, tile.start, at, length, length, scratch=scratch))

        return run

    return {"measures of rows torch": measured(ROWS), "and mass by key, pooled maps torch": measured(ROWS + FOLDS)}


def table(result: dict[str, Any]) -> Table:
    """A row a kernel and shape."""
    most = result["ceilings"]
    rows = []
    for row in result["rows"]:
        shape = Shape(**row["shape"])
        products = row.get("products")
        share = "" if products is None else f"{products['median'] / most['product']['median']:.0%}"
        torch_over = row.get("torch_over_it")
        rows.append(
            (
                row["what"],
                f"{shape.tokens:,} tokens, {shape.heads} heads ({shape.kv_heads}), d {shape.dim}",
                f"{row['milliseconds']['median']:.2f}",
                ratio_text(row["over_flash"]),
                share,
                "" if torch_over is None else f"{torch_over['median']:.0f}",
            )
        )
    note = (
        f"bfloat16, causal, random numbers; {result['rows'][0]['milliseconds']['count']} rounds. Products are those of "
        f"queries and keys that a causal map has, over a large product's {most['product']['median'] / 1e12:.0f} "
        f"TFLOP/s; a large copy moves {most['copy']['median'] / 1e12:.1f} TB/s. The last column is the torch engine's "
        "time over the kernels'."
    )
    columns = ("what", "one layer", "ms", "over the flash forward", "of the product's rate", "torch over it")
    return Table("Kernels", columns, rows, note)


TABLES = (table,)
