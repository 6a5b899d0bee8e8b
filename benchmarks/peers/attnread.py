"""AttnRead: the identity in place of the values, as many columns of the map a pass as a head is wide."""

from typing import Any

from torch import Tensor

from benchmarks.peers.files import ModelFiles
from benchmarks.peers.peer import Peer


class AttnRead(Peer):
    title = "AttnRead `extract_attention`"
    package = "attnread"
    selects = "layers; heads once the whole layer is made"

    def __init__(self, files: ModelFiles, attention: str | None = None) -> None:
        from attnread import extract_attention

        super().__init__(files, attention)
        self.extract = extract_attention

    def run(self, ids: Tensor, **inputs: Any) -> list[list[Tensor]]:
        import torch

        found = self.extract(self.model, {"input_ids": ids, **inputs})
        config = self.model.config
        layers = [[found["text", layer, head] for head in range(config.n_head)] for layer in range(config.n_layer)]
        return [[torch.stack(heads, 1) for heads in layers]]

    def generate(self, ids: Tensor, new: int) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        self.model(ids, past_key_values=cache, use_cache=True)
        return self.extract(self.model, {"input_ids": ids[:, -1:], "past_key_values": cache})
