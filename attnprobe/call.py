"""One call of an attention function, and what it means: the logits of some heads and rows.

Every eager attention of transformers reduces to one formula: ``query @ key.T * scale``, soft cap, bias, mask, an
optional learned sink beside the keys, softmax. `AttentionCall` carries its parts exactly as the kernel got them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from attnprobe.errors import UnsupportedCall
from attnprobe.shapes import Bool, Float, Shaped

Rows = range | tuple[int, ...]


@dataclass(frozen=True)
class AttentionCall:
    """What a site's attention function was given once.

    Attributes
    ----------
    query
        ``[batch, head, query, dim]``.
    key
        ``[batch, kv_head, key, dim]``, grouped: query head ``h`` reads key head ``h // (heads // kv_heads)``.
    scale
        Factor of the logits.
    mask
        ``[batch | 1, head | 1, query | 1, key]``: boolean (True attends) or added to the logits, where the dtype's
        smallest number (and ``-inf``) means excluded.
    allowed
        Tells from indices ``(batch, head, row, column)`` where a row attends, as FlexAttention's ``mask_mod`` does.
    causal
        ``"none"``; ``"upper-left"``: row i sees columns up to i (SDPA's ``is_causal``); ``"bottom-right"``: the last
        row sees the last column (FlashAttention).
    window
        Only columns within this distance of the row's own column, itself included.
    cap
        Soft cap ``tanh(x / cap) * cap`` (Gemma 2, arXiv:2408.00118).
    bias
        Added to the logits, shaped as `mask`.
    sinks
        A learned logit beside the keys: ``[head]`` (gpt-oss) or ``[batch, head, query, 1]``.
    key_offset
        Sequence slot of column 0 (a sliding cache has dropped the earlier ones).
    ragged
        Whether it was given rows of several lengths, so that a batch of tokens may be wider by padding.
    """

    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "batch kv_head key dim"]
    scale: float
    mask: Tensor | None = None
    allowed: Callable[..., Tensor] | None = None
    causal: str = "none"
    window: int | None = None
    cap: float | None = None
    bias: Tensor | None = None
    sinks: Tensor | None = None
    key_offset: int = 0
    ragged: bool = False

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if self.heads % self.kv_heads:
            raise UnsupportedCall(f"{self.heads} query heads do not share {self.kv_heads} key heads evenly")
        if self.causal not in ("none", "upper-left", "bottom-right"):
            raise UnsupportedCall(f"causal={self.causal!r}: none, upper-left or bottom-right")
        for name, part in (("mask", self.mask), ("bias", self.bias)):
            if part is None:
                continue
            wanted = (self.batch, self.heads, self.queries)
            fits = part.dim() == 4 and all(n in (1, w) for n, w in zip(part.shape[:3], wanted, strict=True))
            if not fits or part.shape[3] < self.keys:
                raise UnsupportedCall(
                    f"{name} of shape {tuple(part.shape)} does not fit [batch {self.batch}, head {self.heads}, "
                    f"query {self.queries}, key {self.keys}]"
                )

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return self.query.shape[0]

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.query.shape[1]

    @property
    def kv_heads(self) -> int:
        """Key-value heads."""
        return self.key.shape[1]

    @property
    def queries(self) -> int:
        """Query rows."""
        return self.query.shape[2]

    @property
    def keys(self) -> int:
        """Key columns."""
        return self.key.shape[2]

    @property
    def diagonal(self) -> int:
        """Column of row 0's own token."""
        return 0 if self.causal == "upper-left" else self.keys - self.queries

    @property
    def may_empty(self) -> bool:
        """Whether a row may have no key at all."""
        return self.mask is not None or self.allowed is not None or self.keys < self.queries

    def columns(self, rows: Rows) -> tuple[int, int]:
        """The columns that `rows` can see, as start and stop; the rest is certainly zero.

        The causal rule and the window tell it without looking. A mask is looked at only on the CPU, where that costs
        no synchronisation.
        """
        start, stop = 0, self.keys
        if self.causal != "none":
            stop = min(stop, max(rows) + self.diagonal + 1)
        if self.window is not None:
            start = max(start, min(rows) + self.diagonal - self.window + 1)
            stop = min(stop, max(rows) + self.diagonal + self.window)
        stop = max(stop, 1)
        start = max(0, min(start, stop - 1))
        if self.mask is not None and self.mask.device.type == "cpu":
            seen = attends(_rows(self.mask, rows)[..., start:stop]).flatten(0, 2).any(0).nonzero()
            if len(seen):
                start, stop = start + int(seen[0]), start + int(seen[-1]) + 1
        return start, stop

    def looks_back(self, rows: Rows, stop: int) -> bool:
        """Whether it is certain that none of `rows`, whose last column is before `stop`, sees one behind its own.

        The causal rule tells it, or, of a sequence as a whole, a mask on the CPU.
        """
        if self.causal != "none":
            return True
        if self.mask is None or self.mask.device.type != "cpu" or self.keys != self.queries:
            return False
        first = min(rows) + 1
        column = torch.arange(first, max(first, stop))
        ahead = column > numbers_of(rows, column.device)[:, None]
        return not bool((attends(_rows(self.mask, rows)[..., first : max(first, stop)]) & ahead).any())

    def restrict_(
        self,
        logits: Float[Tensor, "batch h r k"],
        heads: tuple[int, ...],
        rows: Rows,
        start: int,
    ) -> Float[Tensor, "batch h r k"]:
        """Turn scaled products of `heads` and `rows` with the columns from `start` on into logits, in place."""
        stop = start + logits.shape[-1]
        if self.cap is not None:
            logits.div_(self.cap).tanh_().mul_(self.cap)
        if self.bias is not None:
            logits += _rows(_heads(self.bias, heads), rows)[..., start:stop]
        if self.mask is not None:
            mask = _rows(_heads(self.mask, heads), rows)[..., start:stop]
            if mask.dtype != torch.bool:
                logits += mask
            logits.masked_fill_(~attends(mask), -torch.inf)
        if self.allowed is not None:
            numbers = torch.arange(self.batch, device=logits.device), numbers_of(heads, logits.device)
            places = numbers_of(rows, logits.device), torch.arange(start, stop, device=logits.device)
            seen = self.allowed(*(n.view(-1, *[1] * (3 - i)) for i, n in enumerate((*numbers, *places))))
            logits.masked_fill_(~seen, -torch.inf)
        if self.causal != "none" or self.window is not None:
            # Only columns right of the first row's own one (or left of the last row's window) can be excluded.
            own = numbers_of(rows, logits.device)[:, None] + self.diagonal
            first = start if self.window is not None else max(start, min(rows) + self.diagonal + 1)
            if first < stop:
                column = torch.arange(first, stop, device=logits.device)
                excluded = column > own if self.causal != "none" else torch.zeros_like(column > own)
                if self.window is not None:
                    excluded |= (column - own).abs() >= self.window
                logits[..., first - start :].masked_fill_(excluded, -torch.inf)
        return logits

    def sink_logits(self, heads: tuple[int, ...], rows: Rows) -> Float[Tensor, "#batch h #r 1"] | None:
        """Logits of the learned sink, or None where there is none."""
        if self.sinks is None:
            return None
        if self.sinks.dim() == 4:
            return _rows(_heads(self.sinks, heads), rows)
        return _heads(self.sinks.reshape(1, -1, 1, 1).expand(1, self.heads, 1, 1), heads)


def attends(mask: Shaped[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Where a mask lets a row attend, whether it is boolean or additive."""
    if mask.dtype == torch.bool:
        return mask
    return mask > torch.finfo(mask.dtype).min


def numbers_of(rows: Rows, device: torch.device) -> Tensor:
    """Rows as a tensor; a range is made on the device, so that nothing waits for a copy."""
    if isinstance(rows, range):
        return torch.arange(rows.start, rows.stop, rows.step, device=device)
    return _on(rows, device)


def _heads(part: Tensor, heads: tuple[int, ...]) -> Tensor:
    return part if part.shape[1] == 1 else part[:, as_index(heads, part.device)]


def _rows(part: Tensor, rows: Rows) -> Tensor:
    return part if part.shape[2] == 1 else part[:, :, as_index(rows, part.device)]


def as_index(numbers: Rows, device: torch.device) -> slice | Tensor:
    """Index of these numbers: a slice (a view, no copy) where they are evenly spaced."""
    if isinstance(numbers, range):
        return slice(numbers.start, numbers.stop, numbers.step)
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) and len(steps) <= 1 and (step := min(steps, default=1)) > 0:
        return slice(numbers[0], numbers[-1] + 1, step)
    return _on(numbers, device)


@lru_cache(maxsize=256)
def _on(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers as a tensor on a device, copied there once, and without waiting for it."""
    if device.type != "cuda":
        return torch.tensor(numbers, device=device)
    return torch.tensor(numbers).pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class GivenWeights:
    """What a module that builds its weights itself gave: ``[batch, head, query, key]`` after the softmax.

    `key_offset` is the sequence slot of column 0.
    """

    weights: Float[Tensor, "batch head query key"]
    key_offset: int = 0

    @property
    def query(self) -> Tensor:
        """Something on the device of the weights."""
        return self.weights

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return self.weights.shape[0]

    @property
    def heads(self) -> int:
        """Heads."""
        return self.weights.shape[1]

    @property
    def queries(self) -> int:
        """Query rows."""
        return self.weights.shape[2]

    @property
    def keys(self) -> int:
        """Key columns."""
        return self.weights.shape[3]
