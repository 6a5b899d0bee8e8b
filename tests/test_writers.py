"""Four writers at one run, killed again and again, and a reader that never sees anything but whole samples."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_checks import incomplete, is_right, name_of
from store_contract import whole_map

from attnprobe.errors import CorruptRun, StoreError
from attnprobe.store.leftovers import clear_leftovers
from attnprobe.store.read_directory import DirectoryReader

WRITERS = 4

# Forks a writer, or kills one, for each line of its input, and says how each ended.
SERVER = """
import json, os, select, sys, time, traceback
sys.path.insert(0, {tests!r})
from pathlib import Path
from fault_checks import make_small, record
from attnprobe.store.directory import DirectoryWriter

def write(rank):
    make_small(setattr, in_turn=False)
    commit = DirectoryWriter.commit
    def slowly(self, sample):
        commit(self, sample)
        time.sleep({pause})
    DirectoryWriter.commit = slowly
    mine = range(rank, {count}, {world})
    record(Path({run!r}), [mine[at : at + 3] for at in range(0, len(mine), 3)], workers=(rank, {world}))

children = {{}}
while True:
    if select.select([0], [], [], 0.01)[0]:
        line = os.read(0, 100)
        if not line:
            break
        for word in line.decode().split():
            rank = int(word)
            if rank in children:
                os.kill(children[rank], 9)  # not waited for yet, so it is no other process
                continue
            children[rank] = os.fork()
            if not children[rank]:
                try:
                    write(rank)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
    for rank, child in list(children.items()):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            del children[rank]
            os.write(1, (json.dumps([rank, os.waitstatus_to_exitcode(status)]) + "\\n").encode())
for child in children.values():
    os.kill(child, 9)
"""


class Fleet:
    """Four writers; one that is killed is started again."""

    def __init__(self, run: Path, count: int, pause: float) -> None:
        tests = str(Path(__file__).parent)
        code = SERVER.format(tests=tests, run=str(run), count=count, pause=pause, world=WRITERS)
        self._server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._server.stdout is not None
        os.set_blocking(self._server.stdout.fileno(), False)
        self._heard = b""
        self.finished: set[int] = set()
        self.kills = 0
        for rank in range(WRITERS):
            self._say(rank)

    def _say(self, rank: int) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(b"%d\n" % rank)
        self._server.stdin.flush()

    def look(self) -> None:
        """Take note of who has ended, and start again who was killed."""
        assert self._server.stdout is not None
        try:
            self._heard += os.read(self._server.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        *lines, self._heard = self._heard.split(b"\n")
        for rank, status in map(json.loads, lines):
            assert status in (0, -signal.SIGKILL)
            if status == 0:
                self.finished.add(rank)
            else:
                self.kills += 1
                self._say(rank)

    def kill(self, chance: random.Random) -> None:
        """Kill one that has not finished; one that is just being started again is started once more."""
        working = sorted(set(range(WRITERS)) - self.finished)
        if working:  # the last may have finished since the loop looked
            self._say(chance.choice(working))

    def close(self) -> None:
        self._server.communicate(timeout=30)


def newly(run: Path, seen: set[str]) -> Iterator[str]:
    """The samples that a reader sees and did not see before, all of which are right."""
    reader = DirectoryReader(run)
    names = {one.id: one for one in reader.samples}
    assert len(names) == len(reader.samples)
    assert seen <= set(names), f"disappeared: {seen - set(names)}"
    for name in set(names) - seen:
        one = names[name]
        values = whole_map(reader, (0, 1, 3), range(8), index=one.index)
        ids = one.sequences["main"].ids
        assert name == name_of(one.index) and isinstance(ids, np.ndarray)
        assert is_right(f"{one.index}/", values) and is_right(f"{one.index}/sequences/main/ids", ids)
        yield name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "pause", "kills"), [(160, 0.02, 12), pytest.param(2000, 0.03, 80, marks=pytest.mark.faults)]
)
def test_killed_writers_and_a_reader(tmp_path: Path, count: int, pause: float, kills: int) -> None:
    run, chance = tmp_path / "run", random.Random(5)
    fleet = Fleet(run, count, pause)
    seen: set[str] = set()
    openings, until = 0, time.monotonic() + 280
    strike = 0.0
    try:
        while len(fleet.finished) < WRITERS:
            assert time.monotonic() < until, f"{len(seen)} of {count} samples, {fleet.kills} kills"
            fleet.look()
            try:
                seen |= set(newly(run, seen))
                openings += 1
            except CorruptRun:
                raise
            except StoreError as error:
                assert "there is no run" in str(error) and not seen
            if fleet.kills < kills and time.monotonic() > strike:
                fleet.kill(chance)
                strike = time.monotonic() + chance.uniform(0.05, 0.5)
    finally:
        fleet.close()
    assert fleet.kills >= kills // 2 and openings > 10
    assert seen <= {one.id for one in DirectoryReader(run).samples}
    names = [one.id for one in DirectoryReader(run).samples]
    assert sorted(names) == sorted(map(name_of, range(count)))
    left = list(incomplete(run, range(count)))
    # Who was killed last may have been so after the others had looked for what the killed leave.
    assert all(one.startswith("left behind") for one in left)
    clear_leftovers(run)
    assert list(incomplete(run, range(count))) == []
