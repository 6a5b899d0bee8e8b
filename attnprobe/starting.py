"""What a recording is started with, checked before anything is opened."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnprobe.errors import SelectionError


def check_way(to: Path | None, overwrite: bool, resume: bool, workers: tuple[int, int]) -> None:
    """Refuse ways of starting a run that contradict each other."""
    rank, world = workers
    if not 0 <= rank < world:
        raise SelectionError(f"workers={workers}: write (rank, number of workers), with 0 <= rank < number")
    if resume and overwrite:
        raise SelectionError("resume=True goes on with the run that is there, overwrite=True replaces it: choose one")
    if world > 1 and not resume:
        raise SelectionError("several workers write one run with resume=True: none can know who starts it")
    if to is None and resume:
        raise SelectionError('resume=True goes on with a run directory: say which, as in to="runs/corpus"')


def plain(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What JSON makes of it, so that it can be compared with what a run holds."""
    try:
        found: dict[str, Any] | None = None if data is None else json.loads(json.dumps(dict(data)))
    except (TypeError, ValueError) as error:
        raise SelectionError(f"data= is kept as JSON, and this is none: {error}") from error
    return found
