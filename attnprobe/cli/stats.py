"""``attnprobe stats``: what each head does, by its measures."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import click
import numpy as np
from rich.text import Text

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.show import pick
from attnprobe.errors import SelectionError
from attnprobe.kinds import KINDS, Kind
from attnprobe.run import open_run
from attnprobe.show.grid import UNKNOWN, grid, side_by_side
from attnprobe.show.scales import largest
from attnprobe.show.terminal import WIDEST, clip, has_blocks, has_color
from attnprobe.summary import FIGURES, Summary

BY_KIND = "kind"
_ROOM = 14  # columns that names of kinds have at least

Scored = tuple[int, int, dict[str, float], tuple[Kind, ...]]


@click.command("stats")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--sort", default=BY_KIND, metavar="MEASURE", help="Rank by this mean, or kind; else rare kinds first.")
@click.option("--reverse", is_flag=True, help="Smallest first.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(min=1), help="Most heads in the table.")
@click.option("--sample", metavar="I", help="Only this sample, by its id or place; else all together.")
@click.option("--kind", type=click.Choice(["self", "cross"]), help="Which attention, where there are both.")
@click.option("--part", help="Which part of the model, where there are several: decoder, encoder.")
@shared
def command(
    out: Output,
    run: Path,
    sort: str,
    reverse: bool,
    top: int,
    sample: str | None,
    kind: str | None,
    part: str | None,
) -> None:
    """Rank the heads of RUN by what they do, name the classic kinds, and draw layers by heads.

    Numbers are means over all recorded rows of all samples. RUN needs measures: capture --keep measures.

    \b
    attnprobe stats runs/tale
    attnprobe stats runs/tale --sort induction --top 10
    attnprobe stats runs/tale --sort entropy --reverse
    """  # noqa: D301 (click wants the backspace itself)
    opened = open_run(run)
    chosen = pick(opened, sample) if sample is not None or not len(opened) else None
    summary = (opened if chosen is None else chosen).measures.select(kind, part).summary()
    measure = resolve(sort, summary.names)
    ranked = rank(list(summary.scores()), measure, reverse)
    whose = None if chosen is None else chosen.sample.id
    if out.as_json:
        out.data(_record(run, summary, whose, sort, ranked))
        return
    out.data(None, *_lines(out, run, summary, whose, measure, ranked, top))


def resolve(sort: str, names: Sequence[str]) -> str | None:
    """The measure that is meant: its name, with or without its number, or the name of a kind; None for all kinds.

    Raises
    ------
    SelectionError
        If there is no such measure.
    """
    if sort == BY_KIND:
        return None
    wanted = next((kind.measure for kind in KINDS if sort in (kind.name, _title(kind.measure))), sort)
    fitting = [name for name in names if name == wanted] or [name for name in names if name.split("(")[0] == wanted]
    if len(fitting) == 1:
        return fitting[0]
    what = f"several measures are called {sort!r}" if fitting else f"the run has no mean of a measure {sort!r}"
    raise SelectionError(f"{what}; sort by {', '.join(names)}, or {BY_KIND}")


def rank(heads: Sequence[Scored], measure: str | None, reverse: bool = False) -> list[Scored]:
    """Heads by a measure, largest first, those without it last; without one by kind, the rare kinds first.

    Within a kind the largest score is first, and heads of no kind go by their best score.
    """

    def place(head: Scored) -> tuple[int, float]:
        _, _, scores, kinds = head
        if measure is not None:
            value = scores[measure]
            return (1, 0.0) if np.isnan(value) else (0, value if reverse else -value)
        if kinds:
            return KINDS.index(kinds[0]), -scores[kinds[0].measure]
        best = max((scores[kind.measure] for kind in KINDS if scores.get(kind.measure, np.nan) >= 0), default=0.0)
        return len(KINDS), -best

    ordered = sorted(heads, key=place)
    return ordered[::-1] if reverse and measure is None else ordered


def _record(path: Path, summary: Summary, sample: str | None, sort: str, ranked: Sequence[Scored]) -> dict[str, Any]:
    figures = {name: summary[name].values for name in summary.names}
    return {
        "path": str(path),
        "attention": summary.kind,
        "sample": sample,
        "samples": summary.size,
        "layers": summary.layers,
        "heads_per_layer": summary.heads,
        "sort": sort,
        "measures": [{"name": name, "unit": summary.units.get(name, "")} for name in summary.names],
        "kinds": [vars(kind) for kind in KINDS],
        "heads": [
            {
                "layer": layer,
                "head": head,
                "kinds": [kind.name for kind in kinds],
                "measures": {
                    name: dict(zip(FIGURES, values[layer, head].tolist(), strict=True))
                    for name, values in figures.items()
                },
            }
            for layer, head, _, kinds in ranked
        ],
    }


def _lines(
    out: Output,
    path: Path,
    summary: Summary,
    sample: str | None,
    measure: str | None,
    ranked: Sequence[Scored],
    top: int,
) -> list[str | Text]:
    width, color, blocks = out.width, has_color(out.stdout), has_blocks(out.stdout)
    dim = "dim" if color else ""
    of = f"sample {sample}" if sample is not None else f"{summary.size:,} sample{'s' * (summary.size != 1)}"
    lines: list[str | Text] = [f"{path}: {len(ranked)} heads, {summary.kind}-attention, {of}; means over rows", ""]
    lines += _table(summary, measure, ranked[:top], width, color, "…" if blocks else "~")
    narrow = min(width, WIDEST)
    if len(ranked) > top:
        lines.append(Text(f"... and {len(ranked) - top:,} more heads (--top)", dim))
    lines += ["", *(Text(line, dim) for line in _legend(summary, narrow))]
    lines += ["", *side_by_side([_grid(summary, name, width, color) for name in _drawn(summary, measure)], width)]
    scale = "dark to bright" if color else "digits 0 to 9"
    notes = f"layers downwards, heads to the right, {scale} over the range in the title; {UNKNOWN} not kept, or no row"
    return [*lines, *(Text(line, dim) for line in wrap(notes, narrow))]


def _table(
    summary: Summary, measure: str | None, ranked: Sequence[Scored], width: int, color: bool, end: str
) -> list[str | Text]:
    """Head, its scores by measure, and its kinds."""
    shown = [kind.measure for kind in KINDS if kind.measure in summary] + ["entropy"] * ("entropy" in summary)
    if measure is not None:  # what is sorted by comes first
        shown = [measure, *(name for name in shown if name != measure)]
    titles = [_title(name) for name in shown]
    while len(titles) > 1 and width - 8 - sum(2 + max(6, len(title)) for title in titles) < _ROOM:
        del shown[-1], titles[-1]  # on a narrow terminal
    heads = [f"L{layer}H{head}" for layer, head, *_ in ranked]
    first = max(4, *map(len, heads))
    header = f"{'head':<{first}}  " + "  ".join(f"{title:>6}" for title in titles) + "  kind"
    lines: list[str | Text] = [Text(header, "dim" if color else "", no_wrap=True)]
    for name, (_, _, scores, kinds) in zip(heads, ranked, strict=True):
        line = Text(f"{name:<{first}}", no_wrap=True)
        for measured, title in zip(shown, titles, strict=True):
            value = scores[measured]
            text = UNKNOWN if np.isnan(value) else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
            of_kind = any(kind.measure == measured for kind in kinds)
            line.append("  ").append(f"{text:>{max(6, len(title))}}", "bold" if of_kind and color else "")
        names = ", ".join(kind.name for kind in kinds)
        line.append("  " + clip(names, max(1, width - line.cell_len - 2), end)).rstrip()
        lines.append(line)
    return lines


def _title(name: str) -> str:
    """What a measure's column is called."""
    return "first" if name == "first_mass(1)" else name


def _legend(summary: Summary, width: int) -> list[str]:
    """What each kind is and where its threshold comes from."""
    lines = ["A kind is a score above a threshold. Thresholds are conventions; scores depend on the text."]
    for kind in KINDS:
        if kind.measure in summary:
            lines.append(f"{kind.name}: {kind.measure} above {kind.threshold:g}. {kind.source}")
            lines.append(f"  threshold: {kind.threshold_source}")
    missing = [f"{kind.name} ({kind.measure})" for kind in KINDS if kind.measure not in summary]
    if missing:
        lines.append(f"not measured: {', '.join(missing)}")
    return [part for line in lines for part in wrap(line, width, subsequent_indent="  ")]


def _drawn(summary: Summary, measure: str | None) -> list[str]:
    """All measures, in the table's order."""
    first = [measure] if measure is not None else []
    return list(dict.fromkeys([*first, *(k.measure for k in KINDS if k.measure in summary), *summary.names]))


def _grid(summary: Summary, name: str, width: int, color: bool) -> list[Text]:
    values, unit = summary[name].values[..., 0], summary.units.get(name, "")
    low = min(0.0, float(values.min(initial=0, where=np.isfinite(values))))  # a measure of one's own may be negative
    top = 1.0 if unit == "mass" else largest(values)
    title = f"{name}, {low:.3g} to {top:.3g}{'' if unit == 'mass' else f' {unit}'}"
    return grid(values - low, title, min(width, WIDEST), color, top - low)
