"""A run as it is at one time, and what was read of it for answers; a run that is still written is opened again."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attnprobe.errors import NotKept
from attnprobe.fields import Field, Piece, Site
from attnprobe.head import Head
from attnprobe.held import Held
from attnprobe.labels import labels_of, repeats_of
from attnprobe.run import Run, SampleRun, open_run
from attnprobe.store.listed import journal_files
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.writers import LIVING, state_of

SAMPLES, HEADS, MADE = 8, 64, 128  # of which things are held
T = TypeVar("T")


class Recent:
    """The things that were last asked for; safe from several threads.

    Parameters
    ----------
    most
        How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """What is held of a key; made if nothing is, by several threads at once if they ask at once."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                found: T = self._held[key]
                return found
        made = make()
        with self._lock:
            self._held[key] = made
            if len(self._held) > self._most:
                self._held.popitem(last=False)
        return made


class View:
    """A run as it was when it was opened.

    Parameters
    ----------
    run
        The run.
    stamp
        Tells this state of it from others.
    """

    def __init__(self, run: Run, stamp: str = "") -> None:
        self.run = run
        self.stamp = stamp
        self.made = Recent(MADE)
        self._samples, self._held, self._heads, self._labels = (
            Recent(most) for most in (SAMPLES, SAMPLES, HEADS, SAMPLES)
        )

    def sample(self, place: int) -> SampleRun:
        """A sample by its place.

        Raises
        ------
        NotKept
            If there is none.
        """
        samples = self.run.samples
        if not place < len(samples):
            there = f"there are {len(samples):,}, counted from 0" if len(samples) else "there is none yet"
            raise NotKept(f"there is no sample {place}: {there}")
        sample = samples[place]
        return self._samples.get(sample.index, lambda: SampleRun(self.run.reader, sample))

    def held(self, sample: SampleRun) -> Mapping[Site, Held]:
        """All that was kept of a sample, by site, in the model's order."""
        return self._held.get(sample.sample.index, lambda: self._by_site(sample))

    def _by_site(self, sample: SampleRun) -> Mapping[Site, Held]:
        found: dict[Site, list[tuple[Field, Sequence[Piece]]]] = {site: [] for site in sample.sites}
        for field, pieces in self.run.reader.fields(sample.sample.index).items():
            found[field.site].append((field, pieces))
        return found

    def site(self, sample: SampleRun, key: str) -> Site:
        """A site of a sample by its key.

        Raises
        ------
        NotKept
            If it was not recorded.
        """
        for site in self.held(sample):
            if site.key == key:
                return site
        raise NotKept(f"nothing was kept at a site {key!r}; ask for one that the sample lists")

    def heads(self, sample: SampleRun, site: Site) -> list[int]:
        """Numbers of the heads of which anything was kept."""
        return sorted({head for field, _ in self.held(sample)[site] for head in field.heads})

    def head(self, sample: SampleRun, site: Site, number: int) -> Head:
        """A head, with what it found out of itself.

        Raises
        ------
        AttnprobeError
            If there is no such head, or nothing was kept of it.
        """
        key = sample.sample.index, site.key, number
        found: Head = self._heads.get(key, lambda: sample[site.key, number])
        return found

    def labels(self, sample: SampleRun, sequence: str) -> tuple[str, ...]:
        """What the tokens of a sequence are called; where they have no text, which one comes again."""

        def make() -> tuple[str, ...]:
            tokens = sample.sample.sequences[sequence]
            bare = not self.run.manifest.text and tokens is sample.sample.main and tokens.tokens is None
            custom = repeats_of(tokens) if bare else None
            return labels_of(tokens, custom)

        return self._labels.get((sample.sample.index, sequence), make)


class Opened:
    """A run that may still be growing.

    Parameters
    ----------
    run
        The run.
    stamp
        Of the directory's state when it was opened, where that is known.
    """

    def __init__(self, run: Run, stamp: str = "") -> None:
        self.view = View(run, stamp)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, run: Run | Path | str) -> "Opened":
        """A run, or what lies at a path."""
        if isinstance(run, Run):
            return cls(run)
        stamp = stamp_of(Path(run))  # before it is read: what is written meanwhile makes another one
        return cls(open_run(run), stamp)

    def refresh(self) -> tuple[View, bool]:
        """The run as it is now, and whether somebody writes it.

        Raises
        ------
        OSError, StoreError
            If it cannot be read any more.
        """
        reader = self.view.run.reader
        if not isinstance(reader, DirectoryReader):
            return self.view, False
        stamp = stamp_of(reader.path)
        with self._lock:
            if self.view.stamp != stamp:
                self.view = View(open_run(reader.path), stamp)
            view = self.view
        reader = view.run.reader
        journals = reader.journals if isinstance(reader, DirectoryReader) else []
        living = (not one.copied and state_of(one.path, one.ended, one.host) == LIVING for one in journals)
        return view, any(living)


def stamp_of(path: Path) -> str:
    """What tells the states of a run directory apart: its journals' sizes and times; empty if it is none."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        for file in (path / "manifest.json", *journal_files(path)):
            there = os.stat(file, follow_symlinks=False)
            digest.update(f"{file.name} {there.st_ino} {there.st_size} {there.st_mtime_ns}\n".encode())
    except OSError:
        return ""
    return digest.hexdigest()
