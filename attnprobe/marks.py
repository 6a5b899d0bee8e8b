"""A mark on a module that is watched, for as long as it is: a number in a tensor, which a compiler takes as an input.

A plain number would be compiled in, so that every layer and every recording compiled anew.
"""

import weakref
from itertools import count
from typing import Any

import torch
from torch import nn

MARK = "_attnprobe_watched"  # of an attention module
ROOT_MARK = "_attnprobe_backbone"
_numbers = count(1)
_modules: "weakref.WeakValueDictionary[int, nn.Module]" = weakref.WeakValueDictionary()


class Mark:
    """Says which module this is; a copy, deep or pickled, is of none.

    Attributes
    ----------
    site
        Its number, a tensor on the CPU.
    names
        Of a backbone: what its ``forward`` calls its positional arguments.
    """

    def __init__(self, module: nn.Module | None = None, names: tuple[str, ...] = ()) -> None:
        number = 0 if module is None else next(_numbers)
        with torch.inference_mode(False):  # a tensor made in it could not be an input elsewhere
            self.site = torch.tensor(number, device="cpu")
        self.names = names
        if module is not None:
            _modules[number] = module

    def __reduce__(self) -> Any:
        return Mark, ()


def exports() -> bool:
    """Whether the model is being exported: what comes of that runs elsewhere, and is told of by nobody.

    Not by ``torch.compiler.is_exporting()``, which older compilers take for true in whatever they trace.
    """
    return bool(torch.compiler._is_exporting_flag)


def module_of(site: torch.Tensor) -> nn.Module | None:
    """The module of a mark's number, where it is still there."""
    return _modules.get(int(site))
