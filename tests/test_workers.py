"""Which of how many workers a process is, by what its launcher says."""

from typing import Any

import pytest

from attnprobe.cli.models import pick_device
from attnprobe.errors import SelectionError
from attnprobe.workers import Workers, find_workers, parse_worker

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
ARRAY = {
    "SLURM_JOB_ID": "7",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_ARRAY_TASK_COUNT": "3",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "2",
    "SLURM_ARRAY_TASK_STEP": "1",
}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}  # what the batch script itself has
STEP = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
POD = {"JOB_COMPLETION_INDEX": "4", "ATTNPROBE_WORKERS": "5"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1, 0, "alone")),
        ({"RANK": " ", "WORLD_SIZE": ""}, (0, 1, 0, "alone")),
        ({"WORLD_SIZE": "1"}, (0, 1, 0, "alone")),
        (TORCHRUN, (1, 2, 1, "torchrun")),
        ({"RANK": "5", "WORLD_SIZE": "8"}, (5, 8, 5, "torchrun")),
        ({**TORCHRUN, "RANK": "5", "WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "4"}, (5, 8, 1, "torchrun")),
        (ARRAY, (2, 3, 0, "slurm array")),
        ({**ARRAY, **BATCH}, (2, 3, 0, "slurm array")),
        (BATCH, (0, 1, 0, "alone")),
        (STEP, (3, 4, 1, "srun")),
        ({**STEP, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1, 1, "alone")),
        (POD, (4, 5, 0, "kubernetes")),
        # One inside of the other: the number of the outer one counts whole inner ones.
        ({**ARRAY, **TORCHRUN}, (5, 6, 1, "slurm array x torchrun")),
        ({**ARRAY, **STEP}, (11, 12, 1, "slurm array x srun")),
        ({**STEP, **TORCHRUN}, (7, 8, 1, "srun x torchrun")),
        ({**POD, **TORCHRUN}, (9, 10, 1, "kubernetes x torchrun")),
        # torchrun over four nodes, which srun started: its ranks count all of them.
        ({**STEP, **TORCHRUN, "RANK": "6", "WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "4"}, (6, 8, 1, "torchrun")),
    ],
)  # fmt: skip
def test_what_a_launcher_says(environ: dict[str, str], expected: tuple[int, int, int, str]) -> None:
    assert find_workers(environ) == Workers(*expected)


def test_an_array_may_start_anywhere_and_go_in_steps() -> None:
    numbers = {"COUNT": "3", "MIN": "10", "MAX": "18", "STEP": "4"}
    found = [
        find_workers({f"SLURM_ARRAY_TASK_{n}": v for n, v in {**numbers, "ID": task}.items()}).label
        for task in ("10", "14", "18")
    ]
    assert found == ["0/3", "1/3", "2/3"]


def test_what_is_said_by_hand_wins() -> None:
    assert find_workers({**ARRAY, **TORCHRUN}, "3/7") == Workers(3, 7, 1, "--worker")
    assert find_workers({"RANK": "9", "WORLD_SIZE": "2"}, "3/7").label == "3/7"
    assert find_workers({}, " 3 / 7 ").local_rank == 3


@pytest.mark.parametrize("text", ["", "3", "7/7", "8/7", "-1/7", "0/0", "1/2/3", "a/b", "1.0/2", "²/4"])
def test_a_worker_by_hand_that_is_none(text: str) -> None:
    with pytest.raises(SelectionError, match="write I/N: 0/8 is the first of eight"):
        parse_worker(text)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "4"}, "RANK is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2 contradict each other: workers count from 0"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one is no number from 0"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 is no number from 0"),
        ({**TORCHRUN, "LOCAL_RANK": "x"}, "LOCAL_RANK=x is no number"),
        ({**STEP, "SLURM_PROCID": "4"}, "SLURM_PROCID=4 and SLURM_STEP_NUM_TASKS=4 contradict"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is not set"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_ID=3.*--array=0-7"),
        (  # --array=3,7,8 says that there are three, and not which
            {**ARRAY, "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "8"},
            "cannot be told: .*SLURM_ARRAY_TASK_MAX=8.*--worker I/N",
        ),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "0"}, "SLURM_ARRAY_TASK_STEP=0"),
        ({"JOB_COMPLETION_INDEX": "0"}, "environment variable ATTNPROBE_WORKERS with the job's number of completions"),
        ({**POD, "ATTNPROBE_WORKERS": "4"}, "JOB_COMPLETION_INDEX=4 and ATTNPROBE_WORKERS=4 contradict"),
    ],
)
def test_what_contradicts_itself_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        find_workers(environ)


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (3, 10), (7, 8), (5, 5), (1000, 1013)])
def test_shares_are_all_rows_and_each_once(start: int, stop: int) -> None:
    shares = [Workers(rank, 3).share(start, stop) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(start, stop))
    assert all(number % 3 == rank for rank, share in enumerate(shares) for number in share)


def test_workers_of_one_machine_take_one_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def there(count: int) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)

    def picked(name: str, *ranks: Any) -> list[str]:
        return [pick_device(name, rank) for rank in ranks]

    there(2)
    assert picked("auto", None, 0, 1, 2, 3) == ["cuda", "cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert picked("cuda:1", None, 0) == ["cuda:1", "cuda:1"]
    there(0)
    assert picked("auto", None, 3) == ["cpu", "cpu"]
