"""What the ring writes, and how much may wait in it."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attnprobe.store import files
from attnprobe.store.ring import Ring
from attnprobe.store.shard import HEADER, ShardWriter


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that writes nothing until it is let go."""
    event, real = threading.Event(), files.write

    def slow(file: int, data: memoryview, offset: int) -> None:
        if offset >= HEADER:
            event.wait(30)
        real(file, data, offset)

    monkeypatch.setattr(files, "write", slow)
    yield event
    event.set()


def test_small_and_large_tensors_lie_in_one_file_in_order(tmp_path: Path) -> None:
    ring = Ring(buffers=2, size=1 << 16)
    shard = ShardWriter(tmp_path / "a.safetensors", {}, ring)
    random = torch.Generator().manual_seed(0)
    sizes = (
        0,
        1,
        7,
        40_000,
        (1 << 16) + 3,
        5,
        200_000,
        1 << 15,
        (1 << 15) - 1,
        300_001,
        17 << 20,
        3,
    )  # the next-to-last is copied
    tensors = {
        f"t{n}": torch.randint(0, 255, (size,), dtype=torch.uint8, generator=random) for n, size in enumerate(sizes)
    }
    tensors["half"] = torch.rand(3, 5, 7, generator=random).bfloat16()
    tensors["turned"] = torch.rand(300, 200, generator=random).T
    tensors["é\n"] = torch.tensor(3.0)
    for name, tensor in tensors.items():
        shard.append(name, tensor)
    shard.finish()
    shard.close()
    ring.close()
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_what_waits_of_large_tensors_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    monkeypatch.setattr("attnprobe.store.ring.LENT", 1000)
    ring, file = Ring(), os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    lent = []

    def lend() -> None:
        for number in range(6):
            ring.lend(file, np.full(400, number, np.uint8), HEADER + 400 * number)
            lent.append(number)

    thread = threading.Thread(target=lend)
    thread.start()
    time.sleep(0.3)
    assert lent == [0, 1]  # 1200 bytes would be too many
    gate.set()
    thread.join(30)
    ring.drain(file)
    ring.close()
    assert lent == list(range(6))
    assert os.pread(file, 2400, HEADER) == b"".join(bytes([number]) * 400 for number in range(6))
    os.close(file)


def test_memory_goes_back_once_it_is_written(tmp_path: Path) -> None:
    ring, file = Ring(), os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    gone: list[bool] = []

    class Watched(np.ndarray):
        def __del__(self) -> None:
            gone.append(True)

    ring.lend(file, np.zeros(4000, np.uint8).view(Watched), 0)
    ring.drain(file)
    time.sleep(0.1)
    assert gone
    ring.close()
    os.close(file)


def test_a_lent_tensor_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    ring, file = Ring(), os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    os.close(file)
    ring.lend(file, np.zeros(4000, np.uint8), 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ring.drain(file)
    ring.close()


def test_to_begin_a_sync_is_harmless_where_the_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SYNC_FILE_RANGE", None)
    files.begin_sync(-1, 0, 1)
