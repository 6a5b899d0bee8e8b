"""Which of how many workers this process is, as its launcher says in the environment; the others are not asked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attnprobe.errors import SelectionError

ALONE = "alone"
BY_HAND = "--worker"


@dataclass(frozen=True)
class Workers:
    """One worker of several that share a corpus: of rows it takes those whose number modulo `world` is `rank`.

    Attributes
    ----------
    rank, world
        Its number, from 0, and how many there are.
    local_rank
        Its number on its machine, which tells its GPU.
    launcher
        Where that was read: ``"alone"``, ``"--worker"``, ``"torchrun"``, ``"srun"``, ``"slurm array"``,
        ``"kubernetes"``, or two of them: ``"slurm array x torchrun"``.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    launcher: str = ALONE

    @property
    def label(self) -> str:
        """Short name, in the form that ``--worker`` takes: ``3/8``."""
        return f"{self.rank}/{self.world}"

    def share(self, start: int, stop: int) -> range:
        """Rows of this worker, of those from `start` to `stop`."""
        return range(start + (self.rank - start) % self.world, stop, self.world)


@dataclass(frozen=True)
class _Level:
    """What one launcher says: this process is number `rank` of `world`."""

    name: str
    rank: int
    world: int


def parse_worker(text: str) -> tuple[int, int]:
    """Rank and world of ``"I/N"``, where I counts from 0.

    Raises
    ------
    SelectionError
        If it is something else.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise SelectionError(f"--worker {text!r} is not understood; write I/N: 0/8 is the first of eight, 7/8 the last")
    return int(match[1]), int(match[2])


def find_workers(environ: Mapping[str, str], by_hand: str | None = None) -> Workers:
    """Find out which worker this is.

    A launcher inside of another multiplies: SLURM array tasks and Kubernetes pods are jobs of their own, and in each
    run all the workers that ``srun`` or ``torchrun`` start there. Where ``torchrun`` spans several nodes
    (``GROUP_WORLD_SIZE`` says so), or something else set ``RANK`` and ``WORLD_SIZE``, these count every task of the
    step and every pod already, and only an array multiplies them.

    Parameters
    ----------
    environ
        The environment, as ``os.environ``.
    by_hand
        ``"I/N"``, which wins over all that the environment says.

    Raises
    ------
    SelectionError
        If what a launcher says is incomplete or contradicts itself; the message has the names and values.
    """
    told = {name: value.strip() for name, value in environ.items() if value.strip()}
    local = _local(told)
    if by_hand is not None:
        rank, world = parse_worker(by_hand)
        return Workers(rank, world, rank if local is None else local, BY_HAND)
    array, ranked = _array(told), _ranked(told)
    spans = ranked is not None and told.get("GROUP_WORLD_SIZE") != "1"
    inner = None if spans else _step(told) or _pod(told)
    levels = [level for level in (array, inner, ranked) if level is not None]
    rank, world = 0, 1
    for level in levels:
        rank, world = rank * level.world + level.rank, world * level.world
    if local is None:  # RANK without LOCAL_RANK: neighbours on one machine have neighbouring numbers
        local = 0 if ranked is None else ranked.rank
    return Workers(rank, world, local, " x ".join(level.name for level in levels) or ALONE)


def _ranked(told: Mapping[str, str]) -> _Level | None:
    """``torchrun``, and what speaks as it does."""
    if "RANK" not in told and told.get("WORLD_SIZE", "1") == "1":
        return None
    return _level("torchrun", told, "RANK", "WORLD_SIZE")


def _step(told: Mapping[str, str]) -> _Level | None:
    """``srun``. The batch script itself has SLURM_PROCID and SLURM_NTASKS too, and is one process all the same."""
    if "SLURM_PROCID" not in told or "SLURM_STEP_NUM_TASKS" not in told:
        return None
    level = _level("srun", told, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    return level if level.world > 1 else None


def _array(told: Mapping[str, str]) -> _Level | None:
    """The task of a SLURM array, whose numbers may start anywhere and go in steps."""
    if "SLURM_ARRAY_TASK_ID" not in told:
        return None
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX", "STEP")]
    task, count, first = (_number(told, name) for name in names[:3])
    last = _number(told, names[3]) if names[3] in told else None
    step = _number(told, names[4]) if names[4] in told else 1
    said = ", ".join(f"{name}={told[name]}" for name in names if name in told)
    index, rest = divmod(task - first, max(step, 1))
    even = last is None or (last - first) // max(step, 1) + 1 == count
    if step < 1 or rest or not 0 <= index < count or not even:
        raise SelectionError(
            f"which worker this is cannot be told: {said}; number the array evenly, as in --array=0-7 or "
            "--array=0-30:4, or pass --worker I/N"
        )
    return _Level("slurm array", index, count)


def _pod(told: Mapping[str, str]) -> _Level | None:
    """A pod of an indexed Kubernetes job, which is not told how many there are."""
    if "JOB_COMPLETION_INDEX" not in told:
        return None
    if "ATTNPROBE_WORKERS" not in told:
        raise SelectionError(
            f"JOB_COMPLETION_INDEX={told['JOB_COMPLETION_INDEX']} says which pod this is, and nothing says of how "
            "many; give the pods an environment variable ATTNPROBE_WORKERS with the job's number of completions"
        )
    return _level("kubernetes", told, "JOB_COMPLETION_INDEX", "ATTNPROBE_WORKERS")


def _local(told: Mapping[str, str]) -> int | None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if name in told and (name == "LOCAL_RANK" or "SLURM_STEP_NUM_TASKS" in told):
            return _number(told, name)
    return None


def _level(name: str, told: Mapping[str, str], rank: str, world: str) -> _Level:
    level = _Level(name, _number(told, rank), _number(told, world))
    if level.rank >= level.world:
        raise SelectionError(
            f"{rank}={told[rank]} and {world}={told[world]} contradict each other: workers count from 0; "
            "set them right, or pass --worker I/N"
        )
    return level


def _number(told: Mapping[str, str], name: str) -> int:
    text = told.get(name)
    if text is None:
        raise SelectionError(f"{name} is not set, though others of its launcher are; set it, or pass --worker I/N")
    if re.fullmatch(r"[0-9]+", text) is None:
        raise SelectionError(f"{name}={text} is no number from 0; set it right, or pass --worker I/N")
    return int(text)
