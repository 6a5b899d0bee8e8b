"""Byte counts, read and written."""

import re

from attnprobe.errors import SelectionError

_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def parse_bytes(size: int | str) -> int:
    """Bytes of ``"256 MiB"``, ``"2GB"`` or a plain number.

    Raises
    ------
    SelectionError
        If it is none of these, or not positive.
    """
    match = _SIZE.fullmatch(str(size))
    number = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if number <= 0:
        raise SelectionError(f'{size!r} is not a size; write bytes, "256 MiB" or "2 GB"')
    return number


def format_bytes(size: int | float) -> str:
    """A byte count in few characters: ``0.04 MB``, ``12.3 GB``."""
    if size < 10_000:
        return f"{size:.0f} bytes"
    for unit, scale in (("MB", 1e6), ("GB", 1e9)):
        if size < 999.5 * scale:  # three digits; more would be written with an exponent
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e12:.3g} TB" if size < 999.5e12 else f"{size / 1e12:.0f} TB"
