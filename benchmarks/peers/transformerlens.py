"""TransformerLens: ``run_with_cache`` of a TransformerBridge, `hook_pattern` of every layer."""

from typing import Any

from torch import Tensor

from benchmarks.peers.files import ModelFiles
from benchmarks.peers.peer import Peer


class TransformerLens(Peer):
    title = "TransformerLens `run_with_cache`, `hook_pattern`"
    package = "transformer-lens"
    attention = "eager"  # the bridge sets it, whatever it is told
    selects = "layers; heads and rows once the whole map is made"

    def __init__(self, files: ModelFiles, attention: str | None = None) -> None:
        import torch
        from transformer_lens.model_bridge import TransformerBridge

        self.bridge = TransformerBridge.boot_transformers(
            str(files.folder), device=files.device, dtype=getattr(torch, files.dtype)
        )
        self.model = self.bridge.original_model
        self.names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(self.bridge.cfg.n_layers)]

    def run(self, ids: Tensor, **inputs: Any) -> list[list[Tensor]]:
        cache = self.bridge.run_with_cache(ids, names_filter=self.names, use_cache=False, **inputs)[1]
        return [[cache[name] for name in self.names]]

    def generate(self, ids: Tensor, new: int) -> list[list[Tensor]]:
        steps: list[list[Tensor]] = []

        def keep(pattern: Tensor, hook: Any) -> None:
            if hook.name == self.names[0]:
                steps.append([])
            steps[-1].append(pattern)

        settings = {"max_new_tokens": new, "do_sample": False, "stop_at_eos": False, "verbose": False}
        with self.bridge.hooks(fwd_hooks=[(name, keep) for name in self.names]):
            self.bridge.generate(ids, **settings)
        return steps
