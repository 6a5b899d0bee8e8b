"""A run, deleted: its manifest goes first, so that what an interruption leaves is no run."""

import shutil
from pathlib import Path

from attnprobe.errors import CorruptRun, StoreError
from attnprobe.store import files
from attnprobe.store.listed import Journalled, journal_files, read_journal
from attnprobe.store.target import holds_own, is_run
from attnprobe.store.writers import refuse_living

_PARTS = {"shards", "journal"}


def refuse_delete(path: Path, force: bool = False) -> None:
    """Refuse to delete what is no run, or is being written.

    Raises
    ------
    StoreError
        If so.
    """
    if is_rest(path):
        return
    if not is_run(path):
        raise StoreError(f"{path} is not a run of attnprobe, or holds other files too; nothing is deleted")
    if (path / "journal").is_dir():
        journals: list[Journalled] = []
        for file in journal_files(path):
            try:
                journals.append(read_journal(file))
            except CorruptRun:  # its mark still tells whether its writer lives
                continue
        refuse_living(path, journals, "deleted", force)


def delete_run(path: Path, force: bool = False) -> None:
    """Delete a run, for good.

    Parameters
    ----------
    path
        The run, or what an interrupted deletion left of one.
    force
        Whether writers of other machines, which cannot be asked, are taken to have ended.

    Raises
    ------
    StoreError
        If it is no run, or somebody may still write it.
    """
    path = path.absolute()
    refuse_delete(path, force)
    try:
        files.remove(path / "manifest.json")
        files.sync_directory(path)
        shutil.rmtree(path)
    except OSError as error:
        raise StoreError(
            f"cannot delete all of {path}: {error.strerror or error}; what is left is no run, and may be deleted again"
        ) from error


def is_rest(path: Path) -> bool:
    """Whether a directory is what an interrupted deletion leaves: a run's shards and journals without a manifest."""
    if path.is_symlink() or not path.is_dir():
        return False
    names = {part.name for part in path.iterdir()}
    return bool(names & _PARTS) and names <= {*_PARTS, "aside", "fidelity.json"} and holds_own(path)
