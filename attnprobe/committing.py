"""What becomes of samples: committed when they are whole, forgotten when a forward pass failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from attnprobe.copies import Copies
from attnprobe.keep import Kept
from attnprobe.keepers import Keeper
from attnprobe.lineage import Lineage
from attnprobe.profiling import stage
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

    def _commit(self, lineage: Lineage, sample: Growing) -> None:
        if lineage.failed:
            return
        if sample.kept:
            try:
                with stage("measure"):
                    for keeper in self.keepers:
                        keeper.finish(sample)
            except BaseException:
                self.store.discard(sample.index)
                raise
            self.store.commit(sample.finish(self.strings, self.text))
            return
        self.numbers.free(sample.index)
        if sample.length and sample.called and not sample.paused:
            refuse_empty(sample, self.kept)
