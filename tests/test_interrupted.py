"""A recording that is interrupted, or whose disk is slow or fails, ends as it should and can be gone on with."""

import errno
import linecache
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from fault_checks import ALL, incomplete, make_small, problems, record
from store_contract import MANIFEST, block, field, sample, whole_map

import attnprobe as ap
from attnprobe import demo
from attnprobe.errors import StoreError
from attnprobe.fields import Block
from attnprobe.store import files, ring, shard
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.read_directory import DirectoryReader

WITH = "with "  # a signal does not come between a block and the release of its lock, and a line of this one would
STORE = str(Path(files.__file__).parent)


class Interrupt:
    """Ctrl-C at one line of the store's code, as the recording's thread comes to it."""

    def __init__(self, line: int = -1) -> None:
        self.line, self.lines = line, 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(STORE):
            return None
        if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(
            WITH
        ):
            self.lines += 1
            if self.lines == self.line:
                raise KeyboardInterrupt
        return self

    def during(self, work: Callable[[], None]) -> bool:
        """Whether it came."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            work()
        except KeyboardInterrupt:
            return True
        except StoreError as error:  # of `close`: what was being handed over is not listed
            assert "since the recording was interrupted; record them again" in str(error)
            return True
        finally:
            sys.settrace(before)
        return False


@pytest.mark.parametrize("share", [41, pytest.param(1, marks=[pytest.mark.faults, pytest.mark.timeout(3000)])])
def test_an_interrupt_at_any_line_leaves_a_run_that_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    make_small(monkeypatch.setattr)
    monkeypatch.setattr(files, "sync", lambda file: None)  # it is the interrupt that is tried
    probe = Interrupt()
    assert not probe.during(lambda: record(tmp_path / "whole"))
    assert probe.lines > 1000
    came = 0
    for line in range(1, probe.lines, share):
        run, promised = tmp_path / str(line), set[str]()
        came += Interrupt(line).during(lambda: record(run, promise=promised.update))  # noqa: B023 (called at once)
        assert list(problems(run, promised)) == [], line
        record(run)
        # A writer that was interrupted while it started may hold its journal's mark until the process ends.
        wrong = [one for one in incomplete(run, ALL) if not one.startswith("left behind")]
        assert wrong == [], line
    assert came > 0.9 * probe.lines / share


def test_what_was_committed_before_an_interrupted_write_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = DirectoryWriter(tmp_path / "run", MANIFEST, held=0)
    writer.write(field(0), block(range(8), 8, seed=0))
    writer.commit(sample(0))
    monkeypatch.setattr(shard, "LENT", 0)  # all of it is copied
    borrow, large = writer._ring.borrow, Block((0, 1, 3), range(8), 0, torch.rand(3, 8, 100_000))
    left = iter([True, True])

    def interrupted() -> Any:
        if not next(left, False):
            raise KeyboardInterrupt
        return borrow()

    writer._ring.borrow = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):  # buffers of it are written already, behind sample 0
        writer.write(field(1), large)
    writer._ring.borrow = borrow  # type: ignore[method-assign]
    writer.close()
    reader = DirectoryReader(tmp_path / "run")
    assert [one.index for one in reader.samples] == [0]
    np.testing.assert_array_equal(whole_map(reader, (0, 1, 3), range(8)), block(range(8), 8, seed=0).values.numpy())


def test_the_recording_waits_for_a_slow_disk_in_the_room_of_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, borrow = files.write, ring.Ring.borrow
    most = 0

    def slow(file: int, data: memoryview, offset: int) -> None:
        time.sleep(0.02)
        write(file, data, offset)

    def borrowed(self: ring.Ring) -> Any:
        nonlocal most
        buffer = borrow(self)
        most = max(most, ring.BUFFERS - len(self._free))
        return buffer

    monkeypatch.setattr(files, "write", slow)
    monkeypatch.setattr(ring.Ring, "borrow", borrowed)
    writer = DirectoryWriter(tmp_path / "run", MANIFEST, held=0)
    values = torch.rand(3, 8, 200_000)
    began = time.monotonic()
    for index in range(5):  # 19 MB each, 96 MB in all
        writer.write(field(index), Block((0, 1, 3), range(8), 0, values))
        writer.commit(sample(index, 200_000))
    waited = time.monotonic() - began
    assert most == ring.BUFFERS  # all of them at work, and no more
    buffers = 5 * values.nbytes / ring.SIZE
    assert waited > (buffers - 2 * ring.BUFFERS) / ring.THREADS * 0.02
    writer.close()
    assert len(DirectoryReader(tmp_path / "run").samples) == 5


# --- record() -----------------------------------------------------------------------------------------------------

TEXTS = ("Maia likes to explore", "To be, or not to be", "A rose is a rose is a rose")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Fill the disk, from now on."""
    room = [True]
    write = files.write

    def refusing(file: int, data: memoryview, offset: int) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, data, offset)

    monkeypatch.setattr(files, "write", refusing)
    return lambda: room.__setitem__(0, False)


def run_texts(run: Path, texts: tuple[str, ...], then: Callable[[int], None] = lambda number: None) -> None:
    model, tokenizer = demo.load()
    with ap.record(model, tokenizer, to=run, layers="0", resume=True) as rec:
        for number, text in enumerate(texts):
            if f"t{number}" not in rec.done:
                with rec.sample(id=f"t{number}", index=number):
                    model(**tokenizer(text, return_tensors="pt"), use_cache=False)
                rec.flush()
                then(number)


def test_a_disk_that_is_full_says_so_and_the_run_is_gone_on_with(
    tmp_path: Path, full: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; samples .* are whole. Free space"):
        run_texts(tmp_path / "run", TEXTS, lambda number: full())
    assert [one.id for one in ap.open(tmp_path / "run").samples] == ["t0"]
    monkeypatch.undo()
    run_texts(tmp_path / "run", TEXTS)
    assert [one.id for one in ap.open(tmp_path / "run").samples] == ["t0", "t1", "t2"]


def test_an_error_of_the_users_own_is_not_hidden_by_a_full_disk(tmp_path: Path, full: Callable[[], None]) -> None:
    def fail(number: int) -> None:
        full()
        raise ValueError("their own")

    with pytest.raises(ValueError, match="their own") as caught:
        run_texts(tmp_path / "run", TEXTS, fail)
    (note,) = caught.value.__notes__
    assert "while closing the recording: cannot end the journal" in note and "No space left on device" in note
    assert [one.id for one in ap.open(tmp_path / "run").samples] == ["t0"]


def test_an_interrupt_between_samples_leaves_a_run_that_is_gone_on_with(tmp_path: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_texts(tmp_path / "run", TEXTS, interrupt)
    assert [one.id for one in ap.open(tmp_path / "run").samples] == ["t0", "t1"]
    run_texts(tmp_path / "run", TEXTS)
    assert [one.id for one in ap.open(tmp_path / "run").samples] == ["t0", "t1", "t2"]
