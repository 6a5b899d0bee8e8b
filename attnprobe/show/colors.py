"""Colour maps, from the one file that the explorer in a browser reads too, so that all views have the same colours."""

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from attnprobe.errors import SelectionError
from attnprobe.shapes import Shaped

MAPS = ("magma", "viridis", "cividis", "difference")
MAP = "magma"
COLORS = 256
_FILE = Path(__file__).parent / "static" / "colormaps.js"
_ENTRY = re.compile(r'^\s*("\w+": "[0-9a-f]{1536}")', re.MULTILINE)


@lru_cache(maxsize=1)
def _hexadecimal() -> dict[str, str]:
    maps: dict[str, str] = json.loads(f"{{{','.join(_ENTRY.findall(_FILE.read_text(encoding='utf-8')))}}}")
    return maps


@lru_cache(maxsize=len(MAPS))
def table(name: str = MAP) -> Shaped[np.ndarray, "color 3"]:
    """The 256 colours of a map, red, green and blue of 8 bit, from the lowest to the highest.

    Raises
    ------
    SelectionError
        If there is no such map.
    """
    if name not in MAPS:
        raise SelectionError(f"there is no colour map {name!r}; there are {', '.join(MAPS)}")
    rgb: np.ndarray = np.frombuffer(bytes.fromhex(_hexadecimal()[name]), np.uint8).reshape(COLORS, 3)
    return rgb


def color(level: float, name: str = MAP) -> str:
    """The colour of a level between 0 and 1, as ``#rrggbb``; all of 256 levels are equally wide, as in matplotlib."""
    red, green, blue = table(name)[min(int(min(max(level, 0.0), 1.0) * COLORS), COLORS - 1)].tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
