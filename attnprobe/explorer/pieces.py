"""Texts of tokens as one reads them in a row: spaces where words begin, characters whole that tokens share."""

import codecs
import re
from collections.abc import Sequence

from attnprobe.fields import TokenSequence

_BROKEN = "\ufffd"  # what a part of a character is decoded to
_SPACE = "\u2581"  # what SentencePiece writes for a space, and leaves out where it decodes a token alone
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # a byte, as SentencePiece writes it
_OWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that byte-level tokens write as they are
_OTHER = [byte for byte in range(256) if byte not in _OWN]  # and those that they write as characters from 256 on
_BYTES = {chr(byte): byte for byte in _OWN} | {chr(256 + at): byte for at, byte in enumerate(_OTHER)}


def pieces_of(sequence: TokenSequence) -> tuple[str, ...] | None:
    """The text of each token, such that all together are the text; None where texts are not known.

    A character of several tokens is the last one's, and the others have none of it. It stays broken where tokens do not
    tell their bytes.
    """
    if sequence.texts is None or sequence.tokens is None:
        return sequence.texts
    found: list[str] = []
    start = 0  # of tokens with parts of characters
    for at, (token, text) in enumerate(zip(sequence.tokens, sequence.texts, strict=True)):
        if _BROKEN in text:
            continue
        found += _whole(sequence.tokens[start:at], sequence.texts[start:at])
        found.append(token.replace(_SPACE, " ") if token.startswith(_SPACE) else text or ("" if token else f"[{at}]"))
        start = at + 1
    return (*found, *_whole(sequence.tokens[start:], sequence.texts[start:]))


def _whole(tokens: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Texts of neighbours that hold parts of characters."""
    parts = [_bytes_of(token) for token in tokens]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = []
    for at, (part, text) in enumerate(zip(parts, texts, strict=True)):
        if part is None:
            found.append(text)
        else:
            found.append(decoder.decode(part, final=at + 1 == len(parts) or parts[at + 1] is None))
    return found


def _bytes_of(token: str) -> bytes | None:
    if byte := _BYTE.fullmatch(token):
        return bytes([int(byte[1], 16)])
    known = [_BYTES.get(character) for character in token]
    return None if None in known else bytes(byte for byte in known if byte is not None)
