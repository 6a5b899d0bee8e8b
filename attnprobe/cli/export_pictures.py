"""What ``attnprobe export`` draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.cli.pictured import Look
from attnprobe.cli.show import parse_head, pick
from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.plotting import plot_head, plot_measure_grid, plot_run_measures, plot_thumbnails
from attnprobe.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
# A file of the same run and options has the same bytes.
_METADATA: Mapping[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def draw(run: Run, head: str | None, look: Look, options: Mapping[str, Any]) -> "Figure":
    """The picture that is meant, on a figure that ``pyplot`` knows nothing of.

    Raises
    ------
    SelectionError
        If none is meant, or several.
    """
    grid, measures, kind, part = (options[name] for name in ("grid", "measures", "kind", "part"))
    if (head is not None) + (grid is not None) + measures != 1:
        raise SelectionError(
            "one picture at a time: name a head as 3.1, or --grid for all heads, --grid MEASURE, or --measures"
        )
    if head is None and (look.rows is not None or look.columns is not None):
        raise SelectionError("--rows and --columns are of one head's picture: name a head as 3.1")
    if grid and options["sample"] is None:  # all samples together
        return _figure(plot_measure_grid(run.measures.select(kind, part), grid, None, look.map, pyplot=False))
    sample = pick(run, options["sample"])
    if measures:
        return plot_run_measures(sample.measures.select(kind, part), None, None, None, pyplot=False)
    if grid:
        return _figure(plot_measure_grid(sample.measures.select(kind, part), grid, None, look.map, pyplot=False))
    if grid is not None:
        return _figure(plot_thumbnails(sample, None, look.map, look.scale, look.how, kind, part, pyplot=False))
    layer, number = parse_head(str(head), [site.key for site in run.sites])
    found = sample[layer, number]
    return _figure(plot_head(found, None, look.map, look.scale, look.how, look.rows, look.columns, pyplot=False))


def _figure(axes: Any) -> "Figure":
    figure: Figure = axes.figure
    return figure


def save(figure: "Figure", path: Path, name: str, dpi: int) -> None:
    """Write a figure in one of `FORMATS`."""
    try:
        figure.savefig(path, format=name, dpi=dpi, metadata=_METADATA.get(name))
    except (RuntimeError, ValueError) as error:
        raise AttnprobeError(f"the picture cannot be drawn as {name}: {error}") from error
