"""The header of a safetensors file, read strictly: nothing is taken that safetensors refuses, and less than it takes.

The format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

# Bytes of one element. Types whose elements are no whole bytes are never written, and not read.
ITEMSIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
LARGEST = 16 << 20  # bytes of a header
TENSORS = 100_000
DIMENSIONS = 8
DIMENSION = 1 << 31
VALUES = 1 << 48  # of a tensor, did none of its dimensions have length 0: safetensors multiplies these in 64 bits

_KEYS = {"dtype", "shape", "data_offsets"}


class BadHeader(ValueError):
    """A header that is not one."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its dtype in safetensors' words, its shape, and its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def header_length(first: bytes, size: int) -> int:
    """Bytes of a header whose file begins with `first` and has `size` bytes.

    Raises
    ------
    BadHeader
        If there is none, or it is longer than the file or than is sensible.
    """
    if len(first) < 8:
        raise BadHeader("the file is too short for a header")
    (length,) = struct.unpack("<Q", first[:8])
    if not 2 <= length <= min(size - 8, LARGEST):
        raise BadHeader(f"a header of {length:,} bytes does not fit a file of {size:,}")
    return int(length)


def parse_header(text: bytes, size: int) -> dict[str, Entry]:
    """The tensors that a header names.

    Parameters
    ----------
    text
        The header, without its length.
    size
        Bytes of the file.

    Raises
    ------
    BadHeader
        If anything of it is not as safetensors writes it.
    """
    if text[:1] != b"{":
        raise BadHeader("the header does not begin with {")
    try:
        found = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_count,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except RecursionError:
        raise BadHeader("the header is nested too deeply") from None
    except (ValueError, MemoryError) as error:
        raise error if isinstance(error, BadHeader) else BadHeader(f"the header is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadHeader("the header is no object")
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadHeader("the metadata are no strings")
    for word in (*found, *metadata, *metadata.values()):
        _check_text(word)
    if len(found) > TENSORS:
        raise BadHeader(f"{len(found):,} tensors, and at most {TENSORS:,} are read")
    base = 8 + len(text)
    entries = {name: _entry(name, value, base) for name, value in found.items()}
    end = base
    for entry in sorted(entries.values(), key=lambda one: (one.start, one.stop)):
        if entry.start != end:
            raise BadHeader(f"tensors leave a hole or overlap at byte {end:,}")
        end = entry.stop
    if end != size:
        raise BadHeader(f"tensors end at byte {end:,}, and the file at {size:,}")
    return entries


def _entry(name: str, value: Any, base: int) -> Entry:
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise BadHeader(f"tensor {name!r} has no dtype, shape and data_offsets, or more than these")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise BadHeader(f"tensor {name!r} has the dtype {str(dtype)[:40]!r}, which is not read")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS or not all(_is_int(n, DIMENSION) for n in shape):
        raise BadHeader(f"tensor {name!r} has no shape that is read")
    if math.prod(max(n, 1) for n in shape) > VALUES:
        raise BadHeader(f"tensor {name!r} has the shape {shape}, which is too large")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_int(n, 1 << 62) for n in offsets):
        raise BadHeader(f"tensor {name!r} has no data_offsets")
    start, stop = offsets
    if stop - start != math.prod(shape) * ITEMSIZE[dtype]:
        raise BadHeader(f"tensor {name!r} has {stop - start:,} bytes, and its shape is {shape}")
    return Entry(dtype, tuple(shape), base + start, base + stop)


def _is_int(value: object, limit: int) -> bool:
    return type(value) is int and 0 <= value <= limit


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadHeader("a name is there twice")
    return found


def _count(text: str) -> int:
    if text.startswith("-") or len(text) > 20:
        raise BadHeader(f"the header has the number {text[:24]}")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise BadHeader(f"the header has the number {text[:24]}")


def _check_text(word: str) -> None:
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        raise BadHeader("the header has a character that is none") from None
