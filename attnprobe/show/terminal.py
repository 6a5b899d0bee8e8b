"""Weights in a terminal: heatmaps and labelled rows, with or without colour."""

from collections.abc import Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style
from rich.text import Text

from attnprobe.shapes import Float
from attnprobe.show.colors import MAP
from attnprobe.show.colors import color as color_of
from attnprobe.show.prepare import group_starts, printable, shrink
from attnprobe.show.scales import Scale, largest, scale_of

SHADES = " .:-=+*#%@"
WIDEST = 80
_GUTTER = 6  # columns left of a heatmap, for row positions
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_TICKS = 8  # lines between two row positions
_LEVELS = 32  # few enough that neighbouring cells share a style, which keeps the output short
_SEEN = 0.35  # a bar's colour is at least this level: the lowest ones are a dark terminal's own


def has_color(console: Console) -> bool:
    """Whether a console shows coloured blocks: a terminal, with Unicode, and ``NO_COLOR`` is not set."""
    return console.color_system is not None and not console.no_color and has_blocks(console)


def has_blocks(console: Console) -> bool:
    """Whether a console's encoding has block characters."""
    return not console.options.ascii_only


def heatmap(
    values: Float[np.ndarray, "query key"],
    width: int = WIDEST,
    color: bool = False,
    row_positions: Sequence[int] | None = None,
    column_positions: Sequence[int] | None = None,
    map: str = MAP,
    scale: Scale | None = None,
) -> Text:
    """Draw a map of weights as text, rows downwards, each cell the largest weight that it covers, ``?`` for a NaN.

    Parameters
    ----------
    values
        Weights.
    width
        Columns that it may take, row positions included.
    color
        Half blocks in colours; else shaded ASCII.
    row_positions, column_positions
        Positions in the sample of the rows and columns of `values`; they count from 0 if None.
    map
        Which colours.
    scale
        From weights to colours or shades; logarithmic if None.

    Returns
    -------
    Text
        Lines of at most `width` columns.
    """
    rows = range(values.shape[0]) if row_positions is None else row_positions
    columns = range(values.shape[1]) if column_positions is None else column_positions
    if not len(rows) or not len(columns):
        return Text("(no weights)", no_wrap=True)
    across = max(1, width - _GUTTER)
    # A terminal's cell is about twice as high as wide, so a line covers twice the rows that a column covers columns.
    shrunk = shrink(values, max(2, round(across * min(1, len(rows) / len(columns)))), across)
    scale = scale_of(values) if scale is None else scale
    zoom = max(1, min(across // shrunk.shape[1], 48 // shrunk.shape[0]))
    shrunk = shrunk.repeat(zoom, 0).repeat(zoom, 1)
    drawn = _half_blocks(shrunk, scale, map) if color else _shades(shrunk, scale)
    down = group_starts(len(rows), shrunk.shape[0] // zoom)
    text = Text(no_wrap=True)
    for number, line in enumerate(drawn):
        label = str(rows[down[2 * number // zoom]]) if number % _TICKS == 0 else ""
        text.append(f"{label:>{_GUTTER - 1}} ", "dim" if color else "").append_text(line).append("\n")
    starts = group_starts(len(columns), shrunk.shape[1] // zoom)
    ticks = column_ticks([columns[start] for start in starts for _ in range(zoom)])
    return text.append(" " * _GUTTER + ticks, "dim" if color else "")


def _half_blocks(values: Float[np.ndarray, "row column"], scale: Scale, map: str) -> list[Text]:
    """Two rows a line: the upper one is the colour of ``▀``, the lower one its background."""
    shade = scale.levels(values)
    lines = []
    for top in range(0, len(shade), 2):
        line = Text()
        for column in range(shade.shape[1]):
            if np.isnan(shade[top : top + 2, column]).any():
                line.append("?", Style(color="red"))
                continue
            below = _stepped(shade[top + 1, column], map) if top + 1 < len(shade) else None
            line.append("▀", Style(color=_stepped(shade[top, column], map), bgcolor=below))
        lines.append(line)
    return lines


def _stepped(level: float, map: str) -> str:
    """The colour of the nearest of `_LEVELS` levels."""
    return color_of(round(level * (_LEVELS - 1)) / (_LEVELS - 1), map)


def _shades(values: Float[np.ndarray, "row column"], scale: Scale) -> list[Text]:
    """Two rows a line, the larger level of both. Only zero is blank."""
    shade, above = (
        np.maximum.reduceat(one, range(0, len(one), 2), axis=0) for one in (scale.levels(values), values > 0)
    )
    unknown = np.isnan(shade)
    index = np.ceil(np.where(unknown, 0, shade) * (len(SHADES) - 1)).astype(int)
    index = np.where(unknown, len(SHADES), np.maximum(index, above))
    return [Text("".join((SHADES + "?")[i] for i in row)) for row in index]


def column_ticks(positions: Sequence[int]) -> str:
    """Positions under their columns, as far apart as they need."""
    line, width = "", len(positions)
    for column in range(0, width, max(_TICKS, 2 + len(str(positions[-1])))):
        label = str(positions[column])
        if column + len(label) <= width:
            line = line.ljust(column) + label
    return line


def row_table(
    weights: Float[np.ndarray, " key"],
    labels: Sequence[str],
    width: int = WIDEST,
    color: bool = False,
    query: int | None = None,
    limit: int | None = None,
    blocks: bool = True,
    positions: Sequence[int] | None = None,
    map: str = MAP,
    scale: Scale | None = None,
) -> Text:
    """List what one token attends to: position, token, weight and a bar, one key a line.

    Parameters
    ----------
    weights, labels
        One a key.
    width
        Columns that it may take.
    color
        Bars in the colours that a heatmap has, the token's own line in bold.
    query
        The token's own position, which is marked, if it is among the keys.
    limit
        Of more keys than this, list only so many of the largest weights, still in order of position.
    blocks
        Bars of block characters; else of ``#``.
    positions
        Positions in the sample of the keys; they count from 0 if None.
    map, scale
        As of `heatmap`; they are of the colours, and the length of a bar is its weight.
    """
    positions = range(len(labels)) if positions is None else positions
    shown = list(range(len(labels)))
    if limit is not None and len(shown) > limit:
        unknown_first = np.where(np.isfinite(weights), -weights, -np.inf)
        first = np.argsort(unknown_first, kind="stable")[:limit].tolist()
        shown = sorted(i for i in first if not weights[i] <= 0 or positions[i] == query)
    names = [printable(labels[i]) for i in shown]
    number = max([4, *(len(str(position)) for position in positions)])
    widest = max([5, *(cell_len(label) for label in names)])
    name = min(widest, max(5, width // 3))
    room = max(1, width - number - name - 14)  # between them: the mark, the weight and spaces
    top = largest(weights) or 1.0
    scale = scale_of(weights[None]) if scale is None else scale
    levels = scale.levels(weights[None])[0]
    text = Text(no_wrap=True)
    text.append(f"  {'pos':>{number}}  {'token':<{name}}  weight\n", "dim" if color else "")
    for i, label in zip(shown, names, strict=True):
        weight = float(weights[i])
        mark, style = (">", "bold" if color else "") if positions[i] == query else (" ", "")
        label = clip(label, name, "…" if blocks else "~")
        text.append(f"{mark} {positions[i]:>{number}}  {set_cell_size(label, name)}  {weight:6.4f}", style)
        if 0 < weight < np.inf:
            text.append("  ").append(
                _bar(weight / top, room, blocks), color_of(max(levels[i], _SEEN), map) if color else ""
            )
        text.append("\n")
    rest = len(labels) - len(shown)
    if rest:
        finite = np.where(np.isfinite(weights), weights, 0).astype(np.float64)
        left = float(finite.sum()) - float(finite[shown].sum())
        text.append(
            f"  {rest:,} smaller weights, {max(0.0, left):.4f} in all, are not listed\n", "dim" if color else ""
        )
    text.right_crop(1)
    return text


def clip(label: str, width: int, end: str = "…") -> str:
    """A label in at most `width` columns; one that is cut ends in `end`."""
    return label if cell_len(label) <= width else set_cell_size(label, width - 1) + end


def _bar(share: float, room: int, blocks: bool) -> str:
    """A bar in eighths of a column, or in whole ones."""
    if not blocks:
        return "#" * max(1, round(share * room))
    eighths = max(1, round(share * room * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
