"""The profiler: what recording takes goes to the right stage and layer, is seen by name, and changes nothing."""

import gzip
import json
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from route_checks import untouched
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from transformers import T5Config, T5ForConditionalGeneration

import attnprobe as ap
from attnprobe import engines, keepers
from attnprobe.cli import main
from attnprobe.copies import Copies
from attnprobe.engines import torch as torch_engine
from attnprobe.fields import Site
from attnprobe.measures.measurer import Measurer
from attnprobe.profiling import STAGES, Profiler, each, profiled, stage, stages, written
from attnprobe.profiling.memory import Taken
from attnprobe.profiling.stages import NOTHING
from attnprobe.profiling.timeline import Timeline
from attnprobe.store.memory import MemoryStore

FIRST, SECOND = (Site(f"h.{layer}", "self", "decoder", layer, 4, 4) for layer in (0, 1))
SLOW = 0.05  # seconds: more than all else takes


class Clock:
    """Tells what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ticking(Clock):
    """Goes on by one each time it is asked."""

    def __call__(self) -> float:
        self.now += 1
        return self.now


def recorded(model: Any, tokens: torch.Tensor, **options: Any) -> tuple[ap.Recorder, torch.Tensor]:
    with torch.no_grad(), ap.record(model, profile=True, **options) as rec:
        logits = model(tokens).logits
    return rec, logits


def host(rec: Any, name: str, layer: int | None = None) -> float:
    table = (rec if isinstance(rec, Profiler) else rec.profile).to_pandas()
    rows = table[(table.stage == name) & ((table.layer == layer) if layer is not None else True)]
    return float(rows.host.sum())


def seconds(profiler: Profiler) -> dict[tuple[str, int | None], float]:
    return {(e.stage, e.site and e.site.layer): e.host for e in profiler.report().entries}


# --- times --------------------------------------------------------------------------------------------------------


def test_a_stage_has_the_time_that_those_within_it_have_not() -> None:
    clock = Clock()
    profiler = Profiler(clock=clock)
    profiler.begin()
    clock.now += 100
    with profiler.stage("observe", FIRST):
        clock.now += 1
        with stage("logits"):
            clock.now += 2
            with stage("copy", SECOND):
                clock.now += 4
            clock.now += 8
        clock.now += 16
        with stage("observe"):  # it is that already
            clock.now += 32
    profiler.end()
    assert seconds(profiler) == {("observe", 0): 49, ("logits", 0): 10, ("copy", 1): 4}
    report = profiler.report()
    assert (report.total, report.block, report.profiling) == (63, 163, 0)
    assert {e.stage: e.calls for e in report.entries} == {"observe": 1, "logits": 1, "copy": 1}


def test_what_profiling_takes_is_in_no_stage_and_told() -> None:
    clock = Ticking()
    profiler = Profiler(clock=clock)
    with profiler.stage("observe"):
        for _ in range(5):
            with stage("measure"), stage("copy"):
                pass
    ended = clock.now
    report = profiler.report()
    assert report.stages == 11
    assert report.profiling == 22  # each looks at the clock twice when it begins, and when it ends
    assert report.total == sum(entry.host for entry in report.entries)
    assert report.total + report.profiling == ended - 1
    assert "profiling itself, in no stage: 11 stages" in repr(report)


def test_things_that_are_made_one_by_one_are_made_in_a_stage_and_used_outside_of_it() -> None:
    clock = Clock()
    profiler = Profiler(clock=clock)

    def made() -> Iterator[int]:
        for number in range(3):
            clock.now += 10
            yield number
        clock.now += 10

    with profiler.stage("observe"):
        for _ in each("logits", made()):
            clock.now += 1
    found = {entry.stage: (entry.host, entry.calls) for entry in profiler.report().entries}
    assert found == {"observe": (3, 1), "logits": (40, 3)}


def test_an_exception_leaves_no_stage_behind() -> None:
    profiler = Profiler()
    with pytest.raises(ZeroDivisionError), profiler.stage("observe"), stage("logits"):
        raise ZeroDivisionError
    assert stages._own.top is None
    assert {entry.stage for entry in profiler.report().entries} == {"observe", "logits"}


def test_threads_beside_the_model_are_counted_apart_and_none_is_lost() -> None:
    profiler = Profiler()

    def work(behind: bool) -> None:
        for _ in range(200):
            with profiler.behind("write") if behind else profiler.stage("write", FIRST):
                written(3)
                with stage("wait"):
                    pass

    threads = [threading.Thread(target=work, args=[number % 2 == 0]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = profiler.report()
    own = {entry.stage: entry for entry in report.entries if entry.site is not None}
    assert (own["write"].calls, own["wait"].calls, own["write"].written) == (800, 800, 2400)
    aside = {entry.stage: entry for entry in report.entries if entry.site is None}
    assert (aside["write"].calls, aside["write"].written, aside["write"].filed) == (0, 0, 2400)
    assert aside["write"].behind > 0
    assert report.total == pytest.approx(sum(entry.host for entry in report.entries))
    assert report.stages == 1600


# --- recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"measures": "default"}, {"keep": ap.TopK(k=3)}], ids=str)
def test_stages_sum_to_what_recording_took_and_nothing_changes(options: dict[str, Any]) -> None:
    model, tokens = models.gpt2(), models.ids(2, 40)
    with torch.no_grad():
        bare = model(tokens).logits
    with untouched(model):
        began = time.perf_counter()
        rec, logits = recorded(model, tokens, **options)
        took = time.perf_counter() - began
    assert torch.equal(bare, logits)
    profile = rec.profile
    assert profile.total == pytest.approx(profile.to_pandas().host.sum())
    assert profile.summary.loc["total", "host"] == pytest.approx(profile.total)
    assert list(profile.summary.index) == [*STAGES, "total"]
    assert 0 < profile.total + profile.profiling < profile.block < took
    assert set(profile.to_pandas().layer) == {-1, 0, 1, 2}
    assert profile.layers["total"].sum() == pytest.approx(profile.total)
    lines = repr(profile).splitlines()
    assert [line.split()[0] for line in lines if line.startswith((*STAGES, "total"))] == [*STAGES, "total"]
    json.dumps(profile.to_dict())


@pytest.mark.parametrize(("where", "method", "options", "name"), [
    (torch_engine, "_tile", {}, "logits"),
    (Measurer, "update", {"measures": "default"}, "measure"),
    (MemoryStore, "write", {}, "write"),
])  # fmt: skip
def test_what_is_slow_is_seen_in_its_stage_and_layer(
    where: Any, method: str, options: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, calls = getattr(where, method), []

    def slow(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        time.sleep(SLOW)
        return inner(*arguments, **more)

    model, tokens = models.gpt2(), models.ids(1, 20)
    recorded(model, tokens, **options)  # what only the first one does is done
    monkeypatch.setattr(where, method, slow)
    rec, _ = recorded(model, tokens, **options)
    assert len(calls) >= 3
    for layer in range(3):
        assert host(rec, name, layer) >= SLOW
    others = [other for other in STAGES if other not in (name, "observe")]  # the check of a site makes a tile too
    assert max(host(rec, other) for other in others) < 3 * SLOW <= host(rec, name)


def test_what_recording_cannot_go_on_without_is_seen_as_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from attnprobe.store import files

    inner = files.write

    def slow(*arguments: Any) -> Any:
        time.sleep(SLOW)
        return inner(*arguments)

    model, tokens = models.gpt2(n_positions=256), models.ids(1, 256)
    with ap.record(model, to=tmp_path / "run", profile=True) as rec, torch.no_grad():
        model(tokens)
        monkeypatch.setattr(files, "write", slow)
    assert host(rec, "wait") >= SLOW
    assert rec.profile.summary.loc["write", "behind"] >= SLOW


def test_bytes_handed_to_the_store_and_to_files_are_those_that_are_there(tmp_path: Path) -> None:
    model, tokens = models.gpt2(), models.ids(1, 60)
    rec, _ = recorded(model, tokens, dtype="float16")
    assert rec.profile.summary.loc["total", "written"] == rec.run.nbytes
    rec, _ = recorded(model, tokens, dtype="float16", to=tmp_path / "run")
    summary = rec.profile.summary
    from attnprobe.store.shard import HEADER

    shards = [path.stat().st_size - HEADER for path in (tmp_path / "run" / "shards").iterdir()]
    assert summary.loc["total", "filed"] == sum(shards)
    assert 0 < summary.loc["total", "written"] <= summary.loc["total", "filed"]


class Elsewhere(torch.Tensor):
    """On the CPU, and says that it is not."""

    @property
    def device(self) -> Any:
        return torch.device("xpu")


def test_bytes_copied_to_the_host_are_counted_where_they_come_from() -> None:
    clock, copies, landed = Clock(), Copies(1 << 20), []
    profiler = Profiler(clock=clock)
    values = torch.arange(12.0).reshape(3, 4)
    with profiler.stage("observe", FIRST):
        copies.put([values.as_subclass(Elsewhere), None, torch.ones(5)], lambda *found: landed.append(found))
        copies.land(wait=True)
    (found,) = landed
    assert torch.equal(found[0], values)
    copied = {(entry.stage, entry.site): entry.copied for entry in profiler.report().entries if entry.copied}
    assert copied == {("copy", FIRST): 48}


def test_what_lands_late_counts_for_the_layer_that_it_was_made_for() -> None:
    clock = Clock()
    profiler = Profiler(clock=clock)

    def then() -> None:
        clock.now += 5

    with profiler.stage("observe", FIRST):
        work = stages.carried("write", then)
    with profiler.stage("observe", SECOND):
        work()
    assert seconds(profiler) == {("observe", 0): 0, ("observe", 1): 0, ("write", 0): 5}


def test_generation_is_profiled_and_read_inside_of_the_block() -> None:
    model = models.gpt2()
    with ap.record(model, profile=True, measures="default") as rec:
        assert rec.profile.block > 0
        model.generate(models.ids(1, 5), max_new_tokens=4, min_new_tokens=4)
        inside = rec.profile
    calls = rec.profile.to_pandas().set_index(["stage", "layer"]).calls
    assert calls["logits", 0] == 4
    assert 0 < inside.total < rec.profile.total


def test_before_anything_ran_there_is_a_table_of_nothing() -> None:
    profile = ap.record(models.gpt2(), profile=True).profile
    assert "recording took 0.00 ms" in repr(profile)
    assert (len(profile.layers), len(profile.to_pandas()), profile.notes) == (0, 0, [])


def test_only_the_recording_that_asked_is_profiled() -> None:
    model, tokens = models.gpt2(), models.ids(1, 10)
    with ap.record(model, layers=[0], profile=True) as one, ap.record(model, layers=[1]) as other:
        model(tokens)
    assert set(one.profile.to_pandas().layer) == {-1, 0}
    with pytest.raises(ap.NotKept, match="profile=True"):
        _ = other.profile
    alone, _ = recorded(model, tokens, layers=[0])
    assert one.profile.summary.calls.equals(alone.profile.summary.calls)


def test_without_a_profile_there_are_no_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a stage was made")

    monkeypatch.setattr(stages.Stage, "__init__", refuse)
    model, tokens, seen = models.gpt2(), models.ids(1, 10), []
    monkeypatch.setattr(keepers, "note", refuse)
    with ap.record(model, to=tmp_path / "run", keep=[ap.Weights(), ap.Measures()]) as rec:
        hook = model.transformer.h[1].register_forward_hook(lambda *_: seen.append((stage("logits"), profiled())))
        model(tokens)
        hook.remove()
    assert seen == [(NOTHING, False)]
    assert len(rec.run) == 1


@pytest.mark.parametrize("profile", ["trace.json", 1, None])
def test_another_profile_than_yes_or_no_is_refused(profile: Any, unchecked: None) -> None:
    with pytest.raises(ap.SelectionError, match="True or False"):
        ap.record(models.gpt2(), profile=profile)


# --- how things were made -----------------------------------------------------------------------------------------


def how(rec: ap.Recorder) -> set[tuple[int, str, str, str]]:
    return {(note.site.layer, note.what, note.how, note.why) for note in rec.profile.notes if note.site is not None}


def test_tiles_that_the_engine_did_not_make_are_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    engines.triton.covering._absent.cache_clear()
    model, tokens = models.gpt2(), models.ids(1, 10)
    rec, _ = recorded(model, tokens, engine="triton")
    (why,) = {note.why for note in rec.profile.notes}
    absent = "triton is not installed"
    assert why in (f"not by triton: {absent}", "not by triton: kernels run on CUDA, not on cpu")
    assert how(rec) == {(layer, "tiles", "torch", why) for layer in range(3)}
    assert f"tiles by torch, L0 to L2: {why}" in repr(rec.profile)
    assert len(rec.profile.fallbacks) == 3
    for engine in ("auto", "torch", "dense"):  # on a CPU they make what they are asked for
        rec, _ = recorded(model, tokens, engine=engine, layers=[0, 2])
        made = "dense" if engine == "dense" else "torch"
        assert how(rec) == {(layer, "tiles", made, "") for layer in (0, 2)}
        assert rec.profile.fallbacks == []
        assert f"tiles by {made}, L0, L2" in repr(rec.profile)


class SomeFused:
    """Fused forms of a few measures and no more, of weights that an engine makes whole."""

    most = 2

    def measures(self, chosen: Any, rows: Any, place: Any) -> bool:
        return {one.name for one in chosen} <= {"entropy"}

    def measure(self, *_: Any) -> Any:
        raise AssertionError("not of these")

    top = weights = measure


def test_measures_without_a_fused_form_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "fused_of", lambda engine, call: SomeFused())
    model, tokens = models.gpt2(), models.ids(1, 10)
    rec, _ = recorded(model, tokens, keep=[ap.Measures("0", names=["entropy", "max"]), ap.TopK("0", k=3)])
    fallbacks = {(note.what, note.how, note.why) for note in rec.profile.fallbacks}
    assert fallbacks == {
        ("measures", "tiles", "no fused form for max of these rows"),
        ("top-k", "tiles", "up to 2 of a row are fused, and k is 3"),
    }
    holes = {"input_ids": tokens, "attention_mask": torch.tensor([[1] * 4 + [0] + [1] * 5])}
    with torch.no_grad(), ap.record(model, keep=ap.Measures("0", names=["entropy"]), profile=True) as rec:
        model(**holes)
    assert keepers.PADDED in {note.why for note in rec.profile.fallbacks}


# --- traces -------------------------------------------------------------------------------------------------------


def names_in(path: Path) -> set[str]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return {str(event.get("name")) for event in json.loads(text)["traceEvents"]}


@pytest.mark.parametrize("profile", [False, True])
def test_stages_are_found_by_name_in_a_trace(profile: bool, tmp_path: Path) -> None:
    model, tokens = models.cross_gpt2(), models.ids(1, 20)
    states = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
    with torch_profile(activities=[ProfilerActivity.CPU]) as traced, torch.no_grad():
        with ap.record(model, layers=[0, 2], profile=profile):
            model(tokens, encoder_hidden_states=states)
    traced.export_chrome_trace(str(tmp_path / "trace.json"))
    found = {name for name in names_in(tmp_path / "trace.json") if name.startswith("attnprobe")}
    assert {"attnprobe.observe", "attnprobe.logits L0", "attnprobe.logits L2", "attnprobe.write L2 cross"} <= found
    assert not [name for name in found if "L1" in name]


# --- devices ------------------------------------------------------------------------------------------------------


class Event:
    """An event at a time of a stream's own clock."""

    def __init__(self, at: float) -> None:
        self.at = at

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """It has happened."""

    def elapsed_time(self, other: "Event") -> float:
        return 1000 * (other.at - self.at)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A CUDA device that is not there: the current stream, each stream's clock, memory, and ranges."""
    held: dict[str, Any] = {"stream": "main", "main": 0.0, "side": 0.0, "memory": (100, 100), "ranges": []}
    monkeypatch.setattr(Timeline, "mark", lambda self, where: (held["stream"], self.event(held["stream"])))
    monkeypatch.setattr(Timeline, "event", lambda self, stream: Event(held[stream]))
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", held["ranges"].append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: held["ranges"].append("pop"))
    return held


def test_device_time_is_each_stage_s_own_by_stream(device: dict[str, Any]) -> None:
    cuda = torch.device("cuda", 0)
    profiler = Profiler(
        (cuda,), memory=lambda where: Taken(where, 0, *device["memory"]) if where else Taken(None, 0, 0, 0)
    )
    with profiler.stage("observe", FIRST):
        device["main"] += 1
        with stage("logits"):
            device["main"] += 2
            device["memory"] = (150, 180)
        device["memory"] = (120, 180)
        with stage("measure"):
            device["main"] += 4
            device["stream"] = "side"
            with stage("copy"):
                device["main"] += 8  # what the main stream does meanwhile is the measure's
                device["side"] += 16
            device["stream"] = "main"
            with stage("wait"):  # gives the device nothing
                device["main"] += 32
        device["main"] += 64
    profiler.end()
    found = {entry.stage: entry.device for entry in profiler.report().entries}
    assert found == {"observe": 65, "logits": 2, "measure": 12, "copy": 16, "wait": 0}
    memory = {entry.stage: (entry.device_held, entry.device_peak) for entry in profiler.report().entries}
    assert memory["logits"] == (50, 80)
    assert memory["measure"] == (20, 0)
    opened = ["attnprobe.observe L0", "attnprobe.logits L0", "pop", "attnprobe.measure L0", "attnprobe.copy L0", "pop"]
    assert device["ranges"] == [*opened, "attnprobe.wait L0", "pop", "pop", "pop"]
    assert "device ms" in repr(profiler.report())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", [{"measures": "default"}, {"layers": [1]}], ids=str)
def test_on_cuda_nothing_waits_in_the_forward_and_the_device_s_time_is_known(options: dict[str, Any]) -> None:
    model, tokens = models.gpt2(n_embd=256, n_positions=512).cuda(), models.ids(1, 512).cuda()
    recorded(model, tokens, **options)  # kernels are tuned
    with torch.no_grad():
        bare = model(tokens).logits
        with ap.record(model, profile=True, **options) as rec:
            model(tokens)  # its cache is freed at once, and the sample ends while the next one begins
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                logits = model(tokens).logits  # with a cache: without one, transformers itself looks at positions
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(bare, logits)
    summary = rec.profile.summary
    assert summary.loc["logits", "device"] > 0
    assert summary.loc["total", "copied"] > 0
    assert summary.loc["total", "device"] < rec.profile.block
    if "layers" in options:
        own = rec.run[1, 0].numpy()
        assert summary.loc["copy", "copied"] >= own.nbytes
    assert summary.loc["total", "device_held"] > 0
    assert np.isfinite(summary.to_numpy()).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_command_writes_a_trace_of_kernels_and_a_snapshot_of_memory(tmp_path: Path) -> None:
    trace, snapshot = tmp_path / "trace.json", tmp_path / "memory.pickle"
    files = ["--trace", trace, "--memory-snapshot", snapshot]
    call("demo", "--tokens", 512, "--keep", "measures", "--rounds", 2, "--model-dtype", "bfloat16", *files)
    events = json.loads(trace.read_text())["traceEvents"]
    assert {"attnprobe.logits L0", "attnprobe.copy L3"} <= {str(event.get("name")) for event in events}
    assert [event for event in events if event.get("cat") == "kernel"]
    with snapshot.open("rb") as file:
        assert any(pickle.load(file)["device_traces"])
    torch.ones(1 << 20, device="cuda")
    assert not any(torch.cuda.memory._snapshot()["device_traces"])  # nobody takes notes any more


# --- the command --------------------------------------------------------------------------------------------------


def call(*arguments: object, ok: bool = True) -> Any:
    result = CliRunner().invoke(main, ["profile", *map(str, arguments)])
    assert (result.exit_code == 0) is ok, result.output
    return result


def test_the_command_prints_tables_and_ratios_and_writes_a_trace(tmp_path: Path) -> None:
    trace, run = tmp_path / "out.json.gz", tmp_path / "run"
    arguments = ["demo", "--tokens", 64, "--rounds", 2, "--trace", trace, "-o", run, "--device", "cpu"]
    result = call(*arguments)
    for words in (
        "of the bare run's",
        "with its profile",
        "stage",
        "logits",
        "L3",
        "tiles by torch",
        "profiling itself",
    ):
        assert words in result.stdout
    assert {"attnprobe.logits L0", "attnprobe.write L3"} <= names_in(trace)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json.gz", "run"]
    assert ap.open(run)[0, 0].shape == (64, 64)
    assert "exists already" in call(*arguments, ok=False).output


def test_the_command_gives_json() -> None:
    record = json.loads(call("demo", "--text", "Maia likes to", "--generate", 3, "--rounds", 1, "--json", "-q").stdout)
    assert record["recorded_over_bare"]["median"] == record["seconds"]["recorded"][0] / record["seconds"]["bare"][0]
    entries = record["profile"]["entries"]
    assert sum(entry["host"] for entry in entries) == pytest.approx(record["profile"]["seconds"]["recording"])


def test_the_command_runs_an_encoder_decoder(tmp_path: Path) -> None:
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    out = call(tmp_path / "t5", "--tokens", 12, "--rounds", 1, "--model-dtype", "float64", "--device", "cpu").stdout
    assert "float64 on cpu" in out
    assert "tiles by torch, L0 to L1, L0 to L1 cross, L0 to L1 encoder" in out


@pytest.mark.parametrize(("options", "words"), [
    (["--memory-snapshot", "x.pickle", "--device", "cpu"], "the device is cpu"),
    (["--tokens", 4, "--text", "Maia"], "beside a text"),
    (["--tokens", "many"], "write a number"),
    (["--tokens", 5000], "--tokens 1024"),
    (["--trace", "no/such/trace.json"], "make it first"),
    (["--keep", "sums"], "not understood"),
])  # fmt: skip
def test_the_command_refuses_before_it_starts(
    options: list[Any], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from attnprobe.cli.models import Named

    def refuse(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Named, "load", refuse)
    monkeypatch.chdir(tmp_path)
    result = call("demo", *options, ok=False)
    assert words in result.output
    assert result.exit_code in (1, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_second_block_is_refused_and_changes_no_figures() -> None:
    model, tokens = models.gpt2(), models.ids(1, 8)
    with ap.record(model, profile=True) as rec:
        model(tokens)
    before = rec.profile.block
    with pytest.raises(ap.AttnprobeError, match="one block"):
        rec.__enter__()
    assert before > 0 and rec.profile.block == before
