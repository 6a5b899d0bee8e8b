"""Names of positions, and positions of names."""

import difflib
from collections.abc import Sequence
from operator import index
from typing import SupportsIndex

from attnprobe.errors import TokenError
from attnprobe.fields import TokenSequence, describe_rows


def labels_of(sequence: TokenSequence, custom: Sequence[str] | None = None) -> tuple[str, ...]:
    """One label a position: custom ones, else the tokenizer's strings, else ids, else positions."""
    if custom is not None:
        return tuple(custom)
    if sequence.tokens is not None:
        return tuple(token or f"[{i}]" for i, token in enumerate(sequence.tokens))
    if sequence.ids is not None:
        return tuple(f"#{number}" if number >= 0 else f"[{i}]" for i, number in enumerate(sequence.ids.tolist()))
    return tuple(str(i) for i in range(sequence.length))


def repeats_of(sequence: TokenSequence) -> tuple[str, ...] | None:
    """Labels of tokens without text, which tell which token comes again: ``~0 ~1 ~0``; None where there are no ids."""
    if sequence.ids is None:
        return None
    return tuple(f"~{rank}" if rank >= 0 else f"[{i}]" for i, rank in enumerate(sequence.ids.tolist()))


def position_of(token: str | SupportsIndex, sequence: TokenSequence, custom: Sequence[str] | None, what: str) -> int:
    """The position of a token: a number, or a string as the tokenizer shows it or as text.

    Raises
    ------
    TokenError
        If it is not in the sequence, or in it more than once.
    """
    length = sequence.length
    if not isinstance(token, str):
        if not hasattr(token, "__index__"):
            raise TokenError(f'{token!r} is neither a token nor a position of {what}; write " explore" or 10')
        number = index(token)
        if not -length <= number < length:
            raise TokenError(f"position {number} is out of range: {what} has {length} tokens (0 to {length - 1})")
        return number % length
    names = [labels_of(sequence, custom), *(part for part in (sequence.tokens, sequence.texts) if part is not None)]
    for strings in names:
        found = [i for i, string in enumerate(strings) if token and string == token]
        if len(found) == 1:
            return found[0]
        if found:
            raise TokenError(
                f"{token!r} stands at {len(found)} positions of {what}: {describe_rows(found)}; give a position"
            )
    every = {string: None for strings in names for string in strings if string}
    near = difflib.get_close_matches(token, every, n=3, cutoff=0.5) or list(every)[:3]
    raise TokenError(f"{token!r} is not a token of {what}; near are {', '.join(map(repr, near))}, or give a position")
