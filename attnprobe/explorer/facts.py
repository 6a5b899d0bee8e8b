"""What there is: runs, samples, their sites and tokens; and how far a run is that is still written."""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from attnprobe.errors import SelectionError
from attnprobe.explorer.asked import Asked
from attnprobe.explorer.frames import Answer
from attnprobe.explorer.opened import View
from attnprobe.explorer.pieces import pieces_of
from attnprobe.fields import Site
from attnprobe.held import MEAN, Held, dtypes_of, is_measure
from attnprobe.measured import in_order, units_of
from attnprobe.show.prepare import printable
from attnprobe.version import VERSION

MOST = 4096  # samples or tokens in one answer
LONGEST = 200  # characters of a name or a token: a run is as untrusted as who asks


def runs(asked: Asked) -> Answer:
    """All runs."""
    return Answer({"runs": [_run(one.view) for one in asked.runs], "version": VERSION})


def _run(view: View) -> dict[str, Any]:
    run = view.run
    manifest, count = run.manifest, len(run.samples)
    fields = run.reader.fields(run.samples[0].index) if count else ()
    model = _short(_without_folders(str(manifest.model.get("name") or manifest.model.get("class") or "a model")))
    name = run.path.name if run.path is not None else "in memory"
    title = f"{model}, {count:,} sample{'s' * (count != 1)}"
    return {
        "name": _short(name),
        "path": None if run.path is None else str(run.path),
        "title": title if count != 1 else f"{title} of {run.samples[0].main.length:,} tokens",
        "model": model,
        "created": _short(manifest.created),
        "samples": count,
        "dtype": dtypes_of(fields),
        "text": manifest.text,
        "note": _note(view, count),
    }


def _without_folders(name: str) -> str:
    """A model of a directory has its path for a name, which is long, and no business of those whom a file is sent."""
    return PurePath(name).name if PurePath(name).is_absolute() else name


def _note(view: View, samples: int) -> str:
    """What who looks at a run should know; mostly nothing."""
    if not samples:
        return "No sample is listed yet."
    off = view.run.fidelity.off if view.run.fidelity is not None else ()
    if off:
        more = f" and {len(off) - 1} more" if len(off) > 1 else ""
        return f"The weights of {_short(off[0])}{more} may not be those that the kernel used (attnprobe verify)."
    return ""


def live(asked: Asked) -> Answer:
    """How far a run is; from then on, answers are about that state of it."""
    view, writing = asked.opened.refresh()
    count = len(view.run.samples)
    return Answer({"samples": count, "writing": writing, "stamp": view.stamp or f"{count}"})


def samples(asked: Asked) -> Answer:
    """Some samples."""
    listed = asked.view.run.samples
    part = listed[_span(asked, len(listed))]
    found = [{"id": _short(one.id), "tokens": one.main.length, "prompt": one.prompt_length} for one in part]
    return Answer({"samples": found})


def sample(asked: Asked) -> Answer:
    """One sample: its sequences, its sites and what was kept there."""
    one, held = asked.sample.sample, asked.view.held(asked.sample)
    lengths = {name: sequence.length for name, sequence in one.sequences.items()}
    labels = _labels(held)
    sites = [
        {
            "key": site.key,
            "label": labels[site],
            "layer": site.layer,
            "kind": site.kind,
            "part": site.part,
            "heads": asked.view.heads(asked.sample, site),
            "weights": sorted({head for field, _ in fields if field.what == "weights" for head in field.heads}),
            "queries": site.queries,
            "keys": site.keys,
            "rows": lengths[site.queries],
            "columns": lengths[site.keys],
        }
        for site, fields in held.items()
    ]
    axes = {field.what: field.axes for fields in held.values() for field, _ in fields if is_measure(field)}
    manifest = asked.view.run.manifest
    units = units_of(manifest)
    measures = [
        {"name": name, "unit": units.get(name.removesuffix(MEAN), ""), "axes": axes[name]}
        for name in in_order(axes, manifest)
    ]
    about = {"id": _short(one.id), "prompt": one.prompt_length, "sequences": lengths}
    return Answer({**about, "sites": sites, "measures": measures})


def _labels(held: Mapping[Site, Held]) -> dict[Site, str]:
    """A short name of each site, its key where others are called the same."""
    several = {site.part for site in held if site.part != "decoder"}
    names = {
        site: ", ".join(
            [
                f"layer {site.layer}",
                *([site.part] if several and site.kind == "self" else []),
                *([site.kind] if site.kind != "self" else []),
            ]
        )
        for site in held
    }
    often = Counter(names.values())
    return {site: name if often[name] == 1 else f"{name} ({site.key})" for site, name in names.items()}


def tokens(asked: Asked) -> Answer:
    """What some tokens are called, and the texts that they stand for, without control characters."""
    name, sequences = asked.text("sequence"), asked.sample.sample.sequences
    if name not in sequences:
        raise SelectionError(f"there is no sequence {name!r}; there are {', '.join(sequences)}")
    sequence, span = sequences[name], _span(asked, sequences[name].length)
    if sequence.tokens is None and sequence.ids is None:  # then nothing vouches for its length
        return Answer({"tokens": [str(position) for position in range(span.start, span.stop)], "texts": None})
    labels = asked.view.labels(asked.sample, name)[span]
    texts: tuple[str, ...] | None = asked.view.made.get(
        ("texts", asked.sample.sample.index, name), lambda: pieces_of(sequence)
    )
    return Answer(
        {
            "tokens": [_short(one) for one in labels],
            "texts": None if texts is None else [_short(one) for one in texts[span]],
        }
    )


def _span(asked: Asked, length: int) -> slice:
    """From `start` to `stop`, as far as there is something."""
    start, stop = asked.number("start"), asked.number("stop")
    if not start <= stop <= start + MOST:
        raise SelectionError(f"from {start} to {stop}: give start, and stop at most {MOST:,} after it")
    return slice(min(start, length), min(stop, length))


def _short(text: object) -> str:
    """A text of the run, on one line, and not too long."""
    whole = str(text)
    return printable(whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…")
