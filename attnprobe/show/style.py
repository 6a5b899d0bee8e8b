"""How figures look: for print, without changing anything of matplotlib outside of a ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attnprobe.errors import AttnprobeError
from attnprobe.show.colors import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK, FAINT, UNKNOWN = "#262626", "#8a8a8a", "#d9d9d9"
# Okabe and Ito's colours without black and yellow: told apart by all eyes, and on white.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
RC: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.dpi": 300,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text, in SVG and in PDF
    "svg.hashsalt": "attnprobe",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


@contextmanager
def styled() -> Iterator[None]:
    """The look of attnprobe's figures while a block runs.

    Raises
    ------
    AttnprobeError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise AttnprobeError("plots need matplotlib: pip install attnprobe[plots]") from error
    with rc_context(RC):
        yield


def new_figure(width: float, height: float, pyplot: bool = True, layout: str = "compressed") -> "Figure":
    """An empty figure, in inches, whose `savefig` keeps text as text.

    Parameters
    ----------
    width, height
        In inches.
    pyplot
        Whether ``pyplot`` knows it, as notebooks need to show it; then it lives until it is closed.
    layout
        ``"compressed"`` for images, whose sides have a fixed ratio, or ``"constrained"``.
    """
    from attnprobe.show.figure import StyledFigure

    options: dict[str, Any] = {"figsize": (width, height), "layout": layout}
    if not pyplot:
        return StyledFigure(**options)
    import matplotlib.pyplot as plt

    return plt.figure(FigureClass=StyledFigure, **options)


def colormap(name: str) -> "Colormap":
    """A map for white paper: the lowest level is the lightest, and what is masked is the paper."""
    from matplotlib.colors import ListedColormap

    rgb = table(name) / 255
    light_first = rgb if name == "difference" else rgb[::-1]
    return ListedColormap(light_first, f"attnprobe_{name}").with_extremes(bad="none")


def small(ax: "Axes") -> None:
    """Text as small as on a figure of attnprobe's own, on axes that a user made."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(RC["axes.labelsize"])
    ax.title.set_fontsize(RC["axes.titlesize"])
    ax.tick_params(labelsize=RC["xtick.labelsize"])


def literal(label: str) -> str:
    r"""A label as it stands: ``$`` would start a formula."""
    return label.replace("$", r"\$")
