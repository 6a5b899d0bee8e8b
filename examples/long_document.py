"""Every head of the demo model on a long document, on one small machine: the picture of docs/long-documents.md.

``python examples/long_document.py --tokens 30000 --out docs/images/long.png`` (some minutes on two cores).
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import attnprobe as ap
from attnprobe import demo

HEADS = "L0H0,L0H1,L0H6,L0H7,L1H0,L1H6,L2H5,L3H0"


def record(tokens: int, to: Path | None) -> ap.Run:
    """Record the default measures of the bundled text, repeated to so many tokens, in memory or to a directory."""
    model, tokenizer = demo.load(positions=tokens)
    ids = torch.tensor(tokenizer(demo.text(), verbose=False).input_ids)
    ids = ids.repeat(-(-tokens // len(ids)))[None, :tokens]
    with torch.no_grad(), ap.record(model.transformer, tokenizer, to=to, measures="default") as rec:
        model.transformer(ids, use_cache=False)
    return rec.run


def draw(run: ap.Run, names: list[str], out: Path) -> None:
    """The pooled maps of some heads, a pixel or more a cell: fewer would alias their stripes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    down = -(-len(names) // 4)
    figure, axes = plt.subplots(down, 4, figsize=(12, 3.15 * down), squeeze=False, layout="constrained")
    tokens = run.samples[0].sequences["main"].length
    for name, ax in zip(names, axes.flat, strict=False):
        cells: Any = run[name].measures["pooled_max"].numpy().astype(np.float32)
        ax.imshow(np.sqrt(cells), cmap="viridis", extent=(0, tokens, tokens, 0), interpolation="nearest")
        ax.set_title(name, fontsize=9)
        ax.tick_params(labelsize=6)
        ax.set_xticks(range(0, tokens, 10_000), labels=[f"{at:,}" for at in range(0, tokens, 10_000)])
        ax.set_yticks([])
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


@click.command()
@click.option("--tokens", default=30_000, show_default=True)
@click.option("--heads", default=HEADS, show_default=True, help="What to draw.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("long.png"), show_default=True)
@click.option("--run", "to", type=click.Path(path_type=Path), help="Keep the run there, or draw one that is there.")
def main(tokens: int, heads: str, out: Path, to: Path | None) -> None:
    """Record and draw."""
    run = ap.open(to) if to is not None and to.exists() else record(tokens, to)
    print(run)
    print(run.measures.to_pandas()[["entropy", "previous", "induction"]].describe().round(2))
    draw(run, heads.split(","), out)


if __name__ == "__main__":
    main()
