"""Rows to batches of token ids: read ahead a little, and of that sorted by length, so that little is padding."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from attnprobe.corpus.rows import DONE, Row
from attnprobe.errors import SelectionError

LONG = ("cut", "skip", "fail")
NO_TOKENS, TOO_LONG = "without tokens", "longer than the context window"


@dataclass(frozen=True)
class Piece:
    """A row's number, id and token ids."""

    number: int
    id: str
    ids: tuple[int, ...]


@dataclass
class Tally:
    """What became of the rows so far.

    Attributes
    ----------
    recorded, tokens
        Rows that were recorded, and their tokens.
    done
        Rows that were recorded before this started.
    cut
        Recorded rows that were cut, to the context window or as asked for.
    skipped
        Rows that were not recorded, by reason.
    """

    recorded: int = 0
    tokens: int = 0
    done: int = 0
    cut: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def handled(self) -> int:
        """Rows that nothing is left to do for."""
        return self.recorded + self.done + self.skipped.total()


@dataclass(frozen=True)
class Batcher:
    """Makes batches of rows.

    Attributes
    ----------
    encode
        Texts to token ids, one list a text.
    batch
        Most rows of a batch.
    most
        Most tokens of a batch, padding included: rows times the longest. A row that is longer is a batch of its own.
    max_tokens
        Take only so many tokens of each text.
    window
        Most tokens that the model takes.
    long
        What becomes of rows that are longer: ``"cut"``, ``"skip"`` or ``"fail"``.
    ahead
        Batches that are read ahead.
    """

    encode: Callable[[list[str]], list[list[int]]]
    batch: int = 8
    most: int | None = None
    max_tokens: int | None = None
    window: int | None = None
    long: str = "cut"
    ahead: int = 16

    def windows(self, rows: Iterable[Row], tally: Tally) -> Iterator[list[list[Piece]]]:
        """Batches of as many rows as are read ahead together, the longest first; what is left out goes to `tally`.

        Raises
        ------
        SelectionError
            If a row is too long and that is to fail.
        """
        waiting: list[Row] = []
        for row in rows:
            if row.problem == DONE:
                tally.done += 1
            elif row.problem is not None:
                tally.skipped[row.problem] += 1
            else:
                waiting.append(row)
            if len(waiting) >= self.batch * self.ahead:
                if batches := self._cut(waiting, tally):
                    yield batches
                waiting = []
        if waiting and (batches := self._cut(waiting, tally)):
            yield batches

    def _cut(self, rows: list[Row], tally: Tally) -> list[list[Piece]]:
        pieces = []
        for row, ids in zip(rows, self.encode([row.text for row in rows]), strict=True):
            piece = self._fit(row, ids, tally)
            if piece is not None:
                pieces.append(piece)
        pieces.sort(key=lambda piece: -len(piece.ids))
        batches: list[list[Piece]] = []
        for piece in pieces:
            last = batches[-1] if batches else []
            room = self.most is None or (len(last) + 1) * len(last[0].ids if last else ()) <= self.most
            if last and len(last) < self.batch and room:
                last.append(piece)
            else:
                batches.append([piece])
        return batches

    def _fit(self, row: Row, ids: list[int], tally: Tally) -> Piece | None:
        kept = ids[: self.max_tokens]
        if not kept:
            tally.skipped[NO_TOKENS] += 1
            return None
        if self.window is not None and len(kept) > self.window:
            if self.long == "fail":
                raise SelectionError(
                    f"row {row.number:,} (id {row.id!r}) has {len(ids):,} tokens, and the context window is "
                    f"{self.window:,}; cut such rows (--long cut), or leave them out (--long skip)"
                )
            if self.long == "skip":
                tally.skipped[TOO_LONG] += 1
                return None
            kept = kept[: self.window]
        tally.cut += len(kept) < len(ids)
        return Piece(row.number, row.id, tuple(kept))
