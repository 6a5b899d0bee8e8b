"""Selections near to what was asked for, and how they are written."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from attnprobe.fields import DTYPES
from attnprobe.keep import Item, Measures, TopK, Weights
from attnprobe.planning.load import Load
from attnprobe.planning.plan import Plan
from attnprobe.selection import Indices

ELSEWHERE = Path("runs/recording")  # a directory to write instead of memory
BUDGET = 256 << 20  # what is not written, since it is the default
LEAST_BUDGET = 8 << 20
LARGEST_TOP = 64

Choice = tuple[tuple[Item, ...], Path | None, int]
Fitting = Callable[[Sequence[Item], Path | None, int], Plan | None]


def alternatives(
    items: tuple[Item, ...],
    pairs: Sequence[tuple[int, int]],
    load: Load,
    to: Path | None,
    budget: int,
    fitting: Fitting,
) -> Iterator[tuple[Choice, Plan]]:
    """The same on disk, in fewer bytes a weight, of fewer rows or heads, fewer weights a row, statistics, less memory.

    Of each kind the one that keeps most, if it fits; `fitting` gives its plan then. `pairs` are the selected layers and
    heads.
    """
    kinds: list[list[Choice]] = [
        [(items, ELSEWHERE, budget)] if to is None else [],
        [(tuple(_in(dtype, item) for item in items), to, budget) for dtype in ("float16", "log-uint8")],
        [(found, to, budget) for found in _last_rows(items, load)],
        [(found, to, budget) for found in _first_heads(items, pairs)],
        [(found, to, budget) for found in _tops(items, load)],
        [(_measured(items), to, budget)],
        [(items, to, budget >> n) for n in range(1, 64) if budget >> n >= LEAST_BUDGET],
    ]
    for kind in kinds:
        choices = [choice for choice in kind if choice != (items, to, budget)]
        found = _first_fitting(choices, fitting)
        if found is not None:
            yield found


def _first_fitting(choices: list[Choice], fitting: Fitting) -> tuple[Choice, Plan] | None:
    """The first that fits, of choices that take less and less."""
    best = None
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        plan = fitting(*choices[middle])
        if plan is None:
            low = middle + 1
        else:
            best, high = (choices[middle], plan), middle
    return best


def _in(dtype: str, item: Item) -> Item:
    """In a dtype, where that takes fewer bytes a weight."""
    if isinstance(item, Weights | TopK) and DTYPES[dtype] < DTYPES[item.dtype]:
        return replace(item, dtype=dtype)
    return item


def _last_rows(items: tuple[Item, ...], load: Load) -> Iterator[tuple[Item, ...]]:
    """The last rows of the prompt, by powers of two; of selections that name single rows, nothing."""
    for item in items:
        queries = item.selection.queries
        if not (queries.everything or _is_tail(queries)):
            return
    most = max(len(load.rows(item.selection)) for item in items)
    for power in range((most - 1).bit_length() - 1, -1, -1):
        rows = 1 << power
        yield tuple(
            replace(item, queries=f"-{rows}:") if len(load.rows(item.selection)) > rows else item for item in items
        )


def _is_tail(queries: Indices) -> bool:
    """Whether these are the last rows: ``-64:``."""
    (part, *others) = queries.parts
    return not others and isinstance(part, slice) and (part.start or 0) < 0 and part.stop is None and part.step is None


def _first_heads(items: tuple[Item, ...], pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[Item, ...]]:
    """The first heads of every layer, then one head of one layer; of single heads that were named, the first ones."""
    if any(item.selection.pairs is not None for item in items):
        names = [f"L{layer}H{head}" for layer, head in pairs]
        for count in range(len(names) - 1, 0, -1):
            yield tuple(replace(item, layers="all", heads=",".join(names[:count])) for item in items)
        return
    heads = sorted({head for _, head in pairs})
    for count in range(len(heads) - 1, 0, -1):
        chosen = heads[:count]
        span = f"0-{count - 1}" if count > 1 and chosen == list(range(count)) else ",".join(map(str, chosen))
        yield tuple(replace(item, heads=span) for item in items)
    if len(pairs) > 1:
        layer, head = pairs[0]
        yield tuple(replace(item, layers="all", heads=f"L{layer}H{head}") for item in items)


def _tops(items: tuple[Item, ...], load: Load) -> Iterator[tuple[Item, ...]]:
    """The largest weights of each row instead of all, or fewer of them."""
    k = LARGEST_TOP
    while k:
        if k < load.length:
            yield tuple(_top(item, k) for item in items)
        k //= 2


def _top(item: Item, k: int) -> Item:
    if isinstance(item, Weights):
        return TopK(k=k, **_words(item, TopK))
    return replace(item, k=min(item.k, k)) if isinstance(item, TopK) else item


def _measured(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Statistics of the same rows, each once."""
    found: list[Item] = []
    for item in items:
        new = item if isinstance(item, Measures) else Measures(**_words(item, Measures))
        if new not in found:
            found.append(new)
    return tuple(found)


def _words(item: Item, kind: type[Item]) -> dict[str, Any]:
    """What an item says and another kind of item may say too."""
    there = {part.name for part in fields(kind)}
    return {part.name: getattr(item, part.name) for part in fields(item) if part.name in there - {"k", "names"}}


# --- how they are written ------------------------------------------------------------------------------------------


def as_code(items: Sequence[Item], to: Path | None, budget: int) -> str:
    """Arguments of `record` and `plan`."""
    only = items[0] if len(items) == 1 else None
    if isinstance(only, Weights):
        parts = _arguments(only)
    elif isinstance(only, Measures):
        parts = [f"measures={_literal(only.names)}", *(part for part in _arguments(only) if part[:6] != "names=")]
    else:
        made = [f"ap.{type(item).__name__}({', '.join(_arguments(item))})" for item in items]
        parts = [f"keep=[{', '.join(made)}]"]
    if to is not None:
        parts.append(f"to={_literal(str(to))}")
    if budget != BUDGET:
        parts.append(f"budget={_literal(_mebibytes(budget))}")
    return ", ".join(parts)


def as_options(items: Sequence[Item], to: Path | None, budget: int) -> str:
    """The same for the command line; `to` is None where no other place is meant. Items have one selection there."""
    parts = []
    for item in items:
        if isinstance(item, TopK):
            parts += ["--keep", f"topk:{item.k}"]
        elif isinstance(item, Measures):
            names = item.names if isinstance(item.names, str) else ",".join(map(str, _listed(item.names)))
            parts += ["--keep", "measures" if names == "default" else f"measures:{names}"]
        elif len(items) > 1:
            parts += ["--keep", "weights"]
    words: dict[str, Any] = {}
    for item in reversed(items):
        words |= _said(item)
    parts += ["--no-pyramid"] if "pyramid" in words else []
    named = {name: value for name, value in words.items() if name not in ("k", "names", "pyramid")}
    parts += [str(part) for name, value in named.items() for part in (f"--{name}", value)]
    parts += [] if to is None else ["-o", str(to)]
    parts += [] if budget == BUDGET else ["--budget", _mebibytes(budget)]
    return shlex.join(parts)


def _listed(names: Any) -> list[Any]:
    return list(names) if isinstance(names, list | tuple) else [names]


def _said(item: Item) -> dict[str, Any]:
    """What an item says that is not the default."""
    default = type(item)()
    return {
        part.name: getattr(item, part.name)
        for part in fields(item)
        if getattr(item, part.name) != getattr(default, part.name)
    }


def _arguments(item: Item) -> list[str]:
    said = _said(item) | ({"k": item.k} if isinstance(item, TopK) else {})
    return [f"{name}={_literal(value)}" for name, value in said.items()]


def _literal(value: Any) -> str:
    """As Python writes it, strings in double quotes."""
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in text else text


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB" if size % (1 << 20) == 0 else str(size)
