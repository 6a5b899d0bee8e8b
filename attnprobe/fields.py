"""What a run holds: samples made of sequences, and fields made of row blocks. Plain data, shared by all stores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from attnprobe.shapes import Int

if TYPE_CHECKING:  # reading a run takes no torch
    import torch

Rows = range | tuple[int, ...]

# What values may be stored in, and bytes of one; those that weights may be stored in, the most precise first (codes.py
# has "log-uint8"); those that a measure may be stored in.
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "log-uint8": 1}
WEIGHT_DTYPES = ("float32", "float16", "bfloat16", "log-uint8")
MEASURE_DTYPES = ("float32", "float16", "bfloat16", "int32")
MAP = ("query", "key")
LARGEST_K = 4096  # of the largest weights of a row
HUGE = 4 << 20  # bytes from which on NumPy asks for huge pages
STATISTICS = ("mean", "std", "count")  # of a row measure over valid rows


@dataclass(frozen=True)
class Site:
    """One attention module of a model.

    Attributes
    ----------
    key
        Its name in ``model.named_modules()``.
    kind
        ``"self"`` or ``"cross"``.
    part
        ``"decoder"``, ``"encoder"``, ``"vision"`` or ``"text"``.
    layer, heads, kv_heads
        Its layer number (from 0), query heads and key-value heads.
    queries, keys
        The sequence of the sample that its rows and its columns belong to.
    route
        How its weights are seen: ``"registry"`` (transformers' attention functions), ``"sdpa"`` (it calls SDPA itself),
        ``"multihead"`` (``nn.MultiheadAttention``), ``"returned"`` (it builds them).
    """

    key: str
    kind: str
    part: str
    layer: int
    heads: int
    kv_heads: int
    queries: str = "main"
    keys: str = "main"
    route: str = "registry"

    def __hash__(self) -> int:
        return hash(self.key)  # a name is one module's; a hash of all would be much of what small fields cost

    @property
    def label(self) -> str:
        """Short name for messages: ``layer 3 (cross, transformer.h.3.crossattention)``."""
        return f"layer {self.layer} ({self.kind}, {self.key})"


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One sequence of a sample, without padding.

    Attributes
    ----------
    length
        Number of tokens.
    ids
        Token ids; -1 where a token was never seen; None where there are no tokens (embeddings). Without text
        (`record(text=False)`), each token's rank of first occurrence instead.
    tokens
        Strings as the tokenizer shows them (``Ġexplore``), or None.
    texts
        The same as text (``" explore"``), or None.
    positions
        Position ids that the model was given, or None where they count from 0.
    """

    length: int
    ids: Int[np.ndarray, " length"] | None = None
    tokens: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    positions: Int[np.ndarray, " length"] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One example: its number and name in the run, its sequences, the length of its prompt.

    `named` tells that the name was given, and is the sample's in every attempt at it; else it is but a number.
    """

    index: int
    id: str
    sequences: Mapping[str, TokenSequence] = field(repr=False)
    prompt_length: int
    named: bool = False

    @property
    def main(self) -> TokenSequence:
        """The main sequence, or the only one."""
        return self.sequences.get("main") or next(iter(self.sequences.values()))


@dataclass(frozen=True)
class Field:
    """One kept array of one sample at one site: ``[head, *axes]``.

    Attributes
    ----------
    sample
        Index of the sample.
    site
        Where.
    group
        Which of the recording's `keep` items this is; two may keep one site.
    heads
        The kept heads, ascending.
    dtype
        ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int32"`` or ``"log-uint8"``.
    what
        What the values are: ``"weights"``, ``"top"`` (the largest ones; their columns are ``"top_keys"``, the mass of
        the others ``"top_rest"``), or the name of a measure.
    axes
        At most two: ``query``, ``key``, ``rank``, ``statistic``, ``distance``, ``query_cell``, ``key_cell``. Blocks
        have always three: an axis that is absent has length one, the second before the first.
    """

    sample: int
    site: Site
    group: int
    heads: tuple[int, ...]
    dtype: str = "float32"
    what: str = "weights"
    axes: tuple[str, ...] = MAP

    def __hash__(self) -> int:
        return hash((self.sample, self.site.key, self.group, self.what))

    @property
    def name(self) -> str:
        """Unique name in a run, and the prefix of its tensors' names in a shard."""
        return f"{self.sample}/{self.site.key}/{self.what}.{self.group}"


@dataclass(frozen=True, eq=False)
class Block:
    """Some whole rows of some heads of a field.

    A store that is given a block owns it: nobody else writes to `values` any more.

    Attributes
    ----------
    heads
        The heads, of the field's.
    rows
        Positions on the field's first axis, ascending: of a map, its rows' in the sample.
    start
        Position of the first column. Columns outside of the block are zero.
    values
        ``[head, query, key]``, or what the field's axes are, on the CPU, in the torch dtype that the field's is stored
        as (`codes.STORED_AS`).
    causal, sink
        Of weights, what is known of them beside their values: that no row sees a column behind its own; that a learned
        sink takes a share of each row.
    longest
        The larger of the rows and the columns of its whole map, where it is known that no more will come; else 0.
    """

    heads: tuple[int, ...]
    rows: Rows
    start: int
    values: "torch.Tensor"
    causal: bool = False
    sink: bool = False
    longest: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.numel() * self.values.element_size()

    def compact(self) -> "Block":
        """The same block in memory of its own: a small view would keep a whole tile alive, or pinned."""
        if self.values.untyped_storage().nbytes() == self.nbytes and not self.values.is_pinned():
            return self
        return replace(self, values=own_memory(self.values))


def own_memory(values: "torch.Tensor") -> "torch.Tensor":
    """A copy; a large one in memory from NumPy, which asks for pages so large that few have to be made."""
    import torch

    if values.nbytes < HUGE:
        return values.clone()
    memory = torch.from_numpy(np.empty(values.nbytes, np.uint8)).view(values.dtype).view(values.shape)
    return memory.copy_(values)


@dataclass(frozen=True, eq=False)
class Piece:
    """Where a block of a field lies: its heads, rows and first column, shape, and what the store needs to find it."""

    heads: tuple[int, ...]
    rows: Rows
    start: int
    shape: tuple[int, int, int]
    place: Any = field(repr=False)


def encode_rows(rows: Rows) -> list[list[int]]:
    """Row positions as ``[start, stop, step]`` runs, for JSON."""
    if isinstance(rows, range):
        return [[rows.start, rows.stop, rows.step]]
    runs: list[list[int]] = []
    for row in rows:
        if runs:
            start, stop, step = runs[-1]
            if row == stop - 1 + step:
                runs[-1][1] = row + 1
                continue
            if stop == start + 1 and row > start:  # one row so far: the next one tells the step
                runs[-1] = [start, row + 1, row - start]
                continue
        runs.append([row, row + 1, 1])
    return runs


def decode_rows(runs: Sequence[Sequence[int]]) -> Rows:
    """The inverse of `encode_rows`."""
    if len(runs) == 1:
        return range(*runs[0])
    return tuple(row for run in runs for row in range(*run))


def describe_rows(rows: Iterable[int]) -> str:
    """Row positions in few words, for messages: ``0 to 13, 20``."""
    if isinstance(rows, range) and rows.step == 1 and rows:
        return f"{rows[0]}" if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
    runs: list[list[int]] = []
    for row in sorted(rows):
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    parts = [f"{a}" if a == b else f"{a} to {b}" for a, b in runs]
    return ", ".join(parts if len(parts) <= 6 else [*parts[:5], f"... {parts[-1]}"]) or "none"
