"""Record the attention weights of PyTorch transformers while they run as they normally run."""

from attnprobe.api import record
from attnprobe.errors import (
    AttnprobeError,
    BudgetError,
    CorruptRun,
    NothingRecorded,
    NotKept,
    RunExists,
    SelectionError,
    StoreError,
    TokenError,
    UnsupportedCall,
    UnsupportedModel,
)
from attnprobe.from_attentions import from_attentions
from attnprobe.head import Head
from attnprobe.keep import Weights
from attnprobe.recorder import Recorder
from attnprobe.run import Run, SampleRun
from attnprobe.run import open_run as open

__version__ = "0.1.0"

__all__ = [
    "AttnprobeError",
    "BudgetError",
    "CorruptRun",
    "Head",
    "NotKept",
    "NothingRecorded",
    "Recorder",
    "Run",
    "RunExists",
    "SampleRun",
    "SelectionError",
    "StoreError",
    "TokenError",
    "UnsupportedCall",
    "UnsupportedModel",
    "Weights",
    "from_attentions",
    "open",
    "record",
]
