"""Block sizes: a small list that is tried once for each kind of call, and remembered."""

from collections.abc import Callable
from typing import Any

import triton

from attnprobe.engines.triton.kernels.logits import INTERPRETED

# What a kernel is compiled for, and so what may want other blocks. SIZE is about the number of rows.
KEY = ["BLOCK_D", "MASK", "BIAS", "CAUSAL", "WINDOW", "SIZE"]
# Numbers that change from call to call, in generation with every token: no kernel is compiled anew for them.
CHANGING = ["head_count", "row_count", "keys", "diagonal", "window", "low"]
CHANGING += ["row_shift", "column_shift", "length", "first", "last", "reach", "last_low", "last_high"]
TRIALS = 5
QUERIES = 32 << 10  # bytes
LEAST = 32  # rows of the block that fits every device, whatever the head


def _configurations() -> list[Any]:
    if INTERPRETED:
        return [triton.Config({"BLOCK_M": 16, "BLOCK_N": 16})]
    return [
        triton.Config({"BLOCK_M": 16, "BLOCK_N": 128}, num_warps=4, num_stages=2),
        triton.Config({"BLOCK_M": 64, "BLOCK_N": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 64}, num_warps=8, num_stages=2),
        triton.Config({"BLOCK_M": 32, "BLOCK_N": 32}, num_warps=4, num_stages=1),
    ]


def fitting(configurations: list[Any], _: Any, **arguments: Any) -> list[Any]:
    """Those that are worth a try: rows enough for the block, and a block of queries that is not too large to hold."""
    nbytes = arguments["BLOCK_D"] * arguments["query"].element_size()
    return [
        one
        for one in configurations
        if one.kwargs["BLOCK_M"] <= max(arguments["SIZE"], LEAST) and one.kwargs["BLOCK_M"] * nbytes <= QUERIES
    ]


NARROWEST = min(one.kwargs["BLOCK_N"] for one in _configurations())


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
    """The function as a kernel, with blocks of the best size for each kind of call."""
    tune = triton.autotune(
        configs=_configurations(), key=KEY, prune_configs_by={"early_config_prune": fitting}, do_bench=_time
    )
    return tune(triton.jit(kernel, do_not_specialize=CHANGING))
