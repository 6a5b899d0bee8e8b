"""Engines make tiles of exact weights from a call. A new one is a file with a `tiles` function and a row here."""

from collections.abc import Callable, Iterator

from attnprobe.call import AttentionCall, GivenWeights, Rows
from attnprobe.engines import dense, torch, triton
from attnprobe.engines.fused import Fused
from attnprobe.engines.tile import Tile
from attnprobe.errors import SelectionError
from attnprobe.scratch import Scratch

Engine = Callable[[AttentionCall, tuple[int, ...], Rows, int, Scratch | None], Iterator[Tile]]

ENGINES: dict[str, Engine] = {"dense": dense.tiles, "torch": torch.tiles, "triton": triton.tiles}


def get_engine(name: str) -> Engine:
    """The engine of that name; ``"auto"`` is triton for calls on CUDA, and torch for others.

    Raises
    ------
    SelectionError
        If there is none of that name.
    """
    if name == "auto":
        return _auto
    if name not in ENGINES:
        raise SelectionError(f"engine={name!r}: there are auto, {', '.join(ENGINES)}")
    return ENGINES[name]


def fused_of(engine: Engine, call: AttentionCall | GivenWeights) -> Fused | None:
    """What an engine measures of a call at once, without tiles; None where it does not."""
    if isinstance(call, GivenWeights):
        return None
    chosen = engine is triton.tiles or (engine is _auto and call.query.device.type == "cuda")
    return triton.fused(call) if chosen else None


def maker_of(engine: Engine, call: AttentionCall | GivenWeights) -> tuple[str, str]:
    """Who makes the tiles of a call, and why that is not the engine that was asked for; empty where it is."""
    if isinstance(call, GivenWeights):
        return "the module itself", ""
    asked = engine is triton.tiles or (engine is _auto and call.query.device.type == "cuda")
    if asked:
        reason = triton.covers(call)
        return ("triton", "") if reason is None else ("torch", f"not by triton: {reason}")
    return "dense" if engine is dense.tiles else "torch", ""


def _auto(
    call: AttentionCall, heads: tuple[int, ...], rows: Rows, budget: int, scratch: Scratch | None = None
) -> Iterator[Tile]:
    make = triton.tiles if call.query.device.type == "cuda" else torch.tiles
    return make(call, heads, rows, budget, scratch)


__all__ = ["ENGINES", "Engine", "Fused", "Tile", "fused_of", "get_engine", "maker_of"]
