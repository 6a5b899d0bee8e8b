"""What recording costs: time and memory of a model bare, recorded in several ways, and on eager attention.

``from attnprobe.bench import bench``; the command ``attnprobe bench`` does the same.
"""

from typing import TYPE_CHECKING

from attnprobe.lazy import loading

if TYPE_CHECKING:
    from attnprobe.bench.measuring import Interrupted, bench
    from attnprobe.bench.modes import DEFAULT, MODES
    from attnprobe.bench.result import Bench, Row
    from attnprobe.bench.setting import Shape
    from attnprobe.bench.timing import Spread

__all__ = ["DEFAULT", "MODES", "Bench", "Interrupted", "Row", "Shape", "Spread", "bench"]

# Loaded when they are asked for: a process that measures another tool has what that needs, and no more.
_LAZY = {
    "DEFAULT": "modes",
    "MODES": "modes",
    "Bench": "result",
    "Interrupted": "measuring",
    "Row": "result",
    "Shape": "setting",
    "Spread": "timing",
    "bench": "measuring",
}


__getattr__ = loading(__name__, _LAZY, globals())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
