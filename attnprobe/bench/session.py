"""Measures: every mode once a round, in turning order, at one length after the other."""

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attnprobe.bench.machine import OtherLoad, environment, lacks_memory, settle
from attnprobe.bench.memory import Peaks, peaks_here, peaks_of_fresh_process, status_of
from attnprobe.bench.modes import MODES, Outcome, Work
from attnprobe.bench.result import Bench, Row
from attnprobe.bench.setting import Setting
from attnprobe.bench.subject import Subject
from attnprobe.bench.timing import Spread
from attnprobe.errors import AttnprobeError

OFF, AGAIN = "off", "off, again"
Report = Callable[[float, float, str], None]  # work done, all of it, and what is being done


class _Times:
    """Of a length: outcomes by mode and round, beside those of the bare pass in the same round."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[tuple[Outcome, Outcome]]] = {}

    def add(self, round_: dict[str, Outcome]) -> None:
        for name, outcome in round_.items():
            self.outcomes.setdefault(name, []).append((outcome, round_[OFF]))

    def spent(self, mode: str) -> float:
        return sum((outcome.seconds for outcome, _ in self.outcomes.get(mode, ())), 0.0)

    def fill(self, row: Row) -> Row:
        """The row with its times; of the bare pass, the ratio is that of the second one in each round."""
        own = self.outcomes.get(row.mode)
        if not own:
            return row
        over = self.outcomes.get(AGAIN, ()) if row.mode == OFF else own
        return replace(
            row,
            seconds=Spread(tuple(outcome.seconds for outcome, _ in own)),
            forward_seconds=Spread(tuple(outcome.forward for outcome, _ in own)),
            ratio=Spread(tuple(a.seconds / b.seconds for a, b in over)),
            forward_ratio=Spread(tuple(a.forward / b.forward for a, b in over)),
        )


class Session:
    """A benchmark that runs.

    Parameters
    ----------
    setting
        What is measured.
    subject
        The model.
    given
        Whether the model was given, so that a fresh process cannot make it of the setting's shape.
    folder
        Where run directories go; None for a temporary folder of the system's.
    report
        Is told how far it is.
    """

    def __init__(
        self, setting: Setting, subject: Subject, given: bool, folder: Path | None = None, report: Report | None = None
    ) -> None:
        self._setting, self._subject, self._given, self._folder = setting, subject, given, folder
        self._report = report or (lambda done, total, what: None)
        self._rows: list[Row] = []
        self._dead: dict[str, str] = {}  # mode: what ended it
        self._times = _Times()
        self._length_rows: dict[str, Row] = {}
        self._peaks: dict[str, Peaks] = {}
        self._finished, self._load = False, OtherLoad()
        self._behind, self._steps = 0.0, 0  # work of lengths that are done, and steps of the one that is measured
        self._environment = environment(subject.device)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self) -> Bench:
        """Measure everything; after an interrupt, `result` has what was measured until then."""
        scratch = tempfile.TemporaryDirectory(prefix="attnprobe-bench-")
        with scratch as folder, self._subject.on(self._setting.attention), _quick_collection():
            pickled = self._pickle(Path(folder))
            for length in self._setting.lengths:
                self._measure(length, pickled)
                self._close()
                self._behind, self._steps = self._behind + self._work(length), 0
        self._finished = True
        return self.result()

    def result(self) -> Bench:
        """What was measured so far."""
        rows = (*self._rows, *self._rows_of_length())
        return Bench(
            self._setting,
            {**self._environment, "other_load": self._load.share()},
            {name: MODES[name].what for name, _ in self._setting.modes},
            rows,
            self._notes(),
            not self._finished,
        )

    def _pickle(self, folder: Path) -> Path | None:
        """A given model for fresh processes; None where none is needed."""
        if not self._given or not self._setting.memory or self._on_cuda:
            return None
        try:
            torch.save(self._subject.model, folder / "model.pt")
        except Exception as error:
            raise AttnprobeError(
                f"memory is measured in fresh processes, and the model cannot be handed to one: {error}; leave memory "
                "out (memory=False, --no-memory), or measure a --shape"
            ) from error
        return folder / "model.pt"

    def _measure(self, length: int, pickled: Path | None) -> None:
        self._length_rows = {mode: Row(mode, length) for mode in self._setting.modes_of(length)}
        work = Work(self._subject, self._subject.ids(length), self._setting.engine, self._setting.budget, self._folder)
        for mode in self._length_rows:
            if mode in self._dead:
                self._end(mode, "not tried", self._dead[mode])
            elif OFF in self._dead:
                self._end(mode, "not tried", self._dead[OFF])
            elif self._fits(mode, length):
                self._prepare(mode, work, pickled)
        for turn in range(self._setting.rounds):
            self._round(turn, work)

    def _fits(self, mode: str, length: int) -> bool:
        """Whether there is the memory that a mode takes at least: a machine that swaps is of no use to anyone."""
        lacking = lacks_memory(MODES[mode].need(self._subject, length))
        if lacking is None:
            return True
        self._end(mode, "will not fit", f"would need {lacking}")
        return False

    def _prepare(self, mode: str, work: Work, pickled: Path | None) -> None:
        """Measure memory, and warm up."""
        memory, length = self._setting.memory, work.ids.shape[1]
        if memory and not self._on_cuda:
            self._say(length, mode, "memory")
            peaks = self._attempt(
                mode, lambda: peaks_of_fresh_process(mode, length, self._setting, self._folder, pickled)
            )
            if peaks is None:
                return
            self._note(mode, peaks)
        self._say(length, mode, "warming up")
        outcome = self._attempt(mode, lambda: self._once(mode, work))
        if outcome is None:
            return
        self._length_rows[mode] = replace(self._length_rows[mode], kept=outcome.kept)
        if memory and self._on_cuda:
            self._say(length, mode, "memory")
            peaks = self._attempt(mode, lambda: peaks_here(mode, work))
            if peaks is not None:
                self._note(mode, peaks)

    def _round(self, turn: int, work: Work) -> None:
        """Every mode that is alive once, in an order that turns by one from round to round."""
        alive = [mode for mode, row in self._length_rows.items() if row.status == "measured"]
        taking = [mode for mode in alive if mode == OFF or self._times.spent(mode) < self._setting.seconds]
        if OFF not in taking or self._times.spent(OFF) >= self._setting.seconds:
            return
        names = [*taking, AGAIN]
        shift, found = turn % len(names), {}
        for name in names[shift:] + names[:shift]:
            mode = OFF if name == AGAIN else name
            self._say(work.ids.shape[1], mode, f"round {turn + 1} of {self._setting.rounds}")
            outcome = self._attempt(mode, lambda mode=mode: self._once(mode, work))  # type: ignore[misc]
            if outcome is not None:
                found[name] = outcome
        if OFF in found:
            self._times.add(found)

    def _once(self, mode: str, work: Work) -> Outcome:
        settle()
        return MODES[mode](work)

    def _attempt(self, mode: str, act: Callable[[], Any]) -> Any:
        """What it gives; None where it fails, which ends the mode."""
        try:
            return act()
        except Exception as error:
            status, reason = status_of(error)
        # Out of the except block, which holds on to every frame that failed, and so to what these had allocated.
        gc.collect()
        if self._on_cuda:
            torch.cuda.empty_cache()
        self._end(mode, status, reason)
        return None

    # --- rows --------------------------------------------------------------------------------------------------------

    def _end(self, mode: str, status: str, reason: str) -> None:
        """The mode is not measured here, nor at longer lengths."""
        row = self._length_rows[mode]
        self._length_rows[mode] = Row(mode, row.tokens, status, reason)
        self._times.outcomes.pop(mode, None)
        self._dead.setdefault(mode, f"{mode} at {row.tokens:,} tokens: {status}")

    def _note(self, mode: str, peaks: Peaks) -> None:
        self._peaks[mode] = peaks
        self._length_rows[mode] = replace(
            self._length_rows[mode], kept=peaks.kept, host_peak=peaks.host, device_peak=peaks.device
        )

    def _rows_of_length(self) -> list[Row]:
        """The rows of the length that is being measured, as far as that is."""
        bare, rows = self._peaks.get(OFF), []
        for row in map(self._times.fill, self._length_rows.values()):
            if row.status == "measured" and row.seconds is None and row.host_peak is None:
                continue  # an interrupt came first
            if bare is not None and row.mode in self._peaks and row.status == "measured":
                row = replace(
                    row,
                    host_extra=_less(row.host_peak, bare.host),
                    device_extra=_less(row.device_peak, bare.device),
                )
            rows.append(row)
        return rows

    def _close(self) -> None:
        self._rows += self._rows_of_length()
        self._times, self._length_rows, self._peaks = _Times(), {}, {}

    def _notes(self) -> tuple[str, ...]:
        """What to know of the figures."""
        timed = "CUDA events" if self._on_cuda else "the clock"
        found = [
            f"Times are by {timed}: medians, and smallest to largest. Ratios are taken within a round, in which each "
            "mode ran once, in turning order; the ratio of off is that of a second bare forward pass in each round, "
            "which is noise. A recording is timed from its start until everything is kept; beside it, its forward "
            "pass alone.",
        ]
        if self._setting.memory:
            where = (
                "of the device's allocator, in this process after its cache was emptied; host memory is resident size"
                if self._on_cuda
                else "resident size of a fresh process each; arrays are given back at once when they are free"
            )
            found.append(f"Extra memory is the peak above that of the bare forward pass: {where}.")
        if self._subject.one_row:
            found.append("Logits are made of the last token only (logits_to_keep=1), bare and recorded.")
        if not self._given:
            found.append("The model's numbers are random.")
        return tuple(found)

    # --- progress ----------------------------------------------------------------------------------------------------

    @property
    def _on_cuda(self) -> bool:
        return self._subject.device.type == "cuda"

    def _cost(self, length: int) -> float:
        """Of one step, in no unit: attention grows with the square, all else with the length."""
        return length * (1 + length / 4096)

    def _work(self, length: int) -> float:
        """Of all steps at a length, as far as modes are alive."""
        alive = sum(mode not in self._dead for mode in self._setting.modes_of(length))
        steps = alive * (self._setting.rounds + 1 + self._setting.memory) + self._setting.rounds
        return steps * self._cost(length)

    def _say(self, length: int, mode: str, what: str) -> None:
        """Tell what is being done, and how much of all."""
        ahead = sum(self._work(one) for one in self._setting.lengths if one > length)
        here = self._work(length)
        done = min(self._steps * self._cost(length), here)
        self._report(self._behind + done, self._behind + here + ahead, f"{length:,} tokens: {mode}, {what}")
        self._steps += 1


@contextmanager
def _quick_collection() -> Iterator[None]:
    """Leave what is there already out of garbage collection, which comes before each measurement."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _less(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
