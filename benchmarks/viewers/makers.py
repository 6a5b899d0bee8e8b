"""The page that each viewer makes of the same weights, written by a process of its own: ``python -m ... TASK``."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Weights = list[np.ndarray]  # a layer each, [head, query, key]
_PAGE = "<!doctype html><html><head><meta charset=utf-8><title>{name}</title></head><body>{body}</body></html>"


def bertviz_head(weights: Weights, tokens: list[str]) -> str:
    """Lines of one layer at a time, all heads over each other."""
    from bertviz import head_view

    return str(head_view(_batched(weights), tokens, html_action="return").data)


def bertviz_model(weights: Weights, tokens: list[str]) -> str:
    """All layers and heads as small pictures of lines."""
    from bertviz import model_view

    return str(model_view(_batched(weights), tokens, html_action="return").data)


def circuitsvis(weights: Weights, tokens: list[str]) -> str:
    """The heads of one layer: it shows one at a time, so its pages hold a quarter of the others' weights."""
    from circuitsvis.attention import attention_patterns

    return str(attention_patterns(tokens=tokens, attention=weights[0]).local_src)


def inspectus(weights: Weights, tokens: list[str]) -> str:
    """Matrix, and marginals by query, key, layer and head."""
    import inspectus as tool
    from IPython import display

    shown: list[str] = []
    display.display = lambda *parts: shown.extend(part.data for part in parts)  # as a notebook would save it
    tool.attention(np.stack(weights), tokens, theme="light")
    return "".join(shown)


def _batched(weights: Weights) -> list[object]:
    import torch

    return [torch.from_numpy(layer)[None] for layer in weights]


MAKERS: dict[str, Callable[[Weights, list[str]], str]] = {
    "bertviz_head": bertviz_head,
    "bertviz_model": bertviz_model,
    "circuitsvis": circuitsvis,
    "inspectus": inspectus,
}


def main(task: dict[str, str]) -> None:
    """Write the page, and beside it how long that took, without imports."""
    weights = list(np.load(task["weights"]))
    tokens = json.loads(Path(task["tokens"]).read_text())
    make = MAKERS[task["name"]]
    make([layer[:, :4, :4] for layer in weights], tokens[:4])  # imports
    start = time.perf_counter()
    body = make(weights, tokens)
    Path(task["page"]).write_text(_PAGE.format(name=task["name"], body=body), encoding="utf-8")
    Path(task["page"]).with_suffix(".seconds").write_text(str(time.perf_counter() - start))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
