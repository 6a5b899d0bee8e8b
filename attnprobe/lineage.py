"""Which samples a forward pass opens or continues: batches of samples that grow together, each on one key cache."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from attnprobe.errors import UnsupportedCall
from attnprobe.fields import Rows
from attnprobe.measures import Tokens
from attnprobe.samples import MAIN, SOURCE, Growing, GrowingSequence
from attnprobe.selection import Selection
from attnprobe.shapes import Bool, Int, Shaped


@dataclass(frozen=True)
class Generation:
    """What `generate` said: slots of its prompt (None: those of the first forward pass), and the tokens that end it."""

    prompt_slots: int | None
    ends: frozenset[int]


@dataclass
class Lineage:
    """Samples whose sequences of one name grow together, the slots that their cache holds, and that cache, held weakly.

    For an encoder, its output stands in for the cache. `generation` is the `generate` call that last ran on it, `print`
    what tells whether the cache was changed since, `source` the encoder's lineage whose samples these are too, `taken`
    whether a decoder has them, `packed` whether rows hold several samples, and `failed` that a forward pass was
    refused: none of its samples will be kept.
    """

    samples: list[Growing]
    slots: int
    name: str = MAIN
    prompt_slots: int | None = None
    generation: Generation | None = None
    print: Any = None
    caches: dict[int, Any] = field(default_factory=dict)
    source: "Lineage | None" = None
    packed: bool = False
    taken: bool = False
    finished: bool = False
    failed: bool = False


@dataclass
class Forward:
    """One forward pass: the slots that it adds to a lineage."""

    lineage: Lineage
    start: int
    count: int
    opening: bool
    generation: Generation | None = None
    open_sample: Callable[[int], Growing] | None = None
    landed: bool = False
    last: bool = False  # whether its samples cannot go on
    turns: Counter[int] = field(default_factory=Counter)
    _tokens: dict[int, Tokens | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The sequence that grows."""
        return self.lineage.name

    @property
    def batch(self) -> int:
        """Rows of the batch; where rows are packed, there are more samples."""
        return 1 + max(sample.row for sample in self.lineage.samples)

    def land(
        self,
        ids: Int[np.ndarray, "rows query"] | None,
        mask: Shaped[np.ndarray, "rows slot"] | None,
        diagonal: Bool[np.ndarray, "one_or_rows query"] | None,
        positions: Int[np.ndarray, "some query"] | None,
        source: Shaped[np.ndarray, "any source_slot"] | None,
    ) -> None:
        """Take the host copies of what the forward pass was given; only now is it known which slots are padding.

        `mask` is the 2D attention mask over all slots; where the mask was 4D, `diagonal` says which new tokens attend
        to themselves, which padding never does.

        Raises
        ------
        UnsupportedCall
            If a mask changes what an earlier forward pass was told, a row goes on that had ended, or rows are packed.
        """
        stop = self.start + self.count
        unmasked = mask is None and (diagonal is None or bool(diagonal.all()))
        if positions is not None and unmasked and self.name == MAIN:
            parts = self._packed(positions)
            if parts:
                self._land_packed(parts, ids, positions)
                return
        for sample in self.lineage.samples:
            b, sequence = sample.row, sample.sequence(self.name)
            if sample.ended and self.generation is not self.lineage.generation:
                raise UnsupportedCall(
                    f"batch row {b} ended in an earlier generation, and its cache holds padding since; "
                    "start the next turn with a fresh cache"
                )
            valid = np.ones(self.count, bool)
            past = np.ones(self.start, bool)
            if mask is not None:
                row = mask[b if len(mask) > 1 else 0].astype(bool)
                if len(row) < stop:
                    raise UnsupportedCall(
                        f"the attention mask is {len(row)} wide, and batch row {b} has {self.start} cached and "
                        f"{self.count} new tokens; pass a mask over all of them"
                    )
                past, valid = row[: self.start], row[self.start : stop]
            elif diagonal is not None:
                valid = diagonal[b if len(diagonal) > 1 else 0]
            if self.opening and self.start:  # a cache that was filled before recording began: earlier tokens unknown
                sequence.grow(past)
            elif mask is not None:
                self._check_past(sample, past)
            given = None if positions is None else positions[b if len(positions) > 1 else 0]
            numbers = np.arange(self.start, stop) if given is None else given
            row_ids = None if ids is None else ids[b]
            if self.generation is not None and not sample.ended and row_ids is not None:
                valid = self._until_end(self.generation, sample, valid, row_ids)
            sequence.grow(valid & (not sample.ended), row_ids, numbers)
            if self.name == MAIN:
                self._count_prompt(sample)
            if source is not None and self.lineage.source is None:
                own = sample.sequences[SOURCE] = GrowingSequence()
                own.grow(source[b if len(source) > 1 else 0].astype(bool))
        self.lineage.generation = self.generation
        self.landed = True

    def _packed(self, positions: Int[np.ndarray, "some query"]) -> list[tuple[int, int, int]]:
        """Batch row, first slot and slot behind the last of each sequence; none where no row holds several."""
        rows = [positions[b if len(positions) > 1 else 0] for b in range(self.batch)]
        cuts = [[0, *(np.flatnonzero((row[1:] == 0) & (row[:-1] > 0)) + 1).tolist(), self.count] for row in rows]
        if all(len(cut) == 2 for cut in cuts):
            return []
        if not self.opening or self.start:
            raise UnsupportedCall(
                "position_ids restart inside a row that goes on in a cache; pack sequences in one forward pass, with "
                "use_cache=False"
            )
        return [(b, first, stop) for b, cut in enumerate(cuts) for first, stop in pairwise(cut)]

    def _land_packed(
        self,
        parts: list[tuple[int, int, int]],
        ids: Int[np.ndarray, "rows query"] | None,
        positions: Int[np.ndarray, "some query"],
    ) -> None:
        """Sequences that are packed into rows are a sample each."""
        assert self.open_sample is not None, "a forward pass that opens samples can open more"
        have = {sample.row: sample for sample in self.lineage.samples}
        self.lineage.samples = [have.pop(b) if b in have else self.open_sample(b) for b, _, _ in parts]
        for sample, (b, first, stop) in zip(self.lineage.samples, parts, strict=True):
            valid = np.zeros(self.count, bool)
            valid[first:stop] = True
            row = positions[b if len(positions) > 1 else 0]
            sample.sequence(self.name).grow(valid, None if ids is None else ids[b], row)
            self._count_prompt(sample)
        self.lineage.generation = self.generation
        self.lineage.packed = self.landed = True

    def _check_past(self, sample: Growing, past: Bool[np.ndarray, " slot"]) -> None:
        told = sample.sequence(self.name).place >= 0
        if not sample.ended and not np.array_equal(past, told):
            changed = int(np.flatnonzero(past != told)[0])
            raise UnsupportedCall(
                f"the attention mask of batch row {sample.row} changes slot {changed}, which an earlier forward pass "
                f"saw {'as a token' if told[changed] else 'as padding'}; keep the mask of earlier tokens as it was"
            )

    def _until_end(
        self, generation: Generation, sample: Growing, valid: Bool[np.ndarray, " n"], ids: Int[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """After an end token, `generate` feeds padding to a finished row with its mask still on."""
        generated = np.arange(self.start, self.start + self.count) >= (self.lineage.prompt_slots or 0)
        after = generated & np.isin(ids, list(generation.ends))
        if after.any():
            valid = valid & (np.arange(self.count) <= int(np.flatnonzero(after)[0]))
            sample.ending = True
        return valid

    def _count_prompt(self, sample: Growing) -> None:
        slots = self.lineage.prompt_slots
        if sample.ending:
            sample.ended = True
        if sample.prompt_fixed:
            return
        if slots is not None:
            sample.prompt_length = int((sample.sequence(self.name).place[:slots] >= 0).sum())
        elif self.opening or (self.count > 1 and not sample.generating):
            sample.prompt_length = sample.length
        else:
            sample.generating = sample.guessed = True

    def prompt_open(self) -> bool:
        """Whether more of the prompt may come, so that positions counted from its end are not known."""
        if self.name != MAIN or all(sample.prompt_fixed for sample in self.lineage.samples):
            return False
        slots = self.lineage.prompt_slots
        if slots is not None:
            return self.start + self.count < slots
        return not self.opening and self.count > 1

    def positions(self, sample: Growing) -> Int[np.ndarray, " query"]:
        """Position in a sample of each row of the call, -1 for padding."""
        return sample.sequence(self.name).place[self.start : self.start + self.count]

    def tokens(self, sample: Growing) -> Tokens | None:
        """Token ids of a sample so far; None where one is unknown. The copies must have landed."""
        if sample.index not in self._tokens:
            sequence = sample.sequence(self.name)
            ids = np.concatenate(sequence.ids) if sequence.with_ids else np.full(1, -1)
            self._tokens[sample.index] = Tokens(ids) if (ids >= 0).all() else None
        return self._tokens[sample.index]

    def rows(self, selection: Selection) -> Rows:
        """The rows of the call that any sample's selection wants. The copies must have landed.

        Raises
        ------
        UnsupportedCall
            If what is wanted depends on the length of a prompt, and that is not known.
        """
        if self.name == MAIN and self.count > 1 and any(sample.guessed for sample in self.lineage.samples):
            raise UnsupportedCall(
                "a forward pass of one token was taken for the start of generation, and now several tokens come; tell "
                "where the prompt ends: with rec.sample(prompt_length=...)"
            )
        if selection.queries.from_end and self.prompt_open():
            raise UnsupportedCall(
                f"queries={selection.queries.text!r} count from the end of a prompt that came in several passes; tell "
                "its length: with rec.sample(prompt_length=...)"
            )
        wanted = np.zeros(self.count, bool)
        for sample in self.lineage.samples:
            wanted |= sample.selected(selection, self.positions(sample), self.name)
        found = np.flatnonzero(wanted)
        if len(found) and len(found) == found[-1] - found[0] + 1:
            return range(int(found[0]), int(found[-1]) + 1)
        return tuple(found.tolist())
