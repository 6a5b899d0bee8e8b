"""A sample while it grows: sequences without padding, token by token.

A sequence's *slots* are the columns of its keys, padding included; its *positions* count only its own tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from attnprobe.fields import Sample, TokenSequence
from attnprobe.selection import Selection
from attnprobe.shapes import Bool, Int

MAIN, SOURCE = "main", "source"
Strings = Callable[[list[int]], tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass
class GrowingSequence:
    """One sequence of a sample while it grows.

    ``place[slot]`` is the position in the sequence of each slot so far, -1 for padding.
    """

    length: int = 0
    place: Int[np.ndarray, " slot"] = field(default_factory=lambda: np.zeros(0, np.int64))
    ids: list[Int[np.ndarray, " n"]] = field(default_factory=list)
    with_ids: bool = False
    positions: list[Int[np.ndarray, " n"]] = field(default_factory=list)

    def grow(
        self,
        valid: Bool[np.ndarray, " n"],
        ids: Int[np.ndarray, " n"] | None = None,
        positions: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        """Append slots."""
        count = int(valid.sum())
        self.place = np.concatenate([self.place, np.where(valid, self.length + np.cumsum(valid) - 1, -1)])
        self.positions.append(np.arange(self.length, self.length + count) if positions is None else positions[valid])
        self.ids.append(np.full(count, -1, np.int64) if ids is None else ids[valid])
        self.with_ids |= ids is not None
        self.length += count

    def finish(self, strings: Strings | None, text: bool) -> TokenSequence:
        """The sequence as it is kept."""
        ids = np.concatenate(self.ids) if self.with_ids else None
        tokens = texts = None
        if ids is not None and strings is not None:
            tokens, texts = strings(ids.tolist())
        if ids is not None and not text:
            ids = first_occurrence(ids)
        positions = np.concatenate([np.zeros(0, np.int64), *self.positions])
        plain = np.array_equal(positions, np.arange(self.length))
        return TokenSequence(self.length, ids, tokens, texts, None if plain else positions)


@dataclass
class Growing:
    """A sample while it grows; `row` is its row of the batch, `users` how many lineages may still add to it.

    `named` tells that the user gave its id.
    """

    index: int
    id: str
    row: int = 0
    prompt_length: int | None = None
    prompt_fixed: bool = False
    generating: bool = False
    ending: bool = False
    ended: bool = False
    sequences: dict[str, GrowingSequence] = field(default_factory=dict)
    users: int = 1
    kept: int = 0
    guessed: bool = False
    called: bool = False
    paused: bool = False
    named: bool = False

    def sequence(self, name: str) -> GrowingSequence:
        """A sequence of the sample, empty if nothing of it was seen."""
        return self.sequences.setdefault(name, GrowingSequence())

    @property
    def length(self) -> int:
        """Tokens of the main sequence, or of the only one."""
        sequence = self.sequences.get(MAIN) or next(iter(self.sequences.values()), None)
        return 0 if sequence is None else sequence.length

    def selected(self, selection: Selection, positions: Int[np.ndarray, " n"], name: str) -> Bool[np.ndarray, " n"]:
        """Which of these positions (-1 for padding) of a sequence a selection wants as rows."""
        prompt = (self.prompt_length or 0) if name == MAIN else self.sequence(name).length
        wanted = np.zeros(len(positions), bool)
        if selection.generated == "all":
            wanted |= positions >= prompt
        in_prompt = (positions >= 0) & (positions < prompt)
        if selection.queries.everything:
            wanted |= in_prompt
        elif in_prompt.any():
            low, high = int(positions[in_prompt].min()), int(positions[in_prompt].max())
            wanted |= np.isin(positions, list(selection.queries.within(low, high + 1, prompt)))
        return wanted

    def finish(self, strings: Strings | None, text: bool) -> Sample:
        """The sample as it is kept; `strings` gives tokens and texts of ids. Without `text`, ids tell only repeats."""
        sequences = {name: one.finish(strings, text) for name, one in self.sequences.items()}
        prompt = (self.prompt_length or 0) if MAIN in sequences else self.length
        return Sample(self.index, self.id, sequences, min(prompt, self.length), self.named)


def first_occurrence(ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each id's rank in order of first occurrence: tells repeats, not tokens. An unknown token stays -1."""
    known = ids >= 0
    _, first, inverse = np.unique(ids[known], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    ranks = np.full(len(ids), -1, np.int64)
    ranks[known] = rank[inverse]
    return ranks
