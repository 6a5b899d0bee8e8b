"""Running a model bare, recorded, and recorded with a profile, in turns: ratios of one run, with their spread."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from attnprobe.profiling import Profile
    from attnprobe.recorder import Recorder

BARE, RECORDED, PROFILED = "bare", "recorded", "profiled"


@dataclass
class Runner:
    """Runs a model on one input.

    Attributes
    ----------
    model, ids
        Which, and its input ``[batch, token]``.
    generate
        Tokens to generate; None for a forward pass alone.
    recorder
        Makes a recorder that writes to a path, or to memory, with or without a profile.
    asked
        What the model is called with besides when it is recorded.
    """

    model: Any
    ids: Any
    generate: int | None
    recorder: "Callable[[Path | None, bool], Recorder]"
    asked: dict[str, Any] = field(default_factory=dict)

    def bare(self) -> None:
        """The model by itself."""
        self._call({})

    def recorded(self, profile: bool, to: Path | None) -> "Recorder":
        """The model, recorded."""
        with self.recorder(to, profile) as recorder:
            self._call(self.asked)
        return recorder

    def _call(self, asked: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            if self.generate is None:
                decoder = {"decoder_input_ids": self.ids} if self.model.config.is_encoder_decoder else {}
                self.model(input_ids=self.ids, use_cache=False, **decoder, **asked)
            else:
                self.model.generate(
                    input_ids=self.ids,
                    attention_mask=torch.ones_like(self.ids),
                    max_new_tokens=self.generate,
                    do_sample=False,
                    num_beams=1,
                    pad_token_id=self.model.generation_config.pad_token_id or 0,  # nothing is padded
                    **asked,
                )

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds until all that it gave the device is done, and what it returned."""
        self._synchronize()
        began = time.perf_counter()
        found = work()
        self._synchronize()
        return time.perf_counter() - began, found

    def _synchronize(self) -> None:
        import torch

        if self.ids.device.type == "cuda":
            torch.cuda.synchronize(self.ids.device)


@dataclass(frozen=True)
class Rounds:
    """Seconds by way, a number a round, and the profile of the round with the median time."""

    seconds: dict[str, list[float]]
    profile: "Profile"

    def ratio(self, way: str, to: str) -> dict[str, float]:
        """Median, least and most of the rounds' ratios."""
        ratios = [a / b for a, b in zip(self.seconds[way], self.seconds[to], strict=True)]
        return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "seconds": self.seconds,
            "recorded_over_bare": self.ratio(RECORDED, BARE),
            "profiled_over_recorded": self.ratio(PROFILED, RECORDED),
        }

    def lines(self) -> list[str]:
        """The ratios in words."""
        recorded, profiled = self.ratio(RECORDED, BARE), self.ratio(PROFILED, RECORDED)
        bare = statistics.median(self.seconds[BARE])
        count = len(self.seconds[BARE])
        of = f"{count} round{'s' * (count > 1)} in turns"
        return [
            f"recorded takes {_ratio(recorded)} of the bare run's {1000 * bare:.1f} ms, opening and closing included",
            f"with its profile {_ratio(profiled)} of that; median and extremes of {of}",
        ]


@contextmanager
def beside(run: Path | None) -> Iterator[Callable[[str], Path | None]]:
    """Where runs go, by name, one at a time: on the disk of `run`, or to memory without it.

    A run is removed when the next one is to be made, the last one when the block ends.
    """
    if run is None:
        yield lambda name: None
        return
    run.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{run.name}-", dir=run.parent) as made:

        def place(name: str) -> Path:
            for before in Path(made).iterdir():
                shutil.rmtree(before)
            return Path(made) / name

        yield place


def run_rounds(
    runner: Runner, count: int, place: Callable[[str], Path | None], run: Path | None, tell: Callable[[str], None]
) -> Rounds:
    """Take turns, after one of each that is not counted: it compiles and tunes what there is to.

    Each recording goes to a place of its own, the last one to `run`.
    """
    seconds: dict[str, list[float]] = {BARE: [], RECORDED: [], PROFILED: []}
    profiles = []
    runner.bare()
    runner.recorded(False, place("first"))
    for number in range(count):
        tell(f"round {number + 1} of {count}")
        seconds[BARE].append(runner.timed(runner.bare)[0])
        for way in (RECORDED, PROFILED) if number % 2 else (PROFILED, RECORDED):
            last = way == PROFILED and number == count - 1
            to = run if last else place(f"{way}-{number}")
            took, recorder = runner.timed(partial(runner.recorded, way == PROFILED, to))
            seconds[way].append(took)
            if way == PROFILED:
                profiles.append(recorder.profile)
    middle = sorted(range(count), key=seconds[PROFILED].__getitem__)[count // 2]
    return Rounds(seconds, profiles[middle])


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3g}x ({ratio['low']:.3g} to {ratio['high']:.3g})"
