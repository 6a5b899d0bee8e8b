"""`record`: what a user calls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from attnprobe.errors import SelectionError
from attnprobe.keep import Weights
from attnprobe.recorder import Recorder
from attnprobe.selection import HeadsLike, IndexLike


def record(
    model: nn.Module,
    tokenizer: Any = None,
    *,
    to: str | Path | None = None,
    keep: Sequence[Weights] | Weights | None = None,
    layers: HeadsLike = "all",
    heads: HeadsLike = "all",
    queries: IndexLike = "all",
    keys: IndexLike = "all",
    generated: str = "all",
    kind: str = "all",
    dtype: Any = "float32",
    engine: str = "auto",
    budget: int | str = "256 MiB",
    overwrite: bool = False,
    text: bool = True,
    threads: str = "own",
) -> Recorder:
    """Record a model's attention weights while it runs as it normally runs.

    Use it as a context manager and run the model inside of the block; ``rec.run`` is there after it. The model's
    output does not change by one bit, and when the block ends, the model is as it was.

    Parameters
    ----------
    model
        A Hugging Face model, on ``sdpa`` or ``eager`` attention.
    tokenizer
        Gives tokens their strings; without it, tokens are known by position.
    to
        A directory to stream the run to; in memory if None.
    keep
        What to keep, one `Weights` or several; or use the keywords below, which are short for one.
    layers, heads, queries, keys, generated, kind, dtype
        See `Weights`.
    engine
        ``"auto"``, ``"torch"`` (row blocks) or ``"dense"`` (the definition in float64, for tests).
    budget
        Bytes of working memory (``"256 MiB"``); what you keep in memory comes on top.
    overwrite
        Replace the run that `to` holds.
    text
        Keep token ids and strings; if False, only which tokens repeat.
    threads
        ``"own"`` records calls of this thread, ``"all"`` those of every thread.

    Raises
    ------
    SelectionError
        If a selection is malformed, out of range or empty.
    UnsupportedModel
        If the model's attention cannot be recorded exactly.
    RunExists
        If `to` is taken (when the block is entered).

    Examples
    --------
    >>> with record(model, tokenizer, layers="0,3-5") as rec:  # doctest: +SKIP
    ...     model(**tokenizer("Maia likes to explore", return_tensors="pt"))
    >>> rec.run[0, 9].row(" explore")  # doctest: +SKIP
    """
    words: dict[str, Any] = {
        "layers": layers,
        "heads": heads,
        "queries": queries,
        "keys": keys,
        "generated": generated,
        "kind": kind,
        "dtype": dtype,
    }
    if keep is None:
        items = [Weights(**words)]
    else:
        spare = [name for name, value in words.items() if value != getattr(Weights(), name)]
        if spare:
            raise SelectionError(
                f"{', '.join(spare)} beside keep= has no meaning; put it into the Weights(...) of keep"
            )
        items = [keep] if isinstance(keep, Weights) else list(keep)
        if not items:
            raise SelectionError("keep is empty: nothing would be recorded; write keep=[Weights(...)]")
        wrong = next((item for item in items if not isinstance(item, Weights)), None)
        if wrong is not None:
            raise SelectionError(f"keep holds {wrong!r}; write keep=[Weights(...)]")
    path = None if to is None else Path(to).absolute()  # a later change of directory does not move the run
    return Recorder(model, tokenizer, items, path, engine, budget, overwrite, text, threads)
