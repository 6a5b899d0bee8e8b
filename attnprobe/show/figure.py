"""The figure that attnprobe makes; the only file that is imported with matplotlib."""

from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from attnprobe.show.style import RC

_SAVED: Any = {name: value for name, value in RC.items() if name.startswith(("svg.", "pdf.", "ps."))}


class StyledFigure(Figure):
    """A figure that is saved as it was made: with text as text, whatever the settings are by then."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As of any figure."""
        with rc_context(_SAVED):
            super().savefig(*arguments, **options)
