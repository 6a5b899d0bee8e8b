"""Errors at the end of a block in which something selected was never seen."""

from attnprobe.errors import NothingRecorded
from attnprobe.sites import Anatomy


def refuse_unrun(anatomy: Anatomy, every_thread: bool) -> None:
    """No forward pass was seen.

    Raises
    ------
    NothingRecorded
        Always.
    """
    where = "at all" if every_thread else 'in this thread (threads="all" sees others)'
    raise NothingRecorded(
        f"the model did not run inside of the block {where}, so nothing was recorded; run "
        f"{type(anatomy.backbone).__name__} there"
    )


def refuse_unseen(anatomy: Anatomy, watched: set[int], seen: set[int]) -> None:
    """Some sites may not have been seen.

    Raises
    ------
    NothingRecorded
        If so.
    """
    absent = [anatomy.sites[number] for number in sorted(watched - seen)]
    if absent:
        cross = all(site.kind == "cross" for site in absent)
        fix = 'pass encoder_hidden_states, or select kind="self"' if cross else "select the layers that run"
        raise NothingRecorded(
            f"{len(absent)} of {len(watched)} selected sites were never seen, first {absent[0].label}; {fix}"
        )
