"""``attnprobe show``: one head in the terminal."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.text import Text

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.errors import NotKept, SelectionError
from attnprobe.head import Head
from attnprobe.labels import position_of
from attnprobe.run import Run, SampleRun, open_run
from attnprobe.shapes import Float
from attnprobe.show.colors import largest
from attnprobe.show.prepare import group_starts, shrink
from attnprobe.show.terminal import WIDEST, has_blocks, has_color, heatmap, row_table

_HEAD = re.compile(r"[lL](?P<layer>\d+)[hH](?P<head>\d+)|(?P<site>.+)\.(?P<number>\d+)")
_NUMBER = re.compile(r"-?[0-9]+")
LISTED = 8  # ids that a message names
TOP = 10
CELLS = 160  # a longer map is shrunk to about so many rows and columns as it is read
PART = 64  # rows read at once


@click.command("show")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("head", metavar="L.H")
@click.option("--query", metavar="TOKEN", help='Only the row of a token: "Ġexplore", " explore", or its position.')
@click.option("--sample", metavar="I", help="Which sample, by its id or place, where there are several.")
@click.option("--limit", default=40, show_default=True, type=click.IntRange(min=1), help="Most keys that a row lists.")
@shared
def command(out: Output, run: Path, head: str, query: str | None, sample: str | None, limit: int) -> None:
    """Show head L.H (layer and head, from 0) of RUN: a heatmap and its largest weights, or one token's row.

    L.H is also written L3H1, or with a module's name for a layer, as for cross-attention.

    \b
    attnprobe show runs/maia 3.1
    attnprobe show runs/maia 3.1 --query " her"
    attnprobe show runs/maia 3.1 --query 5 --json
    attnprobe show runs/picture transformer.h.0.crossattention.3
    """  # noqa: D301 (click wants the backspace itself)
    opened = open_run(run)
    layer, number = parse_head(head, [site.key for site in opened.sites])
    chosen = pick(opened, sample)
    found: Head = chosen[layer, number]
    site = found.fields[0][0].site
    where = {"sample": chosen.sample.id, "site": site.key, "layer": site.layer, "head": number}
    if query is None:
        _show_map(out, found, where)
    else:
        _show_row(out, found, query, where, limit)


def pick(run: Run, which: str | None) -> SampleRun:
    """The sample that is meant; there must be no doubt."""
    count = len(run.samples)
    if not count:
        raise NotKept(
            f"the run {run.path} lists no sample yet: it may still be being written, or its recording ended early; "
            "wait until the recording ends"
        )
    if which is None and count == 1:
        return run.sample(0)
    names = ", ".join(sample.id for sample in run.samples[:LISTED]) + (", ..." if count > LISTED else "")
    if which is None:
        raise SelectionError(f"the run has {count:,} samples ({names}); choose one with --sample")
    for place, sample in enumerate(run.samples):
        if sample.id == which:
            return run.sample(place)
    if _NUMBER.fullmatch(which) and -count <= int(which) < count:
        return run.sample(int(which))
    raise NotKept(f"there is no sample {which}; the run has {count:,} ({names}): give an id, or a place from 0")


def parse_head(text: str, sites: Sequence[str]) -> tuple[int | str, int]:
    """The layer, or the module's name, and the head of ``3.1``, ``L3H1`` or ``transformer.h.3.attn.1``.

    Parameters
    ----------
    text
        What the user wrote.
    sites
        The names of the run's modules.

    Raises
    ------
    SelectionError
        If it is of none of these forms, or there is no module of that name.
    """
    match = _HEAD.fullmatch(text)
    name = match["site"] if match else None
    if match is None or not (name is None or name in sites or re.fullmatch(r"[0-9]+", name)):
        example = f"{sites[-1]}.1" if sites else "transformer.h.3.attn.1"
        raise SelectionError(
            f"{text!r} is not a head; write layer and head as 3.1 or L3H1, or a module's name and a head as {example}"
        )
    if name is None:
        return int(match["layer"]), int(match["head"])
    return name if name in sites else int(name), int(match["number"])


def _show_map(out: Output, head: Head, where: dict[str, Any]) -> None:
    top = head.top(TOP)
    color, width = has_color(out.stdout), min(out.width, WIDEST)
    rows: list[dict[str, Any]] = [
        {"query": int(q), "key": int(k), "from": str(f), "to": str(t), "weight": float(w)}
        for q, k, f, t, w in top[["query", "key", "from", "to", "weight"]].itertuples(index=False)
    ]
    if out.as_json:
        out.data({**where, "top": rows})
        return
    values, rows_at, columns_at = read_map(head)
    lines = [f"{row['weight']:.4f}  {row['query']:>5} -> {row['key']:<5}  {row['from']} -> {row['to']}" for row in rows]
    scale = f"square-root scale, 0 to {largest(values):.4f}; a cell shows its largest weight"
    if not np.isfinite(values).all():
        scale += ", ? one that is no number"
    out.data(
        None,
        _title(head, where),
        heatmap(values, width - 10, color, rows_at, columns_at),
        Text(scale, "dim"),
        "",
        f"the {len(lines)} largest weights, from query to key",
        *lines,
    )


def _show_row(out: Output, head: Head, query: str, where: dict[str, Any], limit: int) -> None:
    token = int(query) if _NUMBER.fullmatch(query) else query
    sequence = head.sample.sequences[head.fields[0][0].site.queries]
    at = position_of(token, sequence, head.labels[0], f"sample {head.sample.id}")
    keys = head.kept_keys
    weights: np.ndarray = head[at, keys.start : keys.stop]
    label, labels = head.query_labels[at], head.key_labels[keys.start : keys.stop]
    if out.as_json:
        rows = [
            {"position": i, "token": key, "weight": float(weight)}
            for i, key, weight in zip(keys, labels, weights, strict=True)
        ]
        out.data({**where, "query": {"position": at, "token": label}, "rows": rows})
        return
    own = at if head.fields[0][0].site.kind == "self" else None
    table = row_table(
        weights.astype(np.float32),
        labels,
        min(out.width, WIDEST),
        has_color(out.stdout),
        own,
        limit,
        has_blocks(out.stdout),
        keys,
    )
    out.data(None, f"{_title(head, where)}: what {label} (position {at}) attends to", table)


def _title(head: Head, where: dict[str, Any]) -> str:
    queries, keys = head.shape
    name = f" ({where['site']})" if head.fields[0][0].site.kind == "cross" else ""
    return f"layer {where['layer']}{name}, head {where['head']}, sample {where['sample']}, {queries} x {keys}"


def read_map(head: Head) -> tuple[Float[np.ndarray, "row column"], list[int], list[int]]:
    """The kept rows, shrunk as they are read if there are many, and the positions of rows and columns."""
    keys = head.kept_keys
    factor = -(-max(len(head.kept), len(keys)) // CELLS)
    columns = group_starts(len(keys), -(-len(keys) // factor))
    rows = [head.kept[first : first + factor] for first in range(0, len(head.kept), factor)]
    values = np.concatenate([_largest(head, group, len(columns)) for group in rows])
    return values, [group[0] for group in rows], [keys[column] for column in columns]


def _largest(head: Head, positions: tuple[int, ...], columns: int) -> Float[np.ndarray, "1 column"]:
    """The largest weights of some rows, in `columns` groups of keys."""
    parts = [positions[first : first + PART] for first in range(0, len(positions), PART)]
    return shrink(np.concatenate([shrink(_rows(head, part), 1, columns) for part in parts]), 1, columns)


def _rows(head: Head, positions: tuple[int, ...]) -> Float[np.ndarray, "query key"]:
    low, high = positions[0], positions[-1]
    columns = slice(head.kept_keys.start, head.kept_keys.stop)
    if high - low + 1 == len(positions):
        together: np.ndarray = head[low : high + 1, columns]
        return together
    return np.stack([head[position, columns] for position in positions])
