"""Runs as a whole: copied, united, deleted; and what `info` tells of one that is being written."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from store_contract import MANIFEST
from test_format import restore
from test_resume import killed, put, seeds, start
from test_verify import kill_at

import attnprobe as ap
from attnprobe.cli import main
from attnprobe.errors import BudgetError, CorruptRun, RunExists, StoreError
from attnprobe.store import directory, files, journal
from attnprobe.store.base import Manifest
from attnprobe.store.copying import copy_run, merge_runs
from attnprobe.store.deleting import delete_run
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.layout import find_layout
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.verifying.findings import RECORDED

ROOT = Path(__file__).parents[1]


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def make(run: Path, names: dict[str, int], manifest: Manifest = MANIFEST) -> Path:
    """A run of named samples, each made of a seed."""
    writer = start(run, manifest)
    for index, (name, seed) in enumerate(names.items()):
        put(writer, index, name, seed=seed)
    writer.close()
    return run


def content(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three samples, a shard each."""
    monkeypatch.setattr(directory, "GROUP", 1)
    return make(tmp_path / "run", {"a": 1, "b": 2, "c": 3})


def repair(run: Path) -> None:
    """Set aside what is damaged; the numbers that `put` writes are no weights, and stay."""
    report = ap.verify(run, repair=True)
    assert all(one.problem in RECORDED for one in report.left)


# --- copy ----------------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same_run(run: Path, tmp_path: Path) -> None:
    before = content(run)
    result = call("runs", "copy", run, tmp_path / "deep" / "copy")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [str(tmp_path / "deep" / "copy"), repr(ap.open(run))]
    assert content(tmp_path / "deep" / "copy") == before == content(run)
    assert os.listdir(tmp_path / "deep") == ["copy"]


def test_a_copy_lacks_what_is_unfinished_or_was_set_aside(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = sorted((run / "shards").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    repair(run)
    living = start(run)
    put(living, 7, "d", seed=4)
    living.flush()
    monkeypatch.setattr(directory, "GROUP", 1 << 40)
    put(living, 8, "e", seed=5)
    copy_run(run, tmp_path / "copy")
    assert list(run.glob("shards/*.partial")) and list(run.glob("aside/*"))
    assert sorted(seeds(tmp_path / "copy").values()) == [2, 3, 4]
    assert not list((tmp_path / "copy").glob("shards/*.partial")) and not (tmp_path / "copy" / "aside").exists()
    assert shard.name not in os.listdir(tmp_path / "copy" / "shards")
    living.close()
    again = start(tmp_path / "copy")
    assert again.done == {"b", "c", "d"}
    again.close()


def test_a_torn_line_is_not_copied(run: Path, tmp_path: Path) -> None:
    (file,) = (run / "journal").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + b"12345678 {")
    copy_run(run, tmp_path / "copy")
    assert (tmp_path / "copy" / "journal" / file.name).read_bytes() == whole


@pytest.mark.parametrize("version", [1, 2, 3])
def test_runs_of_older_formats_are_copied_whole(tmp_path: Path, version: int) -> None:
    old = restore(version, tmp_path / "old")
    copy_run(old, tmp_path / "copy")
    assert content(tmp_path / "copy") == content(old)
    assert ap.open(tmp_path / "copy").describe() == ap.open(old).describe()


def test_a_taken_path_is_refused_and_an_empty_directory_is_not(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    copy_run(run, tmp_path / "taken")
    with pytest.raises(RunExists, match="exists already"):
        copy_run(run, tmp_path / "taken")
    assert call("runs", "copy", run, tmp_path / "taken").exit_code == 2
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunExists):
        copy_run(run, tmp_path / "link")


@pytest.mark.parametrize("within", ["sub", "shards/sub", "a/b/c"])
def test_no_copy_is_made_inside_of_a_run(run: Path, tmp_path: Path, within: str) -> None:
    before = content(tmp_path)
    (tmp_path / "link").symlink_to(run)
    for to in (run / within, tmp_path / "link" / within):
        result = call("runs", "copy", run, to)
        assert result.exit_code == 2 and f"{to} lies inside of the run {run}" in result.stderr
    result = call("runs", "merge", make(tmp_path / "other", {"d": 4}), tmp_path / "link", "-o", run / within)
    assert result.exit_code == 2 and "lies inside of the run" in result.stderr
    assert {name: data for name, data in content(tmp_path).items() if "other" not in name} == before


def test_what_is_damaged_is_not_copied(run: Path, tmp_path: Path) -> None:
    shard = sorted((run / "shards").iterdir())[1]
    data = bytearray(shard.read_bytes())
    data[(64 << 10) + 8] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptRun, match=r"byte 65,536: its checksum is .*attnprobe verify"):
        copy_run(run, tmp_path / "copy")
    shard.unlink()
    with pytest.raises(CorruptRun):
        copy_run(run, tmp_path / "copy")
    assert os.listdir(tmp_path) == ["run"]
    result = call("runs", "copy", run, tmp_path / "copy")
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def test_a_copy_that_does_not_fit_is_refused_before_a_shard_is_copied(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(BudgetError, match="do not fit .*, which has 1000 bytes free"):
        copy_run(run, tmp_path / "copy")
    assert os.listdir(tmp_path) == ["run"]
    assert call("runs", "copy", run, tmp_path / "copy").exit_code == 4


def test_a_disk_that_fails_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    state = "nothing of the copy is left; what was to be copied is as it was"
    with pytest.raises(StoreError, match=f"cannot copy to .*copy: No space left on device; {state}"):
        copy_run(run, tmp_path / "copy")
    assert os.listdir(tmp_path) == ["run"]


def test_a_copy_where_nothing_can_be_made_names_the_path(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Any, *_: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(files.os, "mkdir", read_only)
    with pytest.raises(
        StoreError, match=rf"Read-only file system \({tmp_path / 'disk'}\); nothing of the copy is left"
    ):
        copy_run(run, tmp_path / "disk" / "copy")


def test_a_copy_that_cannot_be_taken_back_says_where_it_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", fail)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(StoreError, match="what was copied could not be removed, delete ") as error:
            copy_run(run, tmp_path / "copy")
    (left,) = (path for path in tmp_path.iterdir() if path != run)
    assert f"delete {left};" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("merging", [False, True])
def test_a_copy_that_is_killed_is_not_there_and_one_that_is_there_is_whole(
    run: Path, tmp_path: Path, merging: bool
) -> None:
    other = make(tmp_path / "other", {"d": 4, "a": 9})
    before, there = (content(run), content(other)), 0
    kills = 0
    for number in range(1, 400, 5 if merging else 3):
        to = tmp_path / f"to{number}" / "new"
        to.parent.mkdir()
        child = os.fork()
        if not child:
            try:
                kill_at(number)()
                merge_runs([run, other], to) if merging else copy_run(run, to)
            finally:
                os._exit(0)
        was_killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        kills += was_killed
        if to.exists():
            there += 1
            assert seeds(to) == ({"a": 1, "b": 2, "c": 3, "d": 4} if merging else {"a": 1, "b": 2, "c": 3})
            assert not [f for f in ap.verify(to).findings if f.problem not in RECORDED]
        else:
            assert all(name.startswith(".new.") for name in os.listdir(to.parent))
            with pytest.raises(StoreError, match="there is no run"):
                ap.open(to)
        if not was_killed:
            break
    assert kills > 5 and there
    assert (content(run), content(other)) == before


# --- merge ---------------------------------------------------------------------------------------------------------


def test_runs_are_united_and_gone_on_with(run: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", {"d": 4, "b": 7, "e": 5})
    result = call("runs", "merge", run, other, "-o", tmp_path / "both")
    assert result.exit_code == 0 and result.stdout.splitlines()[0] == str(tmp_path / "both")
    both = seeds(tmp_path / "both")
    assert both == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}  # of b the first writer's
    assert sorted(one.index for one in DirectoryReader(tmp_path / "both").samples) == list(range(5))
    again = start(tmp_path / "both")
    assert again.done == both.keys()
    put(again, again.next_index, "f", seed=6)
    again.close()
    assert seeds(tmp_path / "both")["f"] == 6
    assert seeds(run) == {"a": 1, "b": 2, "c": 3}


def test_samples_without_a_name_get_numbers_of_their_own(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        writer = start(tmp_path / name)
        put(writer, 0, seed=seed)
        writer.close()
    merge_runs([tmp_path / name for name in ("one", "two", "three")], tmp_path / "all")
    reader = DirectoryReader(tmp_path / "all")
    assert [one.index for one in reader.samples] == [0, 1, 2]
    assert not [f for f in ap.verify(tmp_path / "all").findings if f.problem not in RECORDED]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {**MANIFEST.model, "name": "big"}}, "is of another model: name was 'tiny' and is 'big'"),
        ({"keep": ({**MANIFEST.keep[0], "layers": "0"},)}, "is of another selection: keep"),
        ({"data": {"of": "me"}}, "is of other data: data was None and is"),
    ],
)
def test_runs_of_something_else_are_not_united(run: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    other = make(tmp_path / "other", {"d": 4}, replace(MANIFEST, **change))
    with pytest.raises(StoreError, match=words):
        merge_runs([run, other], tmp_path / "both")
    assert sorted(os.listdir(tmp_path)) == ["other", "run"]


def test_runs_of_older_formats_and_copies_are_not_united(run: Path, tmp_path: Path) -> None:
    copy_run(run, tmp_path / "copy")
    with pytest.raises(StoreError, match=r"both hold what the writer [0-9a-f]{8} wrote"):
        merge_runs([run, tmp_path / "copy"], tmp_path / "both")
    old = restore(3, tmp_path / "old")
    with pytest.raises(StoreError, match="has format 3, and only runs of format 4 are merged"):
        merge_runs([run, old], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    assert call("runs", "merge", run, "-o", tmp_path / "both").exit_code == 2


def test_what_was_set_aside_in_one_run_stays_so_in_the_united_one(run: Path, tmp_path: Path) -> None:
    sorted((run / "shards").iterdir())[0].unlink()
    repair(run)
    other = make(tmp_path / "other", {"d": 4})
    merge_runs([run, other], tmp_path / "both")
    assert seeds(tmp_path / "both").keys() == {"b", "c", "d"}


# --- delete --------------------------------------------------------------------------------------------------------


def test_a_run_is_deleted(run: Path, tmp_path: Path) -> None:
    result = call("runs", "delete", run)
    assert result.exit_code == 2 and "pass --yes" in result.stderr and run.exists()
    result = call("runs", "delete", run, "--yes")
    assert result.exit_code == 0 and os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["n", "y"])
def test_on_a_terminal_it_is_asked_first(run: Path, answer: str) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "attnprobe.cli", "runs", "delete", str(run)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdin=follower, stderr=subprocess.PIPE, text=True)
    os.write(leader, f"{answer}\n".encode())
    said = process.communicate(timeout=100)[1]
    os.close(leader)
    os.close(follower)
    assert f"delete {run} ({len(seeds(run)) if answer == 'n' else 3} samples x " in said
    assert run.exists() == (answer == "n") and (process.returncode == 0) == (answer == "y")


def test_what_is_no_run_is_not_deleted(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "shards").mkdir()
    (tmp_path / "page" / "journal").mkdir(parents=True)
    (tmp_path / "page" / "shards").mkdir()
    (tmp_path / "page" / "manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "page" / "journal" / "0123abcd.jsonl").write_text('{"day": 1}\n')
    (tmp_path / "page" / "index.html").write_text("mine")
    before = content(tmp_path)
    for path in (tmp_path, tmp_path / "link", tmp_path / "none", tmp_path / "shards", tmp_path / "page"):
        result = call("runs", "delete", path, "--yes")
        assert result.exit_code == 1 and "is not a run of attnprobe" in result.stderr
    assert content(tmp_path) == before


FOREIGN = {  # and as it is named
    "notes.txt": "notes.txt",
    ".git/config": ".git/",
    ".ipynb_checkpoints/x": ".ipynb_checkpoints/",
    "copy/manifest.json": "copy/",
    "shards/thesis.tex": "shards/thesis.tex",
    "shards/.git/x": "shards/.git/",
    "journal/notes.jsonl.txt": "journal/notes.jsonl.txt",
    "aside/thesis.tex": "aside/thesis.tex",
}


def put_foreign(run: Path, names: Iterable[str] = FOREIGN) -> None:
    for name in names:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")


@pytest.mark.parametrize("how", ["whole", "without its manifest", "with a damaged manifest", "with a damaged journal"])
@pytest.mark.parametrize("name", [*FOREIGN, "all"])
def test_what_is_no_file_of_a_run_stays_when_it_is_deleted(run: Path, name: str, how: str) -> None:
    names = FOREIGN if name == "all" else (name,)
    put_foreign(run, names)
    if how == "without its manifest":
        (run / "manifest.json").unlink()
    elif how == "with a damaged manifest":
        (run / "manifest.json").write_text('{"format": ')
    elif how == "with a damaged journal":
        for file in (run / "journal").glob("*.jsonl"):
            file.write_bytes(b"x" + file.read_bytes())
    result = call("runs", "delete", run, "--yes")
    assert result.exit_code == 0 and content(run) == dict.fromkeys(names, b"mine"), result.stderr
    told = "and 5 more" if name == "all" else f"but what is no file of the run: {FOREIGN[name]}\n"
    assert told in result.stderr


def test_what_was_left_is_told_as_data(run: Path) -> None:
    put_foreign(run, ["notes.txt"])
    told = json.loads(call("runs", "delete", run, "--yes", "--json").stdout)
    assert told == {"deleted": str(run), "left": [str(run / "notes.txt")]}


def test_foreign_files_keep_nobody_from_reading_and_going_on(run: Path) -> None:
    put_foreign(run)
    writer = start(run)
    put(writer, 3, "d", seed=4)
    writer.close()
    assert seeds(run) == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert {name: content(run).get(name) for name in FOREIGN} == dict.fromkeys(FOREIGN, b"mine")
    with pytest.raises(RunExists, match=r"would be lost \(\.git/, .* and 5 more\), so it is not overwritten"):
        start_anew(run)
    assert {name: content(run).get(name) for name in FOREIGN} == dict.fromkeys(FOREIGN, b"mine")


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("name", ["shards", "journal", "aside"])
def test_something_else_of_a_parts_name_is_named(run: Path, tmp_path: Path, name: str, kind: str) -> None:
    if (run / name).exists():
        (run / name).rename(tmp_path / name)
    if kind == "file":
        (run / name).write_text("mine")
    else:
        (tmp_path / name).mkdir(exist_ok=True)
        (run / name).symlink_to(tmp_path / name)
    before = content(tmp_path)
    with pytest.raises(RunExists, match=f"is not a run of attnprobe: it holds {name}"):
        start(run)
    with pytest.raises(StoreError, match=f"{name} is none of its files; nothing is deleted"):
        delete_run(run)
    assert content(tmp_path) == before


def start_anew(run: Path) -> None:
    DirectoryWriter(run, MANIFEST, overwrite=True).close()


def test_a_run_that_was_repaired_in_every_way_is_deleted(run: Path) -> None:
    (file,) = (run / "journal").iterdir()
    for _ in range(2):  # so that names in aside/ are there twice
        aside = run / "aside"
        aside.mkdir(exist_ok=True)
        for name in (f"{file.name}", f"{file.name}.1", f"{file.name}.cut", f"{file.name}.cut.1"):
            (aside / name).write_bytes(b"")
    first, second, *_ = sorted((run / "shards").iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"\xff")
    repair(run)
    (aside / f"{first.name}.1").write_bytes(b"")
    (run / "shards" / f"{file.stem}-00009.safetensors.partial").write_bytes(b"")
    (run / "shards" / f"{file.stem}.pyramid.partial").write_bytes(b"")
    assert (aside / first.name).exists() and second.exists()
    delete_run(run)
    assert not run.exists()


def test_a_damaged_run_is_deleted_too(run: Path) -> None:
    (file,) = (run / "journal").iterdir()
    file.write_bytes(b"x" + file.read_bytes())
    sorted((run / "shards").iterdir())[0].unlink()
    delete_run(run)
    assert not run.exists()


def test_a_run_that_is_being_written_is_not_deleted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    living = start(run)
    with pytest.raises(StoreError, match="is being written by the writer .*, so it is not deleted"):
        delete_run(run, force=True)
    living.close()
    (file, *_) = (run / "journal").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])  # without its end
    for module in ("attnprobe.store.writers.host", "attnprobe.store.journal.host"):
        monkeypatch.setattr(module, lambda: "another")
    with pytest.raises(StoreError, match="of another machine has not ended, so it is not deleted"):
        delete_run(run)
    delete_run(run, force=True)
    assert not run.exists() and journal.host() == "another"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 4}', '{"format": "four"}'])
def test_a_run_whose_manifest_is_damaged(run: Path, tmp_path: Path, text: str) -> None:
    (run / "manifest.json").write_text(text)
    if '"' not in text:  # that any other command would write
        told = call("info", run)
        assert told.exit_code == 1 and f"runs delete {run} deletes what is there" in told.stderr
        told = call("verify", run, "--repair")
        assert told.exit_code == 3 and f"runs delete {run} deletes what is there" in told.stdout
        assert "nothing is repaired: no manifest can be made of what is there" in told.stdout
        make(tmp_path / "elsewhere", {})
        shutil.copy(tmp_path / "elsewhere" / "manifest.json", run / "manifest.json")
        assert seeds(run) == {"a": 1, "b": 2, "c": 3}
        (run / "manifest.json").write_text(text)
    assert call("runs", "delete", run, "--yes").exit_code == 0 and not run.exists()


@pytest.mark.parametrize("foreign", [(), FOREIGN])
@pytest.mark.parametrize("done", range(8))
def test_a_deletion_that_is_interrupted_leaves_no_run_and_is_made_again(
    run: Path, done: int, foreign: Collection[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest, three shards and a journal go, and three directories, unless others' files are in them."""
    put_foreign(run, foreign)
    before, calls = content(run), []

    def failing(call: Callable[[Path], None]) -> Callable[[Path], None]:
        def step(path: Path) -> None:
            if len(calls) == done:
                raise OSError(30, "Read-only file system")
            calls.append(path)
            call(path)

        return step

    states = {
        0: "nothing is deleted, and the run is as it was",
        7: "all of the run is deleted, and its empty directory",
    }
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", failing(files.remove))
        patch.setattr(files, "remove_directory", failing(files.remove_directory))
        if foreign and done >= 5:
            delete_run(run)
        else:
            state = states.get(done, "what is left is no run any more, and is deleted by the same command")
            with pytest.raises(StoreError, match=f"cannot delete {run}.*: Read-only file system; {state}"):
                delete_run(run)
    if done == 0:
        assert content(run) == before and len(ap.open(run)) == 3
    else:
        with pytest.raises(StoreError, match="there is no run"):
            ap.open(run)
    if done < 5 or (done < 7 and not foreign):
        delete_run(run)
        assert run.exists() == bool(foreign)
    assert content(run) == dict.fromkeys(foreign, b"mine")


# --- info ----------------------------------------------------------------------------------------------------------


def lines(run: Path) -> dict[str, str]:
    found = call("info", run)
    assert found.exit_code == 0, found.output
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in found.stdout.splitlines()[2:]}


def writers(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call("info", run, "--json").stdout)["writers"]
    return found


def test_info_tells_how_far_a_living_writer_is(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, data={"files": ["a.jsonl"], "column": "text"})
    ended = start(tmp_path / "run", manifest, workers=(1, 2))
    put(ended, 1, "b")
    ended.close()
    living = start(tmp_path / "run", manifest, workers=(0, 2))
    put(living, 0, "a")
    living.flush()
    put(living, 2, "c")
    told = lines(tmp_path / "run")
    assert told["data"] == '{"files": ["a.jsonl"], "column": "text"}'
    assert told["writer"].startswith("0/2 living, 1 sample, ") and " unfinished, started 20" in told["writer"]
    assert "last wrote 0:00:0" in told["writer"] and told["writers"] == "1 more, ended"
    one, two = writers(tmp_path / "run")
    assert (one["state"], one["rank"], one["samples"], one["unfinished"]) == ("ended", 1, 1, 0)
    assert (two["state"], two["rank"], two["world"], two["samples"]) == ("living", 0, 2, 1)
    (listed,) = (tmp_path / "run" / "shards").glob(f"{two['writer']}-*.safetensors")
    assert two["nbytes"] == listed.stat().st_size
    (partial,) = (tmp_path / "run" / "shards").glob(f"{two['writer']}-*.partial")
    assert two["unfinished"] == partial.stat().st_size > 0
    living.close()
    told = lines(tmp_path / "run")
    assert "writer" not in told and told["writers"] == "2, ended"


@pytest.mark.slow
def test_info_tells_the_killed_from_the_living_and_from_those_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = killed(tmp_path / "run", wait="sys.stdin.readline()")
    assert [one["state"] for one in writers(tmp_path / "run")] == ["living"]
    process.communicate("die\n")
    (one,) = writers(tmp_path / "run")
    assert one["state"] == "killed" and one["unfinished"] > 0
    assert lines(tmp_path / "run")["writer"].startswith("0/1 killed, ")
    monkeypatch.setattr("attnprobe.store.writers.host", lambda: "another")
    assert [one["state"] for one in writers(tmp_path / "run")] == ["unknown"]


def without_end(run: Path, writer: DirectoryWriter) -> None:
    """End a writer as if it was killed."""
    writer.close()
    file = run / "journal" / f"{writer._writer}.jsonl"  # not the last one written: clocks of file systems are coarse
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])


def test_info_tells_of_the_killed_whether_they_were_gone_on_with(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for rank in (0, 1):  # one after the other, as workers start
        writer = start(run, workers=(rank, 2))
        put(writer, rank, f"{rank}")
        without_end(run, writer)
    assert [(one["state"], one["gone_on"]) for one in writers(run)] == [("killed", False)] * 2
    again = start(run, workers=(1, 2))
    put(again, 3, "3")
    again.close()
    assert [(one["state"], one["gone_on"]) for one in writers(run)] == [
        ("killed", False),
        ("killed", True),
        ("ended", False),
    ]
    told = lines(run)
    assert told["writer"].startswith("0/2 killed, ")
    assert told["writers"] == "1 more, ended; 1 more, killed or copied, and gone on with"
    alone = start(run)
    put(alone, 4, "4")
    alone.close()
    told = lines(run)
    assert "writer" not in told and told["writers"] == "2, ended; 2, killed or copied, and gone on with"


def test_a_repair_goes_on_with_nobodys_work(run: Path) -> None:
    without_end(run, start(run))
    sorted((run / "shards").iterdir())[0].unlink()
    repair(run)
    assert [one["gone_on"] for one in writers(run)] == [False, False, False]
    assert lines(run)["writer"].startswith("0/1 killed, ")


def test_a_copy_of_a_run_that_is_being_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    done = start(run, workers=(1, 3))
    put(done, 1, "b")
    done.close()
    without_end(run, start(run, workers=(2, 3)))
    living = start(run, workers=(0, 3))
    put(living, 0, "a", seed=1)
    living.flush()
    call("runs", "copy", run, tmp_path / "copy")
    states = {(one["rank"], one["state"]) for one in writers(tmp_path / "copy")}
    assert states == {(0, "copied"), (1, "ended"), (2, "killed")}
    assert "0/3 copied while it was being written, 1 sample, " in call("info", tmp_path / "copy").stdout
    assert ap.verify(tmp_path / "copy", repair=True).notes == []
    again = start(tmp_path / "copy", workers=(0, 3))
    put(again, 3, "c", seed=2)
    again.close()
    assert seeds(tmp_path / "copy").keys() == {"a", "b", "c"}
    assert "copied while" not in call("info", tmp_path / "copy").stdout
    living.close()
    assert {one["state"] for one in writers(run)} == {"ended", "killed"}
    call("runs", "copy", run, tmp_path / "whole")
    assert content(tmp_path / "whole") == content(run)


def test_a_copy_of_what_another_machine_writes_may_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = start(tmp_path / "run")
    put(writer, 0, "a")
    without_end(tmp_path / "run", writer)
    for module in ("writers.host", "journal.host", "copying.host"):
        monkeypatch.setattr(f"attnprobe.store.{module}", lambda: "another")
    with pytest.raises(StoreError, match="of another machine has not ended"):
        delete_run(tmp_path / "run")
    copy_run(tmp_path / "run", tmp_path / "copy")
    assert [one["state"] for one in writers(tmp_path / "copy")] == ["copied"]
    delete_run(tmp_path / "copy")


def test_info_of_a_repaired_run_says_so(run: Path) -> None:
    sorted((run / "shards").iterdir())[0].unlink()
    repair(run)
    told = lines(run)
    assert told["repaired"] == "1 shard was set aside" and "writer" not in told


def test_info_of_an_older_run_has_no_writers(tmp_path: Path) -> None:
    assert writers(restore(3, tmp_path / "run")) == []


def test_a_file_that_is_gone_since_its_directory_was_listed_is_nobody_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where several start a run at once: each writes a manifest of its own and renames it."""
    (tmp_path / "shards").mkdir()
    names = {"manifest.json.12345678.partial", "notes.txt"}
    listed = Path.iterdir

    def with_gone(path: Path) -> Iterator[Path]:
        yield from listed(path)
        yield from (path / name for name in sorted(names))
        if path.name == "shards":
            yield path / "12345678-00000.safetensors.partial"

    monkeypatch.setattr(Path, "iterdir", with_gone)
    found = find_layout(tmp_path)
    assert found.is_begun and not found.foreign and not found.taken and not found.own
