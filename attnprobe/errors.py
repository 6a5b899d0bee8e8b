"""Every exception that attnprobe raises on purpose.

::

    AttnprobeError
      SelectionError (ValueError)    a selection names what is not there, or nothing
        TokenError                   a token is not in the sample, or is there twice
      UnsupportedModel               a model whose attention cannot be recorded exactly
      UnsupportedCall                a forward pass that cannot be recorded exactly
      NothingRecorded                the block ended and a selected site was never seen
      NotKept (LookupError)          reading what was not kept
      BudgetError                    what was asked for does not fit the byte budget
      StoreError
        RunExists                    the target directory is taken
        CorruptRun                   a run directory that is not what it says

A message says what is wrong, where, and what to do.
"""


class AttnprobeError(Exception):
    """Base of all errors that attnprobe raises on purpose."""


class SelectionError(AttnprobeError, ValueError):
    """A selection that is malformed, out of range, ambiguous or empty."""


class TokenError(SelectionError):
    """A token that a sample does not have, or has more than once."""


class UnsupportedModel(AttnprobeError):
    """A model whose attention weights cannot be recorded exactly."""


class UnsupportedCall(AttnprobeError):
    """A forward pass whose attention weights cannot be recorded exactly."""


class NothingRecorded(AttnprobeError):
    """The block ended and nothing, or not every selected site, was seen."""


class NotKept(AttnprobeError, LookupError):
    """Reading rows, heads, sites or samples that a run does not hold."""


class BudgetError(AttnprobeError, ValueError):
    """What was asked for does not fit: one row the byte budget, or all of it the memory or disk that is free."""


class StoreError(AttnprobeError):
    """A run cannot be written or read."""


class RunExists(StoreError, FileExistsError):
    """The run directory exists already."""


class CorruptRun(StoreError):
    """A run directory does not hold what its journal says."""


class RecordingWarning(UserWarning):
    """A recording that lacks attention modules, or whose weights may not be those that the kernel used."""


_ALLOCATION = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a device's, or the CPU's as torch says it."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(words in str(error) for words in _ALLOCATION)
