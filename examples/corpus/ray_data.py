"""A corpus in a Ray Data pipeline: actors of ``map_batches`` record into one run, each with a writer of its own.

``python examples/corpus/ray_data.py demo texts.jsonl runs/texts --actors 2`` (``pip install "ray[data]"``). Started
again, it goes on: rows that the run lists are not recorded again. Reading takes a CPU too, so there have to be more of
them than actors.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import attnprobe as ap


def load(model: str, device: str) -> tuple[Any, Any]:
    """A decoder and its tokenizer; ``demo`` is the bundled one."""
    if model == "demo":
        from attnprobe import demo

        loaded, tokenizer = demo.load()
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.padding_side = "right"  # the tokens keep their positions
    return loaded.to(device), tokenizer


class Capture:
    """One actor: a model, and a recording that stays open as long as it lives.

    Ray ends an actor without a word, so each batch is made durable before its rows count as done.
    """

    def __init__(self, model: str, run: str, device: str, together: int = 8, **keep: Any) -> None:
        self.model, self.tokenizer = load(model, device)
        self.together, self.window = together, self.model.config.max_position_embeddings
        # Ray may call an actor from another thread than it was made in.
        self.rec = ap.record(self.model, self.tokenizer, to=run, resume=True, threads="all", **keep)
        self.rec.__enter__()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Record the rows of a batch that the run does not list; gives ids, and the tokens of each recorded now."""
        ids, texts = [str(one) for one in batch["id"]], [str(one) for one in batch["text"]]
        tokens = dict.fromkeys(ids, 0)
        todo = [(one, text) for one, text in zip(ids, texts, strict=True) if one not in self.rec.done and text]
        todo.sort(key=lambda row: len(row[1]))  # rows of like length need little padding
        for start in range(0, len(todo), self.together):
            names, some = zip(*todo[start : start + self.together], strict=True)
            inputs = self.tokenizer(
                list(some), return_tensors="pt", padding=True, truncation=True, max_length=self.window
            ).to(self.model.device)
            with torch.no_grad(), self.rec.sample(id=names):
                self.model.base_model(**inputs, use_cache=False)  # without the head: its logits are of no use here
            tokens |= dict(zip(names, inputs.attention_mask.sum(1).tolist(), strict=True))
        self.rec.flush()
        return {"id": np.array(ids), "tokens": np.array([tokens[one] for one in ids])}


@click.command()
@click.argument("model")
@click.argument("texts")
@click.argument("run")
@click.option("--actors", default=1, show_default=True)
@click.option("--gpus", default=0.0, show_default=True, help="Of each actor.")
@click.option("--measures", default="default", show_default=True, help="What is kept of each row.")
def main(model: str, texts: str, run: str, actors: int, gpus: float, measures: str) -> None:
    """Record the rows of TEXTS, lines of JSON with "id" and "text", into RUN."""
    import ray

    recorded = ray.data.read_json(texts, file_extensions=None).map_batches(
        Capture,
        fn_constructor_args=(model, str(Path(run).absolute()), "cuda" if gpus else "cpu"),
        fn_constructor_kwargs={"measures": measures, "data": {"texts": texts}},
        batch_size=64,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    tokens = sum(row["tokens"] for row in recorded.iter_rows())
    print(f"recorded {tokens:,} tokens")
    print(ap.open(run))


if __name__ == "__main__":
    main()
