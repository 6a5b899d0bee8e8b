"""Record the attention weights of PyTorch transformers while they run as they normally run."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attnprobe.errors import (
    AttnprobeError,
    BudgetError,
    CorruptRun,
    NothingRecorded,
    NotKept,
    RecordingWarning,
    RunExists,
    SelectionError,
    StoreError,
    TokenError,
    UnsupportedCall,
    UnsupportedModel,
)
from attnprobe.head import Head
from attnprobe.keep import Measures, TopK, Weights
from attnprobe.run import Run, SampleRun
from attnprobe.run import open_run as open
from attnprobe.verifying import verify
from attnprobe.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from attnprobe.api import plan, record
    from attnprobe.attentions import from_attentions
    from attnprobe.dataset import SampleDataset
    from attnprobe.measures import SampleRows, row_measure
    from attnprobe.planning import Plan
    from attnprobe.recorder import Recorder

__all__ = [
    "AttnprobeError",
    "BudgetError",
    "CorruptRun",
    "Head",
    "Measures",
    "NotKept",
    "NothingRecorded",
    "Plan",
    "Recorder",
    "RecordingWarning",
    "Run",
    "RunExists",
    "SampleDataset",
    "SampleRows",
    "SampleRun",
    "SelectionError",
    "StoreError",
    "TokenError",
    "TopK",
    "UnsupportedCall",
    "UnsupportedModel",
    "Weights",
    "from_attentions",
    "open",
    "plan",
    "record",
    "row_measure",
    "verify",
]

# These need torch, which takes seconds to import; reading a run does not.
_NEED_TORCH = {
    "Plan": "planning",
    "Recorder": "recorder",
    "SampleDataset": "dataset",
    "SampleRows": "measures",
    "from_attentions": "attentions",
    "plan": "api",
    "record": "api",
    "row_measure": "measures",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module 'attnprobe' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"attnprobe.{_NEED_TORCH[name]}"), name)
    return value
