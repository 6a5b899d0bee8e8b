"""The tables that ``attnprobe export`` writes; each has plain columns, so that all formats hold the same."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnprobe.cli.pictured import Look
from attnprobe.cli.show import parse_head, pick
from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.head import Head
from attnprobe.held import largest_k
from attnprobe.pictures import part_of
from attnprobe.run import Run

FORMATS = ("csv", "parquet")
KINDS = ("measures", "map", "row", "top")
LARGEST = 1 << 26  # weights of one table; pandas takes a few times their 4 bytes


def kind_of(what: str | None, head: str | None, query: str | None) -> str:
    """Which table is meant.

    Raises
    ------
    SelectionError
        If what is named does not fit together.
    """
    kind = what or ("row" if query is not None else "measures" if head is None else "map")
    if kind == "measures" and head is not None:
        raise SelectionError("the table of measures has all heads: leave out the head, or write --what map, row or top")
    if kind != "measures" and head is None:
        raise SelectionError(f"the table {kind} is of one head: name it as 3.1")
    if (kind == "row") != (query is not None):
        raise SelectionError('--what row needs --query, and only that: --what row --query " her"')
    return kind


def table_of(run: Run, head: str | None, kind: str, look: Look, options: Mapping[str, Any]) -> pd.DataFrame:
    """The table of a kind.

    ``measures`` has a line a head and sample. ``map`` has a line a kept query, its position and label, and a column a
    key, called by its position and label; ``row`` and ``top`` have a line a weight.

    Raises
    ------
    SelectionError
        If it is too large for one table, or a part of it is asked for where it has none.
    """
    if kind in ("measures", "top") and (look.rows is not None or look.columns is not None):
        raise SelectionError(f"--rows and --columns are of a head's map, and not of the table {kind}; leave them out")
    if kind == "measures":
        measures = run.measures if options["sample"] is None else pick(run, options["sample"]).measures
        return measures.select(options["kind"], options["part"]).to_pandas().reset_index()
    layer, number = parse_head(str(head), [site.key for site in run.sites])
    found: Head = pick(run, options["sample"])[layer, number]
    if kind == "row":
        return _row(found, options["query"], look)
    return _map(found, look) if kind == "map" else _top(found, options["limit"])


def _map(head: Head, look: Look) -> pd.DataFrame:
    kept, keys = part_of(head.levels, look.rows, look.columns)
    if len(kept) * len(keys) > LARGEST:
        raise SelectionError(
            f"the map has {len(kept):,} x {len(keys):,} weights, and a table holds {LARGEST:,}; take a part of it, as "
            "--rows 0:1000, or --what top"
        )
    labels, names = head.query_labels, head.key_labels
    values = np.stack([head[row, keys.start : keys.stop] for row in kept.tolist()])
    table = pd.DataFrame(values.astype(np.float32, copy=False), columns=[f"{key} {names[key]}" for key in keys])
    table.insert(0, "query", kept)
    table.insert(1, "token", [labels[row] for row in kept.tolist()])
    return table


def _row(head: Head, query: str, look: Look) -> pd.DataFrame:
    if look.rows is not None:
        raise SelectionError("--query names the row already; leave out --rows")
    token: str | int = int(query) if query.removeprefix("-").isdecimal() else query
    if head.has_weights or not largest_k(head.fields):
        weights, keys = head.row(token).to_numpy(), np.asarray(head.kept_keys)
    else:
        weights, keys, _ = head.topk.at(head.topk.position(token))
    if look.columns is not None:
        within = range(head.shape[1])[look.columns]
        there = (keys >= within.start) & (keys < within.stop)
        weights, keys = weights[there], keys[there]
    names = head.key_labels
    labels = [names[key] for key in keys.tolist()]
    return pd.DataFrame({"key": keys.astype(np.int64), "token": labels, "weight": weights.astype(np.float32)})


def _top(head: Head, limit: int) -> pd.DataFrame:
    if head.has_weights or not largest_k(head.fields):
        return head.top(limit)
    ranked = head.topk.to_pandas().sort_values("weight", ascending=False, kind="stable")
    return ranked[:limit].drop(columns="rank").reset_index(drop=True)


def save(table: pd.DataFrame, path: Path, name: str) -> None:
    """Write a table in one of `FORMATS`.

    Raises
    ------
    AttnprobeError
        If it is Parquet and pyarrow is not installed.
    """
    if name == "csv":
        table.to_csv(path, index=False, encoding="utf-8", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        return
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise AttnprobeError("--parquet needs pyarrow: pip install attnprobe[data]") from error
    table.to_parquet(path, engine="pyarrow", index=False)
