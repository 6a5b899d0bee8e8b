"""What the tests of the triton engine do: on CUDA, or, in a process of its own, in triton's interpreter on the CPU.

Nothing here imports triton before `TRITON_INTERPRET` may be set: a process that imported it without cannot interpret.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import checks
import measure_checks
import measure_reference as reference
import numpy as np
import torch

from attnprobe.call import AttentionCall
from attnprobe.fields import Field, Site
from attnprobe.measures import Tokens, choose
from attnprobe.measures.measurer import Measurer
from attnprobe.place import fused_rows
from attnprobe.scratch import Scratch
from attnprobe.store.reading import kept_rows, read_rows

SITE = Site("it", "self", "", 0, 4, 1)
NAMES = measure_checks.WITH_SINK
LONG = "entropy,distance,local_mass(64),received,received_max,distances,pooled"
POINTERS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
}
SHARED = 99 << 10  # bytes that a program may have on any device of capability 8.0 and above
PARTS = ("query", "key", "mask", "bias", "sinks")


@contextmanager
def interpreting() -> Iterator[ProcessPoolExecutor]:
    """A process in which kernels run in the interpreter."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        before = os.environ.get("TRITON_INTERPRET")
        os.environ["TRITON_INTERPRET"] = "1"  # for the process that starts now, before it imports anything
        try:
            process.submit(torch.set_num_threads, 1).result()
        finally:
            if before is None:
                del os.environ["TRITON_INTERPRET"]
            else:
                os.environ["TRITON_INTERPRET"] = before
        yield process


def on(call: AttentionCall, device: str) -> AttentionCall:
    """The call with its tensors on a device."""
    moved = {name: part.to(device) for name in PARTS if (part := getattr(call, name)) is not None}
    return checks.replace(call, **moved)


def poisoned(work: Callable[[], Any]) -> Any:
    """What `work` gives, all memory that PyTorch hands out being full of NaN (or of the largest integers) at first."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(3).isnan().all()
        return work()
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


def covered(call: AttentionCall, device: str) -> AttentionCall:
    """The call on a device, where the kernels take it."""
    from attnprobe.engines.triton import covers

    moved = on(call, device)
    reason = covers(moved)
    assert reason is None, reason
    return moved


def check_tiles(call: AttentionCall, device: str, heads: Any = None, rows: Any = None, budget: int = 1 << 24) -> None:
    """Promise 1: weights and sink mass within 1e-6 + 4 eps32 max|logit| of float64, valid where a key is."""
    from attnprobe.engines.triton import tiles

    heads = tuple(range(call.heads)) if heads is None else heads
    rows = range(call.queries) if rows is None else rows
    want, mass, logits = checks.formula(call)
    moved = covered(call, device)
    got = torch.full(want.shape, torch.nan)
    seen = torch.zeros(want.shape[:3], dtype=torch.int)
    for tile in poisoned(lambda: list(tiles(moved, heads, rows, budget))):
        assert tile.weights.nbytes <= max(budget // 4, call.batch * call.keys * 4)
        at = np.ix_(range(call.batch), tile.heads, list(tile.rows))
        part = torch.zeros(call.batch, len(tile.heads), len(tile.rows), call.keys)
        part[..., tile.start : tile.start + tile.weights.shape[3]] = tile.weights.cpu()
        got[at] = part
        seen[at] += 1
        bound = 1e-6 + 4 * checks.EPS * logits[at].abs().amax(-1)
        worst = ((part - want[at]).abs().amax(-1) / bound).max()
        assert worst <= 1, f"{float(worst):.3g} times the bound"
        assert (tile.sink_mass is None) == (call.sinks is None)
        if tile.sink_mass is not None:
            assert ((tile.sink_mass.cpu() - mass[at]).abs() <= bound).all()
        there = torch.ones(()).bool() if tile.valid is None else tile.valid.cpu()
        assert ((want[at] > 0).any(-1) == there).all()
    picked = np.ix_(range(call.batch), heads, list(rows))
    assert (seen[picked] == 1).all() and seen.sum() == seen[picked].numel()


def check_named(name: str, dtype: torch.dtype, device: str) -> None:
    """One of the named calls, whole, and some heads and rows of it in small tiles."""
    call = checks.calls()[name]
    call = checks.replace(call, query=call.query.to(dtype), key=call.key.to(dtype))
    check_tiles(call, device)
    check_tiles(call, device, (1, 2), tuple(range(0, call.queries, 2)), 1 << 13)


def check_drawn(spec: dict[str, Any], device: str) -> None:
    """A call that hypothesis drew."""
    check_tiles(drawn(spec), device, spec["some_heads"], spec["some_rows"], spec["budget"])


def drawn(spec: dict[str, Any]) -> AttentionCall:
    """The call that a drawn specification means; tensors are made where they are needed."""
    batch, rows, columns, heads = (spec[name] for name in ("batch", "rows", "columns", "heads"))
    generator = torch.Generator().manual_seed(spec["seed"])
    mask, dtype = spec["mask"], spec["dtype"]
    if mask in ("boolean", "additive"):
        mask = checks.padding(batch, columns + 2, torch.bool if mask == "boolean" else dtype)
    elif mask == "holes":
        mask = torch.rand(batch, heads, rows, columns, generator=generator) < 0.6
    elif mask == "added":
        mask = torch.randn(1, heads, rows, columns, generator=generator).to(dtype)
        mask = mask.masked_fill(torch.rand(1, heads, rows, columns, generator=generator) < 0.3, -torch.inf)
    sinks = {
        None: None,
        "head": torch.linspace(-1, 1, heads).to(dtype),
        "query": torch.randn(batch, heads, rows, 1, generator=generator),
    }[spec["sinks"]]
    bias = torch.randn(1, heads, rows, columns, generator=generator).to(dtype) if spec["bias"] else None
    call = checks.random_call(
        **{name: spec[name] for name in ("seed", "batch", "heads", "kv_heads", "rows", "columns", "dim", "gain")},
        **{name: spec[name] for name in ("causal", "window", "cap")},
        mask=mask,
        bias=bias,
        sinks=sinks,
    )
    query, key = call.query.to(dtype), call.key.to(dtype)
    if spec["strided"]:  # as projections give them, [batch, row, head, dim]
        query, key = (part.transpose(1, 2).contiguous().transpose(1, 2) for part in (query, key))
    return checks.replace(call, query=query, key=key)


def compile_for(kernel: Any, arguments: dict[str, Any], capability: int, every: bool) -> list[Any]:
    """What a kernel compiles to, the device's own code, without a GPU; in every configuration, or the smallest."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names, constants = kernel.fn.arg_names, {p.name for p in kernel.fn.params if p.is_constexpr}
    results = []
    for one in kernel.early_config_prune(kernel.configs, {}, **arguments)[0 if every else -1 :]:
        given = {**arguments, **one.kwargs}
        assert given.keys() == set(names), given.keys() ^ set(names)
        signature, aligned = {}, {}
        for place, name in enumerate(names):
            value = given[name]
            if name in constants:
                signature[name] = "constexpr"
            elif isinstance(value, torch.Tensor):
                signature[name] = "*" + POINTERS[value.dtype]
                aligned[(place,)] = [["tt.divisibility", 16]]
            elif kernel.fn.params[place].do_not_specialize:
                signature[name] = "i32"
            elif value == 1 and isinstance(value, int):  # as triton itself does it
                signature[name] = "constexpr"
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
                if value % 16 == 0 and isinstance(value, int):
                    aligned[(place,)] = [["tt.divisibility", 16]]
        fixed = {name: given[name] for name in names if signature[name] == "constexpr"}
        source = ASTSource(kernel.fn, signature, fixed, aligned)
        options = {"num_warps": one.num_warps, "num_stages": one.num_stages, "enable_fp_fusion": True}
        results.append(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options))
    return results


def check_compiles(width: int, dtype: torch.dtype, capability: int, parts: dict[str, Any], every: bool) -> None:
    """Every kernel compiles for a device, and one of its configurations fits any device's shared memory."""
    query = torch.zeros(1, 4, 300, width, dtype=dtype)
    call = AttentionCall(query, query[:, :2], 0.1, **parts)
    for kernel, arguments in launches(call):
        made = compile_for(kernel, arguments, capability, every)
        assert all(len(one.asm["cubin"]) > 1000 for one in made)
        assert min(one.metadata.shared for one in made) <= SHARED, kernel.fn.__name__


def launches(call: AttentionCall) -> list[tuple[Any, dict[str, Any]]]:
    """Every kernel, and what it is launched with for a call."""
    from attnprobe.engines.triton.kernels import folds, largest, rows, weights
    from attnprobe.engines.triton.operands import Operands

    operands = Operands.of(call, tuple(range(call.heads)), range(call.queries))
    number = operands.empty()
    place = {"row_shift": 0, "column_shift": 0, "length": call.keys, "first": 4}
    row = {
        "reach": 64,
        "ids": operands.common["rows"],
        "numbers": number,
        "POSITIONS": True,
        "IDS": True,
        "PLACE": True,
    }
    top = {name: place[name] for name in ("column_shift", "length", "first")}
    top |= {"last": 9, "positions": operands.common["rows"], "K": 8, "values": number, "among": number}
    fold = {"last_low": 0, "last_high": 64, "received": number, "pooled": number, "distances": number}
    fold |= {
        "down_count": 150,
        "unit_count": 150,
        "block_count": 10,
        "DISTANCES": True,
        "LAST": True,
        "CELL": 64,
        "UNIT": 32,
    }
    return [
        (rows.measure, {**operands.common, **operands.sinks, **place, **row}),
        (largest.largest, {**operands.common, **operands.sinks, **top, "strays": number}),
        (folds.fold, {**operands.common, "lse": number, **place, **fold}),
        (weights.normalise, {**operands.common, "largest": number, "total": number, "split": 3}),
        (weights.write, {**operands.common, "lse": number, "weights": number, "low": 0, "width": call.keys}),
    ]


def check_nan(device: str) -> None:
    """A NaN in the model stays one, in its row and no other."""
    from attnprobe.engines.triton import tiles

    call = checks.random_call(mask=checks.padding(2, 13))
    call.query[0, 0, 3] = torch.nan
    (tile,) = poisoned(lambda: list(tiles(covered(call, device), (0, 1), range(9), 1 << 20)))
    broken = tile.weights.isnan().any(-1).cpu()
    assert broken[0, 0, 3] and broken.sum() == 1
    assert tile.valid is not None and tile.valid.all()


def check_nan_measures(device: str) -> None:
    """Every number of a row that is NaN is NaN, whether or not the device's largest of NaNs is one."""
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    call = checks.random_call(batch=1, rows=40, columns=40, causal="upper-left")
    call.query[0, 0, 30] = torch.nan
    by, place = fused(covered(call, device)), Place(0, 0, 0, 40, 40)
    assert by is not None
    names = "entropy,max,argmax,first_mass(1),self,previous,local_mass(4),distance"
    (got,) = by.measure(on(call, device), (0, 1), range(40), place, choose(names), 1 << 20)
    for name in names.split(","):
        broken = got.values[name].isnan().cpu()
        broken[:, 0] = False  # the first row has no previous one
        assert broken[0, 30] and broken.sum() == 1, name


def check_same_peak_for_long(device: str) -> None:
    """Sums over a row whose largest logit comes first are whole however many blocks of keys follow.

    Key 0 has about a quarter of each row's mass, and all others together the rest.
    """
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    keys, rows, width = (131_072, 64, 16) if device == "cuda" else (1024, 16, 16)
    query, key = torch.zeros(1, 1, rows, width), torch.zeros(1, 1, keys, width)
    query[0, 0, :, 0], query[0, 0, :, 1] = torch.linspace(66.0, 133.0, rows), 3.0
    key[..., 0] = 1.0
    key[0, 0, 1:, 1] = 0.3 * torch.randn(keys - 1, generator=torch.Generator().manual_seed(0)) - float(np.log(keys))
    call = AttentionCall(query, key, 0.3, causal="bottom-right")
    logits = 0.3 * query[0, 0].double() @ key[0, 0].double().T
    logits = logits.masked_fill(torch.ones(rows, keys, dtype=torch.bool).triu(keys - rows + 1), -torch.inf)
    want, bound = logits.softmax(-1)[:, 0], 1e-6 + 4 * checks.EPS * logits[:, 0]
    by, place = fused(covered(call, device)), Place(0, keys - rows, 0, keys, keys)
    assert by is not None
    (got,) = by.measure(on(call, device), (0,), range(rows), place, choose("first_mass(1),received"), 1 << 30)
    worst = ((got.values["first_mass(1)"][0].cpu() - want).abs() / bound).max()
    assert worst <= 1, f"{float(worst):.3g} times the bound"
    assert abs(float(got.values["received"][0, 0]) - float(want.sum())) <= float(bound.sum())


def _guarded(numbers: torch.Tensor) -> torch.Tensor:
    """The same numbers where memory ends: behind the last one is a page that nobody may read."""
    size = -(-numbers.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(at + size), mmap.PAGESIZE, 0) == 0
    kept = torch.frombuffer(memory, dtype=numbers.dtype, count=numbers.numel(), offset=size - numbers.nbytes)
    return kept.view(numbers.shape).copy_(numbers)


def check_the_end_of_memory(device: str) -> None:
    """No row or column behind the last one is read, of queries, keys, a mask or a bias."""
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused, tiles

    if device != "cpu":
        return  # compute-sanitizer tells it there
    call = checks.random_call(batch=1, heads=2, kv_heads=1, rows=37, columns=45, causal="bottom-right", window=30)
    parts = {"bias": torch.randn(1, 2, 37, 45), "mask": torch.ones(1, 1, 37, 45, dtype=torch.bool)}
    call = checks.replace(call, **parts)
    call = checks.replace(call, **{name: _guarded(getattr(call, name)) for name in ("query", "key", "bias", "mask")})
    by, place = fused(call), Place(0, 8, 0, 45, 45)
    assert by is not None
    (got,) = by.measure(call, (0, 1), range(37), place, choose("entropy,received,pooled,distances"), 1 << 20)
    (top,) = by.top(call, (0, 1), range(37), place, 2, slice(None), 1 << 20)
    (tile,) = tiles(call, (0, 1), range(37), 1 << 20)
    assert not got.stray.isnan() and not top.stray.isnan() and not tile.weights.isnan().any()


def check_few_columns(device: str) -> None:
    """Only columns that rows can see are made: those of a window, those up to the last row's own."""
    from attnprobe.engines.triton import tiles

    call = covered(
        checks.random_call(batch=1, rows=64, columns=64, causal="bottom-right", window=8, kv_heads=4), device
    )
    made = list(tiles(call, (0,), range(60, 64), 1 << 20))
    assert [(tile.start, tile.weights.shape[3]) for tile in made] == [(53, 11)]
    assert made[0].causal


def reasons(device: str) -> dict[str, str | None]:
    """Why calls are not covered."""
    from attnprobe.engines.triton import covers

    call = on(checks.random_call(), device)
    query, key = call.query, call.key
    wide = torch.zeros(1, 1, 2, 257, device=device)
    changed: dict[str, dict[str, Any]] = {
        "nothing": {},
        "double": {"query": query.double(), "key": key.double()},
        "mixed": {"key": key.half()},
        "wide": {"query": wide, "key": wide},
        "function": {"allowed": lambda b, h, i, j: i >= j},
        "mask": {"mask": torch.zeros(1, 1, 9, 13, dtype=torch.float64, device=device)},
        "bias": {"bias": torch.zeros(1, 1, 9, 13, dtype=torch.int32, device=device)},
    }
    return {name: covers(checks.replace(call, **parts)) for name, parts in changed.items()}


def check_fallback(device: str) -> None:
    """What is not covered gets exact tiles all the same."""
    call = checks.random_call(causal="bottom-right")
    mirrored = checks.replace(call, causal="none", allowed=lambda b, h, i, j: j <= i + 4)
    from attnprobe.engines.triton import tiles

    (got,), (want,) = (list(tiles(on(one, device), (0, 3), range(9), 1 << 20)) for one in (mirrored, call))
    assert (got.weights[..., : want.weights.shape[3]] - want.weights).abs().max() <= 1e-6


def check_measures(
    call: AttentionCall, device: str, rows: range | None = None, pad: int = 0, names: str = NAMES
) -> None:
    """Measures of one sample: a call's rows, its first `pad` columns being padding.

    Rows are at the end of the columns, or, under the upper-left rule, at their beginning.
    """
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    by, heads = fused(covered(call, device)), tuple(range(call.heads))
    assert by is not None
    weights, mass, _ = checks.formula(call)
    rows = range(call.queries) if rows is None else rows
    length = call.keys - pad
    shift = call.diagonal - pad
    ids = torch.randint(0, 4, (length,), generator=torch.Generator().manual_seed(length)).numpy()
    prompt = max(length - 2, 1)
    for b in range(call.batch):
        place = Place(b, shift, -pad, length, length, prompt, Tokens(ids))
        chosen = choose(names)
        assert by.measures(chosen, rows, place)
        field = Field(0, SITE, 0, heads)
        measurer, found = Measurer(chosen, field), {}
        for got in poisoned(lambda: list(by.measure(on(call, device), heads, rows, place, chosen, 1 << 20))):  # noqa: B023
            assert got.stray <= 1e-6
            values = measurer.update(fused_rows(field, rows, place, got, Scratch()))
            for of, block in values.blocks(field, values.values.cpu()):
                absent = -1 if of.dtype == "int32" else np.nan
                whole = found.setdefault(of.what, np.full((len(heads), length), absent, block.values.numpy().dtype))
                whole[np.ix_(block.heads, list(block.rows))] = block.values[..., 0].numpy()
        for of, block in measurer.finish(length, length):
            values = block.values.cpu().numpy()
            found[of.what] = values if len(of.axes) == 2 else values[..., 0]
        expected = {one.name for one in chosen} | {
            f"{one.name}.mean" for one in chosen if one.measure.axes == ("query",)
        }
        assert found.keys() == expected - {"argmax.mean"}, found.keys() ^ expected
        for head in heads:
            dense, sink = np.zeros((length, length)), np.zeros(length)
            into = np.array(rows) + shift
            dense[into] = weights[b, head, list(rows), pad:].numpy()
            sink[into] = mass[b, head, list(rows)].numpy()
            whole = reference.Map(dense, dense.any(-1), ids, prompt, sink)
            for name, array in found.items():
                reference.check(name, array[head], whole)


def check_named_measures(name: str, dtype: torch.dtype, device: str) -> None:
    """Measures of one of the named calls."""
    call = checks.calls()[name]
    call = checks.replace(call, query=call.query.to(dtype), key=call.key.to(dtype))
    check_measures(call, device)


def check_some_rows(device: str) -> None:
    """Measures of some rows, a sink beside them."""
    check_measures(checks.calls()["everything"], device, range(2, 5))


def check_drawn_measures(spec: dict[str, Any], device: str) -> None:
    """Measures of a call that hypothesis drew."""
    check_measures(drawn(spec), device)


def check_padded_measures(device: str) -> None:
    """Measures of a sample behind three columns of padding, its first rows being padding too."""
    mask = (torch.arange(40) >= 3)[None, None, None]
    call = checks.random_call(batch=1, rows=40, columns=40, mask=mask, causal="upper-left")
    check_measures(call, device, range(3, 40), pad=3)


def check_long_measures(device: str) -> None:
    """Measures where pooled cells are of several rows and columns, and blocks are many."""
    call = checks.random_call(batch=1, heads=1, kv_heads=1, rows=261, columns=261, causal="bottom-right")
    check_measures(call, device, names=LONG)
    part = checks.replace(call, query=call.query[:, :, 200:], causal="none", window=70)
    check_measures(part, device, range(7, 61), names=LONG)


def check_stray(device: str) -> None:
    """The largest weight outside of the sample is found, so that a misread call is refused."""
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    call = checks.random_call(batch=1, causal="upper-left", rows=20, columns=20)
    by = fused(covered(call, device))
    assert by is not None
    place = Place(0, -3, -3, 17, 17)
    rows, chosen = range(3, 20), choose("entropy")
    (got,) = by.measure(on(call, device), (1, 2), rows, place, chosen, 1 << 20)
    want = checks.formula(call)[0][0, 1:3, 3:, :3].max()
    assert abs(got.stray.item() - want) <= 1e-5 and want > 0.1


def check_top(call: AttentionCall, device: str, rows: range | None = None, pad: int = 0) -> None:
    """The largest weights of one sample, its first `pad` columns being padding: of all keys, and of some."""
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    by, heads = fused(covered(call, device)), tuple(range(call.heads))
    assert by is not None and by.most >= 8
    weights, _, logits = checks.formula(call)
    rows = range(call.queries) if rows is None else rows
    place = Place(0, call.diagonal - pad, -pad, call.keys - pad, call.keys - pad)
    for k, keys in ((1, slice(None)), (5, slice(2, 9)), (8, slice(None))):
        (got,) = poisoned(lambda: list(by.top(on(call, device), heads, rows, place, k, keys, 1 << 20)))  # noqa: B023
        bound = (1e-6 + 4 * checks.EPS * logits[0][:, list(rows)].abs().amax(-1)).numpy()[..., None]
        values, at, rest = (part.cpu().numpy() for part in (got.values, got.positions, got.rest))
        assert got.heads == heads and values.shape == at.shape == (len(heads), len(rows), k)
        dense = weights[0][:, list(rows), pad:].numpy()
        for head in heads:
            whole = reference.Map(dense[head], dense[head].any(-1))
            want, _, left = reference.top(whole, k, keys)
            assert (np.abs(values[head] - want) <= bound[head]).all(), (k, keys)
            assert np.allclose(rest[head], left, atol=1e-5)
            chosen = at[head] >= 0
            assert (chosen == (values[head] > 0)).all() and (np.diff(values[head], axis=-1) <= 0).all()
            there = np.take_along_axis(dense[head], np.maximum(at[head], 0), 1)
            assert (np.abs(there - values[head])[chosen] <= np.broadcast_to(bound[head], there.shape)[chosen]).all()
            allowed = (at[head] >= (keys.start or 0)) & (at[head] < (keys.stop or dense.shape[2]))
            assert allowed[chosen].all()
            assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in at[head])


def check_named_top(name: str, dtype: torch.dtype, device: str) -> None:
    """The largest weights of one of the named calls."""
    call = checks.calls()[name]
    check_top(checks.replace(call, query=call.query.to(dtype), key=call.key.to(dtype)), device)


def check_other_top(device: str) -> None:
    """Behind padding; of many blocks of keys; and of equal weights the ones at the lowest positions."""
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    mask = (torch.arange(40) >= 3)[None, None, None]
    check_top(checks.random_call(batch=1, rows=40, columns=40, mask=mask, causal="upper-left"), device, range(3, 40), 3)
    check_top(checks.random_call(batch=1, rows=20, columns=130, causal="bottom-right", gain=0.3), device)
    flat = on(checks.random_call(batch=1, rows=40, columns=40, causal="upper-left", gain=0.0), device)
    flat.query.mul_(-1)  # zeros of either sign
    by = fused(flat)
    assert by is not None
    (got,) = by.top(flat, (0, 1), range(20, 40), Place(0, 0, 0, 40, 40), 4, slice(None), 1 << 20)
    assert (got.positions.cpu() == torch.arange(4)).all()


def check_heads_in_turn(device: str) -> None:
    """With a small budget heads come a few at a time, and measure the same."""
    from attnprobe.engines.fused import Place
    from attnprobe.engines.triton import fused

    call = on(checks.random_call(batch=1, causal="upper-left", rows=13), device)
    by, place, chosen = fused(call), Place(0, 0, 0, 13, 13), choose("entropy,received")
    assert by is not None
    (whole,) = by.measure(call, (0, 1, 2, 3), range(13), place, chosen, 1 << 20)
    parts = list(by.measure(call, (0, 1, 2, 3), range(13), place, chosen, 12_000))
    assert len(parts) > 1 and sum((part.heads for part in parts), ()) == (0, 1, 2, 3)
    for name in ("entropy", "received"):
        assert torch.equal(torch.cat([part.values[name] for part in parts]), whole.values[name])


def check_recording(name: str, device: str) -> None:
    """What is measured of a whole model through the kernels is what its weights say, and what torch's tiles do."""
    import models

    import attnprobe as ap
    from attnprobe.engines.triton import measuring, ranking

    model = models.gpt2(n_layer=1, n_head=2, n_embd=32).to(device)
    launched = []
    before = measuring.launch

    def watched(kernel: Any, *given: Any, **named: Any) -> None:
        launched.append(kernel.base_fn.__name__)
        before(kernel, *given, **named)

    def record(keep: list[Any], engine: str) -> Any:
        with torch.no_grad(), ap.record(model, keep=keep, engine=engine) as rec:
            if name == "generate":
                batch = {key: part.to(device) for key, part in models.padded([20, 12], "left").items()}
                model.generate(**batch, max_new_tokens=3, min_new_tokens=3, pad_token_id=0)
            elif name == "forward":
                model(**{key: part.to(device) for key, part in models.padded([20, 12, 1], "right").items()})
            else:
                for part in models.ids(2, 20).to(device).split(7, 1):
                    model(part)
        return rec.run

    top = [ap.TopK("all", 5)]
    measuring.launch = ranking.launch = watched
    try:
        run, mine = record([ap.Weights(), ap.Measures("all", measure_checks.NAMES)], "triton"), record(top, "triton")
    finally:
        measuring.launch = ranking.launch = before
    assert set(launched) == {"measure", "fold", "largest"}, launched
    measure_checks.check_run(run)
    other = record(top, "torch")
    for sample in other.samples:
        fields = {field.what: (field, pieces) for field, pieces in other.reader.fields(sample.index).items()}
        found = {field.what: (field, pieces) for field, pieces in mine.reader.fields(sample.index).items()}
        assert fields.keys() == found.keys() == {"top", "top_keys", "top_rest"}
        for what, (field, pieces) in fields.items():
            rows, width = kept_rows(pieces), 1 if what == "top_rest" else 5
            want, got = (
                read_rows(one.reader, which, held, field.heads, rows, range(width))
                for one, (which, held) in ((other, (field, pieces)), (mine, found[what]))
            )
            assert np.array_equal(got, want) if what == "top_keys" else np.allclose(got, want, atol=2e-6), what
