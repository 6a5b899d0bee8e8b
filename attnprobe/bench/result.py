"""What a benchmark found: a row a mode and length, as table, JSON, CSV and plot."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.bench.setting import Setting
from attnprobe.bench.timing import Spread
from attnprobe.errors import AttnprobeError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = 1
MEASURED = "measured"
_SPREADS = ("seconds", "forward_seconds", "ratio", "forward_ratio")
_BYTES = ("kept", "device_peak", "device_extra", "host_peak", "host_extra")


@dataclass(frozen=True)
class Row:
    """A mode at a length.

    Attributes
    ----------
    mode, tokens
        Which.
    status, reason
        ``"measured"``, or ``"out of memory"``, ``"will not fit"``, ``"not tried"``, ``"failed"``, and why.
    seconds
        Of all of it: from entering the recording to having left it, when everything is kept.
    forward_seconds
        Of the forward pass alone, inside of the recording. On a device, copies may go on behind it.
    ratio, forward_ratio
        Both over the bare forward pass of the same round. The bare one's own is that of a second bare pass over the
        first: what is noise.
    kept
        Bytes that are kept of it.
    device_peak, host_peak
        Bytes at the peak of one run, above those of the model at rest; None where there is none, or was not measured.
    device_extra, host_extra
        Both above the bare forward pass's.
    """

    mode: str
    tokens: int
    status: str = MEASURED
    reason: str = ""
    seconds: Spread | None = None
    forward_seconds: Spread | None = None
    ratio: Spread | None = None
    forward_ratio: Spread | None = None
    kept: int | None = None
    device_peak: int | None = None
    device_extra: int | None = None
    host_peak: int | None = None
    host_extra: int | None = None

    @property
    def extra(self) -> int | None:
        """Extra bytes where the model is: on the device, else on the host."""
        return self.host_extra if self.device_extra is None else self.device_extra

    def describe(self) -> dict[str, Any]:
        """In plain data."""
        spreads = {name: getattr(self, name) for name in _SPREADS}
        return {
            **{name: getattr(self, name) for name in ("mode", "tokens", "status", "reason")},
            **{name: None if one is None else one.describe() for name, one in spreads.items()},
            **{name: getattr(self, name) for name in _BYTES},
        }

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Row":
        """What `describe` gave."""
        spreads = {name: found[name] and Spread(tuple(found[name]["values"])) for name in _SPREADS}
        return cls(**{**found, **spreads})


@dataclass(frozen=True, repr=False)
class Bench:
    """What a benchmark found; `attnprobe.bench.bench` makes one.

    Attributes
    ----------
    setting
        What was asked for.
    environment
        What it was measured on.
    modes
        What each mode is, in words.
    rows
        A row a mode and length, by length.
    notes
        What to know of the figures.
    interrupted
        Whether it was ended before it was done.
    """

    setting: Setting
    environment: dict[str, Any]
    modes: dict[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())
    interrupted: bool = False

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, key: tuple[str, int]) -> Row:
        """``bench["measures", 4096]``."""
        found = next((row for row in self.rows if (row.mode, row.tokens) == key), None)
        if found is None:
            there = ", ".join(dict.fromkeys(f"{row.mode} at {row.tokens}" for row in self.rows))
            raise KeyError(f"{key[0]} at {key[1]} tokens was not measured; there are {there or 'none'}")
        return found

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows of modes that ended with an error other than a lack of memory."""
        return tuple(row for row in self.rows if row.status == "failed")

    def to_dict(self) -> dict[str, Any]:
        """The result in plain data."""
        return {
            "benchmark": "attnprobe bench",
            "format": FORMAT,
            "setting": self.setting.describe(),
            "environment": self.environment,
            "modes": self.modes,
            "notes": [*self.notes],
            "interrupted": self.interrupted,
            "rows": [row.describe() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Bench":
        """What `to_dict` gave.

        Raises
        ------
        AttnprobeError
            If it is something else.
        """
        if not isinstance(found, dict) or (found.get("benchmark"), found.get("format")) != ("attnprobe bench", FORMAT):
            raise AttnprobeError("this is no result of attnprobe bench that this version reads")
        return cls(
            Setting.read(found["setting"]),
            found["environment"],
            found["modes"],
            tuple(map(Row.read, found["rows"])),
            tuple(found["notes"]),
            found["interrupted"],
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """As JSON, written to `path` if that is given."""
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> "Bench":
        """Read what `to_json` wrote.

        Raises
        ------
        AttnprobeError
            If the file is something else.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise AttnprobeError(f"{path} is no JSON: {error}") from error
        return cls.from_dict(found)

    def to_pandas(self) -> "pd.DataFrame":
        """A table with a row a mode and length: medians, ``_low`` and ``_high``, bytes, and how many rounds."""
        import pandas as pd

        lines = []
        for row in self.rows:
            line: dict[str, Any] = {name: getattr(row, name) for name in ("mode", "tokens", "status", "reason")}
            for name in _SPREADS:
                one = getattr(row, name)
                for end, suffix in (("median", ""), ("low", "_low"), ("high", "_high")):
                    line[name + suffix] = None if one is None else getattr(one, end)
            line["rounds"] = 0 if row.seconds is None else row.seconds.count
            lines.append({**line, **{f"{name}_bytes": getattr(row, name) for name in _BYTES}})
        table = pd.DataFrame(lines)
        whole = [f"{name}_bytes" for name in _BYTES]
        return table.astype(dict.fromkeys(whole, "Int64")) if lines else table

    def to_csv(self, path: str | Path | None = None) -> str:
        """`to_pandas` as CSV, written to `path` if that is given."""
        text: str = self.to_pandas().to_csv(index=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Time over the bare forward pass, and extra memory, over length; saved to `path` if that is given.

        Raises
        ------
        AttnprobeError
            If matplotlib is not installed, or nothing was measured.
        """
        from attnprobe.bench.plot import plot

        figure = plot(self)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        """The table as text."""
        from attnprobe.bench.table import text

        return text(self)
