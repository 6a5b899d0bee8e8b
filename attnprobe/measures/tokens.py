"""A sequence's token ids, and where each token came before."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnprobe.fields import Rows
from attnprobe.shapes import Bool, Int

FEW = 4  # rows that are compared with all tokens: as in generation, where there are new ids for every row


class Earlier(NamedTuple):
    """Pairs of a row and an earlier occurrence of its token: which of the rows, and the position of the occurrence."""

    rows: Int[np.ndarray, " pair"]
    positions: Int[np.ndarray, " pair"]


def _on(host: Tensor, device: torch.device) -> Tensor:
    """On a device, without waiting for the copy."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


class Tokens:
    """Token ids of a sequence so far, on the host; shared by all sites of a forward pass.

    Parameters
    ----------
    ids
        ``[token]``, none of them unknown.
    """

    def __init__(self, ids: Int[np.ndarray, " token"]) -> None:
        self.ids = ids
        self._last: tuple[Rows, Earlier] | None = None
        self._before: dict[torch.device, Tensor] = {}
        self._new: tuple[Rows, torch.device, Tensor] | None = None

    def before(self, device: torch.device) -> Int[Tensor, " entry"]:
        """On a device, for each position (and behind the last one) the token before it, -2 where there is none."""
        if device not in self._before:
            host = torch.from_numpy(np.concatenate([[-2], self.ids]).astype(np.int32))
            self._before[device] = _on(host, device)
        return self._before[device]

    def counts(self, rows: Rows) -> Int[np.ndarray, " query"]:
        """How often the token at each of some positions came before."""
        if len(rows) <= FEW:
            return np.array([np.count_nonzero(self.ids[:row] == self.ids[row]) for row in rows], np.int64)
        _, first, rank = self._sorted
        counts: Int[np.ndarray, " query"] = (rank - first)[np.asarray(rows)]
        return counts

    def new(self, rows: Rows, device: torch.device) -> Bool[Tensor, " query"]:
        """On a device, whether the token at each of some positions never came before."""
        if self._new is None or self._new[:2] != (rows, device):  # all sites of a forward pass ask for the same
            host = torch.from_numpy(self.counts(rows) == 0)
            self._new = rows, device, _on(host, device)
        return self._new[2]

    def earlier(self, rows: Rows) -> Earlier:
        """Where the tokens at some positions came before, row after row."""
        if self._last is None or self._last[0] != rows:  # two measures ask for the same, one after the other
            self._last = rows, self._few(rows) if len(rows) <= FEW else self._many(rows)
        return self._last[1]

    def _few(self, rows: Rows) -> Earlier:
        found = [np.flatnonzero(self.ids[:row] == self.ids[row]) for row in rows]
        return Earlier(np.repeat(np.arange(len(rows)), [len(one) for one in found]), np.concatenate(found))

    def _many(self, rows: Rows) -> Earlier:
        order, first, _ = self._sorted
        counts, begins = self.counts(rows), first[np.asarray(rows)]
        shift = begins - (np.cumsum(counts) - counts)  # from a pair's number to its place in the order
        which = np.repeat(np.arange(len(rows)), counts)
        return Earlier(which, order[np.arange(len(which)) + shift[which]])

    @cached_property
    def _sorted(self) -> tuple[Int[np.ndarray, " token"], ...]:
        """Positions by id, then position; for each position where its id begins there, and where itself is."""
        order = np.argsort(self.ids, kind="stable")
        ordered, places = self.ids[order], np.arange(len(order))
        new = np.ones(len(order), bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first, rank = np.empty_like(places), np.empty_like(places)
        first[order] = np.maximum.accumulate(np.where(new, places, 0))
        rank[order] = places
        return order, first, rank
