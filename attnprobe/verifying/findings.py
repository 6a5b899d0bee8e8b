"""What a verification found: each thing that is wrong, and how much was looked at."""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnprobe.sizes import format_bytes

# What a tensor holds, though its checksum fits: so it was recorded, and would be again.
RECORDED = frozenset({"nan", "infinite", "negative", "above 1", "row sum", "causality", "position", "tokens"})


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    problem
        ``"missing"``, ``"size"``, ``"header"``, ``"checksum"``, ``"unreadable"`` of a shard; ``"nan"``,
        ``"infinite"``, ``"negative"``, ``"above 1"``, ``"row sum"``, ``"causality"``, ``"position"``, ``"tokens"`` of
        what a tensor holds; ``"journal"``, ``"record"``, ``"listed twice"`` of a journal; ``"manifest"``.
    file
        Where, within the run.
    message
        What is wrong.
    tensor
        In which tensor.
    offset
        First byte in the file of what is wrong: of a value, of a row whose sum is, of a tensor, of a journal's line.
    sample, site
        Id of the sample, and the module's name, where it is of one.
    """

    problem: str
    file: str
    message: str
    tensor: str | None = None
    offset: int | None = None
    sample: str | None = None
    site: str | None = None

    def __str__(self) -> str:
        """In one line: file, tensor, offset, what is wrong."""
        tensor = "" if self.tensor is None else f", tensor {self.tensor}"
        offset = "" if self.offset is None else f", byte {self.offset:,}"
        sample = "" if self.sample is None or self.tensor is not None else f", sample {self.sample}"
        return f"{self.file}{tensor}{sample}{offset}: {self.message}"


@dataclass
class Counts:
    """How much was looked at.

    Attributes
    ----------
    shards, tensors, nbytes
        Listed files, their tensors, and the bytes that were read.
    samples
        Whose records were checked.
    rows
        Rows of weights, over all heads, whose values were checked.
    sums
        Those of them whose sum was compared with 1, or with 1 minus the mass of a learned sink. The sum of the others
        may be anything up to 1: not all of their keys were kept, or what their sink takes was not, or their run is of
        a format that does not tell whether there is a sink.
    causal
        Those of them that may not look ahead, and do not.
    """

    shards: int = 0
    tensors: int = 0
    nbytes: int = 0
    samples: int = 0
    rows: int = 0
    sums: int = 0
    causal: int = 0

    def add(self, other: "Counts") -> None:
        """Count what another one counted too."""
        for name, number in vars(other).items():
            setattr(self, name, getattr(self, name) + number)


@dataclass
class Report:
    """What a verification found.

    Attributes
    ----------
    path
        The run.
    counts
        How much was looked at.
    findings
        All that is wrong.
    notes
        What is worth knowing, and no fault.
    aside
        What a repair moved to the run's ``aside/``, or cut off; as lines.
    left
        Of the findings, those that the repair did not take away; all, where none was asked for.
    """

    path: str
    counts: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now."""
        return not self.left

    def to_dict(self) -> dict[str, Any]:
        """In plain data."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        """In one line."""
        it = self.counts
        counts = (
            (it.shards, "shard"), (it.tensors, "tensor"), (it.samples, "sample"), (it.rows, "row"),
        )  # fmt: skip
        shards, tensors, samples, rows = (f"{n:,} {word}{'s' * (n != 1)}" for n, word in counts)
        if self.findings:
            wrong = f"{len(self.findings):,} thing{'s' * (len(self.findings) != 1)} wrong"
        else:
            wrong = "nothing is wrong"
        return (
            f"{shards}, {tensors}, {format_bytes(it.nbytes)}, {samples}, {rows} of weights ({it.sums:,} sums and "
            f"{it.causal:,} for causality): {wrong}"
        )
