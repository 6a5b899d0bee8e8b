"""One peer's measurements in a process of its own: ``python -m benchmarks.peers.worker TASK``.

Results go to a file, a line of JSON each as soon as it is known, so that what was measured before an end stays.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

from benchmarks.measure import alternate, ratio, settle, spread
from benchmarks.peers.peer import Peer
from benchmarks.peers.told import out_of_memory, told
from benchmarks.process import forget_peak, give_back_at_once, peak

SECONDS = 20  # a length's rounds take about so long, but there is always one
LONGEST_EXACT = 4096  # a float64 map of a layer has to fit


class Worker:
    """What one peer does with a task."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.cuda = task["device"] != "cpu"
        if not self.cuda:
            self._bound_memory()
        import torch

        from benchmarks.peers.files import ModelFiles

        if not self.cuda:
            torch.set_num_threads(task["threads"])
        self.torch = torch
        self.files = ModelFiles(task["folder"], task["device"], task["dtype"])
        module = importlib.import_module(f"benchmarks.peers.{task['module']}")
        self.make = getattr(module, task["name"])

    @staticmethod
    def _bound_memory() -> None:
        """An error rather than a machine that swaps or kills."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    def tell(self, **found: Any) -> None:
        """Write one line."""
        with open(self.task["to"], "a") as file:
            file.write(json.dumps(found) + "\n")

    def seconds(self, work: Callable[[], Any]) -> float:
        """How long `work` takes; by events of the stream on CUDA."""
        if not self.cuda:
            began = time.perf_counter()
            result = work()
            taken = time.perf_counter() - began
            del result
            return taken
        events = self.torch.cuda
        before, behind = events.Event(enable_timing=True), events.Event(enable_timing=True)
        events.synchronize()
        before.record()
        result = work()
        behind.record()
        events.synchronize()
        del result
        return before.elapsed_time(behind) / 1000

    def times(self) -> None:
        """What it can do; then of every length seconds of the bare model and the peer, alternated, and the error."""
        from benchmarks.peers.files import ModelFiles
        from benchmarks.peers.probes import probe

        peer, bare, exact = self.make(self.files), self.files.load("sdpa"), None
        packages = ("torch", "transformers", self.make.package)
        self.tell(versions={name: _version(name) for name in packages})
        self.tell(probes=probe(self.make, ModelFiles(self.task["tiny"], self.files.device)))
        for length in self.task["lengths"]:
            ids = self.files.tokens(length)

            alone = partial(self.seconds, partial(bare, ids, use_cache=False))
            recorded = partial(self.seconds, partial(peer.run, ids))
            variants = {"bare": alone, "peer": recorded, "again": alone}
            first = {name: variant() for name, variant in variants.items()}
            rounds = min(self.task["rounds"], int(SECONDS / sum(first.values())))
            # Where there is no time for another, the first, which is cold, is the only one.
            times = alternate(variants, rounds, warm=1) if rounds else {name: [took] for name, took in first.items()}
            found = {
                "length": length,
                "ratio": ratio(times, "peer", "bare"),
                "noise": ratio(times, "again", "bare"),
                "seconds": {name: spread(values) for name, values in times.items()},
            }
            if self.cuda:  # the allocator counts each run by itself; a host's heap needs a fresh process
                found["memory"] = self._peaks(bare, peer, length)
            if length <= LONGEST_EXACT:
                from benchmarks.peers.files import largest_error

                exact = exact or self.files.exact()
                found["error"], found["peaked"] = largest_error(exact, ids, peer, peer.run(ids))
            self.tell(**found)

    def memory(self) -> None:
        """Peak bytes of the peer and of the bare model, one length, in a process that has done nothing else."""
        give_back_at_once()
        peer, bare = self.make(self.files), self.files.load("sdpa")
        length = self.task["length"]
        warm = self.files.tokens(min(length, 128))
        bare(warm, use_cache=False)
        peer.run(warm)
        self.tell(**self._peaks(bare, peer, length))

    def _peaks(self, bare: Any, peer: Peer, length: int) -> dict[str, int]:
        ids = self.files.tokens(length)
        without = self._peak(lambda: bare(ids, use_cache=False))
        with_peer = self._peak(lambda: peer.run(ids))
        return {"length": length, "bare": without, "peer": with_peer, "extra": with_peer - without}

    def _peak(self, work: Callable[[], Any]) -> int:
        settle()
        if self.cuda:
            self.torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()
        result = work()
        largest = self.torch.cuda.max_memory_allocated() if self.cuda else peak()
        del result
        return int(largest)


def _version(package: str) -> str:
    if package == "attnprobe":  # from the checkout, not installed
        import attnprobe

        return attnprobe.__version__
    return metadata.version(package)


def main(task: dict[str, Any]) -> None:
    """Do it; an end is a line, too."""
    try:
        worker = Worker(task)
        with worker.torch.no_grad():
            getattr(worker, task["do"])()
    except Exception as problem:
        why = "out of memory" if out_of_memory(problem) else told(problem)
        with open(task["to"], "a") as file:
            file.write(json.dumps({"ended": why}) + "\n")
        traceback.print_exc()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
