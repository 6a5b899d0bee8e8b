"""Files that commands write: whole or not at all, and none in the place of another."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp

from attnprobe.errors import AttnprobeError, RunExists, SelectionError

# What names of files end with, and the format that they promise; other ends promise none.
SUFFIXES = {
    **{f".{name}": name for name in ("png", "svg", "pdf", "csv", "parquet", "html", "gif", "webp", "bmp", "eps", "ps")},
    **{f".{name}": name for name in ("tsv", "json", "xlsx", "feather", "arrow", "npy", "npz")},
    **{".htm": "html", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".pq": "parquet"},
}


def check_targets(targets: Mapping[str, Path], overwrite: bool) -> None:
    """Refuse what cannot be written, before anything is made.

    Parameters
    ----------
    targets
        Files by their formats, which are options' names.
    overwrite
        Whether a file that is there may be replaced.

    Raises
    ------
    RunExists
        If a file is there and `overwrite` is not set.
    SelectionError
        If a folder is missing, two files are one, or a file's name promises another format.
    """
    for name, path in targets.items():
        promised = SUFFIXES.get(path.suffix.lower(), name)
        if promised != name:
            raise SelectionError(
                f"--{name} writes {name}, and {path.name} would be taken for {promised}; name it {path.stem}.{name}"
            )
        if not path.parent.is_dir():
            raise SelectionError(f"there is no folder {path.parent} to write {path.name} into; make it first")
        if path.exists() and not path.is_file():
            raise SelectionError(f"{path} is no file; write to another path")
        if os.path.lexists(path) and not overwrite:
            raise _taken(path)
    if len({path.absolute() for path in targets.values()}) < len(targets):
        raise SelectionError("two formats have the same file; give each its own")


def write_file(path: Path, write: Callable[[Path], None], overwrite: bool) -> int:
    """Write a file beside its place, and move it there when it is whole.

    Parameters
    ----------
    path
        Its place.
    write
        Writes it to the path that it is given.
    overwrite
        Whether it may replace a file.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    RunExists
        If a file came to be there meanwhile and `overwrite` is not set.
    AttnprobeError
        If the disk refuses.
    """
    try:
        folder = Path(mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        made = folder / path.name
        try:
            write(made)
            size = made.stat().st_size
            if overwrite:
                made.replace(path)
            else:
                _publish(made, path)
        finally:
            made.unlink(missing_ok=True)
            folder.rmdir()
    except OSError as error:
        if isinstance(error, RunExists):
            raise
        raise AttnprobeError(f"cannot write {path}: {error.strerror or error}; nothing was left there") from error
    return size


def _publish(made: Path, path: Path) -> None:
    """Give a file its name unless another has it."""
    try:
        os.link(made, path)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError:  # a disk without links
        if os.path.lexists(path):
            raise _taken(path) from None
        made.replace(path)


def _taken(path: Path) -> RunExists:
    return RunExists(f"{path} exists and is left as it is; --overwrite replaces it")
