"""Errors about what was not seen, or cannot be."""

from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor

from attnprobe.errors import NothingRecorded, SelectionError, UnsupportedCall, UnsupportedModel
from attnprobe.fields import Site
from attnprobe.keep import Kept
from attnprobe.routes import MULTIHEAD, RETURNED, SDPA
from attnprobe.samples import Growing
from attnprobe.sites import Anatomy

# What code that was compiled earlier runs on, if nothing tells it that recording began (its guards may be off).
_UNNOTICED = "; code that was compiled earlier did not notice: call torch._dynamo.reset() before recording"


def refuse_captured(given: Iterable[Any]) -> None:
    """Refuse to see a call while it is captured as a CUDA graph: there may be some of these on a GPU.

    Raises
    ------
    UnsupportedCall
        If it is.
    """
    on_gpu = any(isinstance(one, Tensor) and one.is_cuda for one in given)
    if on_gpu and torch.cuda.is_current_stream_capturing():
        raise UnsupportedCall(
            "the model is captured as a CUDA graph, whose replays run no Python, so nothing of them would be recorded; "
            'run it without, or let inductor make the graphs (torch.compile(mode="reduce-overhead")), which leaves out '
            "what is recorded"
        )


def refuse_unrun(anatomy: Anatomy, every_thread: bool, compiled: bool) -> None:
    """No forward pass was seen; some of the model may be `compiled`.

    Raises
    ------
    NothingRecorded
        Always.
    """
    where = "at all" if every_thread else 'in this thread (threads="all" sees others)'
    raise NothingRecorded(
        f"the model did not run inside of the block {where}, so nothing was recorded; run "
        f"{type(anatomy.main.backbone).__name__} there{_UNNOTICED if compiled else ''}"
    )


def refuse_compiled() -> NoReturn:
    """A module that is seen past transformers' attention functions ran inside of compiled code.

    Raises
    ------
    UnsupportedModel
        Always.
    """
    raise UnsupportedModel(
        "the module runs inside of code compiled by torch.compile, where only transformers' attention functions are "
        "recorded; run it uncompiled"
    )


def refuse_untraced(site: Site, implementation: str) -> None:
    """A site that is part of a compiled model may be seen in a way that compiled code has not.

    Raises
    ------
    UnsupportedModel
        If so.
    """
    way = {
        SDPA: "calls F.scaled_dot_product_attention itself",
        MULTIHEAD: "is an nn.MultiheadAttention",
        RETURNED: "returns weights that it builds itself",
    }.get(site.route, "runs on flex_attention" if implementation == "flex_attention" else "")
    if way:
        raise UnsupportedModel(
            f"{site.key} is compiled by torch.compile and {way}; compiled, only transformers' attention functions on "
            "sdpa, eager and flash attention are recorded: record the model uncompiled (what torch.compile returned "
            "holds it as ._orig_mod), or compile other parts of it"
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


def refuse_unseen(
    anatomy: Anatomy, kept: Iterable[Kept], seen: set[int], ran: set[int], sourced: set[int], compiled: bool
) -> None:
    """Some sites that should have run may not have been seen.

    A tower without input does not run, nor does cross-attention without a source: that is an error only where nothing
    else was selected.

    Parameters
    ----------
    anatomy, kept, seen
        The model; what is kept of it; which sites were seen.
    ran, sourced
        The streams that ran, and those that were given another sequence to look at.
    compiled
        Whether some of the model is.

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
            fix += _UNNOTICED if compiled else ""
            raise NothingRecorded(
                f"{len(due or absent)} of {len(watched)} selected sites were never seen, first {lost.label}; {fix}"
            )
