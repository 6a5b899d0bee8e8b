"""Which samples a forward pass opens or continues: batches of samples that grow together, each on one key cache."""

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnprobe import caching
from attnprobe.errors import UnsupportedCall
from attnprobe.fields import Rows
from attnprobe.measures import Tokens
from attnprobe.samples import Growing
from attnprobe.selection import Selection
from attnprobe.shapes import Bool, Int, Shaped


@dataclass(frozen=True)
class Generation:
    """What `generate` said: slots of its prompt, and the tokens that end a sequence."""

    prompt_slots: int
    ends: frozenset[int]


@dataclass
class Lineage:
    """Samples that grow together, the slots that their cache holds, and that cache, held weakly.

    `generation` is the `generate` call that last ran on it, `print` what tells whether the cache was changed since, and
    `failed` that a forward pass was refused: none of its samples will be kept.
    """

    samples: list[Growing]
    slots: int
    prompt_slots: int | None = None
    generation: Generation | None = None
    print: Any = None
    caches: dict[int, Any] = field(default_factory=dict)
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
    landed: bool = False
    _tokens: dict[int, Tokens | None] = field(default_factory=dict)

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
        if positions is not None and mask is None and diagonal is None:
            _refuse_packed(positions)
        for b, sample in enumerate(self.lineage.samples):
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
                sample.grow(past, None, np.arange(self.start))
            elif mask is not None:
                self._check_past(sample, past, b)
            given = None if positions is None else positions[b if len(positions) > 1 else 0]
            numbers = np.arange(self.start, stop) if given is None else given
            row_ids = None if ids is None else ids[b]
            if self.generation is not None and not sample.ended and row_ids is not None:
                valid = self._until_end(self.generation, sample, valid, row_ids)
            sample.grow(valid, row_ids, numbers)
            self._count_prompt(sample)
            if source is not None:
                seen = source[b if len(source) > 1 else 0].astype(bool)
                sample.source = np.where(seen, np.cumsum(seen) - 1, -1)
        self.lineage.generation = self.generation
        self.landed = True

    def _check_past(self, sample: Growing, past: Bool[np.ndarray, " slot"], b: int) -> None:
        told = sample.place >= 0
        if not sample.ended and not np.array_equal(past, told):
            changed = int(np.flatnonzero(past != told)[0])
            raise UnsupportedCall(
                f"the attention mask of batch row {b} changes slot {changed}, which an earlier forward pass saw "
                f"{'as a token' if told[changed] else 'as padding'}; keep the mask of earlier tokens as it was"
            )

    def _until_end(
        self, generation: Generation, sample: Growing, valid: Bool[np.ndarray, " n"], ids: Int[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """After an end token, `generate` feeds padding to a finished row with its mask still on."""
        generated = np.arange(self.start, self.start + self.count) >= generation.prompt_slots
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
            sample.prompt_length = int((sample.place[:slots] >= 0).sum())
        elif self.opening or (self.count > 1 and not sample.generating):
            sample.prompt_length = sample.length
        else:
            sample.generating = sample.guessed = True

    def prompt_open(self) -> bool:
        """Whether more of the prompt may come, so that positions counted from its end are not known."""
        if all(sample.prompt_fixed for sample in self.lineage.samples):
            return False
        slots = self.lineage.prompt_slots
        if slots is not None:
            return self.start + self.count < slots
        return not self.opening and self.count > 1

    def positions(self, b: int) -> Int[np.ndarray, " query"]:
        """Position in its sample of each row of the call, -1 for padding."""
        return self.lineage.samples[b].place[self.start : self.start + self.count]

    def tokens(self, b: int) -> Tokens | None:
        """Token ids of a sample so far; None where one is unknown. The copies must have landed."""
        if b not in self._tokens:
            sample = self.lineage.samples[b]
            ids = np.concatenate(sample.ids) if sample.with_ids else np.full(1, -1)
            self._tokens[b] = Tokens(ids) if (ids >= 0).all() else None
        return self._tokens[b]

    def rows(self, selection: Selection) -> Rows:
        """The rows of the call that any sample's selection wants. The copies must have landed.

        Raises
        ------
        UnsupportedCall
            If what is wanted depends on the length of a prompt, and that is not known.
        """
        if self.count > 1 and any(sample.guessed for sample in self.lineage.samples):
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
        for b, sample in enumerate(self.lineage.samples):
            wanted |= sample.selected(selection, self.positions(b))
        found = np.flatnonzero(wanted)
        if len(found) and len(found) == found[-1] - found[0] + 1:
            return range(int(found[0]), int(found[-1]) + 1)
        return tuple(found.tolist())


class Tracker:
    """Keeps the open lineages: which cache belongs to which, and which have ended."""

    def __init__(self, open_sample: Callable[[int, int], Growing]) -> None:
        self._open_sample = open_sample
        self._lineages: list[Lineage] = []
        self._ended: deque[Lineage] = deque()

    def begin(
        self, batch: int, count: int, cache: Any, generation: Generation | None, window: int | None = None
    ) -> Forward:
        """The forward pass that starts now, on `cache` or None, of a model with this context window.

        Raises
        ------
        UnsupportedCall
            If the batch changed while its cache grew, the cache was changed, or the tokens do not fit the window.
        """
        lineage = self._of(cache) if cache is not None else None
        if lineage is not None and len(lineage.samples) != batch:
            raise UnsupportedCall(
                f"the cache belongs to a batch of {len(lineage.samples)} and is used for one of {batch}; "
                "start with a fresh cache when the batch changes"
            )
        if lineage is not None and not caching.unchanged(cache, lineage.print, lineage.slots):
            self.end(lineage)  # reset, cropped, or used outside of the recording: a new sample
            lineage = None
        slots = caching.length(cache) if lineage is None else lineage.slots
        if window is not None and slots + count > window:
            have = f"{slots} cached and {count} new" if slots else f"{count}"
            raise UnsupportedCall(
                f"{have} tokens do not fit the context window of {window}; cut the text, or record it in parts"
            )
        opening = lineage is None
        if lineage is None:
            samples = [self._open_sample(b, batch) for b in range(batch)]
            lineage = Lineage(samples, slots, generation.prompt_slots if generation else None, generation)
            self._lineages.append(lineage)
        if cache is not None:
            self._hold(lineage, cache)
        forward = Forward(lineage, lineage.slots, count, opening, generation)
        lineage.slots += count
        return forward

    def finish(self, forward: Forward, cache: Any) -> None:
        """The forward pass is over and returned `cache` or None. Without any cache, its samples have ended."""
        lineage = forward.lineage
        if cache is not None:
            self._hold(lineage, cache)
        else:
            cache = next((found for ref in lineage.caches.values() if (found := ref()) is not None), None)
        if cache is None:
            self.end(lineage)
        else:
            lineage.print = caching.fingerprint(cache)

    def _of(self, cache: Any) -> Lineage | None:
        for lineage in self._lineages:
            held = lineage.caches.get(id(cache))
            if held is not None and held() is cache:
                return lineage
        return None

    def _hold(self, lineage: Lineage, cache: Any) -> None:
        key = id(cache)

        def freed(_: Any) -> None:
            # Runs wherever the garbage collector does, so it only notes; the commit comes at a safe place.
            lineage.caches.pop(key, None)
            if not lineage.caches:
                self.end(lineage)

        if key not in lineage.caches:
            lineage.caches[key] = weakref.ref(cache, freed)

    def end(self, lineage: Lineage) -> None:
        """No more tokens will come."""
        if not lineage.finished:
            lineage.finished = True
            lineage.caches.clear()
            self._ended.append(lineage)

    def discard(self, lineage: Lineage) -> None:
        """Forget a lineage whose forward pass failed."""
        lineage.finished = True
        lineage.caches.clear()
        self._lineages = [other for other in self._lineages if other is not lineage]

    def take_ended(self) -> list[Lineage]:
        """The lineages that ended since the last call."""
        taken = []
        while self._ended:
            lineage = self._ended.popleft()
            if any(lineage is other for other in self._lineages):
                taken.append(lineage)
                self._lineages = [other for other in self._lineages if other is not lineage]
        return taken

    @property
    def open(self) -> list[Lineage]:
        """Every lineage that was not taken or discarded, in order of opening."""
        return list(self._lineages)


def _refuse_packed(positions: Int[np.ndarray, "some query"]) -> None:
    restarts = np.argwhere(positions[:, 1:] == 0)
    if len(restarts):
        row, column = restarts[0].tolist()
        raise UnsupportedCall(
            f"position_ids of batch row {row} restart at column {column + 1}: packed sequences are not recorded yet; "
            "give each sequence a row of its own"
        )
