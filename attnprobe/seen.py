"""Errors at the end of a block in which something selected was never seen."""

from collections.abc import Iterable

from attnprobe.errors import NothingRecorded, SelectionError, UnsupportedModel
from attnprobe.keep import Kept
from attnprobe.samples import Growing
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
        f"{type(anatomy.main.backbone).__name__} there"
    )


def refuse_compiled() -> None:
    """A watched module ran inside of compiled code.

    Raises
    ------
    UnsupportedModel
        Always.
    """
    raise UnsupportedModel(
        "the model runs inside of a function compiled by torch.compile, which is not recorded yet; run it uncompiled"
    )


def refuse_empty(sample: Growing, kept: Iterable[Kept]) -> None:
    """A sample ran, and nothing of it was selected.

    Raises
    ------
    SelectionError
        Always.
    """
    selections = [one.selection.describe() for one in kept]
    wanted = " and ".join(f"queries {one['queries']!r} of keys {one['keys']!r}" for one in selections)
    raise SelectionError(
        f"{wanted} select no row or no column of sample {sample.id}, which has {sample.length} tokens, "
        f"{sample.prompt_length} of the prompt"
    )


def refuse_unseen(anatomy: Anatomy, kept: Iterable[Kept], seen: set[int], ran: set[int], sourced: set[int]) -> None:
    """Some sites that should have run may not have been seen.

    A tower without input does not run, nor does cross-attention without a source: that is an error only where nothing
    else was selected.

    Parameters
    ----------
    anatomy, kept, seen
        The model; what is kept of it; which sites were seen.
    ran, sourced
        The streams that ran, and those that were given another sequence to look at.

    Raises
    ------
    NothingRecorded
        If so.
    """
    for one in kept:
        watched = set(one.heads)
        absent = sorted(watched - seen)
        due = [n for n in absent if anatomy.stream_of[n] in (sourced if anatomy.sites[n].kind == "cross" else ran)]
        if due or not watched & seen:
            lost = anatomy.sites[(due or absent)[0]]
            cross = all(anatomy.sites[n].kind == "cross" for n in due or absent)
            fix = 'pass encoder_hidden_states, or select kind="self"' if cross else "select the layers that run"
            raise NothingRecorded(
                f"{len(due or absent)} of {len(watched)} selected sites were never seen, first {lost.label}; {fix}"
            )
