"""Block sizes: a small list that is tried once for each kind of call, and remembered."""

from collections.abc import Callable
from typing import Any

import triton

from attnprobe.engines.triton.kernels.logits import INTERPRETED

# What a kernel is compiled for, and so what may want other blocks. SIZE is about the number of rows; K, of the largest
# weights, tells how much a program holds: blocks that fit for few may not for more.
KEY = ["BLOCK_D", "MASK", "BIAS", "CAUSAL", "WINDOW", "SIZE", "K"]
# Numbers that change from call to call, in generation with every token: no kernel is compiled anew for them.
CHANGING = ["head_count", "row_count", "keys", "diagonal", "window", "low", "split"]
CHANGING += ["row_shift", "column_shift", "length", "first", "last", "reach", "last_low", "last_high"]
TRIALS = 5
HELD = 32 << 10  # bytes of a block of queries or keys
LARGE = 64  # rows of a good block
NARROW = 128  # bytes of a vector
LEAST = 32  # rows of the block that fits every device, whatever the head
CELL = 16  # rows of a pooled cell, from which on a block of rows is within one


def _config(rows: int, columns: int, warps: int, stages: int, registers: int | None = None) -> Any:
    """Blocks, and at most so many registers a thread: fewer, and more programs share a multiprocessor."""
    blocks = {"BLOCK_M": rows, "BLOCK_N": columns}
    return triton.Config(blocks, num_warps=warps, num_stages=stages, maxnreg=registers)


def _by_rows() -> list[Any]:
    """Of kernels in which a program has a block of rows."""
    if INTERPRETED:
        return [_config(16, 16, 4, 1)]
    several = [_config(128, 64, 8, 3, 128), _config(64, 64, 4, 3, 128), _config(64, 128, 4, 3, 168)]
    return [_config(16, 128, 4, 2), *several, _config(32, 32, 4, 1)]


def _by_keys() -> list[Any]:
    """Of the kernel in which a program has a block of keys."""
    if INTERPRETED:
        return [_config(16, 16, 4, 1)]
    several = [_config(64, 128, 8, 3, 128), _config(64, 64, 4, 3, 128), _config(32, 64, 4, 3, 128)]
    return [*several, _config(16, 64, 4, 3), _config(16, 32, 4, 1)]


def fitting(configurations: list[Any], _: Any, **arguments: Any) -> list[Any]:
    """Those that are worth a try: rows enough for the block, and a block of queries that is not too large to hold."""
    nbytes = arguments["BLOCK_D"] * arguments["query"].element_size()
    fit = [
        one
        for one in configurations
        if one.kwargs["BLOCK_M"] <= max(arguments["SIZE"], LEAST) and one.kwargs["BLOCK_M"] * nbytes <= HELD
    ]
    return _without_small(fit, arguments["SIZE"], nbytes > NARROW or "K" in arguments)


def fitting_cells(configurations: list[Any], _: Any, **arguments: Any) -> list[Any]:
    """Those with blocks that are not too large to hold, of rows of one pooled cell, where cells are not too low."""
    nbytes = arguments["BLOCK_D"] * arguments["query"].element_size()
    most = arguments["CELL"] if arguments["CELL"] >= CELL else HELD
    fit = [
        one
        for one in configurations
        if one.kwargs["BLOCK_M"] <= most and max(one.kwargs["BLOCK_M"], one.kwargs["BLOCK_N"]) * nbytes <= HELD
    ]
    return _without_small(fit, min(most, LARGE), nbytes > NARROW)


def _without_small(fit: list[Any], rows: int, tight: bool) -> list[Any]:
    """Where there is work for large blocks, small ones are not worth the time to compile them.

    But for the last, where it is `tight`: where not every device has room for large blocks.
    """
    large = [one for one in fit[:-1] if one.kwargs["BLOCK_M"] >= min(rows, LARGE)]
    return large if large and not tight else [*(large or fit[:-1]), fit[-1]]


NARROWEST = min(one.kwargs["BLOCK_N"] for one in _by_keys())


def _time(launch: Callable[[], Any], quantiles: Any = None) -> list[float]:
    """Milliseconds of a launch, as triton's own benchmark, but without its 256 MB to clear caches with."""
    import torch

    launch()
    times = []
    for _ in range(TRIALS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        launch()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return [sorted(times)[TRIALS // 2]] * 3


def tuned(kernel: Callable[..., Any]) -> Any:
    """The function as a kernel, with blocks of the best size for each kind of call; kept on disk beside the kernel."""
    return _tuned(kernel, _by_rows(), KEY, fitting)


def tuned_folds(kernel: Callable[..., Any]) -> Any:
    """The same of a kernel in which a program has a block of keys."""
    return _tuned(kernel, _by_keys(), [*KEY, "CELL"], fitting_cells)


def _tuned(kernel: Callable[..., Any], configs: list[Any], key: list[str], prune: Callable[..., Any]) -> Any:
    tune = triton.autotune(
        configs=configs, key=key, prune_configs_by={"early_config_prune": prune}, do_bench=_time, cache_results=True
    )
    return tune(triton.jit(kernel, do_not_specialize=CHANGING))
