"""Forks small recordings, each in a process of its own that has imported everything already.

A line of JSON on stdin asks for one: ``{"run": PATH, "stop": ROLE}``. The thread of that role (``main``, ``ring`` or
``listing``) says its number before it does anything, and waits for another line: so a tracer can be attached to it
alone. What the recording is promised, how it failed, and how its process ended come as lines on stdout.
"""

import ctypes
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_checks import make_small, record

from attnprobe.errors import StoreError
from attnprobe.store.listing import Listing
from attnprobe.store.ring import Ring

PATIENCE = 60  # seconds until a recording is taken to hang
ANY_TRACER = 0x59616D61, ctypes.c_ulong(-1)  # PR_SET_PTRACER, of anyone


def say(**words: Any) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())


def hear() -> str:
    """A line, and no byte more: the rest is for whoever reads next."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            break
        line += piece
    return line.decode()


def wait_as(role: str, stop: str | None) -> None:
    if role == stop:
        say(thread=threading.get_native_id())
        hear()


def stopping(role: str, stop: str | None, work: Callable[[Any], None]) -> Callable[[Any], None]:
    def waits_first(self: Any) -> None:
        wait_as(role, stop)
        work(self)

    return waits_first


def main(run: Path, stop: str | None) -> int:
    signal.alarm(PATIENCE)
    ctypes.CDLL(None).prctl(*ANY_TRACER, 0, 0, 0)
    make_small(setattr)
    Ring._work = stopping("ring", stop, Ring._work)  # type: ignore[method-assign]
    Listing._work = stopping("listing", stop, Listing._work)  # type: ignore[method-assign]
    wait_as("main", stop)
    try:
        record(run, promise=lambda names: say(promise=sorted(names)))
    except StoreError as error:
        say(error=str(error))
        return 1
    except BaseException:
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    while asked := hear():
        request = json.loads(asked)
        child = os.fork()
        if child == 0:
            os._exit(main(Path(request["run"]), request["stop"]))
        say(ended=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
