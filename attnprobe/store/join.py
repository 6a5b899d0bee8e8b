"""Joins small row blocks, as generation makes them, into blocks of about 1 MiB, within a bound for all fields."""

from collections.abc import Callable

import torch

from attnprobe.fields import Block, Field

BLOCK = 1 << 20


class RowJoiner:
    """Holds small blocks back per field and hands on joined ones, in order of rows.

    Parameters
    ----------
    forward
        Takes the joined blocks.
    bound
        Bytes held back at most over all fields; beyond it the fullest field is handed on.
    """

    def __init__(self, forward: Callable[[Field, Block], None], bound: int) -> None:
        self._forward = forward
        self._bound = bound
        self._held: dict[tuple[Field, tuple[int, ...]], list[Block]] = {}
        self._size: dict[tuple[Field, tuple[int, ...]], int] = {}

    def write(self, field: Field, block: Block) -> None:
        """Take a block; large ones pass at once, after what was held of their field."""
        key = field, block.heads
        if block.nbytes >= BLOCK:
            self._flush(key)
            self._forward(field, block)
            return
        self._held.setdefault(key, []).append(block)
        self._size[key] = self._size.get(key, 0) + block.nbytes
        if self._size[key] >= BLOCK:
            self._flush(key)
        while sum(self._size.values()) > self._bound:
            self._flush(max(self._size, key=self._size.__getitem__))

    def _flush(self, key: tuple[Field, tuple[int, ...]]) -> None:
        blocks = self._held.pop(key, [])
        self._size.pop(key, None)
        if blocks:
            self._forward(key[0], join(blocks))

    def flush_sample(self, sample: int) -> None:
        """Hand on what is held of a sample."""
        for key in [k for k in self._held if k[0].sample == sample]:
            self._flush(key)

    def drop_sample(self, sample: int) -> None:
        """Forget what is held of a sample."""
        for key in [k for k in self._held if k[0].sample == sample]:
            del self._held[key], self._size[key]


def join(blocks: list[Block]) -> Block:
    """Blocks of the same heads of one field, in order of rows, as one; narrow ones are filled with zeros."""
    if len(blocks) == 1:
        return blocks[0]
    start = min(block.start for block in blocks)
    stop = max(block.start + block.values.shape[2] for block in blocks)
    rows = sum((tuple(block.rows) for block in blocks), ())
    first = blocks[0].values
    values = torch.zeros(first.shape[0], len(rows), stop - start, dtype=first.dtype)
    row = 0
    for block in blocks:
        _, height, width = block.values.shape
        values[:, row : row + height, block.start - start : block.start - start + width] = block.values
        row += height
    span = range(rows[0], rows[0] + len(rows))
    return Block(blocks[0].heads, span if rows == tuple(span) else rows, start, values)
