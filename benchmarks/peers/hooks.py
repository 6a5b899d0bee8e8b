"""Forward hooks on the modules of eager attention, which take the weights that each returns to the host's memory."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmarks.peers.files import attention_modules
from benchmarks.peers.peer import Peer


class ForwardHooks(Peer):
    title = "forward hooks on eager, kept in host memory"
    package = "torch"
    attention = "eager"
    selects = "layers; heads and rows once the whole map is made"

    def run(self, ids: Tensor, **inputs: Any) -> list[list[Tensor]]:
        return self._hooked(lambda: self.model(ids, **inputs, use_cache=False))

    def generate(self, ids: Tensor, new: int) -> list[list[Tensor]]:
        settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        return self._hooked(lambda: self.model.generate(ids, **settings))

    def _hooked(self, work: Callable[[], Any]) -> list[list[Tensor]]:
        steps: list[list[Tensor]] = []

        def keep(layer: int) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: tuple[Any, Any]) -> None:
                if layer == 0:
                    steps.append([])
                if output[1] is None:
                    raise LookupError("the module returns no weights")
                steps[-1].append(output[1].cpu())

            return hook

        modules = attention_modules(self.model)
        handles = [module.register_forward_hook(keep(layer)) for layer, module in enumerate(modules)]
        try:
            work()
        finally:
            for handle in handles:
                handle.remove()
        return steps
