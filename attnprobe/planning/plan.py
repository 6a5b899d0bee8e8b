"""What a recording will take, as plain data."""

from dataclasses import asdict, dataclass
from html import escape
from textwrap import fill
from typing import Any

from attnprobe.errors import BudgetError
from attnprobe.keep import Item
from attnprobe.sizes import format_bytes

WIDTH = 80  # of what a plan looks like as text


@dataclass(frozen=True)
class Room:
    """Bytes of host memory, of an accelerator's memory and of a disk; None where that is not known."""

    host: int | None = None
    device: int | None = None
    disk: int | None = None


@dataclass(frozen=True)
class Entry:
    """What one `keep` item will take.

    Attributes
    ----------
    what
        In words: ``weights float32``.
    sites, heads, rows
        How many; heads of all sites, rows of each head.
    nbytes
        Bytes kept, of all samples.
    operations, moved
        Floating-point operations beside the model's own, and bytes read and written for them: estimates.
    need
        What would be taken at most if only this were kept; None where that was not asked for.
    """

    what: str
    sites: int
    heads: int
    rows: int
    nbytes: int
    operations: int
    moved: int
    need: Room | None = None


@dataclass(frozen=True)
class Suggestion:
    """A selection near to what was asked for, that fits.

    Attributes
    ----------
    code
        Arguments of `record` and `plan`.
    options
        The same for the command line.
    nbytes
        Bytes that it keeps.
    keep, to, budget
        The arguments as objects.
    """

    code: str
    options: str
    nbytes: int
    keep: tuple[Item, ...]
    to: str | None
    budget: int


@dataclass(frozen=True, repr=False)
class Plan:
    """What a recording will take, before anything runs; `attnprobe.plan` makes one.

    Attributes
    ----------
    model, device
        Class of the model, and where it runs.
    batch, tokens, generate
        Samples, tokens of each prompt, tokens generated after it.
    others, uncounted
        Lengths of the other sequences that run (an encoder's source, a tower's image); names of those whose length was
        not told, so that what is kept of them is not counted.
    entries
        One a `keep` item.
    to, budget
        Run directory, or None for memory; bytes of working memory.
    need
        Bytes that are taken at most: of host memory and of the accelerator's, beside the model's own, and of the disk.
    free
        Bytes that were free when the plan was made, less those of the model's own numbers where they are not there yet.
    attention, forward
        Operations of the model's own attention kernels, and of its forward passes as a whole.
    suggestions
        Where it does not fit: near selections that do, those that keep most first.
    notes
        What is worth knowing before it runs.
    """

    model: str
    device: str
    batch: int
    tokens: int
    generate: int
    others: dict[str, int]
    uncounted: tuple[str, ...]
    entries: tuple[Entry, ...]
    to: str | None
    budget: int
    need: Room
    free: Room
    attention: int
    forward: int
    suggestions: tuple[Suggestion, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes kept, as ``run.nbytes`` will say."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def operations(self) -> int:
        """Floating-point operations beside the model's own."""
        return sum(entry.operations for entry in self.entries)

    @property
    def shortages(self) -> tuple[str, ...]:
        """What is too small, in words."""
        places = (
            ("host memory", self.need.host, self.free.host),
            (f"memory on {self.device}", self.need.device, self.free.device),
            ("disk", self.need.disk, self.free.disk),
        )
        return tuple(
            f"{format_bytes(need)} of {place} are needed and {format_bytes(free)} are free"
            for place, need, free in places
            if need and free is not None and need > free
        )

    @property
    def fits(self) -> bool:
        """Whether it fits what is free."""
        return not self.shortages

    def check(self, command_line: bool = False, resumed: bool = False) -> None:
        """Refuse what does not fit.

        Parameters
        ----------
        command_line
            Word the suggestions as options rather than as arguments.
        resumed
            Suggest no other selection: a run is gone on with, and takes none but its own.

        Raises
        ------
        BudgetError
            If it does not, with the nearest selections that would.
        """
        if self.fits:
            return
        what = " and ".join(entry.what for entry in self.entries)
        sites = max(entry.sites for entry in self.entries)
        samples = "" if self.batch == 1 else f"{self.batch} samples of "
        message = (
            f"{what} of {sites} {'site' if sites == 1 else 'sites'} and {samples}{self._tokens} do not fit: "
            f"{' and '.join(self.shortages)}"
        )
        if resumed:
            fewer = "" if self.batch == 1 else ", or run fewer samples together" + " (--batch)" * command_line
            raise BudgetError(f"{message}; free some{fewer}, and go on: what the run lists is kept")
        found = [
            f"{one.options if command_line else one.code} ({format_bytes(one.nbytes)})" for one in self.suggestions
        ]
        if found:
            raise BudgetError(";\n  ".join([f"{message}; nearest that fit:\n  {found[0]}", *found[1:]]))
        raise BudgetError(f"{message}; nothing near fits: free some, or take fewer tokens")

    @property
    def _tokens(self) -> str:
        generated = f" and {self.generate:,} generated" if self.generate else ""
        return f"{self.tokens:,} tokens{generated}"

    def lines(self) -> list[str]:
        """The plan as a table, at most 80 columns wide where names are short."""
        rows = [("", "sites", "heads", "rows", "kept", "peak", "operations")]
        rows += [
            (e.what, f"{e.sites}", f"{e.heads:,}", f"{e.rows:,}", format_bytes(e.nbytes), _peak(e.need),
             _count(e.operations))
            for e in self.entries
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        samples = "" if self.batch == 1 else f"{self.batch} x "
        lengths = "".join(f", {name} of {length:,}" for name, length in self.others.items())
        found = [f"{self.model} on {self.device}, {samples}{self._tokens}{lengths}"]
        for first, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            found.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
        beside = f"{_share(self.operations, self.attention)} of attention's own operations"
        found.append(f"{'operations':<12}{beside}, {_share(self.operations, self.forward)} of the forward's")
        for name, need, free in (
            ("disk", self.need.disk, self.free.disk),
            ("host", self.need.host, self.free.host),
            (self.device, self.need.device, self.free.device),
        ):
            if need:
                of = "" if free is None else f", {format_bytes(free)} free"
                peak = "" if name == "disk" else " at most, beside the model"
                found.append(f"{name:<12}{format_bytes(need)}{peak}{of}")
        if self.uncounted:
            found.append(f"not counted: {', '.join(self.uncounted)}; how long that is, was not told")
        return found

    @property
    def verdict(self) -> str:
        """Whether it fits, in a sentence."""
        if self.fits:
            but = f", without {', '.join(self.uncounted)}" if self.uncounted else ""
            return f"fits{but}" if any((self.free.host, self.free.disk)) else "how much is free is not known here"
        return f"does not fit: {' and '.join(self.shortages)}"

    def __repr__(self) -> str:
        """The table, whether it fits, and what would."""
        near = [f"  {one.code} ({format_bytes(one.nbytes)})" for one in self.suggestions]
        notes = [fill(f"note: {note}", WIDTH, subsequent_indent="      ") for note in self.notes]
        return "\n".join([*self.lines(), *notes, self.verdict, *(["nearest that fit:", *near] if near else [])])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """The plan in plain data; sizes in bytes."""
        plain = ("model", "device", "batch", "tokens", "generate", "others", "to", "budget", "attention", "forward")
        return {
            **{name: getattr(self, name) for name in plain},
            "uncounted": list(self.uncounted),
            "entries": [asdict(entry) for entry in self.entries],
            "nbytes": self.nbytes,
            "operations": self.operations,
            "need": asdict(self.need),
            "free": asdict(self.free),
            "fits": self.fits,
            "notes": list(self.notes),
            "suggestions": [
                {"code": one.code, "options": one.options, "nbytes": one.nbytes} for one in self.suggestions
            ],
        }


def _peak(need: Room | None) -> str:
    """Bytes at most of what is worked in: the accelerator's, else the host's."""
    if need is None:
        return ""
    return format_bytes((need.host or 0) if need.device is None else need.device)


def _share(part: int, whole: int) -> str:
    """A part of a whole in percent: ``4.3%``, ``59%``."""
    percent = 100 * part / max(whole, 1)
    return f"{percent:.2g}%" if percent < 10 else f"{percent:,.0f}%"


def _count(number: int) -> str:
    """Operations in few characters: ``12.3 GFLOP``."""
    for unit, scale in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)):
        if number < 999.5 * scale:
            return f"{number / scale:.3g} {unit}FLOP"
    return f"{number / 1e18:.3g} EFLOP"
