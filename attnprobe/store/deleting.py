"""A run, deleted: its manifest goes first, so that what an interruption leaves is no run. Files of others stay."""

from pathlib import Path

from attnprobe.errors import CorruptRun, StoreError
from attnprobe.store import files
from attnprobe.store.layout import Layout, find_layout, name_some
from attnprobe.store.listed import Journalled, journal_files, read_journal
from attnprobe.store.writers import refuse_living


def refuse_delete(path: Path, force: bool = False) -> Layout:
    """Refuse to delete what is no run, or is being written; gives what lies there.

    A run whose manifest is damaged, and what an interrupted deletion left of one, are told by their journals.

    Raises
    ------
    StoreError
        If so.
    """
    there = find_layout(path)
    if not (there.is_run or there.is_damaged or there.is_rest):
        links = f": {name_some(path, there.taken)} is none of its files" if there.taken else ""
        raise StoreError(f"{path} is not a run of attnprobe{links}; nothing is deleted")
    if (path / "journal").is_dir() and not there.is_rest:
        journals: list[Journalled] = []
        for file in journal_files(path):
            try:
                journals.append(read_journal(file))
            except CorruptRun:  # its mark still tells whether its writer lives
                continue
        refuse_living(path, journals, "deleted", force)
    return there


def delete_run(path: Path, force: bool = False) -> tuple[Path, ...]:
    """Delete a run, for good, and nothing else that lies in its directory.

    Parameters
    ----------
    path
        The run, or what an interrupted deletion left of one.
    force
        Whether writers of other machines, which cannot be asked, are taken to have ended.

    Returns
    -------
    left
        What is no file of a run, and is still there; where there is any, so is the directory.

    Raises
    ------
    StoreError
        If it is no run, somebody may still write it, or the disk refuses it.
    """
    path = path.absolute()
    there = refuse_delete(path, force)
    held = {one.parent for one in there.foreign}
    gone: Path | None = None
    at = path
    try:
        for at in there.own:
            files.remove(at)
            if gone is None:
                files.sync_directory(path)
            gone = at
        for at in (*there.parts, path):
            if at not in held and not (at == path and there.foreign):
                files.remove_directory(at)
    except OSError as error:
        if gone is None:
            state = "nothing is deleted, and the run is as it was"
        elif at == path:
            state = "all of the run is deleted, and its empty directory is left"
        else:
            state = "what is left is no run any more, and is deleted by the same command"
        raise StoreError(f"cannot delete {at}: {error.strerror or error}; {state}") from error
    return there.foreign
