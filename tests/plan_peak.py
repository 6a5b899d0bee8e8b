"""Measures peak memory of recordings and prints it beside the plans', in a fresh process. Linux only.

``python tests/plan_peak.py TASKS``, TASKS being a JSON list of ``model`` (a GPT-2's configuration), ``tokens``,
``batch``, ``generate``, ``keep`` (Python, as in ``keep=``) and ``to``.
"""

import ctypes
import json
import platform
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

MAPPED = 128 << 10  # every array of this size is given back as soon as it is free: what is counted is in use
M_MMAP_THRESHOLD = -3


def measure(task: dict[str, Any]) -> dict[str, int]:
    """Peak memory beside that of the same run unrecorded, each counted from its own start."""
    import models
    import torch

    import attnprobe as ap

    model = models.gpt2(**task["model"])
    model.generation_config.eos_token_id = None
    ids = models.ids(task.get("batch", 1), task["tokens"])
    generate = task.get("generate", 0)
    options: dict[str, Any] = {"keep": eval(task["keep"], {"ap": ap}), "to": task.get("to")}

    def peak(recorder: AbstractContextManager[Any]) -> int:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        with torch.no_grad(), recorder:
            if generate:
                mask = torch.ones_like(ids)
                model.generate(ids, attention_mask=mask, max_new_tokens=generate, do_sample=False, pad_token_id=0)
            else:
                model.transformer(ids, use_cache=False)
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]

    with torch.no_grad(), ap.record(model, keep=options["keep"]):  # libraries settle
        model.transformer(ids[:, :16], use_cache=False)
    peak(nullcontext())
    bare = peak(nullcontext())
    plan, recorder = ap.plan(model, ids, generate=generate, **options), ap.record(model, **options)
    assert plan.need.host is not None
    extra = peak(recorder) - bare
    return {"extra": extra, "predicted": plan.need.host, "kept": recorder.run.nbytes, "planned": plan.nbytes}


def main(tasks: list[dict[str, Any]]) -> list[dict[str, int]]:
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED)
    import torch

    torch.set_num_threads(1)
    return [measure(task) for task in tasks]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
