"""The seam between the explorer's ways in and what they show."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

Params = Mapping[str, str | int | float]


@runtime_checkable
class Answering(Protocol):
    """What answers the front end's questions: `attnprobe.explorer.answers.Answers`."""

    def ask(self, name: str, params: Params) -> bytes:
        """The frame that answers a question, also one that says why there is no answer; in any thread."""
