"""What a run or a head holds, in words."""

from collections.abc import Iterable, Sequence

from attnprobe.errors import NotKept
from attnprobe.fields import Field, Piece
from attnprobe.pyramid import is_level

Held = Sequence[tuple[Field, Sequence[Piece]]]

_TOP = ("top", "top_keys", "top_rest")
MEAN = ".mean"
HOW = 'record them with record(..., measures="default"), or with --keep measures on the command line'


def is_measure(field: Field) -> bool:
    """Whether a field holds a measure, or its mean."""
    return field.what != "weights" and field.what not in _TOP and not is_level(field)


def measures_of(fields: Iterable[Field]) -> tuple[str, ...]:
    """Names of the measures among some fields, kept a row, as a whole or as a mean, each once."""
    return tuple(dict.fromkeys(field.what.removesuffix(MEAN) for field in fields if is_measure(field)))


def dtypes_of(fields: Iterable[Field]) -> str:
    """What weights among some fields are stored in; empty where there are none."""
    return ", ".join(sorted({field.dtype for field in fields if field.what == "weights"}))


def largest_k(held: Held) -> int:
    """How many of the largest weights were kept of each row, at most."""
    return max((piece.shape[2] for field, pieces in held if field.what == "top" for piece in pieces), default=0)


def short(dtype: str, k: int, measures: int) -> str:
    """What is held, in a few characters: ``float16 + top 8 + 12 measures``."""
    parts = [dtype] if dtype else []
    parts += [f"top {k}"] if k else []
    parts += [f"{measures} measure{'s' * (measures != 1)}"] if measures else []
    return " + ".join(parts)


def no_weights(held: Held, head: int, where: str) -> NotKept:
    """The error of a head whose weights were not kept: what is there instead, and how to have them."""
    layer = held[0][0].site.layer
    return NotKept(
        f"the weights of {where} were not kept; kept are {_beside(held)}; to have the weights too, record with "
        f'keep=[Weights("L{layer}H{head}"), ...]'
    )


def no_top(held: Held, where: str) -> NotKept:
    """The error of a head whose largest weights of each row were not kept."""
    there = "the weights (head.top(10) lists the largest of all)" if dtypes_of(f for f, _ in held) else _beside(held)
    return NotKept(
        f"the largest weights of each row of {where} were not kept; kept are {there}; record with keep=[TopK(k=8), ...]"
    )


def _beside(held: Held) -> str:
    names = measures_of(field for field, _ in held)
    parts = []
    if names:
        listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        parts.append(f"the measure{'s' * (len(names) > 1)} {listed} (head.measures)")
    if k := largest_k(held):
        parts.append(f"the {k} largest weights of each row (head.topk)")
    return " and ".join(parts)
