"""The directory that a run is written to: made, taken over from another run, or joined where the run is there."""

import contextlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from attnprobe.errors import CorruptRun, RunExists, StoreError
from attnprobe.store import files
from attnprobe.store.base import FORMAT, Manifest
from attnprobe.store.differing import differing
from attnprobe.store.layout import find_layout, name_some, read_loosely
from attnprobe.store.validate import make_manifest
from attnprobe.store.writers import refuse_living

_PARTS = ("shards", "journal")


class Target:
    """A run's directory, for one writer.

    Parameters
    ----------
    path
        Absolute.
    writer
        The writer's id.
    """

    def __init__(self, path: Path, writer: str) -> None:
        self.path = path
        self._writer = writer
        self._replaced: Path | None = None  # where the old run lies
        self._made: list[Path] = []

    def make(self, manifest: Manifest, overwrite: bool) -> None:
        """Make a new run.

        Raises
        ------
        RunExists
            If the path is taken.
        StoreError
            If the manifest is one that no reader takes.
        """
        _check(self.path, manifest)
        self._make_room(overwrite)
        for name in _PARTS:
            if not files.make_directory(self.path / name):
                raise RunExists(f"another run is being started at {self.path}; choose another path")
            self._made.append(self.path / name)
        if not self._publish(manifest):
            raise RunExists(f"another run is being started at {self.path}; choose another path")
        self._made.append(self.path / "manifest.json")

    def join(self, manifest: Manifest) -> None:
        """Go on with the run that is there, or make it; several may do this at once.

        Raises
        ------
        RunExists
            If something else is there.
        StoreError
            If the run is of another model, selection, format or data, or the manifest is one that no reader takes.
        """
        _check(self.path, manifest)
        refuse_foreign(self.path)
        self._make_parents()
        for name in _PARTS:
            files.make_directory(self.path / name)
        there = (self.path / "manifest.json").is_file()
        # What others made, they may have been killed before they made it durable.
        with contextlib.suppress(PermissionError):
            files.sync_directory(self.path.parent)
        files.sync_directory(self.path)
        if not there:
            self._publish(manifest)
        refuse_another(self.path, manifest)

    def _publish(self, manifest: Manifest) -> bool:
        partial = self.path / f"manifest.json.{self._writer}.partial"
        self._made.append(partial)
        files.write_whole(partial, (json.dumps(asdict(manifest), indent=1) + "\n").encode())
        first = files.publish(partial, self.path / "manifest.json")
        files.sync_directory(self.path)
        return first

    def _make_room(self, overwrite: bool) -> None:
        path = self.path
        if path.is_dir() and not any(path.iterdir()):
            return  # used as it is: it may be a mount point, or where the process stands
        if path.exists() or path.is_symlink():
            if not overwrite:
                raise RunExists(
                    f"{path} exists already; choose another path, pass overwrite=True (--overwrite) to replace it, or "
                    "resume=True (--resume) to go on with it"
                )
            there = find_layout(path)
            if not there.is_run:
                raise RunExists(
                    f"{path} exists and is not a run of attnprobe, so it is not overwritten; choose another path"
                )
            if there.foreign:
                raise RunExists(
                    f"{path} holds what is no file of a run and would be lost ({there.names}), so it is not "
                    "overwritten; move that away, or choose another path"
                )
            refuse_living(path, [], "overwritten", force=True)
            aside = path.with_name(f".{path.name}.{self._writer}.replaced")
            path.rename(aside)
            self._replaced = aside
        self._make_parents()

    def _make_parents(self) -> None:
        for directory in (*reversed(self.path.parents), self.path):
            if not directory.exists():
                files.make_directory(directory)
                if directory == self.path:
                    self._made.append(directory)

    def undo(self) -> None:
        """Take away what was made, unless others have joined it, and put back what was replaced."""
        made, self._made = self._made, []
        for directory in (self.path / name for name in _PARTS):
            for own in directory.glob(f"{self._writer}[.-]*"):
                with contextlib.suppress(OSError):
                    files.remove(own)
        if self.path / "journal" in made:
            try:
                (self.path / "journal").rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # it is not empty: the run is others' now
                return
        for one in reversed(made):
            with contextlib.suppress(OSError):  # it holds nothing
                one.rmdir() if one.is_dir() else files.remove(one)
        if self._replaced is not None:
            try:
                self._replaced.rename(self.path)
            except OSError as error:
                raise StoreError(
                    f"the run that was to be replaced could not be put back ({error.strerror}); it is whole, as "
                    f"{self._replaced}: rename it to {self.path}"
                ) from error
            self._replaced = None

    def drop_replaced(self) -> None:
        """Delete the run that this one replaces, for good."""
        if self._replaced is not None:
            shutil.rmtree(self._replaced, ignore_errors=True)
            self._replaced = None


def _check(path: Path, manifest: Manifest) -> None:
    """Refuse to write what would be refused when it is read."""
    try:
        make_manifest(path, json.loads(json.dumps(asdict(manifest))))
    except (CorruptRun, RecursionError) as error:
        raise StoreError(f"a run of this model, selection and data could not be read again: {error}") from error


def refuse_foreign(path: Path) -> None:
    """Refuse to go on with what is no run; one that others are just making is taken for one.

    Other files that lie in a run are let be.

    Raises
    ------
    RunExists
        If it is none, or something else has the name of one of its parts.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise RunExists(f"{path} exists and is not a run of attnprobe; choose another path")
    there = find_layout(path)
    if not (there.is_begun or there.is_run or there.is_damaged):
        wrong = name_some(path, there.taken or there.foreign)
        raise RunExists(
            f"{path} exists and is not a run of attnprobe: it holds {wrong}; choose another path, or move that away"
        )


def refuse_another(path: Path, manifest: Manifest) -> None:
    """Refuse to go on with a run that is not what `manifest` says.

    Raises
    ------
    StoreError
        If it is of another model, selection, format or data.
    """
    there = read_loosely(path)
    if there is None:
        raise CorruptRun(f"{path / 'manifest.json'} cannot be read; restore it, or record to another path")
    if there.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {there.get('format')!r}, and this attnprobe writes {FORMAT}: it cannot be gone on "
            "with; record to another path"
        )
    difference = differing(there, manifest)
    if difference:
        raise StoreError(f"{path} is of {difference}; go on with what it was begun with, or record to another path")
