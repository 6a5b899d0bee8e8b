"""A profile as text."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from attnprobe.fields import Site
from attnprobe.profiling.ranges import short
from attnprobe.profiling.stages import STAGES
from attnprobe.sizes import format_bytes

if TYPE_CHECKING:
    from attnprobe.profiling.profile import Note, Profile

LISTED = 64  # sites
_BYTES = {
    "copied": "copied",
    "written": "written",
    "filed": "to files",
    "host_peak": "host peak",
    "device_peak": "device peak",
    "device_held": "device held",
}


def render(profile: "Profile") -> list[str]:
    """By stage, by site, how things were made, and what taking the figures took."""
    share = f", {profile.total / profile.block:.1%} of the block's {_ms(profile.block)} ms" if profile.block else ""
    lines = [f"recording took {_ms(profile.total)} ms of the host{share}", ""]
    lines += [*_columns(_by_stage(profile)), "", *_columns(_by_site(profile))]
    more = len(profile.sites) - LISTED
    lines += [f"... and {more} more sites (.layers has all)"] if more > 0 else []
    lines += ["", *_made(profile.notes)] if profile.notes else []
    each = profile.profiling / max(profile.stages, 1) * 1e6
    of = f", {profile.profiling / profile.block:.1%} of the block" if profile.block else ""
    taken = f"{profile.stages:,} stages, {each:.1f} us each: {_ms(profile.profiling)} ms{of}"
    return [*lines, "", f"profiling itself, in no stage: {taken}"]


def _by_stage(profile: "Profile") -> list[list[str]]:
    summary = profile.summary
    sizes = [name for name in _BYTES if summary.loc["total", name]]
    behind = bool(summary.loc["total", "behind"])
    header = ["stage", "host ms", "share", *(["device ms"] if profile.on_cuda else [])]
    header += [*(["behind ms"] if behind else []), "calls", *(_BYTES[name] for name in sizes)]
    rows = [header]
    for stage in (*STAGES, "total"):
        found: Any = summary.loc[stage]
        share = found["host"] / profile.total if profile.total else 0.0
        row = [stage, _ms(found["host"]), f"{share:.1%}", *([_ms(found["device"])] if profile.on_cuda else [])]
        row += [*([_ms(found["behind"])] if behind else []), f"{int(found['calls']):,}"]
        rows.append(row + [format_bytes(int(found[name])) if found[name] else "" for name in sizes])
    return rows


def _by_site(profile: "Profile") -> list[list[str]]:
    table = profile.layers
    device = {site: sum(entry.device for entry in profile.entries if entry.site == site) for site in profile.sites}
    header = ["host ms", *STAGES, "total", *(["device"] if profile.on_cuda else [])]
    rows = [header]
    for row, site in enumerate(profile.sites[:LISTED]):
        cells = [_ms(value) for value in table.iloc[row]]
        rows.append([str(table.index[row]), *cells, *([_ms(device[site])] if profile.on_cuda else [])])
    return rows


def _made(notes: Sequence["Note"]) -> list[str]:
    """How tiles and measures were made, sites that are alike together."""
    lines: dict[tuple[str, str, str], list[Site | None]] = {}
    for note in notes:
        lines.setdefault((note.what, note.how, note.why), []).append(note.site)
    found = []
    for (what, how, why), sites in lines.items():
        found.append(f"{what} by {how}, {_names(sites)}{f': {why}' if why else ''}")
    return found


def _names(sites: Sequence[Site | None]) -> str:
    """Sites in few characters: ``L0 to L3, L0 encoder``."""
    parts = []
    kinds = sorted({short(site).partition(" ")[2] for site in sites})
    for kind in kinds:
        layers = sorted({site.layer for site in sites if site is not None and short(site).partition(" ")[2] == kind})
        for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0]):
            numbers = [layer for _, layer in run]
            ends = dict.fromkeys([numbers[0], numbers[-1]])
            parts.append(" to ".join(f"L{layer}" for layer in ends) + (f" {kind}" if kind else ""))
    return ", ".join(parts)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"
