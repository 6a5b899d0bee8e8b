"""The explorer as one HTML file: the front end and the answers that it can give, for a browser without a network."""

import base64
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import SupportsIndex

from attnprobe.errors import AttnprobeError, BudgetError, NotKept
from attnprobe.explorer.answering import Answering, unpack
from attnprobe.explorer.answers import Answers
from attnprobe.explorer.contents import EXACT, Contents, Part, Question, key_of
from attnprobe.explorer.page import Page
from attnprobe.explorer.some import some_samples
from attnprobe.explorer.state import looking_at
from attnprobe.run import Run, open_run
from attnprobe.sizes import format_bytes, parse_bytes

MAX_SIZE = "20 MB"
SAMPLES = 8  # that are taken where none are named
PROBES = 32  # answers that the size of a part is estimated of
LEVEL = 9  # of deflate
ERRING = 1.1  # by how much more than an estimate is told as enough
HeadName = tuple[SupportsIndex | str, SupportsIndex]  # layer or module's name, and head


@dataclass(frozen=True)
class Size:
    """How large a file is, or will be about.

    Attributes
    ----------
    parts
        Bytes of each thing that is taken, and of the page itself.
    left
        What is left out, since there is no room.
    samples
        How many samples are taken, and how many there are.
    exact
        Bytes that are about enough for the exact weights too.
    """

    parts: dict[str, int]
    left: tuple[str, ...]
    samples: tuple[int, int]
    exact: int = 0

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self.parts.values())

    @property
    def lacking(self) -> str:
        """What cannot be looked at since exact weights are left out, and what to do; empty where they are not."""
        if EXACT not in self.left:
            return ""
        enough = max(-(-self.exact // 1_000_000), 1)
        return f"Lines, Table and exact numbers need about {enough} MB: --max-size {enough}MB"

    @property
    def account(self) -> str:
        """What it has, what takes most first, and what it has not."""
        taken = sorted(self.parts.items(), key=lambda part: -part[1])
        most = ", ".join(f"{format_bytes(size)} {what}" for what, size in taken[:4] if size)
        some = f"; of {self.samples[0]:,} of {self.samples[1]:,} samples" if self.samples[0] < self.samples[1] else ""
        left = f"; left out: {'; '.join(self.left)}" if self.left else ""
        return f"{format_bytes(self.total)}: {most}{some}{left}"

    def __str__(self) -> str:
        """In words."""
        return f"{self.account}. {self.lacking}" if self.lacking else self.account


def write_html(
    runs: Run | Path | str | Sequence[Run | Path | str],
    path: str | Path,
    heads: Sequence[HeadName] | None = None,
    samples: Sequence[SupportsIndex | str] | None = None,
    max_size: int | str = MAX_SIZE,
    force: bool = False,
    told: Callable[[Size], None] | None = None,
) -> Size:
    """Write the explorer of some runs into one HTML file, which needs no network and no Python.

    Maps are taken as fine as there is room for, and exact weights, curves and means where there still is some. A file
    of named heads opens on the map of the first of them.

    Parameters
    ----------
    runs
        A run or several, or their paths.
    path
        The file; one that is there is replaced, and it appears whole or not at all.
    heads
        Whose maps are taken, as layer (or a module's name) and head; all if None. Small pictures are of all.
    samples
        Places or ids; the first 8 of each run if None.
    max_size
        Bytes that it may have, ``"20 MB"``.
    force
        Write it although what is needed at least takes more.
    told
        Called with the size, which is an estimate, before most of the work.

    Returns
    -------
    Size
        What it has.

    Raises
    ------
    BudgetError
        If what is needed at least is larger than `max_size`.
    NotKept
        If a sample or a head is not there, or has no weights.
    """
    limit = parse_bytes(max_size)
    several = [runs] if isinstance(runs, Run | Path | str) else runs
    opened = [run if isinstance(run, Run) else open_run(run) for run in several]
    chosen = [some_samples(run, _places(run, samples)) for run in opened]
    counts = [len(run.samples) for run in chosen]
    answers = Answers.of(chosen)
    parts = Contents(answers, counts, None if heads is None else [_heads(run, heads) for run in chosen]).parts()
    first = looking_at(chosen[0], 0, *heads[0]) if heads else {}
    page = Page.made(", ".join(run.path.name if run.path else "attnprobe" for run in opened), first)
    about = sum(counts), sum(len(run.samples) for run in opened)

    expected = {part.what: _expected(answers, part) for part in parts if part.questions}
    plan, left = _fitting([part for part in parts if part.questions], expected, limit - page.size)
    exact = int(ERRING * (page.size + _until_exact(expected)))
    estimate = Size({"the page": page.size, **{part.what: expected[part.what] for part in plan}}, left, about, exact)
    if told is not None:
        told(estimate)
    _refuse_large(estimate, limit, force, "would be about")

    held, size = _taken(answers, plan, Size({"the page": page.size}, left, about, exact), limit)
    _refuse_large(size, limit, force, "is")
    _replace(Path(path), page.text(held))
    return size


def _taken(answers: Answering, plan: Sequence[Part], size: Size, limit: int) -> tuple[dict[str, str], Size]:
    """The answers of the parts, but of none that would make the file too large after all, and the file's size."""
    held: dict[str, str] = {}
    parts, left, full = dict(size.parts), list(size.left), set()
    for part in plan:
        found = {} if part.kind in full else _held(answers, part.questions)
        more = sum(map(_size, found.items()))
        if part.kind and (part.kind in full or sum(parts.values()) + more > limit):
            if part.what == EXACT:  # an estimate was too low
                size = replace(size, exact=max(size.exact, int(ERRING * (sum(parts.values()) + more))))
            full.add(part.kind)
            left.append(part.what)
            continue
        held |= found
        parts[part.what] = more
    return held, replace(size, parts=parts, left=tuple(left))


def _until_exact(expected: Mapping[str, int]) -> int:
    """Bytes of the exact weights and of all that is taken before them, by what parts are called, in their order."""
    names = list(expected)
    return sum(expected[name] for name in names[: names.index(EXACT) + 1]) if EXACT in expected else 0


def _places(run: Run, samples: Sequence[SupportsIndex | str] | None) -> list[int]:
    count = len(run.samples)
    if not count:
        raise NotKept(f"the run {run.path or 'in memory'} lists no sample yet")
    if samples is None:
        return list(range(min(count, SAMPLES)))
    every = [run.sample(which).sample.index for which in samples]
    index = {sample.index: place for place, sample in enumerate(run.samples)}
    return [index[one] for one in dict.fromkeys(every)]


def _heads(run: Run, heads: Sequence[HeadName]) -> frozenset[tuple[str, int]]:
    """Sites and numbers of heads; each sample has to have their weights."""
    found = set()
    for sample in run:
        for layer, number in heads:
            head = sample[layer, number]
            if not head.has_weights:
                raise NotKept(f"no weights were kept of layer {layer}, head {number}, so there is no map; name others")
            found.add((head.site.key, head.number))
    return frozenset(found)


def _expected(answers: Answering, part: Part) -> int:
    """About how large the answers of a part are, of some of them."""
    count = len(part.questions)
    some = Random(0).sample(range(count), min(count, PROBES))  # a pattern might meet the same side of every map
    found = _held(answers, [part.questions[i] for i in some])
    return sum(map(_size, found.items())) * count // len(some)


def _fitting(parts: Sequence[Part], expected: dict[str, int], room: int) -> tuple[list[Part], tuple[str, ...]]:
    """What every file has, and of the rest what there is room for; of one kind, nothing behind what there is not."""
    plan: list[Part] = []
    left: list[Part] = []
    full = set()
    room -= sum(expected[part.what] for part in parts if not part.kind)
    for part in parts:
        fits = not part.kind or (part.kind not in full and expected[part.what] <= room)
        (plan if fits else left).append(part)
        if not fits:
            full.add(part.kind)
        elif part.kind:
            room -= expected[part.what]
    return plan, tuple(part.what for part in left)


def _refuse_large(size: Size, limit: int, force: bool, verb: str) -> None:
    if size.total > limit and not force:
        raise BudgetError(
            f"the file {verb} {size}; that is more than {format_bytes(limit)}: take fewer heads (--heads 3.1) or "
            f"samples (--sample 0), or allow it by --max-size {size.total // 1_000_000 + 1}MB or --yes"
        )


def _held(answers: Answering, questions: Sequence[Question]) -> dict[str, str]:
    """The answers, deflated, by their questions; what cannot be answered is left out."""
    found = {}
    for name, params in questions:
        frame = answers.ask(name, params)
        if "error" not in unpack(frame)[0]:
            found[key_of(name, params)] = base64.b64encode(zlib.compress(frame, LEVEL)).decode("ascii")
    return found


def _size(one: tuple[str, str]) -> int:
    return len(one[0]) + len(one[1]) + len('"":"",')


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AttnprobeError(f"{path} cannot be written: {error.strerror or error}") from error
