"""A run that is gone on with: later, by several at once, after kills; nothing is there twice, nothing is mixed."""

import fcntl
import json
import os
import pickle
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from store_contract import MANIFEST, block, field, only_field, sample, whole_map
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
from attnprobe import demo
from attnprobe.errors import CorruptRun, RunExists, SelectionError, StoreError
from attnprobe.fields import Block, Sample
from attnprobe.provenance import fingerprint
from attnprobe.store import directory, journal, validate_fields
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.leftovers import find_leftovers
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.ring import Ring
from attnprobe.store.shard import HEADER, ShardWriter

TEXTS = ("Maia likes to explore", "To be, or not to be", "A rose is a rose is a rose")


def start(path: Path, manifest: Manifest = MANIFEST, **options: Any) -> DirectoryWriter:
    return DirectoryWriter(path, manifest, resume=True, **options)


def put(writer: DirectoryWriter, index: int, name: str | None = None, seed: int | None = None) -> None:
    """A sample of one block, whose numbers are told by a seed."""
    writer.write(field(index), block(range(8), 8, seed=index if seed is None else seed))
    one = sample(index)
    writer.commit(Sample(index, name or one.id, one.sequences, one.prompt_length, named=name is not None))


def seeds(path: Path) -> dict[str, int]:
    """Which seed the block of each sample was made of, by id."""
    reader = DirectoryReader(path)
    found = {}
    for one in reader.samples:
        values = whole_map(reader, (0, 1, 3), range(8), index=one.index)
        (seed,) = (n for n in range(40) if np.array_equal(values, block(range(8), 8, seed=n).values.numpy()))
        found[one.id] = seed
    return found


def test_a_run_is_gone_on_with(tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    assert (first.done, first.next_index) == (frozenset(), 0)
    put(first, 0, "a")
    put(first, 1, "b")
    first.close()
    second = start(tmp_path / "run")
    assert (second.done, second.next_index) == ({"a", "b"}, 2)
    put(second, 2, "c")
    second.close()
    assert seeds(tmp_path / "run") == {"a": 0, "b": 1, "c": 2}
    assert len(list((tmp_path / "run" / "journal").iterdir())) == 2


def test_unnamed_samples_are_not_taken_for_attempts_at_one(tmp_path: Path) -> None:
    writers = [start(tmp_path / "run"), start(tmp_path / "run")]
    for number, writer in enumerate(writers):
        put(writer, 0, seed=number)
        writer.close()
    reader = DirectoryReader(tmp_path / "run")
    assert [(s.index, s.id) for s in reader.samples] == [(0, "s0"), (1, "s0")]
    for index in range(2):
        values = whole_map(reader, (0, 1, 3), range(8), index=index)
        np.testing.assert_array_equal(values, block(range(8), 8, seed=index).values.numpy())
        assert only_field(reader, index)[0].sample == index


def test_of_two_attempts_at_a_named_sample_one_is_read_and_none_is_mixed(tmp_path: Path) -> None:
    early, late = start(tmp_path / "run"), start(tmp_path / "run")
    put(late, 0, "a", seed=5)
    put(late, 1, "b", seed=6)
    late.close()
    assert seeds(tmp_path / "run") == {"a": 5, "b": 6}
    put(early, 0, "a", seed=7)  # a worker that was thought dead
    early.close()
    assert seeds(tmp_path / "run") == {"a": 7, "b": 6}  # the writer that started first


def test_one_writer_may_use_a_name_twice(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    put(writer, 0, "a")
    put(writer, 1, "a")
    writer.close()
    assert [s.index for s in DirectoryReader(tmp_path / "run").samples] == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {**MANIFEST.model, "config": "9"}}, r"of another model: config was '0123' and is '9'"),
        ({"model": {**MANIFEST.model, "name": "big"}}, "of another model: name was 'tiny' and is 'big'"),
        (
            {"sites": MANIFEST.sites[:2]},
            r"of another model: sites has 2 where it had 3: sites\[2\] was \{'key'",
        ),
        (
            {"sites": (replace(MANIFEST.sites[0], heads=9), *MANIFEST.sites[1:])},
            r"model: sites\[0\]: heads was 4 and is 9",
        ),
        (
            {"keep": ({**MANIFEST.keep[0], "layers": "0"},)},
            r"another selection: keep\[0\]: layers was 'all' and is '0'",
        ),
        ({"text": False}, "of another selection: text was True and is False"),
        ({"data": {"column": "text"}}, r"of other data: data was None and is \{'column': 'text'\}"),
    ],
)
def test_a_run_of_something_else_is_not_gone_on_with(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    start(tmp_path / "run").close()
    with pytest.raises(StoreError, match=words):
        start(tmp_path / "run", replace(MANIFEST, **change))
    assert len(list((tmp_path / "run" / "journal").iterdir())) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": 1}, {}, "a was 1 and is not there;"),
        ({}, {"a": 1}, "a was not there and is 1;"),
        ({"a": None}, {"a": 1}, "a was None and is 1;"),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}, "a: b: d was 2 and is 3;"),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, r"a\[1\]: b was 2 and is 3;"),
        ({"a": [1, 2, 3]}, {"a": [1, 2]}, r"a has 2 where it had 3: a\[2\] was 3;"),
        ({"a": [1]}, {"a": [2, 3]}, r"a has 2 where it had 1: a\[0\] was 1 and is 2;"),
        (
            {"a": "x" * 500 + "y" * 500},
            {"a": "x" * 500 + "z" * 500},
            r"a was \.{3}x{20}y{140}\.{3} and is \.{3}x{20}z{140}\.{3};",
        ),
        ({"a": "x" * 500}, {"a": "x" * 500 + "y"}, r"a was \.{3}x{20}' and is \.{3}x{20}y';"),
        ({"rows": 3}, {"rows": 4}, "rows was 3 and is 4;"),
    ],
)
def test_what_differs_is_shown_wherever_it_is(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], words: str
) -> None:
    same = {"same": list(range(100)), "also": {"x": 1}}
    start(tmp_path / "run", replace(MANIFEST, data={**same, **old})).close()
    with pytest.raises(StoreError, match=f"is of other data: {words}"):
        start(tmp_path / "run", replace(MANIFEST, data={**same, **new}))


def test_the_number_of_rows_is_no_matter_where_one_start_did_not_count_them(tmp_path: Path) -> None:
    start(tmp_path / "run", replace(MANIFEST, data={"a": 1})).close()
    start(tmp_path / "run", replace(MANIFEST, data={"a": 1, "rows": 4})).close()
    start(tmp_path / "counted", replace(MANIFEST, data={"a": 1, "rows": 4})).close()
    start(tmp_path / "counted", replace(MANIFEST, data={"a": 1})).close()


def test_another_device_version_or_time_does_not_matter(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, model={**MANIFEST.model, "device": "cpu"})
    start(tmp_path / "run", manifest).close()
    other = replace(manifest, model={**MANIFEST.model, "device": "cuda"}, versions={"torch": "9"}, created="later")
    start(tmp_path / "run", other).close()
    assert DirectoryReader(tmp_path / "run").manifest.created == MANIFEST.created


HASHED = {**MANIFEST.model, "config_xxh3": "12", "parameters_xxh3": "34"}


def test_a_model_of_the_same_hashes_is_the_same_by_any_name(tmp_path: Path) -> None:
    start(tmp_path / "run", replace(MANIFEST, model={**HASHED, "name": "./model"})).close()
    start(tmp_path / "run", replace(MANIFEST, model={**HASHED, "name": "/home/me/model"})).close()
    for other in ({"config_xxh3": "13"}, {"parameters_xxh3": "35"}, {"parameters_xxh3": None}, {"revision": "b"}):
        with pytest.raises(StoreError, match="of another model"):
            start(tmp_path / "run", replace(MANIFEST, model={**HASHED, "name": "/home/me/model", **other}))


def test_a_name_matters_where_a_hash_is_missing(tmp_path: Path) -> None:
    unknown = {**HASHED, "parameters_xxh3": None}  # as of a model whose parameters are elsewhere
    start(tmp_path / "run", replace(MANIFEST, model={**unknown, "name": "./model"})).close()
    with pytest.raises(StoreError, match="name was './model' and is './other'"):
        start(tmp_path / "run", replace(MANIFEST, model={**unknown, "name": "./other"}))


def test_a_model_that_is_read_from_two_paths_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=16, vocab_size=50)).save_pretrained(
        tmp_path / "model"
    )
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(("./model", str(tmp_path / "model"))):
        model = GPT2LMHeadModel.from_pretrained(path)
        with ap.record(model, to=tmp_path / "run", resume=True) as rec, rec.sample(id=str(number)):
            model(torch.ones(1, 4, dtype=torch.long), use_cache=False)
    assert [one.id for one in ap.open(tmp_path / "run").samples] == ["0", "1"]


def test_a_journal_takes_no_number_that_json_lacks(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    (file,) = (tmp_path / "run" / "journal").iterdir()
    before = file.read_bytes()
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            writer._journal.append({"ended": "now", "mine": number})
    assert file.read_bytes() == before
    writer.close()


def test_a_run_of_an_older_format_is_not_gone_on_with(tmp_path: Path) -> None:
    start(tmp_path / "run").close()
    file = tmp_path / "run" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 3}))
    with pytest.raises(StoreError, match="has format 3, and this attnprobe writes 4: it cannot be gone on with"):
        start(tmp_path / "run")


def test_what_is_no_run_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExists, match="is not a run of attnprobe"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_resume_a_run_is_refused_and_the_way_on_is_named(tmp_path: Path) -> None:
    start(tmp_path / "run").close()
    with pytest.raises(RunExists, match=r"resume=True \(--resume\) to go on with it"):
        DirectoryWriter(tmp_path / "run", MANIFEST)


def test_many_may_start_a_run_at_once(tmp_path: Path) -> None:
    barrier, problems = threading.Barrier(8), []

    def work(number: int) -> None:
        barrier.wait()
        try:
            writer = start(tmp_path / "deep" / "run", replace(MANIFEST, created=str(number)), workers=(number, 8))
            put(writer, number, f"n{number}")
            writer.close()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert seeds(tmp_path / "deep" / "run") == {f"n{number}": number for number in range(8)}
    assert sorted(path.name for path in (tmp_path / "deep" / "run").iterdir()) == ["journal", "manifest.json", "shards"]


def test_a_shard_that_was_set_aside_takes_its_samples_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "GROUP", 1)
    writer = start(tmp_path / "run")
    put(writer, 0, "a")
    put(writer, 1, "b")
    writer.close()
    (shard,) = (one for one in (tmp_path / "run" / "shards").iterdir() if one.name.endswith("-00000.safetensors"))
    shard.unlink()
    with pytest.raises(CorruptRun, match=r"listed and not there; .*verify --repair"):
        start(tmp_path / "run")
    text = json.dumps({"dropped": [shard.name]}).encode()
    (tmp_path / "run" / "journal" / "repair.jsonl").write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    again = start(tmp_path / "run")
    assert again.done == {"b"}
    put(again, 0, "a", seed=9)
    again.close()
    assert seeds(tmp_path / "run") == {"a": 9, "b": 1}


KILLED = """
import os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_resume import put, start
from attnprobe.store import directory
directory.GROUP = 1
writer = start(Path({run!r}))
put(writer, 0, "a")
writer.flush()
directory.GROUP = 1 << 40
put(writer, 1, "b")
writer._list()                      # whole, and killed before it is listed
writer._listing.wait() if {listed!r} else None
put(writer, 2, "c")
print("ready", flush=True)
{wait}
os.kill(os.getpid(), 9)
"""


def killed(run: Path, wait: str = "", listed: bool = False) -> "subprocess.Popen[str]":
    """A process that lists sample a, has more in flight, and is killed, or waits for a line."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = KILLED.format(paths=paths, run=str(run), wait=wait, listed=listed)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_what_a_killed_writer_left_is_cleared_and_a_living_one_is_let_be(tmp_path: Path) -> None:
    run = tmp_path / "run"
    living = killed(run, wait="sys.stdin.readline()", listed=True)
    partials = sorted(run.glob("shards/*.partial"))
    assert partials and find_leftovers(run) == []
    start(run).close()
    assert sorted(run.glob("shards/*.partial")) == partials  # it lives
    assert find_leftovers(run, everywhere=True) == []
    living.communicate("die\n")
    assert living.returncode == -9
    assert find_leftovers(run) == partials
    again = start(run)
    assert not list(run.glob("shards/*.partial"))
    assert again.done == {"a", "b"}
    put(again, 2, "c")
    again.close()
    assert seeds(run) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.slow
def test_writers_of_other_machines_are_taken_to_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = killed(tmp_path / "run", listed=True)
    process.wait()
    monkeypatch.setattr(journal, "host", lambda: "another")
    monkeypatch.setattr("attnprobe.store.leftovers.host", lambda: "another")
    before = sorted((tmp_path / "run" / "shards").iterdir())
    start(tmp_path / "run").close()
    assert sorted((tmp_path / "run" / "shards").iterdir()) == before
    assert find_leftovers(tmp_path / "run", everywhere=True)


def test_groups_do_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PATIENCE", -1.0)
    writer = start(tmp_path / "run")
    put(writer, 0, "a")
    writer._listing.wait()
    assert seeds(tmp_path / "run") == {"a": 0}
    writer.close()


# --- reading from many threads and processes ---------------------------------------------------------------------


def test_many_threads_read_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnprobe.store.shard_file.OPEN_FILES", 2)
    monkeypatch.setattr(directory, "GROUP", 1)
    writer = start(tmp_path / "run")
    for index in range(12):
        put(writer, index)
    writer.close()
    reader = DirectoryReader(tmp_path / "run")

    def read(turn: int) -> bool:
        index = turn * 7 % 12
        values = whole_map(reader, (0, 1, 3), range(8), index=index)
        return np.array_equal(values, block(range(8), 8, seed=index).values.numpy())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(400)))
    assert len(os.listdir("/proc/self/fd")) < 200


def test_a_reader_is_pickled_without_open_files(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    put(writer, 0)
    writer.close()
    reader = DirectoryReader(tmp_path / "run")
    whole_map(reader, (0,), range(8))
    other = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(whole_map(other, (0, 1), range(8)), whole_map(reader, (0, 1), range(8)))
    assert other.sample(0).sequences["main"].length == 8


# --- record(resume=True) -----------------------------------------------------------------------------------------


def record_texts(run: Path, texts: tuple[str, ...], **options: Any) -> tuple[str, ...]:
    """Record what is not there yet; gives the ids that were recorded now."""
    model, tokenizer = demo.load()
    now = []
    with ap.record(model, tokenizer, to=run, layers="0", resume=True, **options) as rec:
        for number, text in enumerate(texts):
            if (name := f"t{number}") not in rec.done:
                with rec.sample(id=name, index=number):
                    model(**tokenizer(text, return_tensors="pt"))
                now.append(name)
    return tuple(now)


def test_a_recording_is_gone_on_with(tmp_path: Path) -> None:
    assert record_texts(tmp_path / "run", TEXTS[:2]) == ("t0", "t1")
    assert record_texts(tmp_path / "run", TEXTS) == ("t2",)
    run = ap.open(tmp_path / "run")
    assert [(s.index, s.id) for s in run.samples] == [(0, "t0"), (1, "t1"), (2, "t2")]
    model, tokenizer = demo.load()
    for number, text in enumerate(TEXTS):
        with ap.record(model, tokenizer, layers="0") as rec:
            model(**tokenizer(text, return_tensors="pt"))
        np.testing.assert_array_equal(run.sample(number)[0, 3].numpy(), rec.run[0, 3].numpy())


def test_unnamed_samples_of_later_recordings_follow(tmp_path: Path) -> None:
    model, tokenizer = demo.load()
    for _ in range(2):
        with ap.record(model, tokenizer, to=tmp_path / "run", layers="0", resume=True) as rec:
            model(**tokenizer(TEXTS[0], return_tensors="pt"))
    assert [(s.index, s.id) for s in rec.run.samples] == [(0, "0"), (1, "1")]


def test_workers_number_their_samples_apart(tmp_path: Path) -> None:
    model, tokenizer = demo.load()
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    with ap.record(model, tokenizer, to=tmp_path / "run", layers="0", resume=True, workers=(0, 2)):
        with ap.record(model, tokenizer, to=tmp_path / "run", layers="0", resume=True, workers=(1, 2)):
            model(**inputs)
            model(**inputs)
    run = ap.open(tmp_path / "run")
    assert sorted(s.index for s in run.samples) == [0, 1, 2, 3]


def test_a_model_with_other_parameters_is_another(tmp_path: Path) -> None:
    record_texts(tmp_path / "run", TEXTS[:1])
    model, tokenizer = demo.load()
    weight = model.transformer.h[2].attn.c_attn.weight

    def change(where: Any, values: torch.Tensor) -> None:
        kept = weight[where].clone()
        weight[where] = values
        with pytest.raises(StoreError, match="of another model: parameters_xxh3 was"):
            with ap.record(model, tokenizer, to=tmp_path / "run", layers="0", resume=True):
                pass
        weight[where] = kept

    with torch.no_grad():
        change((77, 301), weight[77, 301] + 1)
        change((slice(40, 60), slice(20, 40)), torch.zeros(20, 20))  # a head
        change([3, 19], weight[[19, 3]])
        change((slice(None), [0, 20]), weight[:, [20, 0]])
    with ap.record(model, tokenizer, to=tmp_path / "run", layers="0", resume=True) as rec:
        assert rec.done
        model(**tokenizer(TEXTS[1], return_tensors="pt"))


def test_parameters_of_any_shape_are_hashed() -> None:
    def of(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> str | None:
        model = torch.nn.Module()
        for number, shape in enumerate(shapes):
            model.register_parameter(f"p{number}", torch.nn.Parameter(torch.ones(shape, dtype=dtype)))
        return fingerprint(model)

    shapes = ((), (0,), (0, 3), (3, 0), (5,), (2, 3, 4))
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.complex64):
        assert of(*shapes, dtype=dtype) == of(*shapes, dtype=dtype) is not None
    assert of((5,)) != of((6,))


def test_flushing_makes_what_has_ended_durable(tmp_path: Path) -> None:
    model, tokenizer = demo.load()
    with ap.record(model, tokenizer, to=tmp_path / "run", layers="0") as rec:
        model(**tokenizer(TEXTS[0], return_tensors="pt"), use_cache=False)
        assert len(ap.open(tmp_path / "run")) == 0
        rec.flush()
        assert len(ap.open(tmp_path / "run")) == 1
    assert len(rec.run) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resume": True, "overwrite": True, "to": "x"}, "choose one"),
        ({"resume": True}, "say which"),
        ({"workers": (0, 2), "to": "x"}, "with resume=True: none can know who starts it"),
        ({"workers": (2, 2), "to": "x", "resume": True}, "0 <= rank < number"),
        ({"data": {"x": object()}, "to": "x"}, "kept as JSON"),
    ],
)
def test_ways_of_starting_that_contradict_are_refused(options: dict[str, Any], words: str) -> None:
    model, tokenizer = demo.load()
    with pytest.raises(SelectionError, match=words):
        ap.record(model, tokenizer, **options)


def test_what_a_run_is_of_is_kept(tmp_path: Path) -> None:
    record_texts(tmp_path / "run", TEXTS[:1], data={"texts": 3, "of": ["me", "you"]})
    assert ap.open(tmp_path / "run").manifest.data == {"texts": 3, "of": ["me", "you"]}
    with pytest.raises(StoreError, match="of other data: texts was 3 and is 4"):
        record_texts(tmp_path / "run", TEXTS, data={"texts": 4, "of": ["me", "you"]})


@pytest.mark.parametrize("resume", [False, True])
def test_what_could_not_be_read_again_is_not_begun(tmp_path: Path, resume: bool) -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(StoreError, match=r"could not be read again.*100 lists and dicts deep"):
        DirectoryWriter(tmp_path / "run", replace(MANIFEST, data={"of": deep}), resume=resume)
    assert not (tmp_path / "run").exists()


# --- several at once, and what goes wrong -----------------------------------------------------------------------


def test_a_start_that_recorded_nothing_leaves_what_others_have_joined(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = DirectoryWriter(run, MANIFEST)
    other = start(run)
    put(other, 5, "a", seed=5)
    other.close()
    first.close()
    first.remove_if_empty()
    assert seeds(run) == {"a": 5}
    assert [file.stem for file in (run / "journal").iterdir()] == [other._writer]
    alone = DirectoryWriter(tmp_path / "alone", MANIFEST)
    alone.close()
    alone.remove_if_empty()
    assert not (tmp_path / "alone").exists()


def test_a_run_that_is_being_written_is_not_overwritten(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = DirectoryWriter(run, MANIFEST)
    put(first, 0, "a", seed=1)
    first.flush()
    with pytest.raises(StoreError, match="is being written by the writer .* so it is not overwritten"):
        DirectoryWriter(run, MANIFEST, overwrite=True)
    put(first, 1, "b", seed=2)
    first.close()
    assert seeds(run) == {"a": 1, "b": 2}
    DirectoryWriter(run, MANIFEST, overwrite=True).close()


def test_a_sample_whose_pass_failed_is_begun_again_under_its_number(tmp_path: Path) -> None:
    run = tmp_path / "run"
    writer = start(run)
    for attempt in range(3):
        writer.write(field(7), block(range(8), 8, seed=attempt))
        writer._joiner.flush_sample(7)  # as where a block is large
        if attempt < 2:
            writer.discard(7)
    writer.commit(replace(sample(7), id="again", named=True))
    put(writer, 8, "next", seed=4)
    writer.close()
    assert seeds(run) == {"again": 2, "next": 4}


def test_committed_samples_do_not_wait_for_a_long_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(directory.time, "monotonic", lambda: clock[0])
    writer = start(tmp_path / "run")
    put(writer, 0, "short", seed=1)
    writer.write(field(1), block(range(4), 8, seed=2))
    writer._listing.wait()
    assert seeds(tmp_path / "run") == {}
    clock[0] = directory.PATIENCE + 1
    writer.write(field(1), block(range(4, 8), 8, seed=2))
    writer._listing.wait()
    assert seeds(tmp_path / "run") == {"short": 1}
    writer.close()


def test_who_asks_whether_a_writer_lives_does_not_look_like_one(tmp_path: Path) -> None:
    start(tmp_path / "run").close()
    (file,) = (tmp_path / "run" / "journal").iterdir()
    with file.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not journal.is_live(file)
    file.chmod(0o444)
    assert not journal.is_live(file)
    writer = start(tmp_path / "run")
    assert journal.is_live(tmp_path / "run" / "journal" / f"{writer._writer}.jsonl")
    writer.close()


def test_threads_may_record_and_flush_at_once(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    problems: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for index in range(first, first + 60):
                put(writer, index, str(index), seed=index % 40)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        writer.flush()
    for thread in threads:
        thread.join()
    writer.close()
    assert not problems
    names = {str(first + index): (first + index) % 40 for first in (0, 100, 200) for index in range(60)}
    assert seeds(tmp_path / "run") == names


def test_what_could_not_be_read_again_is_not_listed(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    put(writer, 0, "good", seed=1)
    wide = torch.zeros(2, 2, validate_fields.WIDEST + 1)
    own = replace(field(1, heads=(0, 1)), what="own", axes=("a", "b"))
    writer.write(own, Block((0, 1), range(2), 0, wide))
    with pytest.raises(StoreError, match="could not be read again, so it is not listed"):
        writer.commit(sample(1))
    writer.close()
    assert seeds(tmp_path / "run") == {"good": 1}


def test_headers_grow_with_many_small_tensors_and_take_no_endless_name(tmp_path: Path) -> None:
    ring = Ring()
    small = ShardWriter(tmp_path / "a.safetensors", {}, ring)
    with pytest.raises(StoreError, match="too long for a header"):
        small.append("n" * HEADER, torch.zeros(2))
    small.append("fits", torch.ones(2))
    small.finish()
    small.close()
    ring.close()
    assert load_file(tmp_path / "a.safetensors")["fits"].tolist() == [1, 1]
    writer = start(tmp_path / "run")
    for index in range(2500):
        put(writer, index, str(index))
    writer.close()
    assert len(list((tmp_path / "run" / "shards").iterdir())) <= 5
    reader = DirectoryReader(tmp_path / "run")
    assert len(reader.samples) == 2500
    for index in (0, 700, 2499):
        values = whole_map(reader, (0, 1, 3), range(8), index=index)
        assert np.array_equal(values, block(range(8), 8, seed=index).values.numpy())


def test_fidelity_of_several_recordings_is_the_worst_of_each(tmp_path: Path) -> None:
    record_texts(tmp_path / "run", TEXTS[:1])
    first = ap.open(tmp_path / "run").fidelity
    record_texts(tmp_path / "run", TEXTS)
    both = ap.open(tmp_path / "run").fidelity
    assert first is not None and both is not None and first.keys() == both.keys()
    key = next(iter(first))
    assert (both[key].difference or 0) >= (first[key].difference or 0) and both[key].row_sum >= first[key].row_sum
