"""Joins small row blocks, as generation makes them, into blocks of about 1 MiB, within a bound for all fields."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import torch

from attnprobe.fields import Block, Field

BLOCK = 1 << 20
SMALL = 16 << 10  # up to so many bytes, blocks are joined whatever zeros that adds

Key = tuple[Field, tuple[int, ...]]


@dataclass
class _Held:
    """Blocks of one field and the same heads that wait to be joined."""

    blocks: list[Block] = field(default_factory=list)
    nbytes: int = 0
    rows: int = 0
    start: int = 0
    stop: int = 0

    def add(self, block: Block) -> bool:
        """Take a block, unless the joined one would be mostly zeros, as where a sliding window moves on."""
        start, stop = _span([block]) if not self.blocks else _join_spans((self.start, self.stop), _span([block]))
        rows, nbytes = self.rows + len(block.rows), self.nbytes + block.nbytes
        joined = len(block.heads) * rows * (stop - start) * block.values.element_size()
        if self.blocks and joined > max(2 * nbytes, SMALL):
            return False
        self.blocks.append(block.compact())
        self.rows, self.nbytes, self.start, self.stop = rows, nbytes, start, stop
        return True


class RowJoiner:
    """Holds small blocks back per field and hands on joined ones; rows of a head are handed on in their order.

    Parameters
    ----------
    forward
        Takes the joined blocks.
    bound
        Bytes held back at most over all fields; beyond it the fullest fields are handed on.
    """

    def __init__(self, forward: Callable[[Field, Block], None], bound: int) -> None:
        self._forward = forward
        self._bound = bound
        self._held: dict[Key, _Held] = {}
        self._groups: dict[Field, dict[tuple[int, ...], list[tuple[int, ...]]]] = {}  # those that share heads with each
        self._total = 0

    def write(self, field: Field, block: Block) -> None:
        """Take a block; large ones pass at once, after what was held of their field."""
        key = field, block.heads
        self._flush_others(key)
        if block.nbytes >= BLOCK:
            self._flush(key)
            self._forward(field, block)
            return
        held = self._held.get(key)
        if held is None or not held.add(block):
            self._flush(key)
            held = self._held[key] = _Held()
            held.add(block)
        self._total += block.nbytes
        if held.nbytes >= BLOCK:
            self._flush(key)
        if self._total > self._bound:  # down to half, so that many fields do not cause a search a block
            for fullest in sorted(self._held, key=lambda k: -self._held[k].nbytes):
                self._flush(fullest)
                if self._total <= self._bound // 2:
                    break

    def _flush_others(self, key: Key) -> None:
        """Hand on earlier rows of these heads that came in other groups."""
        field, heads = key
        groups = self._groups.setdefault(field, {})
        if heads not in groups:
            groups[heads] = [other for other in groups if not set(heads).isdisjoint(other)]
            for other in groups[heads]:
                groups[other].append(heads)
        for other in groups[heads]:
            self._flush((field, other))

    def _flush(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._total -= held.nbytes
            self._forward(key[0], join(held.blocks))

    def flush_sample(self, sample: int) -> None:
        """Hand on what is held of a sample."""
        for key in [k for k in self._held if k[0].sample == sample]:
            self._flush(key)
        self._forget(sample)

    def drop_sample(self, sample: int) -> None:
        """Forget what is held of a sample."""
        for key in [k for k in self._held if k[0].sample == sample]:
            self._total -= self._held.pop(key).nbytes
        self._forget(sample)

    def _forget(self, sample: int) -> None:
        for own in [one for one in self._groups if one.sample == sample]:
            del self._groups[own]


def join(blocks: list[Block]) -> Block:
    """Blocks of the same heads of one field as one, in order of rows; narrow ones are filled with zeros."""
    if len(blocks) == 1:
        return blocks[0]
    blocks = sorted(blocks, key=lambda block: block.rows[0] if block.rows else -1)
    start, stop = _span(blocks)
    rows = tuple(chain.from_iterable(block.rows for block in blocks))
    first = blocks[0].values
    values = torch.zeros(first.shape[0], len(rows), stop - start, dtype=first.dtype)
    row = 0
    for block in blocks:
        _, height, width = block.values.shape
        if width:
            values[:, row : row + height, block.start - start : block.start - start + width] = block.values
        row += height
    span = range(rows[0], rows[0] + len(rows)) if rows else range(0)
    causal, sink = all(block.causal for block in blocks), any(block.sink for block in blocks)
    longest = blocks[-1].longest
    return Block(blocks[0].heads, span if rows == tuple(span) else rows, start, values, causal, sink, longest)


def _span(blocks: list[Block]) -> tuple[int, int]:
    """First and last column, plus one, of all blocks; a block of no columns has no place."""
    span = (0, 0)
    for block in blocks:
        span = _join_spans(span, (block.start, block.start + block.values.shape[2]))
    return span


def _join_spans(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    if a[0] == a[1] or b[0] == b[1]:
        return b if a[0] == a[1] else a
    return min(a[0], b[0]), max(a[1], b[1])
