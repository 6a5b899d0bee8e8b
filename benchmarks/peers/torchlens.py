"""TorchLens: a trace of the SDPA calls, and the pattern that it rebuilds from each one's arguments."""

from typing import Any

from torch import Tensor

from benchmarks.peers.files import ModelFiles
from benchmarks.peers.peer import Peer


class TorchLens(Peer):
    title = "TorchLens `trace`, `facets['pattern']`"
    package = "torchlens"
    selects = "layers; heads and rows once the whole map is made"
    generates = ", a trace a token in a loop of one's own"

    def __init__(self, files: ModelFiles, attention: str | None = None) -> None:
        import torchlens

        super().__init__(files, attention)
        self.torchlens = torchlens

    def run(self, ids: Tensor, **inputs: Any) -> list[list[Tensor]]:
        return [self._trace(ids, {**inputs, "use_cache": False})]

    def generate(self, ids: Tensor, new: int) -> list[list[Tensor]]:
        """A trace each for the prompt and every token, with a cache of one's own.

        In a trace of ``model.generate`` a module has several calls, and these have no pattern.
        """
        import torch
        from transformers import DynamicCache

        cache, sequence, steps = DynamicCache(config=self.model.config), ids, []
        for _ in range(new):
            unseen = sequence[:, cache.get_seq_length() :]
            steps.append(self._trace(unseen, {"past_key_values": cache, "use_cache": True}))
            likeliest = self.model(sequence, use_cache=False).logits[:, -1:].argmax(-1)
            sequence = torch.cat([sequence, likeliest], 1)
        return steps

    def _trace(self, ids: Tensor, inputs: dict[str, Any]) -> list[Tensor]:
        calls = self.torchlens.func("scaled_dot_product_attention")
        trace = self.torchlens.trace(self.model, ids, input_kwargs=inputs, save=calls, reconstruction_ready=True)
        layers = range(len(self.model.transformer.h))
        return [trace.modules[f"transformer.h.{layer}.attn"].facets["pattern"].value for layer in layers]
