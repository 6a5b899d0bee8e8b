"""What the ids and the strings of a sequence may be."""

import json

import numpy as np

from attnprobe.verifying.values import Problems, Wrong


class IdsCheck:
    """Token ids, -1 where a token was never seen; or positions, which may be any."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._problems = Problems()

    def feed(self, data: bytes, first: int) -> None:
        """Take some numbers."""
        numbers: np.ndarray = np.frombuffer(data, "<i8")
        if self._part == "ids":
            self._problems.add("tokens", numbers < -1, first, 1, lambda at: f"there is no token {numbers[at]}")

    def finish(self) -> Problems:
        """What is wrong."""
        return self._problems


class StringsCheck:
    """A JSON list of strings, one a token."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._parts: list[bytes] = []

    def feed(self, data: bytes, first: int) -> None:
        """Take some bytes."""
        self._parts.append(data)

    def finish(self) -> Problems:
        """What is wrong."""
        problem = ""
        try:
            found = json.loads(b"".join(self._parts))
        except (ValueError, RecursionError) as error:
            problem = f"is no JSON: {error}"
        else:
            if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                problem = "is no list of strings"
            elif len(found) != self._length:
                problem = f"has {len(found)} strings, and the sequence {self._length} tokens"
        return Problems({"tokens": Wrong(1, 0, f"it {problem}")} if problem else {})
