"""``attnprobe bench``: every mode at every length in turns, memory in fresh processes, and rows for what fails."""

import io
import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checks
import models
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from transformers import T5Config, T5ForConditionalGeneration

import attnprobe as ap
import attnprobe.bench.memory
import attnprobe.bench.session
import attnprobe.bench.subject
from attnprobe.bench import MODES, Bench, Interrupted, Shape, bench
from attnprobe.bench.memory import peaks_of_fresh_process
from attnprobe.bench.modes import ROW_MEASURES, Outcome, Work
from attnprobe.bench.setting import Setting, parse_lengths, parse_modes
from attnprobe.bench.subject import Subject, _size, random_model, subject_of
from attnprobe.bench.table import footnotes, rich_table
from attnprobe.cli import main
from attnprobe.planning import free

LAYERS, HEADS, DIM = 2, 3, 8
SHAPE = f"{LAYERS}x{HEADS}x{DIM}"
EVERY = tuple(MODES)
OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    MemoryError(),
)


def quick(**options: Any) -> Bench:
    return bench(options.pop("model", SHAPE), **{"tokens": "16,32", "rounds": 2, "memory": False, **options})


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def found() -> Bench:
    """All modes on a tiny model."""
    return quick(modes=EVERY)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, int]]]:
    """Replaces modes by what costs nothing; gives the list of what ran. What `act` raises, a mode raises."""

    def install(act: Callable[[str, int], float] = lambda name, length: 1.0) -> list[tuple[str, int]]:
        ran: list[tuple[str, int]] = []
        for name, mode in MODES.items():

            def run(work: Work, name: str = name) -> Outcome:
                length = work.ids.shape[1]
                ran.append((name, length))
                seconds = act(name, length)
                return Outcome(seconds, seconds)

            monkeypatch.setitem(MODES, name, replace(mode, run=run, attention=None))  # type: ignore[arg-type]
        return ran

    return install


# --- what is measured ---------------------------------------------------------------------------------------------


def test_every_mode_has_a_row_at_every_length(found: Bench) -> None:
    assert [(row.tokens, row.mode) for row in found] == [(length, mode) for length in (16, 32) for mode in EVERY]
    for row in found:
        assert row.status == "measured" and row.reason == ""
        assert row.seconds and row.forward_seconds and row.seconds.count == row.forward_seconds.count == 2
        assert 0 < row.forward_seconds.median <= row.seconds.high
    assert not found.interrupted and not found.failed


def test_ratios_are_those_of_each_round(found: Bench) -> None:
    bare, row = found["off", 32], found["measures", 32]
    assert bare.seconds and row.seconds and row.ratio
    expected = [a / b for a, b in zip(row.seconds.values, bare.seconds.values, strict=True)]
    assert list(row.ratio.values) == pytest.approx(expected)
    assert bare.ratio and bare.ratio.count == 2 and list(bare.ratio.values) != [1.0, 1.0]  # noise: two passes a round


def test_bytes_kept_are_those_of_the_weights(found: Bench) -> None:
    whole = LAYERS * HEADS * 32 * 32 * 4
    kept = {mode: found[mode, 32].kept for mode in EVERY}
    assert kept["off"] == kept["paused"] == 0
    assert kept["eager"] == kept["hook"] == kept["rows"] == whole
    assert kept["weights"] == whole // LAYERS and kept["head"] == whole // LAYERS // HEADS
    assert kept["disk"] is not None and kept["disk"] > whole // LAYERS
    assert kept["row-measures"] is not None and kept["row-measures"] >= len(ROW_MEASURES) * LAYERS * HEADS * 32 * 4
    assert kept["measures"] is not None and kept["measures"] > kept["row-measures"]


def test_the_bare_pass_is_bare_and_eager_is_eager() -> None:
    subject = Subject(models.gpt2(n_positions=64), 1)
    seen: dict[str, tuple[Any, str]] = {}

    def look(module: Any, *inputs: Any) -> None:
        seen[name] = checks.registry(), subject.attention

    before = checks.registry()
    handle = subject.model.register_forward_pre_hook(look)
    for name in ("off", "head", "eager"):
        MODES[name](Work(subject, subject.ids(16)))
    handle.remove()
    assert seen["off"] == (before, "sdpa")
    assert seen["head"][0] != before
    assert seen["eager"] == (before, "eager") and subject.attention == "sdpa"


def test_a_given_model_is_as_it_was() -> None:
    model = models.gpt2(n_positions=64)
    tokens = models.ids(1, 20)
    with torch.no_grad():
        before = model(tokens).logits
    state, random = checks.registry(), torch.random.get_rng_state()
    result = quick(model=model, tokens=32, modes=EVERY, attention="eager")
    assert result.setting.attention == "eager" and result.setting.model == "GPT2LMHeadModel"
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, before)
    assert model.config._attn_implementation == "sdpa" and checks.registry() == state
    quick(modes="paused")  # a random model is made from a seed, and the user's own stream of numbers goes on
    assert torch.equal(random, torch.random.get_rng_state())


def test_each_round_runs_every_mode_once_in_turning_order(stub: Callable[..., list[tuple[str, int]]]) -> None:
    ran = stub()
    quick(tokens=16, modes="head,rows", rounds=4)
    order = [name for name, _ in ran]
    assert order[:3] == ["off", "head", "rows"]  # warm-up
    rounds = [order[3 + 4 * turn : 7 + 4 * turn] for turn in range(4)]
    assert all(sorted(one) == ["head", "off", "off", "rows"] for one in rounds)
    assert len({tuple(one) for one in rounds}) == 4


def test_a_slow_mode_leaves_the_rounds_to_the_others(stub: Callable[..., list[tuple[str, int]]]) -> None:
    stub(lambda name, length: 3.0 if name == "disk" else 0.1)
    result = quick(tokens=16, modes="head,disk", rounds=6, seconds=5.0)
    counts = {row.mode: row.seconds.count for row in result if row.seconds}
    assert counts == {"off": 6, "head": 6, "disk": 2}


def test_a_mode_may_end_at_a_length(stub: Callable[..., list[tuple[str, int]]]) -> None:
    stub()
    result = quick(modes="head,weights:16")
    assert [(row.tokens, row.mode) for row in result] == [
        (16, "off"), (16, "head"), (16, "weights"), (32, "off"), (32, "head"),
    ]  # fmt: skip


def test_shapes_are_those_of_gpt2_and_llama() -> None:
    setting = Setting("2x4x8:2", (16,), 1, (("off", None),), "bfloat16", "cpu", "sdpa", "auto", 1 << 20, 1, 1.0, False)
    subject = subject_of(setting)
    config = subject.model.config
    assert (config.model_type, config.num_key_value_heads, config.head_dim) == ("llama", 2, 8)
    assert (config.hidden_size, config.intermediate_size, subject.dtype) == (32, 112, torch.bfloat16)
    assert subject.forward(subject.ids(16)).logits.shape[1] == 1  # logits of one row only
    same = subject_of(setting).model.state_dict()
    assert all(torch.equal(one, same[name]) for name, one in subject.model.state_dict().items())
    subject = subject_of(replace(setting, model=SHAPE, dtype="float32"))
    assert subject.model.config.model_type == "gpt2" and subject.model.config.n_positions == 17
    assert subject.maps == (LAYERS * HEADS, HEADS)


def test_words_are_read() -> None:
    assert parse_lengths("4k,1k, 512") == (512, 1024, 4096) and parse_lengths(7) == (7,)
    assert parse_lengths([16, "1k"]) == (16, 1024)
    assert parse_modes("eager,weights:8k", EVERY) == (("off", None), ("eager", None), ("weights", 8192))
    assert Shape.parse("32x32x128:8") == Shape(32, 32, 128, 8) and str(Shape(12, 12, 64)) == "12x12x64"


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fresh_process_has_the_peak_of_one_run(tmp_path: Path) -> None:
    """The model was given, so that the process gets it from a file; eager keeps all maps at once."""
    model, length = models.gpt2(n_positions=1024), 1024
    torch.save(model, tmp_path / "model.pt")
    setting = Setting("", (length,), 1, (("off", None),), "float32", "cpu", "sdpa", "auto", 1 << 20, 1, 1.0, True)
    ballast = torch.ones(1 << 28, dtype=torch.uint8)  # this process is larger, and the other knows nothing of it
    peaks = peaks_of_fresh_process("eager", length, setting, None, tmp_path / "model.pt")
    maps = 3 * 4 * length * length * 4
    assert peaks.kept == maps and peaks.device is None
    assert peaks.host is not None and maps <= peaks.host < 4 * maps < ballast.nbytes


def test_a_fresh_process_says_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attnprobe.bench.memory, "give_back_at_once", lambda: None)
    setting = Setting(SHAPE, (32,), 1, (("off", None),), "float32", "cpu", "sdpa", "auto", 1 << 20, 1, 1.0, True)
    task = {"mode": "weights", "length": 32, "setting": json.loads(json.dumps(setting.describe()))}
    task |= {"folder": None, "pickled": None, "threads": torch.get_num_threads()}
    done = attnprobe.bench.memory._child(task)
    assert done["kept"] == HEADS * 32 * 32 * 4 and done["device"] is None and done["host"] >= 0
    small = {**task, "setting": {**task["setting"], "budget": 64}}
    assert attnprobe.bench.memory._child(small)["status"] == "will not fit"
    monkeypatch.setattr(free, "host", lambda: 0)  # the other process has the model too
    assert attnprobe.bench.memory._child(task)["status"] == "will not fit"


@pytest.mark.parametrize(("code", "status"), [(-9, "out of memory"), (1, "failed")])
def test_a_fresh_process_that_dies_is_a_row(
    code: int, status: str, monkeypatch: pytest.MonkeyPatch, stub: Callable[..., list[tuple[str, int]]]
) -> None:
    ran = stub()

    started = []

    def start(module: str, task: dict[str, Any], quiet: bool) -> dict[str, Any]:
        started.append((task["mode"], task["length"]))
        if task["mode"] == "eager":
            raise subprocess.CalledProcessError(code, "python", stderr="what it said\n")
        return {"host": 5 + 10 * (task["mode"] == "head"), "device": None, "kept": 3}

    monkeypatch.setattr(attnprobe.bench.memory, "in_fresh_process", start)
    result = quick(modes="head,eager", memory=True)
    assert result["eager", 16].status == status and result["eager", 32].status == "not tried"
    assert result["head", 32].host_extra == 10 and result["head", 32].kept == 0  # as the run here said
    assert ("eager", 16) not in ran
    assert started == [("off", 16), ("head", 16), ("eager", 16), ("off", 32), ("head", 32)]  # one for each


# --- what fails is a row ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_out_of_memory_is_a_row_and_longer_lengths_are_not_tried(
    error: Exception, stub: Callable[..., list[tuple[str, int]]]
) -> None:
    def act(name: str, length: int) -> float:
        if name == "eager" and length >= 32:
            raise error
        return 2.0

    ran = stub(act)
    result = quick(tokens="16,32,64", modes="head,eager")
    assert result["eager", 16].status == "measured"
    assert result["eager", 32].status == "out of memory" and result["eager", 32].seconds is None
    assert result["eager", 64].status == "not tried" and "eager at 32 tokens" in result["eager", 64].reason
    assert ran.count(("eager", 32)) == 1 and ("eager", 64) not in ran
    assert result["head", 64].seconds is not None and not result.failed


def test_memory_that_ends_between_rounds_ends_the_mode(stub: Callable[..., list[tuple[str, int]]]) -> None:
    def act(name: str, length: int) -> float:
        if name == "eager" and ran.count(("eager", 16)) == 3:
            raise MemoryError
        return 1.0

    ran = stub()
    ran = stub(act)
    result = quick(tokens=16, modes="eager,head", rounds=4)
    assert result["eager", 16].status == "out of memory" and result["eager", 16].ratio is None
    assert result["head", 16].seconds is not None and result["head", 16].seconds.count == 4


def test_without_a_bare_pass_nothing_is_compared(stub: Callable[..., list[tuple[str, int]]]) -> None:
    def act(name: str, length: int) -> float:
        if name == "off" and length == 32:
            raise MemoryError
        return 1.0

    stub(act)
    result = quick(modes="head")
    assert (result["off", 32].status, result["head", 32].status) == ("out of memory", "not tried")


def test_what_would_swap_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free, "host", lambda: 1 << 30)
    result = quick(model=models.gpt2(), tokens=16, modes="eager,hook,head")
    for mode in ("eager", "hook"):
        assert result[mode, 16].status == "will not fit" and "would need" in result[mode, 16].reason


def test_a_shape_that_fits_no_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in (Shape(2, 4, 64), Shape(2, 4, 64, 2)):  # what is counted is nearly all that there is
        model = random_model(shape, 16, torch.float32, torch.device("meta"), "sdpa")
        numbers = sum(parameter.numel() for parameter in model.parameters())
        assert 0.99 * numbers < _size(shape) <= numbers
    for shape in ("96x96x1024", "96x96x1024:8"):
        done = call("--shape", shape, "--tokens", "16", "--modes", "off")
        assert done.exit_code == 4 and f"a model of shape {shape} takes" in done.stderr and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1

    def full(*_: Any) -> None:
        raise OUT_OF_MEMORY[0]

    monkeypatch.setattr(attnprobe.bench.subject, "random_model", full)
    with pytest.raises(ap.BudgetError, match="smaller --shape"):
        quick()


def test_what_does_not_fit_the_budget_is_a_row() -> None:
    result = quick(modes="head", budget=64)
    row = result["head", 16]
    assert row.status == "will not fit" and "budget" in row.reason and "\n" not in row.reason
    assert result["off", 32].status == "measured"


def test_another_error_is_a_row_and_the_exit_code(stub: Callable[..., list[tuple[str, int]]], tmp_path: Path) -> None:
    def act(name: str, length: int) -> float:
        if name == "rows":
            raise RuntimeError("no such kernel\nmore")
        return 1.0

    stub(act)
    file = tmp_path / "bench.json"
    done = call("--shape", SHAPE, "--tokens", "16", "--modes", "rows,head", "--no-memory", "-o", file)
    assert done.exit_code == 1 and "rows at 16 tokens failed: RuntimeError: no such kernel" in done.stderr
    result = Bench.from_json(file)
    assert [row.mode for row in result.failed] == ["rows"] and result["head", 16].status == "measured"


def test_an_interrupt_leaves_what_was_measured(stub: Callable[..., list[tuple[str, int]]], tmp_path: Path) -> None:
    def act(name: str, length: int) -> float:
        if length == 32 and name == "head" and ran.count(("head", 32)) == 2:
            raise KeyboardInterrupt
        return 1.0

    ran: list[tuple[str, int]] = []
    ran = stub(act)
    with pytest.raises(Interrupted) as stopped:
        quick(modes="head", rounds=3)
    result = stopped.value.result
    assert result.interrupted and result["head", 16].seconds is not None
    ran.clear()
    file = tmp_path / "bench.json"
    done = call("--shape", SHAPE, "--tokens", "16,32", "--modes", "head", "--rounds", "3", "--no-memory", "-o", file)
    assert done.exit_code == 130 and "Interrupted" in done.stdout and "interrupted" in done.stderr
    assert Bench.from_json(file).interrupted


def test_a_process_that_is_ended_leaves_what_was_measured_too(
    stub: Callable[..., list[tuple[str, int]]], tmp_path: Path
) -> None:
    def act(name: str, length: int) -> float:
        if length == 32 and name == "head":
            signal.raise_signal(signal.SIGTERM)
        return 1.0

    stub(act)
    file, before = tmp_path / "bench.json", signal.getsignal(signal.SIGTERM)
    done = call("--shape", SHAPE, "--tokens", "16,32", "--modes", "head", "--rounds", "3", "--no-memory", "-o", file)
    assert done.exit_code == 130 and Bench.from_json(file)["head", 16].seconds is not None
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_plot_of_nothing_is_not_said_to_be_written(
    stub: Callable[..., list[tuple[str, int]]], tmp_path: Path
) -> None:
    def act(name: str, length: int) -> float:
        if name == "head":
            raise RuntimeError("no such kernel")
        return 1.0

    stub(act)
    files = [tmp_path / "bench.json", tmp_path / "bench.png"]
    written = [word for file in files for word in ("-o", file)]
    done = call("--shape", SHAPE, "--tokens", "16", "--modes", "head", "--no-memory", *written)
    assert done.exit_code == 1
    for file in files:
        assert file.exists() == (f"written: {file}" in done.stderr.splitlines())
    assert not files[1].exists() and f"not written: {files[1]}" in done.stderr


def test_where_nothing_was_measured_nothing_is_written(
    stub: Callable[..., list[tuple[str, int]]], tmp_path: Path
) -> None:
    def act(name: str, length: int) -> float:
        raise KeyboardInterrupt

    stub(act)
    file = tmp_path / "bench.json"
    done = call("--shape", SHAPE, "--tokens", "16", "--no-memory", "-o", file)
    assert done.exit_code == 130 and "nothing was measured" in done.stderr
    assert not done.stdout and not file.exists()


def test_a_bare_pass_that_differs_from_itself_is_warned_of(stub: Callable[..., list[tuple[str, int]]]) -> None:
    times = iter([1.0, 1.0, 2.0] * 20)
    stub(lambda name, length: next(times))
    assert any(line.startswith("NOISY at 16 tokens") for line in footnotes(quick(tokens="16", modes="head", rounds=3)))
    stub(lambda name, length: 1.0)
    assert not any(line.startswith("NOISY") for line in footnotes(quick(tokens="16", modes="head", rounds=3)))


# --- results ------------------------------------------------------------------------------------------------------


def test_json_and_csv_hold_everything(found: Bench, tmp_path: Path) -> None:
    found.to_json(tmp_path / "bench.json")
    assert Bench.from_json(tmp_path / "bench.json") == found
    assert {"torch", "transformers", "python", "attnprobe", "processor", "threads", "date"} <= set(found.environment)
    table, read = found.to_pandas(), pd.read_csv(io.StringIO(found.to_csv()))
    assert list(read.columns) == list(table.columns) and len(read) == len(found.rows)
    line = read[(read["mode"] == "eager") & (read["tokens"] == 32)].iloc[0]
    assert line["kept_bytes"] == found["eager", 32].kept and line["rounds"] == 2
    assert line["ratio_low"] <= line["ratio"] <= line["ratio_high"]


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text("no")
    for name in ("a.json", "b.json"):
        with pytest.raises(ap.AttnprobeError, match=r"no result|no JSON"):
            Bench.from_json(tmp_path / name)
    with pytest.raises(KeyError, match="was not measured"):
        quick(tokens=16, modes="paused")["eager", 16]


def test_the_plot_marks_where_memory_ended(stub: Callable[..., list[tuple[str, int]]], tmp_path: Path) -> None:
    def act(name: str, length: int) -> float:
        if name == "eager" and length == 64:
            raise MemoryError
        return 4.0 if name == "eager" else 2.0

    stub(act)
    result = quick(tokens="16,32,64", modes="head,eager")
    figure = result.plot(tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())] == [
            64
        ]
    with pytest.raises(ap.AttnprobeError, match="nothing to plot"):
        quick(tokens=16, modes="off").plot()


def test_the_command_prints_a_table_and_writes_files(tmp_path: Path) -> None:
    files = [tmp_path / f"bench.{suffix}" for suffix in ("json", "csv", "svg")]
    outs = [word for file in files for word in ("-o", file)]
    done = call("demo", "--tokens", "16", "--modes", "head,eager", "--rounds", "2", "--no-memory", *outs)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "demo, float32, sdpa, on cpu" and lines[1].split()[:3] == ["tokens", "mode", "time"]
    assert lines[2].split()[:2] == ["16", "off"] and [line.split()[0] for line in lines[3:5]] == ["head", "eager"]
    assert "1024 bytes" in lines[3]  # 16 x 16 weights
    assert any(line.startswith("head: all rows of one head") for line in lines)
    assert any("logits_to_keep=1" in line for line in lines)
    assert all(file.stat().st_size for file in files)


def test_a_narrow_terminal_has_fewer_columns(found: Bench) -> None:
    for width in (60, 80, 200):
        table = rich_table(found, width)
        text = io.StringIO()
        Console(file=text, width=width).print(table)
        assert "…" not in text.getvalue() or width == 60
        names = [column.header for column in table.columns]
        assert names[:4] == ["tokens", "mode", "time", "over off"] and ("rounds" in names) == (width == 200)


def test_the_bundled_model_is_stretched_and_json_is_one_document(tmp_path: Path) -> None:
    done = call("demo", "--tokens", "1030", "--modes", "off", "--rounds", "1", "--no-memory", "--json", "-q")
    assert done.exit_code == 0 and done.stderr == ""
    assert json.loads(done.stdout)["rows"][0]["tokens"] == 1030


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": "12x12"}, "LAYERSxHEADSxDIM"),
        ({"model": "0x2x8"}, "LAYERSxHEADSxDIM"),
        ({"model": "2x3x8:2"}, "multiple"),
        ({"tokens": "many"}, "tokens"),
        ({"tokens": []}, "at least one length"),
        ({"modes": "fast"}, "there are off, paused, head"),
        ({"modes": "head,head:8"}, "named twice"),
        ({"modes": "off:16"}, "at every length"),
        ({"modes": []}, "no mode"),
        ({"dtype": "int8"}, "float32"),
        ({"device": "tpu"}, "device"),
        ({"device": "meta"}, "cuda and cpu"),
        ({"rounds": 0}, "one round"),
        ({"seconds": 0.0}, "some time"),
        ({"seconds": float("nan")}, "some time"),
        ({"batch": 0}, "one sample"),
        ({"engine": "steam"}, "engine"),
        ({"budget": "much"}, "size"),
        ({"folder": "/no/such/folder"}, "folder"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ap.SelectionError, match=word):
        quick(**options)


def test_models_are_refused_that_cannot_be_run_so() -> None:
    with pytest.raises(ap.SelectionError, match="context window"):
        quick(model=models.gpt2(n_positions=16), tokens=17)
    with pytest.raises(ap.SelectionError, match="as it is"):
        quick(model=models.gpt2(), device="cpu")
    t5 = T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=50))
    with pytest.raises(ap.SelectionError, match="more than one sequence"):
        quick(model=t5.eval())
    with pytest.raises(ap.AttnprobeError, match="attention 'steam'"):
        quick(attention="steam")
    with pytest.raises(ap.AttnprobeError, match="attention 'steam'"):
        quick(model=models.gpt2(), tokens=8, attention="steam")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("demo", "--shape", SHAPE), 2, "one of both"),
        ((), 2, "one of both"),
        (("--shape", SHAPE, "--modes", "fast"), 2, "there is no mode 'fast'"),
        (("--shape", SHAPE, "-o", "bench.txt"), 2, ".json, .csv"),
        (("--shape", SHAPE, "-o", "/no/such/folder/bench.json"), 2, "no folder"),
        (("./nowhere",), 1, "no model directory"),
    ],
)
def test_the_command_refuses_before_it_runs(arguments: tuple[str, ...], code: int, word: str) -> None:
    done = call(*arguments)
    assert done.exit_code == code and word in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_plot_needs_matplotlib_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnprobe.cli.bench.find_spec", lambda name: None)
    done = call("--shape", SHAPE, "-o", "bench.png")
    assert done.exit_code == 1 and "pip install attnprobe[plots]" in done.stderr


# --- on a device --------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", ["2x4x64", "2x4x64:2"])
def test_a_device_is_measured_in_this_process(shape: str) -> None:
    result = bench(shape, tokens="256,512", modes=EVERY, rounds=3)
    assert result.setting.dtype == "bfloat16" and result.environment["device"] == torch.cuda.get_device_name()
    assert not result.failed, result
    for row in result:
        assert row.seconds is not None and row.seconds.count == 3 and row.seconds.low > 0
        assert row.device_peak is not None and row.device_extra is not None and row.host_peak is not None
    eager = result["eager", 512]
    assert eager.kept == 2 * 4 * 512 * 512 * 2 and eager.device_extra is not None
    assert eager.device_extra >= 0.5 * eager.kept
