"""``attnprobe show``: one head in the terminal."""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import click
import numpy as np
from rich.text import Text

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.pictured import SHOWN, Look, looks
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import STATISTICS
from attnprobe.head import Head
from attnprobe.held import largest_k, no_weights
from attnprobe.labels import position_of
from attnprobe.plotting import picture_of
from attnprobe.run import Run, SampleRun, open_run
from attnprobe.shapes import Float
from attnprobe.show.scales import scale_of
from attnprobe.show.terminal import WIDEST, has_blocks, has_color, heatmap, row_table

_HEAD = re.compile(r"[lL](?P<layer>\d+)[hH](?P<head>\d+)|(?P<site>.+)\.(?P<number>\d+)")
_NUMBER = re.compile(r"-?[0-9]+")
LISTED = 8  # ids that a message names
TOP = 10
CELLS = 160  # rows and columns that a longer map is read as; a terminal shows fewer


@click.command("show")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("head", metavar="L.H")
@click.option("--query", metavar="TOKEN", help='Only the row of a token: "Ġexplore", " explore", or its position.')
@click.option("--sample", metavar="I", help="Which sample, by its id or place, where there are several.")
@click.option("--limit", default=40, show_default=True, type=click.IntRange(min=1), help="Most keys that a row lists.")
@shared
@looks
def command(out: Output, run: Path, head: str, query: str | None, sample: str | None, limit: int, look: Look) -> None:
    """Show head L.H (layer and head, from 0) of RUN: a heatmap, its largest weights and means, or one token's row.

    L.H is also written L3H1, or with a module's name for a layer, as for cross-attention.

    \b
    attnprobe show runs/maia 3.1
    attnprobe show runs/maia 3.1 --query " her"
    attnprobe show runs/maia 3.1 --query 5 --json
    attnprobe show runs/maia 3.1 --columns 1: --map viridis
    attnprobe show runs/picture transformer.h.0.crossattention.3
    """  # noqa: D301 (click wants the backspace itself)
    opened = open_run(run)
    layer, number = parse_head(head, [site.key for site in opened.sites])
    chosen = pick(opened, sample)
    found: Head = chosen[layer, number]
    site = found.site
    where = {"sample": chosen.sample.id, "site": site.key, "layer": site.layer, "head": number}
    if query is None:
        _show_map(out, found, where, look)
    else:
        _show_row(out, found, query, where, limit, look)


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
    if run.reader.find(which) is not None:
        return run.sample(which)
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


def _show_map(out: Output, head: Head, where: dict[str, Any], look: Look) -> None:
    rows = _largest_weights(head)
    means = head.measures.means
    picture = _picture(out, head, look)
    if rows is None and not means and not picture:
        raise no_weights(head.fields, head.number, _title(head, where))
    if out.as_json:
        figures = {name: dict(zip(STATISTICS, values, strict=True)) for name, values in means.items()}
        out.data({**where, **({} if rows is None else {"top": rows}), **({"measures": figures} if figures else {})})
        return
    lines: list[str | Text] = [_title(head, where), *picture]
    if rows is not None:
        lines += ["", f"the {len(rows)} largest weights, from query to key"]
        lines += [f"{r['weight']:.4f}  {r['query']:>5} -> {r['key']:<5}  {r['from']} -> {r['to']}" for r in rows]
    if means:
        lines += ["", "means over rows, with their standard deviation", *_means(head)]
    out.data(None, *lines)


def _largest_weights(head: Head) -> list[dict[str, Any]] | None:
    """Of the weights that were kept, or of the largest of each row, or None."""
    if head.has_weights:
        top = head.top(TOP)
    elif largest_k(head.fields):
        top = head.topk.to_pandas().sort_values("weight", ascending=False, kind="stable")[:TOP]
    else:
        return None
    return [
        {"query": int(q), "key": int(k), "from": str(f), "to": str(t), "weight": float(w)}
        for q, k, f, t, w in top[["query", "key", "from", "to", "weight"]].itertuples(index=False)
    ]


def _picture(out: Output, head: Head, look: Look) -> list[str | Text]:
    """The map, or a pooled one, and what its colours mean."""
    color, width = has_color(out.stdout), min(out.width, WIDEST)
    title: list[str | Text] = []
    how = look.how
    if head.has_weights:
        cell, unknown = f"; a cell shows its {SHOWN[how]} weight", "one that is no number, or was not kept"
    else:
        how = next((one for one in (how, *SHOWN) if f"pooled_{one}" in head.measures), "")
        if not how:
            return []
        coords = head.measures[f"pooled_{how}"].coords.values()
        size = " x ".join(str(at[1] - at[0] if len(at) > 1 else 1) for at in coords)
        title = [f"pooled_{how}: the {SHOWN[how]} weight of each {size} tokens (the weights were not kept)"]
        cell, unknown = "", "one without a measured row"
    picture = picture_of(head, CELLS, CELLS, look.rows, look.columns, how)
    values, scale = picture.values, scale_of(picture.values, look.scale)
    drawn = heatmap(values, width - 10, color, picture.row_starts, picture.column_starts, look.map, scale)
    words = f"{scale}{cell}" if np.isfinite(values).all() else f"{scale}{cell}, ? {unknown}"
    return [*title, drawn, *(Text(line, "dim") for line in wrap(words, width))]


def _means(head: Head) -> list[str]:
    table = head.measures.to_pandas()
    wide = max(map(len, table.index))
    lines = []
    for name, mean, std, count, unit in table.itertuples():
        rows = 0 if np.isnan(count) else int(count)
        shown = f"{mean:9.4f} +- {std:.4f}{'' if unit == 'mass' else f' {unit}'}"
        lines.append(f"{name:<{wide}}  {shown:<32}  over {rows:,} row{'s' * (rows != 1)}")
    return lines


def _show_row(out: Output, head: Head, query: str, where: dict[str, Any], limit: int, look: Look) -> None:
    token = int(query) if _NUMBER.fullmatch(query) else query
    sequence = head.sample.sequences[head.site.queries]
    at = position_of(token, sequence, head.labels[0], f"sample {head.sample.id}")
    label, rest = head.query_labels[at], None
    if head.has_weights or not largest_k(head.fields):
        keys: Sequence[int] = head.kept_keys
        weights: np.ndarray = head[at, keys[0] : keys[-1] + 1] if keys else np.zeros(0, np.float32)
    else:
        weights, keys, rest = _top_row(head, at)
    if look.columns is not None:
        within = range(head.shape[1])[look.columns]
        there = [i for i, key in enumerate(keys) if key in within]
        keys, weights, rest = [keys[i] for i in there], weights[there], None
    names = head.key_labels
    labels = [names[key] for key in keys]
    if out.as_json:
        rows = [
            {"position": i, "token": key, "weight": float(weight)}
            for i, key, weight in zip(keys, labels, weights, strict=True)
        ]
        others = {} if rest is None else {"rest": rest}
        out.data({**where, "query": {"position": at, "token": label}, "rows": rows, **others})
        return
    own = at if head.site.kind == "self" else None
    table = row_table(
        weights.astype(np.float32),
        labels,
        min(out.width, WIDEST),
        has_color(out.stdout),
        own,
        limit,
        has_blocks(out.stdout),
        keys,
        look.map,
        scale_of(weights.astype(np.float32)[None], look.scale),
    )
    out.data(None, f"{_title(head, where)}: what {label} (position {at}) attends to", table)
    if rest is not None:
        out.data(None, Text(f"the {head.topk.k} largest weights were kept; {rest:.4f} is on other tokens", "dim"))


def _top_row(head: Head, at: int) -> tuple[Float[np.ndarray, " key"], list[int], float]:
    """The largest weights of a row in order of position, where they are, and the mass of the others."""
    values, keys, rest = head.topk.at(at)
    order = np.argsort(keys)
    return values[order], keys[order].tolist(), rest


def _title(head: Head, where: dict[str, Any]) -> str:
    queries, keys = head.shape
    name = f" ({where['site']})" if head.site.kind == "cross" else ""
    return f"layer {where['layer']}{name}, head {where['head']}, sample {where['sample']}, {queries} x {keys}"
