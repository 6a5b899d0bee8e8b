"""Hugging Face eager attention with ``output_attentions=True``."""

from typing import Any

from torch import Tensor

from benchmarks.peers.peer import Peer, Steps


class HuggingFaceEager(Peer):
    title = "Hugging Face eager, `output_attentions`"
    package = "transformers"
    attention = "eager"
    selects = "nothing: all layers, heads and rows"

    def run(self, ids: Tensor, **inputs: Any) -> Steps:
        return [self.model(ids, **inputs, use_cache=False, output_attentions=True).attentions]

    def generate(self, ids: Tensor, new: int) -> Steps:
        made = self.model.generate(
            ids,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
            output_attentions=True,
            return_dict_in_generate=True,
        )
        return made.attentions
