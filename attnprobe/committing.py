"""What becomes of samples: committed when they are whole, forgotten when a forward pass failed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnprobe.copies import Copies
from attnprobe.fields import Block, Field
from attnprobe.keep import Kept
from attnprobe.keepers import Keeper
from attnprobe.lineage import Lineage
from attnprobe.profiling import carried, stage
from attnprobe.samples import Growing
from attnprobe.seen import refuse_empty
from attnprobe.store.base import Writer
from attnprobe.streams import Streams
from attnprobe.strings import Strings
from attnprobe.told import Numbers


@dataclass
class Committer:
    """Commits samples, each once all that is kept of it has landed.

    Attributes
    ----------
    streams, copies, store
        Which samples have ended; what is in flight; where samples go.
    kept, keepers
        What is kept, and what keeps it.
    strings, text
        Looks token strings up, if there is a tokenizer; whether ids are kept at all.
    numbers
        The places of samples.
    """

    streams: Streams
    copies: Copies
    store: Writer
    kept: Sequence[Kept]
    keepers: Sequence[Keeper]
    strings: Strings | None
    text: bool
    numbers: Numbers

    def discard(self, lineage: Lineage) -> None:
        """Forget the samples of a lineage."""
        self.streams.discard(lineage)
        for sample in lineage.samples:
            self.numbers.free(sample.index)
            self.store.discard(sample.index)
            for keeper in self.keepers:
                keeper.discard(sample.index)

    def commit_ended(self) -> None:
        """Commit what has ended, as far as it has landed."""
        for lineage, sample in self.streams.take_ended():
            self.copies.put([], partial(self._commit, lineage, sample), land=False)
        self.copies.land(wait=False)

    def _write(self, lineage: Lineage, sample: Growing, last: Sequence[tuple[Field, Block]], *values: Tensor) -> None:
        """Write what a sample ends with, on the host now, and commit it."""
        if lineage.failed:
            return
        try:
            for (field, block), value in zip(last, values, strict=True):
                self.store.write(field, replace(block, values=value))
        except BaseException:
            self.store.discard(sample.index)
            raise
        self.store.commit(sample.finish(self.strings, self.text))

    def _commit(self, lineage: Lineage, sample: Growing) -> None:
        if lineage.failed:
            return
        if sample.kept:
            try:
                with stage("measure"):
                    last = [one for keeper in self.keepers for one in keeper.finish(sample)]
            except BaseException:
                self.store.discard(sample.index)
                raise
            values = [block.values for _, block in last]
            write = partial(self._write, lineage, sample, last)
            if all(one.device.type == "cpu" for one in values):
                write(*values)
            else:  # in the queue like all else, so that a forward pass that ends a sample waits for nothing
                flat, split = _together(values)
                then = carried("write", lambda *found: write(*split(found)))
                self.copies.put(flat, then, land=False, aside=True)
            return
        self.numbers.free(sample.index)
        if sample.length and sample.called and not sample.paused:
            refuse_empty(sample, self.kept)


def _together(values: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], list[Tensor]]]:
    """Many small tensors of a device as one of each dtype, and what makes the many of copies of these again."""
    places: dict[Any, list[int]] = {}
    for number, one in enumerate(values):
        places.setdefault((one.dtype, one.device), []).append(number)
    shapes = [one.shape for one in values]

    def split(found: Sequence[Tensor]) -> list[Tensor]:
        parts: dict[int, Tensor] = {}
        for whole, numbers in zip(found, places.values(), strict=True):
            pieces = torch.split(whole, [shapes[number].numel() for number in numbers])
            for number, piece in zip(numbers, pieces, strict=True):
                parts[number] = piece.view(shapes[number])
        return [parts[number] for number in range(len(shapes))]

    return [torch.cat([values[number].reshape(-1) for number in numbers]) for numbers in places.values()], split
