"""Runs of tokens: words, and spans of characters; and sums and means over them.

Weights between words are those of Clark et al. 2019 (arXiv:1906.04341, section 4.1): attention *to* a word is the sum
over its tokens, attention *from* a word is the mean over its tokens, so that the rows of a table of words sum to what
the rows of tokens do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnprobe.errors import SelectionError
from attnprobe.fields import TokenSequence
from attnprobe.shapes import Float, Int

_SPECIAL = re.compile(r"<\|?[^\s<>|]+\|?>|\[[A-Z]+\]")
_STARTS = ("Ġ", "Ċ", "▁")  # how tokenizers write a leading space or a line feed
_BROKEN = "\ufffd"  # a token that is a part of a character


@dataclass(frozen=True)
class Span:
    """The tokens at positions `start` to `stop` (the end does not count), and what they say."""

    start: int
    stop: int
    label: str = ""

    def __len__(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


SpanLike = Span | range


def words_of(sequence: TokenSequence) -> list[Span]:
    """The words of a sequence: each token is in one, in order.

    A word starts at a token whose text starts with white space, behind one that ends with it, and before and behind a
    special token (``<|endoftext|>``, ``[CLS]``). Punctuation belongs to the word that it is written against, and white
    space alone is a word of its own. Where the tokenizer marks tokens that continue a word (``##ing``), all others
    start one.

    Raises
    ------
    SelectionError
        If tokens have no text.
    """
    tokens = sequence.tokens
    texts = sequence.texts or tokens
    if tokens is None or texts is None:
        raise SelectionError("these tokens have no text, so words are not known; record with a tokenizer, text=True")
    marked = any(token.startswith("##") for token in tokens)
    starts = [0] if sequence.length else []
    for i in range(1, sequence.length):
        here, before = tokens[i], tokens[i - 1]
        if _SPECIAL.fullmatch(here) or _SPECIAL.fullmatch(before):
            new = True
        elif marked:
            new = not here.startswith("##")
        else:
            new = here.startswith(_STARTS) or texts[i][:1].isspace() or texts[i - 1][-1:].isspace()
        if new:
            starts.append(i)
    stops = [*starts[1:], sequence.length]
    return [Span(a, b, _label(sequence, a, b)) for a, b in zip(starts, stops, strict=True)]


def spans_of(
    sequence: TokenSequence,
    spans: Sequence[tuple[int, int]],
    offsets: Sequence[tuple[int, int]] | None = None,
    prompt_length: int | None = None,
) -> list[Span]:
    """The tokens that overlap spans of characters, a run of tokens each.

    Parameters
    ----------
    sequence
        The tokens.
    spans
        Characters of the text: first, and behind the last.
    offsets
        The characters of each token, as a tokenizer's ``return_offsets_mapping=True`` gives them, of all tokens or of
        the prompt's. Tokens with no character are in no span. Without them, lengths of the tokens' texts are added up.
    prompt_length
        Tokens of the prompt.

    Raises
    ------
    SelectionError
        If offsets do not fit the tokens, texts do not tell them, or a span has no token.
    """
    places = np.array(_offsets(sequence) if offsets is None else list(offsets), np.int64).reshape(-1, 2)
    if offsets is not None and len(places) not in (sequence.length, prompt_length):
        raise SelectionError(
            f"{len(places)} offsets for {sequence.length} tokens; give the offset_mapping of the same text, special "
            "tokens included"
        )
    starts, stops = places.T
    found = []
    for first, behind in spans:
        tokens = np.flatnonzero((starts < behind) & (stops > first) & (stops > starts))
        if not len(tokens) or behind <= first:
            raise SelectionError(
                f"characters {first} to {behind} hold no token; the text has characters 0 to {stops.max(initial=0)}"
            )
        start, stop = int(tokens[0]), int(tokens[-1]) + 1
        found.append(Span(start, stop, _label(sequence, start, stop)))
    return found


def _offsets(sequence: TokenSequence) -> list[tuple[int, int]]:
    texts = sequence.texts
    if texts is None or any(not text or _BROKEN in text for text in texts):
        why = "have no text" if texts is None else "hold parts of characters, or none"
        raise SelectionError(f"these tokens {why}, so characters are not known; give the tokenizer's offset_mapping")
    ends = np.cumsum([len(text) for text in texts]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _label(sequence: TokenSequence, start: int, stop: int) -> str:
    strings = sequence.texts or sequence.tokens
    if strings is None:
        return f"{start}:{stop}"
    text = "".join(string.removeprefix("##") for string in strings[start:stop])
    return text.strip() or text


def as_spans(spans: Sequence[SpanLike], length: int) -> list[Span]:
    """Spans that lie in a sequence; a range is labelled by its ends.

    Raises
    ------
    SelectionError
        If there is none, or one is empty or reaches beyond the sequence.
    """
    result = []
    for one in spans:
        if isinstance(one, range):
            one = Span(one.start, one.stop if one.step == 1 else -1, f"{one.start}:{one.stop}")
        if not isinstance(one, Span) or not 0 <= one.start < one.stop <= length:
            raise SelectionError(f"{one!r} is no run of tokens 0 to {length - 1}; take sample.words(), or range(3, 7)")
        result.append(one)
    if not result:
        raise SelectionError("no span is given; take sample.words()")
    return result


def sums(values: Float[np.ndarray, "... token"], runs: Int[np.ndarray, "span 2"]) -> Float[np.ndarray, "... span"]:
    """Sums over runs of the last axis, in float64; runs may overlap."""
    padded = np.concatenate([values.astype(np.float64), np.zeros((*values.shape[:-1], 1))], -1)
    result: np.ndarray = np.add.reduceat(padded, runs.reshape(-1), axis=-1)[..., ::2]
    return result


def means(values: Float[np.ndarray, "... token"], runs: Int[np.ndarray, "span 2"]) -> Float[np.ndarray, "... span"]:
    """Means over runs of the last axis, in float64. A NaN is no value; NaN where there is none."""
    count = sums((~np.isnan(values)).astype(np.float64), runs)
    total = sums(np.nan_to_num(values, nan=0.0), runs)
    result: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return result
