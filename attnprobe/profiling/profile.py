"""What a profiler found, to be read: tables by stage and by site."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnprobe.fields import Site
from attnprobe.profiling.ranges import short
from attnprobe.profiling.stages import STAGES
from attnprobe.profiling.tables import render


@dataclass(frozen=True)
class Entry:
    """What one stage took at one site; without a site, what belongs to none.

    Attributes
    ----------
    stage, site
        Which.
    host
        Seconds of the threads that the model runs in.
    device
        Seconds on CUDA streams, those included in which the device waited for the host between.
    behind
        Seconds of threads that write beside the model, which does not wait for them.
    calls
        How often the stage began.
    copied, written, filed
        Bytes from a device to the host, to the store, and from there to files.
    host_peak
        Bytes by which the stage raised the most that the process ever had in memory.
    device_peak, device_held
        Bytes by which it raised the most that torch ever had given out on the device; and the most that was given out
        while the stage ran, above what was when recording began that call's work.
    """

    stage: str
    site: Site | None
    host: float
    device: float
    behind: float
    calls: int
    copied: int
    written: int
    filed: int
    host_peak: int
    device_peak: int
    device_held: int


SECONDS = "host", "device", "behind"
FIGURES = tuple(name for name in Entry.__dataclass_fields__ if name not in ("stage", "site"))


@dataclass(frozen=True)
class Note:
    """How something of a site was made: `what` (tiles, a measure), `how`, and `why`, where it is a fallback."""

    site: Site | None
    what: str
    how: str
    why: str


@dataclass(frozen=True, repr=False)
class Profile:
    """Time and memory of a recording by stage and site; its `repr` is a table.

    Attributes
    ----------
    entries
        By stage and site.
    notes
        How tiles and measures were made.
    total
        Host seconds of recording: the stages' sum.
    block
        Seconds of the block, the model's included.
    stages, profiling
        How many stages there were, and what taking these figures took in seconds, which is in no stage.
    on_cuda
        Whether the model is on a CUDA device.
    """

    entries: Sequence[Entry]
    notes: Sequence[Note]
    total: float
    block: float
    stages: int
    profiling: float
    on_cuda: bool

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The table, line by line."""
        return render(self)

    @property
    def sites(self) -> list[Site | None]:
        """The sites, in order of their layers; None, for what belongs to none, is first."""
        found = dict.fromkeys(entry.site for entry in self.entries)
        return sorted(found, key=lambda site: (site is not None, (site.part, site.layer, site.key) if site else ()))

    @property
    def fallbacks(self) -> list[Note]:
        """What was not made as asked or hoped for, and why."""
        return [note for note in self.notes if note.why]

    def to_pandas(self) -> pd.DataFrame:
        """A line a stage and site: seconds, calls, bytes. ``layer`` is -1 for what belongs to none."""
        order = {stage: number for number, stage in enumerate(STAGES)}
        place = {site: number for number, site in enumerate(self.sites)}
        entries = sorted(self.entries, key=lambda entry: (order[entry.stage], place[entry.site]))
        rows = [
            {
                "stage": entry.stage,
                "layer": -1 if entry.site is None else entry.site.layer,
                "site": "" if entry.site is None else entry.site.key,
                **{name: getattr(entry, name) for name in FIGURES},
            }
            for entry in entries
        ]
        return pd.DataFrame(rows, columns=["stage", "layer", "site", *FIGURES])

    @property
    def summary(self) -> pd.DataFrame:
        """A line a stage, over all sites, and ``total``; `device_held` is the largest of all."""
        rows = {stage: self._sum(entry for entry in self.entries if entry.stage == stage) for stage in STAGES}
        return pd.DataFrame.from_dict({**rows, "total": self._sum(self.entries)}, orient="index", columns=list(FIGURES))

    @property
    def layers(self) -> pd.DataFrame:
        """Host seconds, a line a site and a column a stage, and ``total``."""
        rows = {site: dict.fromkeys([*STAGES, "total"], 0.0) for site in self.sites}
        for entry in self.entries:
            rows[entry.site][entry.stage] += entry.host
            rows[entry.site]["total"] += entry.host
        index = [short(site) or "no site" for site in rows]
        return pd.DataFrame(list(rows.values()), index=index, columns=[*STAGES, "total"])

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        told = [
            {"site": None if note.site is None else note.site.key, "what": note.what, "how": note.how, "why": note.why}
            for note in self.notes
        ]
        entries = [{**vars(entry), "site": None if entry.site is None else entry.site.key} for entry in self.entries]
        return {
            "seconds": {"block": self.block, "recording": self.total, "profiling": self.profiling},
            "stages": self.stages,
            "entries": entries,
            "notes": told,
        }

    @staticmethod
    def _sum(entries: Iterable[Entry]) -> dict[str, Any]:
        listed = list(entries)
        sums: dict[str, Any] = {name: sum(getattr(entry, name) for entry in listed) for name in FIGURES}
        sums.update({name: float(sums[name]) for name in SECONDS})
        return {**sums, "device_held": max((entry.device_held for entry in listed), default=0)}
