"""attnprobe: every weight, some heads and rows, and measures."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from benchmarks.peers.files import ModelFiles
from benchmarks.peers.peer import Map, Peer

ROWS, HEADS = 256, 4


class Weights(Peer):
    title = "attnprobe, all weights"
    package = "attnprobe"
    selects = "layers, heads and rows, before anything is computed"
    keep: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, files: ModelFiles, attention: str | None = None) -> None:
        import attnprobe

        super().__init__(files, attention)
        self.record = attnprobe.record

    def run(self, ids: Tensor, **inputs: Any) -> Any:
        with self.record(self.model, **self.keep) as recorder:
            self.model(ids, **inputs, use_cache=False)
        return recorder.run

    def generate(self, ids: Tensor, new: int) -> Any:
        settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with self.record(self.model, **self.keep) as recorder:
            self.model.generate(ids, **settings)
        return recorder.run

    def maps(self, result: Any, layer: int) -> Iterator[Map]:
        import torch

        for number, sample in enumerate(result):
            for head in range(result.num_heads):
                rows = torch.from_numpy(sample[layer, head].numpy())
                yield Map(rows[None, None], heads=(head,), sample=number)


class Some(Weights):
    title = f"attnprobe, {HEADS} heads, last {ROWS} rows"
    keep = {"heads": f"0-{HEADS - 1}", "queries": f"-{ROWS}:"}  # noqa: RUF012

    def maps(self, result: Any, layer: int) -> Iterator[Map]:
        import torch

        for number, sample in enumerate(result):
            for head in range(HEADS):
                one = sample[layer, head]
                first = max(0, one.shape[0] - ROWS)
                yield Map(torch.from_numpy(one[first:])[None, None], heads=(head,), first=first, sample=number)


class Measures(Weights):
    title = "attnprobe, default measures of all heads, no weights"
    keep = {"measures": "default"}  # noqa: RUF012

    def maps(self, result: Any, layer: int) -> Iterator[Map]:
        yield from ()
