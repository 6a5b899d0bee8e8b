"""`bench`: reads what is asked for, and measures it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from attnprobe.bench.modes import DEFAULT, MODES
from attnprobe.bench.result import Bench
from attnprobe.bench.session import Report, Session
from attnprobe.bench.setting import DTYPES, Setting, Shape, parse_lengths, parse_modes
from attnprobe.bench.subject import Subject, subject_of
from attnprobe.engines import get_engine
from attnprobe.errors import SelectionError
from attnprobe.planning.words import parse_device
from attnprobe.sizes import parse_bytes

ROUNDS = {"cuda": 20, "cpu": 5}


class Interrupted(KeyboardInterrupt):
    """A benchmark was interrupted; `result` is what was measured until then."""

    def __init__(self, result: Bench) -> None:
        super().__init__("interrupted")
        self.result = result


def bench(
    model: nn.Module | str | Shape,
    *,
    tokens: int | str | Sequence[int | str] = "1k,4k",
    modes: str | Sequence[str] = DEFAULT,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    batch: int = 1,
    rounds: int | None = None,
    seconds: float = 30.0,
    attention: str | None = None,
    engine: str = "auto",
    budget: int | str = "256 MiB",
    memory: bool = True,
    folder: str | Path | None = None,
    name: str = "",
    report: Report | None = None,
) -> Bench:
    """Measure what recording a model costs, beside the model as it is and beside eager attention.

    Every mode runs once a round, in turning order, and is compared with the bare forward pass of the same round. What
    runs out of memory is a row that says so, and is not tried at longer lengths.

    Parameters
    ----------
    model
        A Hugging Face model in eval mode, or a `Shape` (``"12x12x64"``, ``"32x32x128:8"``) of a random one.
    tokens
        Lengths: ``"1k,4k"``, a number, or several. Tokens are random.
    modes
        Names of `MODES`; ``"weights:8k"`` is measured up to 8k tokens. ``off``, the bare pass, is always among them.
    dtype, device
        Of a shape's model: bfloat16 on CUDA where there is one, else float32 on the CPU. A given model runs as it is.
    batch
        Samples that run together.
    rounds, seconds
        How often each mode is timed at a length (20 times on CUDA, 5 on a CPU), and after how many seconds it takes
        part in no further round.
    attention
        The implementation of attention, ``"sdpa"``, ``"flash_attention_2"``; the model's own if None.
    engine, budget
        See `attnprobe.record`.
    memory
        Measure peaks of memory: on a CPU, in a fresh process each.
    folder
        Where run directories go, and are removed again; the system's temporary folder if None.
    name
        Of the model, in the result; its class if it is empty.
    report
        Called with the work done, all work, and what is being done.

    Raises
    ------
    SelectionError
        If an argument is malformed, or the tokens do not fit the model's context window.
    UnsupportedModel
        If the model's attention cannot be recorded.
    Interrupted
        On Ctrl-C; its `result` is what was measured until then.

    Examples
    --------
    >>> bench("12x12x64", tokens="1k,4k", modes="head,measures,eager").to_pandas()  # doctest: +SKIP
    """
    given = model if isinstance(model, nn.Module) else None
    if given is not None and (dtype is not None or device is not None):
        raise SelectionError("a model runs as it is; move and convert it before, rather than say dtype= or device=")
    get_engine(engine)
    if folder is not None and not Path(folder).is_dir():
        raise SelectionError(f"there is no folder {folder} for run directories")
    subject = None if given is None else Subject(given, batch)
    where = _device(device) if subject is None else subject.device
    setting = Setting(
        model=name or (str(Shape.parse(str(model))) if given is None else type(given).__name__),
        lengths=parse_lengths(tokens),
        batch=batch,
        modes=parse_modes(modes, tuple(MODES)),
        dtype=_dtype(dtype, where) if subject is None else str(subject.dtype).removeprefix("torch."),
        device=str(where),
        attention=attention or ("sdpa" if subject is None else subject.attention),
        engine=engine,
        budget=parse_bytes(budget),
        rounds=ROUNDS[where.type] if rounds is None else rounds,
        seconds=seconds,
        memory=memory,
    )
    if subject is None:
        subject = subject_of(setting)
    subject.check_window(setting.lengths[-1])
    session = Session(setting, subject, given is not None, None if folder is None else Path(folder), report)
    try:
        return session.run()
    except KeyboardInterrupt:
        raise Interrupted(session.result()) from None


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = parse_device(device)
    if found.type not in ROUNDS:
        raise SelectionError(f"device {str(device)!r}: measured are {' and '.join(ROUNDS)}")
    return found


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> str:
    if dtype is None:
        return "bfloat16" if device.type == "cuda" else "float32"
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise SelectionError(f"dtype={name!r}: write one of {', '.join(DTYPES)}")
    return name
