"""A number a head, as a grid of layers by heads in a terminal."""

from collections.abc import Sequence

import numpy as np
from rich.style import Style
from rich.text import Text

from attnprobe.shapes import Float
from attnprobe.show.colors import color as color_of
from attnprobe.show.prepare import group_starts, printable, shrink
from attnprobe.show.scales import largest
from attnprobe.show.terminal import column_ticks

UNKNOWN = "-"
_GUTTER = 4  # columns left of a grid, for layer numbers
_GAP = 4  # columns between two grids
_SMALL = 16  # up to so many heads, a cell is two columns wide and a line high, which is about square


def grid(
    values: Float[np.ndarray, "layer head"], title: str, width: int, color: bool = False, top: float | None = None
) -> list[Text]:
    """Draw a grid, layers downwards, heads to the right; a head without a number is ``-``.

    Parameters
    ----------
    values
        Numbers from 0, or NaN.
    title
        Written above, and cut to the grid's own width at least.
    width
        Columns that it may take; more heads than fit are drawn in groups, each its largest number.
    color
        Cells in colours, two layers a line where they are many; else a digit a cell, in tenths of `top`.
    top
        The number that is brightest, or the digit 9 and above; the largest where None.

    Returns
    -------
    list of Text
        Lines of at most `width` columns.
    """
    layers, heads = values.shape
    top = (largest(values) if top is None else top) or 1.0
    cell = 2 if heads <= _SMALL and _GUTTER + 2 * heads <= width else 1
    room = max(1, width - _GUTTER) // cell
    drawn = _shrunk(values.astype(np.float64), room) / top
    step = 2 if color and cell == 1 else 1  # layers a line
    lines = [Text(printable(title)[:width], no_wrap=True)]  # names and units come from a run
    for layer in range(0, layers, step):
        line = Text(f"{layer:>{_GUTTER - 1}} ", "dim" if color else "", no_wrap=True)
        below = drawn[layer + 1] if step == 2 and layer + 1 < layers else None
        for at, level in enumerate(drawn[layer]):
            line.append_text(
                _color(level, None if below is None else below[at], step, cell) if color else _digit(level, cell)
            )
        lines.append(line)
    starts = [start for start in group_starts(heads, drawn.shape[1]) for _ in range(cell)]
    lines.append(Text(" " * _GUTTER + column_ticks(starts), "dim" if color else "", no_wrap=True))
    return lines


def _shrunk(values: Float[np.ndarray, "layer head"], heads: int) -> Float[np.ndarray, "layer group"]:
    known = shrink(np.where(np.isnan(values), -np.inf, values), len(values), heads)
    return np.where(np.isneginf(known), np.nan, known)


def _digit(level: float, cell: int) -> Text:
    digit = UNKNOWN if np.isnan(level) else str(int(np.clip(level * 10, 0, 9)))
    return Text(digit.ljust(cell))


def _color(level: float, below: float | None, step: int, cell: int) -> Text:
    levels = [level] if below is None else [level, below]
    if any(np.isnan(one) for one in levels):
        return Text(UNKNOWN.ljust(cell), "dim")
    if step == 1:
        return Text("█" * cell, Style(color=color_of(level)))
    return Text("▀", Style(color=color_of(level), bgcolor=None if below is None else color_of(below)))


def side_by_side(grids: Sequence[list[Text]], width: int) -> list[Text]:
    """Put grids beside each other as far as they fit, the others below, an empty line between."""
    lines: list[Text] = []
    together: list[list[Text]] = []
    for one in grids:
        if together and sum(map(_width, together)) + _GAP * len(together) + _width(one) > width:
            lines += [*_joined(together), Text("")]
            together = []
        together.append(one)
    return lines + (_joined(together) if together else [])


def _width(block: list[Text]) -> int:
    return max(line.cell_len for line in block)


def _joined(blocks: list[list[Text]]) -> list[Text]:
    lines = [Text(no_wrap=True) for _ in range(max(map(len, blocks)))]
    for number, block in enumerate(blocks):
        width = _width(block)
        for i, line in enumerate(lines):
            part = block[i] if i < len(block) else Text("")
            line.append_text(part)
            if number < len(blocks) - 1:
                line.append(" " * (width - part.cell_len + _GAP))
    for line in lines:
        line.rstrip()
    return lines
