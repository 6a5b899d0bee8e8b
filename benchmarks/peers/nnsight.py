"""nnsight: a trace that saves what the attention function inside of each module returns."""

from typing import Any

from torch import Tensor

from benchmarks.peers.files import ModelFiles
from benchmarks.peers.peer import Peer


class NNsight(Peer):
    title = "nnsight, `.source.attention_interface_1` of eager"
    package = "nnsight"
    attention = "eager"
    selects = "layers; heads and rows once the whole map is made"

    def __init__(self, files: ModelFiles, attention: str | None = None) -> None:
        import nnsight

        super().__init__(files, attention)
        self.files = files
        self.traced = nnsight.NNsight(self.model)

    def run(self, ids: Tensor, **inputs: Any) -> list[list[Tensor]]:
        traced = self.traced
        with traced.trace(ids, **inputs, use_cache=False):
            maps = list().save()
            for block in traced.transformer.h:
                maps.append(block.attn.source.attention_interface_1.output[1])
        return [list(maps)]

    def generate(self, ids: Tensor, new: int) -> list[list[Tensor]]:
        from nnsight import LanguageModel

        model = LanguageModel(self.model, tokenizer=self.files.tokenizer())
        settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with model.generate(ids, **settings) as tracer:
            maps = list().save()
            for _ in tracer.iter[:new]:
                for block in model.transformer.h:
                    maps.append(block.attn.source.attention_interface_1.output[1])
        layers = len(self.model.transformer.h)
        return [maps[first : first + layers] for first in range(0, len(maps), layers)]
