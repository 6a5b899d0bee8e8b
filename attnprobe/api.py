"""`record` and `plan`: what a user calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.errors import SelectionError
from attnprobe.items import read_items
from attnprobe.keep import Item
from attnprobe.measures import Measure
from attnprobe.planning import Load, Plan, Planner
from attnprobe.planning.words import check_window, parse_device, parse_others, parse_tokens
from attnprobe.recorder import Recorder
from attnprobe.selection import HeadsLike, IndexLike
from attnprobe.sites import find_sites
from attnprobe.sizes import parse_bytes


def record(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    to: str | Path | None = None,
    keep: Sequence[Item] | Item | None = None,
    layers: HeadsLike = "all",
    heads: HeadsLike = "all",
    queries: IndexLike = "all",
    keys: IndexLike = "all",
    generated: str = "all",
    kind: str = "all",
    dtype: Any = "float32",
    pyramid: bool = True,
    measures: str | Measure | Sequence[str | Measure] | None = None,
    engine: str = "auto",
    budget: int | str = "256 MiB",
    overwrite: bool = False,
    resume: bool = False,
    data: Mapping[str, Any] | None = None,
    workers: tuple[int, int] = (0, 1),
    text: bool = True,
    threads: str = "own",
    profile: bool = False,
) -> Recorder:
    """Record a model's attention weights while it runs as it normally runs.

    Use it as a context manager and run the model inside of the block; ``rec.run`` is there after it. The model's
    output does not change by one bit, and when the block ends, the model is as it was.

    Parameters
    ----------
    model
        A Hugging Face model, or one of your own; of a compiled one, what ``torch.compile`` returned.
    tokenizer
        Gives tokens their strings; without it, tokens are known by position.
    to
        A directory to stream the run to; in memory if None.
    keep
        What to keep: `Weights`, `TopK`, `Measures`, one or several; or use the keywords below, short for one.
    layers, heads, queries, keys, generated, kind, dtype, pyramid
        See `Weights`.
    measures
        Keep these measures and no weights, as in ``measures="default"``; see `Measures`.
    engine
        ``"auto"`` (triton on CUDA, else torch), ``"triton"`` (fused kernels), ``"torch"`` (row blocks) or ``"dense"``
        (the definition in float64, for tests). What kernels do not cover falls to torch.
    budget
        Bytes of working memory (``"256 MiB"``); what you keep in memory comes on top.
    overwrite
        Replace the run that `to` holds.
    resume
        Go on with the run that `to` holds, or start it. Samples that it lists are whole; `Recorder.done` has the names
        of those that were named. The model, the selection and `data` have to be those of the start.
    data
        What the samples are of, kept in the run: anything that JSON has.
    workers
        Rank of this process, and how many write the run together, with ``resume=True``.
    text
        Keep token ids and strings; if False, only which tokens repeat.
    threads
        ``"own"`` records calls of this thread, ``"all"`` those of every thread.
    profile
        Take down what recording itself takes, by stage and layer: ``rec.profile``.

    Raises
    ------
    SelectionError
        If a selection is malformed, out of range or empty.
    UnsupportedModel
        If the model's attention cannot be recorded exactly.
    RunExists
        If `to` is taken (when the block is entered).
    StoreError
        If the run to go on with is of another model, selection, format or data (when the block is entered).

    Examples
    --------
    >>> with record(model, tokenizer, layers="0,3-5") as rec:  # doctest: +SKIP
    ...     model(**tokenizer("Maia likes to explore", return_tensors="pt"))
    >>> rec.run[0, 9].row(" explore")  # doctest: +SKIP
    """
    items = read_items(
        keep,
        measures,
        layers=layers,
        heads=heads,
        queries=queries,
        keys=keys,
        generated=generated,
        kind=kind,
        dtype=dtype,
        pyramid=pyramid,
    )
    path = None if to is None else Path(to).absolute()  # a later change of directory does not move the run
    ways = resume, data, workers, profile
    return Recorder(model, tokenizer, items, path, engine, budget, overwrite, text, threads, *ways)


def plan(
    model: nn.Module,
    tokens: int | str | Sequence[int] | Tensor = 32768,
    *,
    batch: int = 1,
    generate: int = 0,
    source: int | str = 0,
    others: Mapping[str, int | str] | None = None,
    to: str | Path | None = None,
    keep: Sequence[Item] | Item | None = None,
    layers: HeadsLike = "all",
    heads: HeadsLike = "all",
    queries: IndexLike = "all",
    keys: IndexLike = "all",
    generated: str = "all",
    kind: str = "all",
    dtype: Any = "float32",
    pyramid: bool = True,
    measures: str | Measure | Sequence[str | Measure] | None = None,
    budget: int | str = "256 MiB",
    device: str | torch.device | None = None,
) -> Plan:
    """Tell what a recording will take, before anything runs: bytes kept, peak memory beside the model's, operations.

    Bytes kept are exact for samples without padding; memory is what is taken at most; operations are estimates. Nothing
    is run, and the model's numbers are not read: a model on the meta device does.

    Parameters
    ----------
    model
        A Hugging Face model.
    tokens
        Of the prompt: a number, ``"32k"`` (32 x 1024), or token ids, ``[batch, token]`` or those of one sample.
    batch
        Samples that run together.
    generate
        Tokens that are generated after the prompt.
    source
        Tokens of an encoder, which cross-attention looks at; 0 for a model that is run without.
    others
        Lengths of further sequences, by the names that `Recorder.sites` has: ``{"image": 577}``.
    to, keep, layers, heads, queries, keys, generated, kind, dtype, pyramid, measures, budget
        See `record`.
    device
        Where the model will run, ``"cuda"``; None for where it is (for a model on the meta device, the CPU).

    Raises
    ------
    SelectionError
        If a selection is malformed, out of range or empty, or the tokens do not fit the model's context window.
    UnsupportedModel
        If the model's attention is of an unknown kind.
    BudgetError
        If one row of one head does not fit `budget`. Whether the whole fits is ``plan.fits``, and ``plan.check()``
        refuses what does not.

    Examples
    --------
    >>> plan(model, "32k", queries="-1024:")  # doctest: +SKIP
    """
    items = read_items(
        keep,
        measures,
        layers=layers,
        heads=heads,
        queries=queries,
        keys=keys,
        generated=generated,
        kind=kind,
        dtype=dtype,
        pyramid=pyramid,
    )
    length, rows = parse_tokens(tokens)
    if rows is not None and batch not in (1, rows):
        raise SelectionError(f"batch={batch} beside token ids of {rows} samples; leave it out")
    if batch < 1 or generate < 0:
        raise SelectionError(f"batch={batch}, generate={generate}: at least one sample, and no fewer than 0 tokens")
    anatomy = find_sites(model)
    lengths = parse_others(anatomy, {**({"source": source} if source else {}), **(others or {})})
    for stream in anatomy.streams:
        main = stream is anatomy.main
        check_window(stream.backbone, length if main else lengths.get(stream.name, 0), generate if main else 0)
    at = None if device is None else parse_device(device)
    planner = Planner(model, anatomy, items, parse_bytes(budget), None if to is None else Path(to).absolute(), at)
    pairs = tuple(lengths.items())
    load = Load(rows or batch, length, max(generate - 1, 0), others=pairs, name=anatomy.main.name)
    return planner.plan(load, generate)
