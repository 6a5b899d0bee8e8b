"""The checks of a recording while it runs: of each site's first call, and of its first generated token."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnprobe.call import AttentionCall, GivenWeights
from attnprobe.codes import SMALLEST
from attnprobe.compare import compare
from attnprobe.engines import Engine
from attnprobe.errors import UnsupportedCall
from attnprobe.fidelity import Fidelity, SiteFidelity, largest
from attnprobe.keep import Kept, Weights
from attnprobe.lineage import Lineage

GIVEN = "the module gave its weights itself"
PROJECTED = "the module's output is no product of weights and values alone"
UNSUMMED = 0.05  # of a softmax in bfloat16, and far from what is no softmax
Put = Callable[[Lineage, Sequence[Tensor | None], Callable[..., None]], None]


@dataclass
class Checks:
    """Compares recorded weights with what kernels return.

    Attributes
    ----------
    engine, budget, put
        Makes tiles, within so many bytes; brings figures to the host.
    smallest
        The smallest number above 0 of the dtype that weights are kept in.
    keys
        Names of the sites.
    """

    engine: Engine
    budget: int
    put: Put
    smallest: float
    keys: Sequence[str]
    _done: set[tuple[int, bool]] = field(default_factory=set)
    _waiting: dict[int, tuple[int, Lineage, AttentionCall]] = field(default_factory=dict)
    _found: dict[int, SiteFidelity] = field(default_factory=dict)

    def called(self, site: int, lineage: Lineage, call: AttentionCall | GivenWeights, told: bool) -> None:
        """A call of a site; whether it is `told` later what the kernel returned."""
        self._waiting.pop(threading.get_ident(), None)
        key = site, call.queries == 1
        if key in self._done:
            return
        self._done.add(key)
        if told and isinstance(call, AttentionCall):
            self._waiting[threading.get_ident()] = site, lineage, call
        else:
            self._compare(site, lineage, call, None, None, GIVEN if isinstance(call, GivenWeights) else PROJECTED)

    def returned(self, value: Tensor, output: Tensor, reason: str) -> None:
        """What the kernel returned for the last call of this thread, or why that tells nothing."""
        waiting = self._waiting.pop(threading.get_ident(), None)
        if waiting is not None:
            site, lineage, call = waiting
            fits = output.shape[:3] == (call.batch, call.heads, call.queries) and value.shape[2] >= call.keys
            if fits and not reason:
                self._compare(site, lineage, call, value, output, "")
            else:
                self._compare(site, lineage, call, None, None, reason or PROJECTED)

    def _compare(self, site: int, lineage: Lineage, call: Any, value: Any, output: Any, reason: str) -> None:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(call.query.device.type, enabled=False):
            found = compare(self.engine, call, value, output, self.smallest, self.budget)
        dtype = str(call.query.dtype).removeprefix("torch.")
        self.put(lineage, [found], partial(self._note, site, dtype, reason))

    def _note(self, site: int, dtype: str, reason: str, found: Tensor) -> None:
        difference, row_sum, lost = found.tolist()
        if reason == GIVEN and not row_sum <= UNSUMMED:
            raise UnsupportedCall(
                f"rows of what {self.keys[site]} returned sum to 1 within {row_sum:.2g} only, so it is no softmax map"
            )
        before = self._found.get(site)
        if before is not None and not (reason and before.difference is None):
            told = [d for d in (before.difference, None if reason else difference) if d is not None]
            difference, reason = largest(told), "" if told else reason
            row_sum, lost = largest([before.row_sum, row_sum]), largest([before.lost, lost])
        elif reason:
            difference = None
        self._found[site] = SiteFidelity(dtype, difference, row_sum, lost, reason)

    @property
    def fidelity(self) -> Fidelity:
        """What was found, in order of the sites."""
        return Fidelity({self.keys[site]: self._found[site] for site in sorted(self._found)})


def smallest_kept(kept: Sequence[Kept]) -> float:
    """The smallest number above 0 of the dtypes that weights are kept in; that of float32 where none are."""
    dtypes = [one.item.dtype for one in kept if isinstance(one.item, Weights)] or ["float32"]
    return max(map(_smallest, dtypes))


def _smallest(dtype: str) -> float:
    """The smallest weight that is not stored as 0."""
    if dtype == "log-uint8":
        return SMALLEST
    about = torch.finfo(getattr(torch, dtype))
    return about.smallest_normal * about.eps
