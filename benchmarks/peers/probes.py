"""What a peer can do, tried on a tiny model: each answer is what happened, not what is promised."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.files import ModelFiles, each_layer
from benchmarks.peers.peer import Peer
from benchmarks.peers.told import NOTHING, told

LENGTH, PAD, NEW = 40, 8, 4
NEAR = 1e-5  # of float64, in float32


def probe(make: Callable[..., Peer], files: ModelFiles) -> dict[str, str]:
    """One answer each; what raises is told as what it raises."""
    found = {}
    for name, ask in {"fused": fused, "unseen": unseen, "generation": generation, "padding": padding}.items():
        try:
            with torch.no_grad():
                found[name] = ask(make, files)
        except Exception as problem:
            found[name] = f"no: {told(problem)}"
    return found


def fused(make: Callable[..., Peer], files: ModelFiles) -> str:
    """Whether it gives right weights of a model that is loaded with SDPA and stays on it."""
    peer, ids = make(files, attention="sdpa"), files.tokens(LENGTH)
    ran: list[str] = []
    watched = peer.model.transformer.h[0].register_forward_pre_hook(
        lambda module, inputs: ran.append(peer.model.config._attn_implementation)
    )
    result = peer.run(ids)
    watched.remove()
    _check(peer, result, files, ids)
    others = {name for name in ran if name != "sdpa"}
    return f"no: sets {others.pop()}" if others else "yes"


def unseen(make: Callable[..., Peer], files: ModelFiles) -> str:
    """How near what the model computes, in every pass that the peer makes, is to the bare model on SDPA."""
    ids = files.tokens(LENGTH)
    bare = files.load("sdpa").transformer(ids, use_cache=False).last_hidden_state
    peer = make(files)
    outputs: list[Tensor] = []
    watched = peer.model.transformer.ln_f.register_forward_hook(
        lambda module, inputs, output: outputs.append(output.detach().clone())
    )
    peer.run(ids)
    watched.remove()
    if not outputs:
        return "not seen"
    passes = "" if len(outputs) == 1 else f", in {len(outputs)} passes"
    if all(torch.equal(output, bare) for output in outputs):
        return f"bit for bit{passes}"
    return f"to {max(float((output - bare).abs().max()) for output in outputs):.0e}{passes}"


def generation(make: Callable[..., Peer], files: ModelFiles) -> str:
    """Whether weights of a prompt and of generated tokens, with a cache, are those of one pass over all of them."""
    peer, ids, exact = make(files), files.tokens(LENGTH), files.exact()
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    sequence = exact.generate(ids, **settings)[:, :-1]
    result = peer.generate(ids, NEW)
    _check(peer, result, files, sequence)
    return f"yes{peer.generates}"


def padding(make: Callable[..., Peer], files: ModelFiles) -> str:
    """Whether weights of a text that shares a batch with a longer one are those of the text alone, on either side."""
    answers = {}
    for side in ("left", "right"):
        try:
            answers[side] = _padded(make(files), files, side)
        except Exception as problem:
            answers[side] = f"no, {told(problem)}"
    if answers["left"] == answers["right"]:
        return answers["left"]
    return "; ".join(f"{side}: {answer}" for side, answer in answers.items())


def _padded(peer: Peer, files: ModelFiles, side: str) -> str:
    whole = files.tokens(LENGTH)
    short = whole.flip(1)[:, PAD:]
    filler = torch.zeros_like(whole[:, :PAD])
    parts = [filler, short] if side == "left" else [short, filler]
    ids = torch.cat([whole, torch.cat(parts, 1)])
    mask = (ids != 0).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    result = peer.run(ids, attention_mask=mask, position_ids=positions)
    start = PAD if side == "left" else 0
    own = slice(start, start + LENGTH - PAD)
    cut: set[bool] = set()

    def rows(layer: int) -> Iterator[tuple[Tensor, Any]]:
        for part in peer.maps(result, layer):
            if part.sample not in (None, 1):
                continue
            values = part.values[1 if part.sample is None else 0]
            inside = values.shape[-1] == LENGTH  # of the batch's map, which then has all rows
            cut.add(not inside)
            yield values[:, own, own] if inside else values, (part.heads, part.first)

    _compare(rows, files, short)
    return "yes, cut to each text" if cut == {True} else "yes, padding included"


def _check(peer: Peer, result: Any, files: ModelFiles, ids: Tensor) -> None:
    def rows(layer: int) -> Iterator[tuple[Tensor, Any]]:
        for part in peer.maps(result, layer):
            yield part.values[0], (part.heads, part.first)

    _compare(rows, files, ids)


def _compare(rows: Callable[[int], Iterator[tuple[Tensor, Any]]], files: ModelFiles, ids: Tensor) -> None:
    """Raise if weights `[head, query, key]` are not near the float64 model's."""
    seen: list[int] = []

    def look(layer: int, wanted: Tensor) -> None:
        for values, (heads, first) in rows(layer):
            seen.append(layer)
            theirs = wanted[0, list(heads) if heads else slice(None), first : first + values.shape[1]]
            mine = values.to(wanted.device, torch.float64)
            difference = (mine - theirs[..., : mine.shape[-1]]).abs().max()
            if not difference <= NEAR:
                raise ValueError(f"weights are off by {float(difference):.0e}")

    each_layer(files.exact(), ids, look)
    if not seen:
        raise LookupError(NOTHING)
