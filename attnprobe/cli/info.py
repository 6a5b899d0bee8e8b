"""``attnprobe info``: what a run holds, and of one that is being written, how far it is."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.cli.progress import bytes_on_disk, describe_size
from attnprobe.fields import Sample, Site
from attnprobe.run import Run, open_run
from attnprobe.show.prepare import printable
from attnprobe.show.terminal import clip
from attnprobe.sizes import format_bytes
from attnprobe.store.base import rows_of
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.writers import COPIED, ENDED, Writing, find_writers

LISTED = 20
DATA = 400  # characters of what the samples are of
_STATES = {COPIED: "copied while it was being written"}


@click.command("info")
@click.argument("run", type=click.Path(path_type=Path))
@shared
def command(out: Output, run: Path) -> None:
    """Say what RUN holds: model, selection, samples, layers and heads, dtype, size, versions.

    Of a run that is being written, what is listed so far, and how each writer is: living, ended, or killed.
    """
    found = open_run(run)
    out.data(_record(run, found) if out.as_json else None, *([] if out.as_json else _lines(run, found, out)))


def figures(run: Run) -> dict[str, Any]:
    """The run's size as numbers: tokens of all samples, the most heads of a layer."""
    heads: dict[Site, set[int]] = {}
    for sample in run.samples:
        for field in run.reader.fields(sample.index):
            heads.setdefault(field.site, set()).update(field.heads)
    described = run.describe()
    return {
        "samples": len(run.samples),
        "tokens": sum(sample.main.length for sample in run.samples),
        "layers": len({site.layer for site in heads}),
        "heads": max(map(len, heads.values()), default=0),
        **{name: described[name] for name in ("dtype", "top", "measures") if name in described},
        "bytes": run.nbytes,
    }


def _record(path: Path, run: Run) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "path": str(path),
        **figures(run),
        "bytes_on_disk": bytes_on_disk(path),
        "model": dict(manifest.model),
        "sites": [vars(site) for site in run.sites],
        "keep": [dict(kept) for kept in manifest.keep],
        "text": manifest.text,
        "format": manifest.format,
        "versions": dict(manifest.versions),
        "created": manifest.created,
        "data": None if manifest.data is None else dict(manifest.data),
        "writers": [vars(writer) for writer in _writers(run)],
        "sample_list": [{"id": s.id, "tokens": s.main.length, "prompt": s.prompt_length} for s in run.samples],
    }


def _lines(path: Path, run: Run, out: Output) -> list[str]:
    manifest = run.manifest
    model = manifest.model
    parts = (model.get(name) for name in ("class", "name", "revision", "dtype", "device", "attention"))
    rows = [("model", ", ".join(str(part) for part in parts if part))]
    for kind in sorted({site.kind for site in run.sites}):
        sites = [site for site in run.sites if site.kind == kind]
        heads = sorted({site.heads for site in sites})
        rows.append(("sites", f"{len(sites)} {kind}-attention, {' or '.join(map(str, heads))} heads each"))
    rows += [("kept", _item(kept)) for kept in manifest.keep]
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())))
    if manifest.data is not None:
        rows.append(("data", clip(json.dumps(dict(manifest.data), ensure_ascii=False), DATA)))
    rows.append(("size", describe_size(run.nbytes, bytes_on_disk(path))))
    listed = rows_of(manifest, len(run.samples))
    rows += [("rows", f"{listed} of the corpus")] if listed else []
    rows.append(("recorded", manifest.created))
    rows += _progress(_writers(run))
    lines = [str(path), repr(run), *(f"{name:<9} {value}" for name, value in rows)]
    first = list(run.samples[:LISTED])
    lines += [f"sample {sample.id:<2} {_describe(sample, out.width)}" for sample in first]
    if len(run.samples) > len(first):
        lines.append(f"... and {len(run.samples) - len(first):,} more samples (--json lists all)")
    return lines


def _writers(run: Run) -> list[Writing]:
    reader = run.reader
    return find_writers(reader.path, reader.journals) if isinstance(reader, DirectoryReader) else []


def _progress(writers: list[Writing]) -> list[tuple[str, str]]:
    """How each writer is; of those that have ended, or that a later one went on for, how many."""
    repairs = [one for one in writers if one.repaired]
    at_work = [one for one in writers if not one.repaired]
    rows = []
    gone_on = [one for one in at_work if one.gone_on]
    for one in (one for one in at_work if one.state != ENDED and one not in gone_on):
        ago = max(datetime.now(UTC) - datetime.fromisoformat(one.last), timedelta())
        words = [
            f"{one.rank}/{one.world} {_STATES.get(one.state, one.state)}",
            f"{one.samples:,} sample{'s' * (one.samples != 1)}, {format_bytes(one.nbytes)} listed",
            *([f"{format_bytes(one.unfinished)} unfinished"] if one.unfinished else []),
            f"started {one.started[:19]}",
            f"last wrote {timedelta(seconds=int(ago.total_seconds()))} ago",
        ]
        rows.append(("writer", ", ".join(words)))
    ended = sum(one.state == ENDED for one in at_work)
    more = " more" if rows else ""
    counts = [f"{ended:,}{more}, ended"] if ended > 1 or (ended and (more or gone_on)) else []
    counts += [f"{len(gone_on):,}{more}, killed or copied, and gone on with"] if gone_on else []
    if counts:
        rows.append(("writers", "; ".join(counts)))
    if repairs:
        count = sum(one.repaired for one in repairs)
        rows.append(("repaired", f"{count:,} shard{'s were' if count != 1 else ' was'} set aside"))
    return rows


def _item(kept: Mapping[str, Any]) -> str:
    """What one `keep` item kept, and of which heads and rows."""
    words = {name: kept[name] for name in kept if name not in ("what", "dtype", "k", "measures", "pyramid")}
    if isinstance(words.get("heads"), Mapping):
        words["heads"] = " and ".join(f"{heads} of layer {layer}" for layer, heads in words["heads"].items())
    selection = ", ".join(f"{name} {value}" for name, value in words.items())
    what, dtype = kept.get("what"), kept.get("dtype")
    if what == "measures":
        listed = kept.get("measures")
        names = [str(one.get("name")) for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
        return f"measures: {selection.replace(', keys all', '')}: {', '.join(names)}"
    whole = f"the {kept.get('k')} largest weights of each row" if what == "topk" else what
    return f"{whole} in {dtype}: {selection}"


def _describe(sample: Sample, width: int) -> str:
    main = sample.main
    generated = main.length - sample.prompt_length
    text = f"{main.length:,} tokens" + (f", {generated:,} of them generated" if generated else "")
    room = width - len(text) - 15
    if main.texts is None or room < 20:
        return text
    return f"{text}  {clip(printable(''.join(main.texts[:room])), room)}"
