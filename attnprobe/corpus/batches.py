"""Rows to batches of token ids: read ahead a little, and of that sorted by length, so that little is padding."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from attnprobe.corpus.rows import DONE, Row
from attnprobe.errors import SelectionError

LONG = ("cut", "skip", "fail")
NO_TOKENS, TOO_LONG = "without tokens", "longer than the context window"
AHEAD = 16  # batches that are read ahead,
CHARACTERS = 4 << 20  # or the first rows that have so many characters together
AT_ONCE = 512 << 10  # characters that are encoded together: tokenizers take some hundred bytes for each while they do


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
        Rows that were cut, to the context window or as asked for.
    skipped
        Rows that are not recorded, by reason.
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
        Texts to token ids, a list a text; with a number, none longer than so many tokens.
    batch
        Most rows of a batch.
    batch_tokens
        Most tokens of a batch, padding included: rows times the longest. A row that is longer is a batch of its own.
    max_tokens
        Take only so many tokens of each text.
    window
        Most tokens that the model takes.
    long
        What becomes of rows that are longer: ``"cut"``, ``"skip"`` or ``"fail"``.
    """

    encode: Callable[[list[str], int | None], list[list[int]]]
    batch: int = 8
    batch_tokens: int | None = None
    max_tokens: int | None = None
    window: int | None = None
    long: str = "cut"

    def batches(self, rows: Iterable[Row], tally: Tally) -> Iterator[list[Piece]]:
        """Batches, of the rows that are read ahead together the longest first; what is left out goes to `tally`.

        Raises
        ------
        SelectionError
            If a row is too long and that is to fail.
        """
        waiting: list[Row] = []
        characters = 0
        for row in rows:
            if row.problem == DONE:
                tally.done += 1
            elif row.problem is not None:
                tally.skipped[row.problem] += 1
            else:
                waiting.append(row)
                characters += len(row.text)
            if len(waiting) == self.batch * AHEAD or characters >= CHARACTERS:
                yield from self._pack(waiting, tally)
                waiting, characters = [], 0
        yield from self._pack(waiting, tally)

    def _pack(self, rows: list[Row], tally: Tally) -> Iterator[list[Piece]]:
        fitting = [self._fit(row, ids, tally) for row, ids in self._encoded(rows)]
        pieces = sorted((piece for piece in fitting if piece is not None), key=lambda piece: -len(piece.ids))
        pack: list[Piece] = []
        for piece in pieces:
            full = pack and self.batch_tokens is not None and (len(pack) + 1) * len(pack[0].ids) > self.batch_tokens
            if full or len(pack) == self.batch:
                yield pack
                pack = []
            pack.append(piece)
        if pack:
            yield pack

    def _encoded(self, rows: list[Row]) -> Iterator[tuple[Row, list[int]]]:
        """Rows and their token ids; of one with more than are taken, one more, which tells that."""
        limits = [one for one in (self.max_tokens, self.window) if one is not None]
        most = 1 + min(limits) if limits else None
        for together in _groups(rows):
            yield from zip(together, self.encode([row.text for row in together], most), strict=True)

    def _fit(self, row: Row, ids: list[int], tally: Tally) -> Piece | None:
        """A row's token ids, as many as are wanted and fit."""
        length = len(ids) if self.max_tokens is None else min(len(ids), self.max_tokens)
        if self.window is not None and length > self.window:
            if self.long == "fail":
                raise SelectionError(
                    f"row {row.number:,} (id {row.id!r}) has more tokens than the context window, {self.window:,}; "
                    "cut such rows (--long cut), or leave them out (--long skip)"
                )
            if self.long == "skip":
                tally.skipped[TOO_LONG] += 1
                return None
            length = self.window
        if length < len(ids):
            (ids,) = self.encode([row.text], length)  # not a slice: what ends a text of an encoder is kept
            tally.cut += 1
        if not ids:
            tally.skipped[NO_TOKENS] += 1
            return None
        return Piece(row.number, row.id, tuple(ids))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows that are encoded together."""
    group: list[Row] = []
    characters = 0
    for row in rows:
        if group and characters + len(row.text) > AT_ONCE:
            yield group
            group, characters = [], 0
        group.append(row)
        characters += len(row.text)
    if group:
        yield group
