"""A sample while it grows: one sequence without padding, token by token.

Its *slots* are the columns of the key cache, padding included; its *positions* count only its own tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from attnprobe.fields import Sample, TokenSequence
from attnprobe.selection import Selection
from attnprobe.shapes import Bool, Int


@dataclass
class Growing:
    """A sample while it grows.

    ``place[slot]`` is the position in the sample of each slot so far, -1 for padding.
    """

    index: int
    id: str
    prompt_length: int | None = None
    prompt_fixed: bool = False
    generating: bool = False
    ending: bool = False
    ended: bool = False
    length: int = 0
    place: Int[np.ndarray, " slot"] = field(default_factory=lambda: np.zeros(0, np.int64))
    ids: list[Int[np.ndarray, " n"]] = field(default_factory=list)
    with_ids: bool = False
    positions: list[Int[np.ndarray, " n"]] = field(default_factory=list)
    source: Int[np.ndarray, " slot"] | None = None
    kept: int = 0
    guessed: bool = False
    called: bool = False
    paused: bool = False

    @property
    def source_length(self) -> int:
        """Tokens of the sequence that cross-attention looks at."""
        return 0 if self.source is None else int(self.source.max(initial=-1)) + 1

    def grow(
        self,
        valid: Bool[np.ndarray, " n"],
        ids: Int[np.ndarray, " n"] | None,
        positions: Int[np.ndarray, " n"],
    ) -> None:
        """Append slots."""
        valid = valid & (not self.ended)
        new = np.where(valid, self.length + np.cumsum(valid) - 1, -1)
        self.place = np.concatenate([self.place, new])
        self.length += int(valid.sum())
        self.ids.append(np.full(int(valid.sum()), -1, np.int64) if ids is None else ids[valid])
        self.positions.append(positions[valid])
        self.with_ids |= ids is not None

    def selected(self, selection: Selection, positions: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which of these positions (-1 for padding) a selection wants as rows."""
        prompt = self.prompt_length or 0
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

    def finish(
        self, strings: Callable[[list[int]], tuple[tuple[str, ...], tuple[str, ...]]] | None, text: bool
    ) -> Sample:
        """The sample as it is kept; `strings` gives tokens and texts of ids. Without `text`, ids tell only repeats."""
        ids = np.concatenate(self.ids) if self.with_ids else None
        tokens = texts = None
        if ids is not None and strings is not None:
            tokens, texts = strings(ids.tolist())
        if ids is not None and not text:
            ids = first_occurrence(ids)
        positions = np.concatenate(self.positions)
        plain = np.array_equal(positions, np.arange(self.length))
        sequences = {"main": TokenSequence(self.length, ids, tokens, texts, None if plain else positions)}
        if self.source is not None:
            sequences["source"] = TokenSequence(self.source_length)
        return Sample(self.index, self.id, sequences, min(self.prompt_length or 0, self.length))


def first_occurrence(ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each id's rank in order of first occurrence: tells repeats, not tokens. An unknown token stays -1."""
    known = ids >= 0
    _, first, inverse = np.unique(ids[known], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    ranks = np.full(len(ids), -1, np.int64)
    ranks[known] = rank[inverse]
    return ranks
