"""Record the attention weights of PyTorch transformers while they run as they normally run."""

from typing import TYPE_CHECKING

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
from attnprobe.lazy import loading
from attnprobe.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from attnprobe.api import plan, record
    from attnprobe.attentions import from_attentions
    from attnprobe.dataset import SampleDataset
    from attnprobe.head import Head
    from attnprobe.keep import Measures, TopK, Weights
    from attnprobe.measures import SampleRows, row_measure
    from attnprobe.planning import Plan
    from attnprobe.recorder import Recorder
    from attnprobe.run import Run, SampleRun
    from attnprobe.run import open_run as open
    from attnprobe.verifying import verify

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

# Loaded when they are asked for: torch takes seconds to import, and reading a run does not need it; numpy and pandas
# take some tenths of one, and a command that is interrupted meanwhile has to be there to say so.
_LAZY = {
    "Head": "head",
    "Measures": "keep",
    "Plan": "planning",
    "Recorder": "recorder",
    "Run": "run",
    "SampleDataset": "dataset",
    "SampleRows": "measures",
    "SampleRun": "run",
    "TopK": "keep",
    "Weights": "keep",
    "from_attentions": "attentions",
    "open": "run:open_run",
    "plan": "api",
    "record": "api",
    "row_measure": "measures",
    "verify": "verifying",
}


__getattr__ = loading(__name__, _LAZY, globals())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
