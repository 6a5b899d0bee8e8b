"""Every system call that changes a run directory, in one place: tests put a disk that fails or forgets beneath it."""

import contextlib
import ctypes
import os
import stat
from pathlib import Path
from typing import BinaryIO

from attnprobe.errors import CorruptRun, StoreError

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux has it, and Python not
if _SYNC_FILE_RANGE is not None:
    _SYNC_FILE_RANGE.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class explained:
    """Turns an `OSError` into a `StoreError` that says what is safe, and what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise StoreError(
                f"cannot write {self.path}: {error.strerror or error}; samples that the run lists already are whole. "
                "Free space or choose another directory"
            ) from error


def words_of(error: OSError) -> str:
    """What went wrong, and with which file where the system tells that."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename and error.strerror else "")


def create(path: Path) -> int:
    """Make a file that is not there, and open it."""
    return os.open(path, _NEW, 0o666)


def write(file: int, data: memoryview, offset: int) -> None:
    """Write all of it: one call writes at most 2 GiB, and less when a signal comes."""
    written = 0
    while written < data.nbytes:
        written += os.pwrite(file, data[written:], offset + written)


def read(file: int, count: int, offset: int) -> bytes:
    """All of some bytes: one call reads at most 2 GiB.

    Raises
    ------
    OSError
        If the file ends before, or cannot be read.
    """
    data = os.pread(file, count, offset)
    while len(data) < count:
        more = os.pread(file, count - len(data), offset + len(data))
        if not more:
            raise OSError(f"it ends at byte {offset + len(data):,}")
        data += more
    return data


def truncate(file: int, size: int) -> None:
    """Cut a file."""
    os.ftruncate(file, size)


def sync(file: int) -> None:
    """Make what was written durable."""
    os.fsync(file)


def begin_sync(file: int, offset: int, count: int) -> None:
    """Let the disk begin with what was written, so that `sync` has less to wait for; it promises nothing."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(file, offset, count, 2)  # SYNC_FILE_RANGE_WRITE


def close(file: int) -> None:
    """Let go of a file."""
    os.close(file)


def rename(path: Path, to: Path) -> None:
    """Give a file its name; durable once the directory is synced."""
    os.rename(path, to)


def make_directory(path: Path) -> bool:
    """Make a directory, durably, unless it is there; tells whether it was made."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    sync_directory(path.parent)
    return True


def remove(path: Path) -> None:
    """Take a file's name away, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_directory(path: Path) -> None:
    """Remove an empty directory, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def publish(path: Path, to: Path) -> bool:
    """Give a whole file its name unless another has it: of several at once, one wins. Tells whether it was this one."""
    try:
        os.link(path, to)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(to):
            return False
        os.rename(path, to)
        return True
    finally:
        remove(path)
    return True


def sync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_file(path: Path) -> None:
    """Make durable what another wrote to a file."""
    file = open_plain(path)
    try:
        sync(file)
    finally:
        close(file)


def write_whole(path: Path, text: bytes) -> None:
    """Make a durable file of some bytes; its name is durable once the directory is synced."""
    file = create(path)
    try:
        write(file, memoryview(text), 0)
        sync(file)
    finally:
        close(file)


def open_plain(path: Path) -> int:
    """Open a regular file to read it; a link is not followed, and a pipe is not waited for.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If nothing is there.
    CorruptRun
        If it is anything else, or cannot be opened.
    """
    try:
        if path.is_symlink():
            raise CorruptRun(f"{path} is a link, and links in a run are not followed; put the file itself there")
        file = os.open(path, _OLD)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:
        raise CorruptRun(f"{path} cannot be read: {error}; restore it, or record again") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise CorruptRun(f"{path} is not a regular file; restore it, or record again")
    return file


def read_plain(path: Path, buffering: int = -1) -> BinaryIO:
    """The same as a Python file, with a buffer of some bytes."""
    return os.fdopen(open_plain(path), "rb", buffering)


def check_directory(path: Path) -> None:
    """Refuse what is not a directory of its own.

    Raises
    ------
    CorruptRun
        If it is a link, something else, or missing.
    """
    if path.is_symlink() or not path.is_dir():
        what = "is a link, and links in a run are not followed" if path.is_symlink() else "is not a directory"
        raise CorruptRun(f"{path} {what}; restore it, or record again")
