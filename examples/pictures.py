"""The pictures of README and docs/plots.md, of the bundled model on its text.

``python examples/pictures.py --out docs/images``
"""

from pathlib import Path
from typing import Any

import click
import matplotlib
import torch

import attnprobe as ap
from attnprobe import demo

TOKENS = 768
DPI = 150
TELLING = {(0, 6): "layer 0, head 6: the token before", (1, 6): "layer 1, head 6: what followed last time"}


def recorded() -> ap.Run:
    """Weights and measures of the first tokens of the text, in memory."""
    model, tokenizer = demo.load()
    inputs = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=TOKENS)
    keep = [ap.Weights(), ap.Measures(names=["default", "induction", "induction.mean"])]
    with ap.record(model, tokenizer, keep=keep) as recorder, torch.no_grad():
        model(**inputs)
    return recorder.run


def heads(run: ap.Run) -> Any:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7, 3.1), layout="compressed")
    for ax, ((layer, head), title) in zip(axes, TELLING.items(), strict=True):
        run[layer, head].plot(ax)
        ax.set_title(title, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), show_default=True)
def main(out: Path) -> None:
    matplotlib.use("Agg")
    run = recorded()
    figures = {
        "heads": heads(run),
        "grid": run.plot_grid().figure,
        "measures": run.plot_measures(["entropy", "distances"], heads="L0H6,L1H6", scatter=("previous", "induction")),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=DPI)
        click.echo(out / f"{name}.png")


if __name__ == "__main__":
    main()
