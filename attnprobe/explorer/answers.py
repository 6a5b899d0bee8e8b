"""Questions about runs, answered: all that stands behind the explorer's front end."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attnprobe.errors import AttnprobeError, StoreError, out_of_memory
from attnprobe.explorer import facts, heads, mass, numbers, pictures, scores, thumbnails
from attnprobe.explorer.asked import Asked, check
from attnprobe.explorer.frames import Answer
from attnprobe.explorer.opened import Opened
from attnprobe.run import Run
from attnprobe.show.prepare import printable

_SAMPLE = ("run", "sample")
_SITE = (*_SAMPLE, "site")
_PLACE = (*_SITE, "head")
_BOX = ("top", "bottom", "left", "right")
# Name -> what answers it, and the parameters that it takes.
QUESTIONS: Mapping[str, tuple[Callable[[Asked], Answer], Sequence[str]]] = {
    "runs": (facts.runs, ()),
    "live": (facts.live, ("run",)),
    "samples": (facts.samples, ("run", "start", "stop")),
    "sample": (facts.sample, _SAMPLE),
    "tokens": (facts.tokens, (*_SAMPLE, "sequence", "start", "stop")),
    "thumbnails": (thumbnails.thumbnails, (*_SITE, "how")),
    "scores": (scores.scores, _SAMPLE),
    "head": (heads.head, _PLACE),
    "patch": (pictures.patch, (*_PLACE, "level", "down", "across", "how")),
    "strip": (pictures.strip, (*_PLACE, "level", "down", "how", "skip")),
    "row": (numbers.row, (*_PLACE, "query")),
    "column": (numbers.column, (*_PLACE, "key")),
    "weights": (numbers.weights, (*_PLACE, *_BOX)),
    "mass": (mass.mass, (*_SITE, *_BOX)),
    "measure": (scores.measure, (*_PLACE, "name")),
    "stripes": (scores.stripes, (*_SAMPLE, "name")),
}
LONGEST = 600  # characters of an error
_log = logging.getLogger(__name__)


class Answers:
    """Answers about some runs, in memory or on disk; several threads may ask at once.

    Parameters
    ----------
    runs
        The runs, numbered in this order.
    """

    def __init__(self, runs: Sequence[Opened]) -> None:
        self._runs = tuple(runs)

    @classmethod
    def of(cls, runs: Sequence[Run | Path | str]) -> "Answers":
        """Answers about runs, and about what lies at paths.

        Raises
        ------
        StoreError
            If there is no run at a path.
        """
        return cls([Opened.of(run) for run in runs])

    def ask(self, name: object, params: object) -> bytes:
        """The answer to a question, as a frame; what cannot be answered is a frame too, with an ``error`` in its head.

        Parameters
        ----------
        name
            Of the question, a string.
        params
            Its parameters by name, strings or whole numbers. They are checked: who asks is not trusted.
        """
        try:
            if not isinstance(name, str) or name not in QUESTIONS:
                return _error(f"there is no question {name!r:.60}; there are {', '.join(QUESTIONS)}")
            answer, wanted = QUESTIONS[name]
            return answer(Asked(self._runs, check(name, params, wanted))).frame()
        except (StoreError, OSError) as error:  # they name files
            _log.warning("%s: %s", name, error)
            return _error("a part of the run cannot be read; attnprobe verify tells which, and what to do")
        except AttnprobeError as error:
            return _error(str(error))
        except Exception as error:
            _log.exception("the question %s could not be answered", name)
            if out_of_memory(error):
                return _error("memory ran out; ask for less at once, or close other programs")
            return _error(f"{name} failed ({type(error).__name__}), which is a fault of attnprobe; its log tells more")


def _error(text: str) -> bytes:
    return Answer({"error": printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")}).frame()
