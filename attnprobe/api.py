"""`record`: what a user calls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from attnprobe.errors import SelectionError
from attnprobe.keep import Item, Measures, Weights
from attnprobe.measures import Measure
from attnprobe.recorder import Recorder
from attnprobe.selection import HeadsLike, IndexLike


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
    measures: str | Measure | Sequence[str | Measure] | None = None,
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
        What to keep: `Weights`, `TopK`, `Measures`, one or several; or use the keywords below, short for one.
    layers, heads, queries, keys, generated, kind, dtype
        See `Weights`.
    measures
        Keep these measures and no weights, as in ``measures="default"``; see `Measures`.
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
    if measures is not None:
        words["names"] = measures
    kind_of_item = Weights if measures is None else Measures
    spare = [name for name, value in words.items() if name == "names" or value != getattr(Weights(), name)]
    if keep is None:
        foreign = [name for name in spare if name not in kind_of_item.__dataclass_fields__]
        if foreign:
            raise SelectionError(
                f"{', '.join(foreign)} beside measures= has no meaning, since no weights are kept; to keep both, write "
                "keep=[Weights(...), Measures(...)]"
            )
        items: list[Item] = [kind_of_item(**{name: value for name, value in words.items() if name in spare})]
    else:
        if spare:
            given = ", ".join(spare).replace("names", "measures")
            raise SelectionError(f"{given} beside keep= has no meaning; put it into the Weights(...) of keep")
        items = [keep] if isinstance(keep, Item) else list(keep)
        if not items:
            raise SelectionError("keep is empty: nothing would be recorded; write keep=[Weights(...)]")
        wrong = next((item for item in items if not isinstance(item, Item)), None)
        if wrong is not None:
            raise SelectionError(f"keep holds {wrong!r}; write keep=[Weights(...), TopK(...), Measures(...)]")
    path = None if to is None else Path(to).absolute()  # a later change of directory does not move the run
    return Recorder(model, tokenizer, items, path, engine, budget, overwrite, text, threads)
