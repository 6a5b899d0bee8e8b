"""Every head of the demo model on a long document, on one small machine: pictures for docs/long-documents.md.

``python examples/long_document.py --tokens 30000 --out docs/images/long.png`` (about two minutes on two cores).
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import attnprobe as ap
from attnprobe import demo


def record(tokens: int) -> ap.Run:
    """Record the default measures of the bundled text, repeated to so many tokens."""
    model, tokenizer = demo.load(positions=tokens)
    ids = torch.tensor(tokenizer(demo.text(), verbose=False).input_ids)
    ids = ids.repeat(-(-tokens // len(ids)))[None, :tokens]
    with torch.no_grad(), ap.record(model.transformer, tokenizer, measures="default") as rec:
        model.transformer(ids, use_cache=False)
    return rec.run


def draw(run: ap.Run, out: Path) -> None:
    """The pooled maps of all heads, the histogram of distances, and what keys receive."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    layers, heads = run.num_layers, run.num_heads
    figure, axes = plt.subplots(layers, heads, figsize=(2 * heads, 2.15 * layers), layout="constrained")
    tokens = run.samples[0].sequences["main"].length
    for layer in range(layers):
        for head in range(heads):
            cells: Any = run[layer, head].measures["pooled_max"].numpy().astype(np.float32)
            ax = axes[layer, head]
            ax.imshow(np.sqrt(cells), cmap="viridis", extent=(0, tokens, tokens, 0), interpolation="nearest")
            ax.set_title(f"L{layer}H{head}", fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=60)
    plt.close(figure)


@click.command()
@click.option("--tokens", default=30_000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("long.png"), show_default=True)
def main(tokens: int, out: Path) -> None:
    """Record and draw."""
    run = record(tokens)
    print(run)
    print(run.measures.to_pandas()[["entropy", "previous", "induction"]].describe().round(2))
    draw(run, out)


if __name__ == "__main__":
    main()
