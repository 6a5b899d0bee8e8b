"""Both stores keep one contract; the run directory also survives what happens to files."""

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.register_assert_rewrite("store_contract")

import store_contract as contract  # noqa: E402
import torch  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from store_contract import MANIFEST, Made, block, field, only_field, sample, whole_map  # noqa: E402

import attnprobe as ap  # noqa: E402
from attnprobe.errors import CorruptRun, NotKept, RunExists, StoreError  # noqa: E402
from attnprobe.fields import Block, Field, TokenSequence, decode_rows, encode_rows  # noqa: E402
from attnprobe.store import directory, files, shard, shard_file, target, validate_fields  # noqa: E402
from attnprobe.store.directory import DirectoryWriter  # noqa: E402
from attnprobe.store.join import BLOCK, RowJoiner  # noqa: E402
from attnprobe.store.journal import whole_lines  # noqa: E402
from attnprobe.store.memory import MemoryStore  # noqa: E402
from attnprobe.store.read_directory import DirectoryReader  # noqa: E402
from attnprobe.store.records import Record  # noqa: E402

Make = Callable[[], Made]


def in_memory() -> Made:
    store = MemoryStore(MANIFEST)
    return Made(store, lambda: store)


def on_disk(path: Path, **options: Any) -> Made:
    return Made(DirectoryWriter(path, MANIFEST, **options), lambda: DirectoryReader(path))


@pytest.fixture(params=["memory", "directory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    numbers = iter(range(10_000))
    return in_memory if request.param == "memory" else lambda: on_disk(tmp_path / f"run{next(numbers)}")


@pytest.fixture
def made(make: Make) -> Iterator[Made]:
    store = make()
    yield store
    store.writer.close()


class TestContract(contract.StoreContract):
    """The contract, on each store."""


def test_slices_equal_a_dense_map(make: Make) -> None:
    contract.slices_equal_a_dense_map(make)


# --- parts --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 60), unique=True)
    | st.builds(range, st.integers(0, 9), st.integers(0, 60), st.integers(1, 7))
)
def test_rows_encode_and_decode(rows: list[int] | range) -> None:
    encoded = encode_rows(rows if isinstance(rows, range) else tuple(rows))
    assert list(decode_rows(json.loads(json.dumps(encoded)))) == list(rows)


def test_every_fourth_row_is_one_run() -> None:
    assert encode_rows(tuple(range(0, 4000, 4))) == [[0, 3997, 4]]


def test_joining_is_bounded_over_many_fields() -> None:
    handed: list[tuple[Field, Block]] = []
    waiting, values = 0, torch.ones(1, 1, 256)

    def forward(of: Field, joined: Block) -> None:
        nonlocal waiting
        waiting -= joined.nbytes
        handed.append((of, joined))

    joiner = RowJoiner(forward, BLOCK)
    for row in range(40):
        for number in range(100):
            waiting += 1024
            joiner.write(field(number, heads=(0,)), Block((0,), range(row, row + 1), 0, values))
            assert waiting <= BLOCK
    for number in range(100):
        joiner.flush_sample(number)
    assert len(handed) < 1000  # 4000 came
    for number in (0, 57):
        rows = sorted(row for f, b in handed if f.sample == number for row in b.rows)
        assert rows == list(range(40))


# --- the run directory --------------------------------------------------------------------------------------------


def fill(made: Made, count: int = 2, first: int = 0, **parts: Any) -> None:
    for index in range(first, first + count):
        made.writer.write(field(index), block(range(8), 8, seed=index))
        made.writer.commit(sample(index, **parts))


def settle(made: Made) -> None:
    """Wait until what was handed to the disk is there."""
    made.writer._listing.wait()  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two samples."""
    made = on_disk(tmp_path / "run")
    fill(made, ids=np.arange(8), tokens=tuple("abcdefgh"), texts=tuple("abcdefgh"))
    made.writer.close()
    return tmp_path / "run"


def shards(run: Path) -> list[Path]:
    return sorted((run / "shards").iterdir())


def journal(run: Path) -> Path:
    (path,) = (run / "journal").iterdir()
    return path


def rewrite(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the journal's line that lists samples, with a checksum that fits."""
    lines = journal(run).read_bytes().splitlines(keepends=True)
    (number,) = (n for n, line in enumerate(lines) if b'"samples"' in line)
    record = json.loads(lines[number][9:])
    change(record)
    text = json.dumps(record).encode()
    lines[number] = b"%08x %s\n" % (zlib.crc32(text), text)
    journal(run).write_bytes(b"".join(lines))


def assert_sample(reader: DirectoryReader, index: int) -> None:
    np.testing.assert_array_equal(
        whole_map(reader, (0, 1, 3), range(8), index=index), block(range(8), 8, seed=index).values.numpy()
    )


def test_every_shard_is_read_without_attnprobe(run: Path) -> None:
    (file,) = shards(run)
    tensors = load_file(file)
    assert torch.equal(tensors["1/h.0.attn/weights.0/00000"], block(range(8), 8, seed=1).values)
    assert tensors["0/sequences/main/ids"].tolist() == list(range(8))
    assert json.loads(bytes(tensors["0/sequences/main/tokens"].tolist())) == list("abcdefgh")
    with safe_open(file, "numpy") as opened:
        assert set(opened.keys()) == set(tensors)
        assert opened.metadata()["attnprobe.format"] == "4"


def test_the_manifest_says_what_the_run_is_of(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["format"] == 4
    assert manifest["versions"] == {"attnprobe": "0.1.0", "torch": "2"}
    assert manifest["keep"] == [{"what": "weights", "layers": "all", "keys": "all"}]
    assert manifest["model"] == {"class": "Tiny", "name": "tiny", "revision": "abc", "config": "0123"}
    assert [site["key"] for site in manifest["sites"]] == ["h.0.attn", "h.1.attn", "h.2.attn"]
    assert manifest["created"] and manifest["text"] is True


def test_nothing_is_loaded_before_it_is_asked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = shard_file.ShardFile
    monkeypatch.setattr(shard_file, "ShardFile", lambda path, size: opened.append(path.name) or real(path, size))
    whole = ap.open(run)
    head = whole.sample(1)[0, 1]
    assert "2 samples x 1 layer x 3 heads x 8 tokens" in repr(whole) and "8 x 8" in repr(head)
    assert len(whole.samples) == 2 and head.kept == tuple(range(8)) and whole.nbytes == 2 * 3 * 64 * 4
    assert opened == []
    assert head[7, 7] > 0
    assert opened == [shards(run)[0].name]


def test_fields_are_decoded_once(run: Path) -> None:
    reader = DirectoryReader(run)
    assert reader.fields(0) is reader.fields(0)


def test_a_killed_run_lists_nothing_and_its_partial_file_never_opens(tmp_path: Path) -> None:
    made = on_disk(tmp_path / "run")
    fill(made)  # committed, and not closed: the process is gone
    reader = made.reader()
    (partial,) = shards(tmp_path / "run")
    assert partial.name.endswith(".safetensors.partial")
    assert not len(reader.samples) and reader.nbytes == 0
    with pytest.raises(Exception, match="header"):
        load_file(partial)


def test_a_killed_run_keeps_the_groups_that_were_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "GROUP", 2000)
    made = on_disk(tmp_path / "run")
    fill(made, 5)  # 768 bytes each: three make a group
    settle(made)
    reader = made.reader()
    assert [s.index for s in reader.samples] == [0, 1, 2]
    assert_sample(reader, 2)


def test_an_existing_run_is_refused(run: Path) -> None:
    with pytest.raises(RunExists, match=r"run exists already; .*overwrite=True \(--overwrite\)"):
        on_disk(run)
    assert_sample(DirectoryReader(run), 1)


def test_overwriting_replaces_a_run(run: Path) -> None:
    made = on_disk(run, overwrite=True)
    fill(made, 1)
    assert [s.index for s in made.read().samples] == [0]
    assert len(shards(run)) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        {"manifest.json": '{"name": "a web page"}'},
        {"manifest.json": "[]"},
        {"manifest.json": '{"format": 1, "sites": [], "keep": []}', "notes.txt": "mine"},
    ],
)
def test_overwriting_what_is_no_run_is_refused_and_deletes_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunExists, match="so it is not overwritten"):
        on_disk(tmp_path, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_samples_are_found_by_id_without_reading_the_others(
    run: Path, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = Record.load
    monkeypatch.setattr(Record, "load", lambda self: loaded.append(self.id) or load(self))
    assert ap.open(run).sample("s1").sample.index == 1
    assert loaded == ["s1"]
    with pytest.raises(NotKept, match="there is no sample 'x'; there are s0, s1"):
        ap.open(run).sample("x")


def test_the_records_that_are_held_are_those_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnprobe.store.read_directory.DECODED", 2)
    made = on_disk(tmp_path / "run")
    fill(made, 3)
    reader = made.read()
    assert isinstance(reader, DirectoryReader)
    loaded = []
    load = Record.load
    monkeypatch.setattr(Record, "load", lambda self: loaded.append(self.index) or load(self))
    for index in (0, 1, 0, 2, 0, 1):
        reader.sample(index)
    assert loaded == [0, 1, 2, 1]


def test_overwriting_a_link_to_a_run_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(RunExists, match="not a run of attnprobe"):
        on_disk(tmp_path / "link", overwrite=True)
    assert_sample(DirectoryReader(run), 0)


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    made = on_disk(tmp_path)
    fill(made, 1)
    assert len(made.read().samples) == 1


def test_a_failure_in_an_empty_directory_leaves_it_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    inode = os.stat(".").st_ino
    writer = DirectoryWriter(Path("."), MANIFEST)
    writer.close()
    writer.remove_if_empty()
    assert list(Path(".").iterdir()) == [] and (tmp_path / "here").stat().st_ino == inode


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.parent.iterdir())


def test_a_failed_overwrite_puts_the_old_run_back(run: Path) -> None:
    made = on_disk(run, overwrite=True)
    made.writer.write(field(), block(range(8), 8))
    assert len(names(run)) == 2
    assert len(made.read().samples) == 0
    made.writer.remove_if_empty()  # type: ignore[attr-defined]
    assert names(run) == ["run"]
    assert_sample(DirectoryReader(run), 1)


def test_an_overwrite_that_cannot_start_puts_the_old_run_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: object, **_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(target.json, "dumps", refuse)
        with pytest.raises(StoreError, match="No space left"):
            on_disk(run, overwrite=True)
    assert names(run) == ["run"]
    assert_sample(DirectoryReader(run), 1)


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_overwrite_whose_journal_fails_puts_the_old_run_back(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = on_disk(run, overwrite=True)
    fill(made, 1)
    with monkeypatch.context() as patch:
        patch.setattr(made.writer._journal, "append", fail)  # type: ignore[attr-defined]
        with pytest.raises(StoreError, match="No space left"):
            made.writer.close()
    made.writer.remove_if_empty()  # type: ignore[attr-defined]
    assert names(run) == ["run"]
    assert_sample(DirectoryReader(run), 1)


@pytest.mark.parametrize("when", ["first listing", "close"])
def test_an_overwrite_deletes_the_old_run_once_it_lists_samples(
    run: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(directory, "GROUP", 1 if when == "first listing" else 1 << 20)
    made = on_disk(run, overwrite=True)
    fill(made, 1)
    settle(made)
    assert len(names(run)) == (1 if when == "first listing" else 2)
    made.writer.close()
    made.writer.remove_if_empty()  # type: ignore[attr-defined]
    assert names(run) == ["run"]
    assert [s.index for s in DirectoryReader(run).samples] == [0]


def test_an_unwritable_path_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write the run .*file/run: .*choose another directory"):
        on_disk(tmp_path / "file" / "run")


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(StoreError, match="No space left on device; free space"):
        on_disk(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", ["nowhere", "file", "file/below"])
def test_opening_what_is_no_run_says_so(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"there is no run at .* \(no manifest.json\)"):
        ap.open(tmp_path / path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 5}, "format 5, which a newer attnprobe wrote; .*upgrade attnprobe"),
        ({"format": None}, "has no format, so it is no manifest; restore it"),
        ({"format": "four"}, "format .four., and this version of attnprobe reads 1 to 4"),
        ({"sites": 3}, "is not a manifest"),
        ({"surprise": 3}, "is not a manifest"),
    ],
)
def test_manifests_of_another_format_are_refused(run: Path, change: dict[str, Any], words: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(StoreError, match=words):
        ap.open(run)


def test_runs_of_format_1_which_knew_no_axes_are_read(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))

    def strip(line: dict[str, Any]) -> None:
        for record in line["samples"]:
            for of in record["fields"]:
                assert of.pop("axes") == ["query", "key"]

    rewrite(run, strip)
    assert_sample(DirectoryReader(run), 1)


def test_a_torn_line_is_cut(run: Path) -> None:
    whole = journal(run).read_bytes()
    journal(run).write_bytes(whole + whole[: len(whole) // 2])
    assert_sample(DirectoryReader(run), 1)


@pytest.mark.parametrize("junk", [b"junk\n", b"\0" * 40 + b"\n", b"00000000 {}\n"])
def test_a_last_line_that_was_torn_is_not_there(run: Path, junk: bytes) -> None:
    whole = journal(run).read_bytes()
    journal(run).write_bytes(whole + junk)
    assert_sample(DirectoryReader(run), 1)
    assert whole_lines(journal(run)) == whole


@pytest.mark.parametrize(
    "junk", [b"junk\n", b"zzzzzzzz {}\n", b"00000000 {}\n", b"\xff\xfe\n", b"\n", b"%08x []\n" % zlib.crc32(b"[]")]
)
def test_a_damaged_line_is_named(run: Path, junk: bytes) -> None:
    whole = journal(run).read_bytes()
    for number, data in ((1, junk + whole), (4, whole + junk + whole)):
        journal(run).write_bytes(data)
        with pytest.raises(CorruptRun, match=rf"{journal(run).name}, line {number} is damaged"):
            DirectoryReader(run)


def test_a_flipped_bit_in_the_journal_is_noticed(run: Path) -> None:
    data = bytearray(journal(run).read_bytes())
    data[len(data) // 2] ^= 1
    journal(run).write_bytes(bytes(data))
    with pytest.raises(CorruptRun, match="line 2 is damaged"):
        DirectoryReader(run)


def test_a_missing_shard_is_named(run: Path) -> None:
    (file,) = shards(run)
    file.unlink()
    with pytest.raises(CorruptRun, match=f"{file.name} is listed and not there; restore it, or record again"):
        ap.open(run)


def test_a_short_shard_is_named(run: Path) -> None:
    (file,) = shards(run)
    size = file.stat().st_size
    os.truncate(file, size - 1)
    with pytest.raises(CorruptRun, match=f"{file.name} has {size - 1:,} bytes and should have {size:,}"):
        ap.open(run)


def test_a_shard_with_a_broken_header_is_named(run: Path) -> None:
    (file,) = shards(run)
    with file.open("r+b") as opened:
        opened.write(b"\xff" * 64)
    reader = DirectoryReader(run)
    with pytest.raises(CorruptRun, match=f"{file.name} cannot be read"):
        whole_map(reader, (0,), range(8))


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", ".safetensors", "x.safetensors.partial", 3],
)
def test_names_that_leave_the_directory_are_refused(run: Path, name: object) -> None:
    (run / "secret.safetensors").write_bytes(shards(run)[0].read_bytes())
    rewrite(run, lambda record: record["shards"][0].update(file=name))
    with pytest.raises(CorruptRun, match="which is no name of a shard"):
        ap.open(run)


def test_blocks_in_a_shard_that_is_not_listed_are_refused(run: Path) -> None:
    (run / "shards" / "other.safetensors").write_bytes(shards(run)[0].read_bytes())
    rewrite(run, lambda record: record["samples"][0]["fields"][0]["blocks"][0].update(file="other.safetensors"))
    reader = DirectoryReader(run)
    with pytest.raises(CorruptRun, match=r"'other.safetensors', which the journal does not list"):
        whole_map(reader, (0,), range(8))


def test_a_linked_shard_is_refused(run: Path, tmp_path: Path) -> None:
    (file,) = shards(run)
    file.rename(tmp_path / "elsewhere.safetensors")
    file.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CorruptRun, match=f"{file.name} is listed and not there"):
        ap.open(run)


@pytest.mark.parametrize("field_change", [{"site": "h.9.attn"}, {"heads": 3}, {"blocks": [{}]}])
def test_records_that_make_no_sense_are_named(run: Path, field_change: dict[str, Any]) -> None:
    rewrite(run, lambda record: record["samples"][1]["fields"][0].update(field_change))
    reader = DirectoryReader(run)
    with pytest.raises(CorruptRun, match="the record of sample 1 makes no sense"):
        reader.fields(1)
    assert reader.fields(0)


def test_sizes_that_make_no_sense_are_named(run: Path) -> None:
    rewrite(run, lambda record: record["samples"][1]["fields"][0].update(blocks=[{}]))
    with pytest.raises(CorruptRun, match="the record of sample 1 makes no sense"):
        _ = DirectoryReader(run).nbytes


def change_sample(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set one entry of sample 1, as ``fields.0.heads``."""

    def change(record: dict[str, Any]) -> None:
        *parents, last = key.split(".")
        at: Any = record["samples"][1]
        for name in parents:
            at = at[int(name) if isinstance(at, list) else name]
        at[last if isinstance(at, dict) else int(last)] = value

    return change


BLOCK0 = "fields.0.blocks.0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prompt_length", 9),
        ("prompt_length", True),
        ("sequences", []),
        ("sequences", {}),
        ("sequences.main", None),
        ("sequences.main.length", -1),
        ("sequences.main.length", 1 << 39),
        ("sequences.main.ids", "x"),
        ("sequences.main.ids.file", "../x.safetensors"),
        ("fields", {}),
        ("fields.0", 3),
        ("fields.0.site", ["h.0.attn"]),
        ("fields.0.group", "0"),
        ("fields.0.group", False),
        ("fields.0.heads", [[0, 9, 1]]),
        ("fields.0.heads", [[1, 2, 1]]),
        ("fields.0.dtype", "float64"),
        ("fields.0.dtype", []),
        ("fields.0.what", "no word"),
        ("fields.0.axes", "query"),
        ("fields.0.axes", ["query", 3]),
        ("fields.0.axes", ["query", "key", "head"]),
        (f"{BLOCK0}.file", 3),
        (f"{BLOCK0}.tensor", None),
        (f"{BLOCK0}.rows", [[0, 1 << 39, 1]]),
        (f"{BLOCK0}.rows", [[0, 9, 1]]),
        (f"{BLOCK0}.rows", [[0, 8, 0]]),
        (f"{BLOCK0}.rows", [[7, -1, -1]]),
        (f"{BLOCK0}.rows", [[4, 8, 1], [0, 4, 1]]),
        (f"{BLOCK0}.rows", [[0, 7, 1]]),
        (f"{BLOCK0}.rows", [[0, 8.0, 1]]),
        (f"{BLOCK0}.heads", [[2, 3, 1]]),
        (f"{BLOCK0}.start", 1),
        (f"{BLOCK0}.start", -1),
        (f"{BLOCK0}.start", True),
        (f"{BLOCK0}.shape", [3, 8]),
        (f"{BLOCK0}.shape", [3, 8, 9]),
        (f"{BLOCK0}.shape", [3, True, 8]),
    ],
)
def test_a_record_is_checked_before_it_is_used(run: Path, key: str, value: object) -> None:
    rewrite(run, change_sample(key, value))
    reader = DirectoryReader(run)
    for use in (lambda: reader.fields(1), lambda: reader.sample(1), lambda: reader.nbytes):
        with pytest.raises(CorruptRun, match="the record of sample 1 makes no sense"):
            use()
    assert reader.fields(0)


KEPT = {  # what: axes, dtype, shape of its block
    "weights": (["query", "key"], "float32", [3, 8, 8]),
    "top": (["query", "rank"], "bfloat16", [3, 8, 2]),
    "top_keys": (["query", "rank"], "int32", [3, 8, 2]),
    "top_rest": (["query"], "float32", [3, 8, 1]),
    "entropy": (["query"], "float32", [3, 8, 1]),
    "entropy.mean": (["statistic"], "float32", [3, 3, 1]),
    "received": (["key"], "float32", [3, 8, 1]),
    "distances": (["distance"], "float32", [3, 4, 1]),
    "pooled_max": (["query_cell", "key_cell"], "float16", [3, 4, 4]),
    "own(3)": (["bucket", "key"], "int32", [3, 2, 8]),
}


def keep_all(record: dict[str, Any]) -> None:
    """Let sample 1 have a field of each kind; there is but the block of its weights, so none can be read."""
    fields = record["samples"][1]["fields"]
    (whole,) = fields
    for what, (axes, dtype, shape) in list(KEPT.items())[1:]:
        part = {**whole["blocks"][0], "rows": [[0, shape[1], 1]], "shape": shape}
        fields.append({**whole, "what": what, "axes": axes, "dtype": dtype, "blocks": [part]})


def test_fields_of_every_kind_are_taken(run: Path) -> None:
    rewrite(run, keep_all)
    assert [of.what for of in DirectoryReader(run).fields(1)] == list(KEPT)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("weights", {"axes": ["query"]}),
        ("weights", {"axes": ["key", "query"]}),
        ("weights", {"dtype": "int32"}),
        ("weights", {"blocks": []}),
        ("weights", {"heads": []}),
        ("top", {"axes": ["query", "key"]}),
        ("top", {"dtype": "int32"}),
        ("top", {"heads": [[0, 1, 1]], "block": {"heads": [[0, 1, 1]], "shape": [1, 8, 2]}}),
        ("top", {"block": {"shape": [3, 8, 3]}}),
        ("top", {"block": {"shape": [3, 8, 0]}}),
        ("top", {"block": {"shape": [1, 1, 4097], "heads": [[0, 1, 1]], "rows": [[0, 1, 1]]}}),
        ("top", {"block": {"start": 1}}),
        ("top", {"what": "other"}),
        ("top", {"group": 1}),
        ("top", {"blocks": []}),
        ("top_keys", {"dtype": "float32"}),
        ("top_keys", {"what": "other"}),
        ("top_rest", {"dtype": "float16"}),
        ("top_rest", {"axes": ["key"]}),
        ("top_rest", {"what": "other"}),
        ("entropy", {"axes": []}),
        ("entropy", {"axes": ["query", "query"]}),
        ("entropy", {"axes": ["query\x1b[2J"]}),
        ("entropy", {"axes": [["query"]]}),
        ("entropy", {"blocks": []}),
        ("entropy", {"blocks": None}),
        ("entropy", {"block": {"start": (1 << 24) - 1}}),
        ("entropy", {"block": {"shape": [3, 8, 0]}}),
        ("entropy", {"block": {"shape": [3, 8, 2]}}),
        ("entropy", {"block": {"heads": [], "shape": [0, 8, 1]}}),
        ("entropy", {"block": {"rows": [[1, 9, 1]]}}),
        ("entropy.mean", {"axes": ["query"]}),
        ("entropy.mean", {"axes": ["statistic", "query"]}),
        ("entropy.mean", {"dtype": "int32"}),
        ("entropy.mean", {"block": {"shape": [3, 2, 1], "rows": [[0, 2, 1]]}}),
        ("entropy.mean", {"block": {"shape": [3, 4, 1], "rows": [[0, 4, 1]]}}),
        ("entropy.mean", {"block": {"shape": [3, 0, 1], "rows": []}}),
        ("received", {"block": {"shape": [3, 9, 1], "rows": [[0, 9, 1]]}}),
        ("distances", {"block": {"shape": [1, 1, 1], "heads": [[0, 1, 1]], "rows": [[4096, 4097, 1]]}}),
        ("pooled_max", {"block": {"shape": [1, 1, 1], "heads": [[0, 1, 1]], "rows": [[1 << 20, (1 << 20) + 1, 1]]}}),
        ("pooled_max", {"block": {"shape": [1, 1, 4097], "heads": [[0, 1, 1]], "rows": [[0, 1, 1]]}}),
        ("pooled_max", {"block": {"shape": [3, 4, 0]}}),
        ("pooled_max", {"block": {"start": 1}}),
        ("own(3)", {"what": "own()"}),
    ],
)
def test_fields_that_make_no_sense_are_refused(run: Path, what: str, change: dict[str, Any]) -> None:
    def break_one(record: dict[str, Any]) -> None:
        keep_all(record)
        (one,) = (of for of in record["samples"][1]["fields"] if of["what"] == what)
        one["blocks"][0].update(change.get("block", {}))
        one.update({key: value for key, value in change.items() if key != "block"})

    rewrite(run, break_one)
    reader = DirectoryReader(run)
    for use in (lambda: reader.fields(1), lambda: reader.sample(1), lambda: reader.nbytes):
        with pytest.raises(CorruptRun, match="the record of sample 1 makes no sense"):
            use()
    assert reader.fields(0)


def test_arrays_far_larger_than_their_blocks_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scatter(record: dict[str, Any], blocks: list[tuple[int, int, int]]) -> None:
        keep_all(record)
        (one,) = (of for of in record["samples"][1]["fields"] if of["what"] == "pooled_max")
        whole = one["blocks"][0]
        one["blocks"] = [
            {**whole, "heads": [[head, head + 1, 1]], "rows": [[row, row + 1, 1]], "shape": [1, 1, wide]}
            for head, row, wide in blocks
        ]

    monkeypatch.setattr(validate_fields, "HOLES", 10)
    rewrite(run, lambda record: scatter(record, [(head, row, 2) for head in (0, 1, 3) for row in (0, 5, 900_000)]))
    assert len(DirectoryReader(run).fields(1)) == len(KEPT)
    for blocks, words in (
        ([(0, 0, 4), (1, 5, 4)], "has 24 values, and its blocks have 8"),
        ([(0, 0, 1), (1, 5, 4096)], r"blocks of .* are \[1, 4096\] columns wide"),
    ):
        rewrite(run, lambda record: record["samples"][1].update(fields=record["samples"][1]["fields"][:1]))
        rewrite(run, lambda record, blocks=blocks: scatter(record, blocks))  # type: ignore[misc]
        with pytest.raises(CorruptRun, match=words):
            DirectoryReader(run).fields(1)


def test_blocks_that_claim_more_than_all_shards_are_refused(run: Path) -> None:
    def repeat(record: dict[str, Any]) -> None:
        keep_all(record)
        (one,) = (of for of in record["samples"][1]["fields"] if of["what"] == "entropy")
        one["blocks"] *= 1000

    rewrite(run, repeat)
    with pytest.raises(CorruptRun, match="more than all shards"):
        DirectoryReader(run).fields(1)


def test_a_field_that_is_there_twice_is_refused(run: Path) -> None:
    rewrite(run, lambda record: record["samples"][1]["fields"].append(record["samples"][1]["fields"][0]))
    with pytest.raises(CorruptRun, match="is there twice"):
        DirectoryReader(run).fields(1)


@pytest.mark.parametrize(
    ("key", "value"),
    [*(("index", index) for index in (-1, "0", None, True, 1.0, [])), ("id", 3), ("named", 1)],
)
def test_an_index_or_id_that_is_none_is_refused_at_open(run: Path, key: str, value: object) -> None:
    rewrite(run, change_sample(key, value))
    with pytest.raises(CorruptRun, match="a record makes no sense"):
        DirectoryReader(run)


@pytest.mark.parametrize(("part", "other"), [("ids", "tokens"), ("tokens", "ids"), ("ids", "block"), ("tokens", "s")])
def test_sequences_of_another_kind_or_length_are_refused(run: Path, part: str, other: str) -> None:
    def change(record: dict[str, Any]) -> None:
        sequence = record["samples"][1]["sequences"]["main"]
        if other == "s":
            sequence["length"] = 9
        else:
            place = record["samples"][1]["fields"][0]["blocks"][0] if other == "block" else sequence[other]
            sequence[part] = {"file": place["file"], "tensor": place["tensor"]}

    rewrite(run, change)
    sequence = DirectoryReader(run).sample(1).sequences["main"]
    with pytest.raises(CorruptRun, match=f"which should hold {part} of [89] tokens"):
        getattr(sequence, part)


def test_a_block_of_another_shape_or_dtype_is_refused(run: Path) -> None:
    rewrite(run, change_sample("fields.0.dtype", "float16"))
    with pytest.raises(CorruptRun, match=r"is F32 \(3, 8, 8\), and the journal has F16"):
        whole_map(DirectoryReader(run), (0,), range(8), index=1)
    rewrite(run, change_sample("fields.0.dtype", "float32"))
    rewrite(run, change_sample(f"{BLOCK0}.shape", [3, 8, 7]))
    with pytest.raises(CorruptRun, match=r"and the journal has F32 \(3, 8, 7\)"):
        whole_map(DirectoryReader(run), (0,), range(8), index=1)


@pytest.mark.parametrize(
    "change",
    [
        {"keep": 3},
        {"keep": [3]},
        {"keep": [{"keys": 3}]},
        {"keep": [{"measures": 3}]},
        {"keep": [{"measures": ["entropy"]}]},
        {"keep": [{"measures": [{"name": 3, "unit": "nats", "axes": []}]}]},
        {"keep": [{"measures": [{"name": "entropy", "unit": "nats", "axes": "query"}]}]},
        {"keep": [{"measures": [{"name": "\x1b[2J", "unit": "nats", "axes": []}]}]},
        {"keep": [{"measures": [{"name": "a b", "unit": "nats", "axes": []}]}]},
        {"keep": [{"measures": [{"name": "entropy", "unit": "\x1b[2J", "axes": []}]}]},
        {"keep": [{"measures": [{"name": "entropy", "unit": "n" * 65, "axes": []}]}]},
        {"keep": [{"keys": "a:b"}]},
        {"model": []},
        {"versions": {"torch": 2}},
        {"created": 3},
        {"text": 1},
        {"sites": [3]},
        {"sites": [{"key": "a"}]},
        {"sites": [{"key": "a", "kind": "self", "part": "decoder", "layer": True, "heads": 1, "kv_heads": 1}]},
        {"sites": [{"key": 1, "kind": "self", "part": "decoder", "layer": 0, "heads": 1, "kv_heads": 1}]},
        {"sites": [{"key": "a", "kind": "self", "part": "decoder", "layer": 0, "heads": 1, "kv_heads": 1}] * 2},
    ],
)
def test_a_manifest_is_checked(run: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(CorruptRun, match="is not a manifest"):
        ap.open(run)


@pytest.mark.parametrize("name", ["shards", "journal", "manifest.json", "a journal"])
def test_links_are_not_followed(run: Path, tmp_path: Path, name: str) -> None:
    path = journal(run) if name == "a journal" else run / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptRun, match=f"{path.name} is a link"):
        ap.open(run)


@pytest.mark.parametrize("name", ["manifest.json", "a journal"])
def test_a_pipe_does_not_hang(run: Path, name: str) -> None:
    path = journal(run) if name == "a journal" else run / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorruptRun, match=f"{path.name} is not a regular file"):
        ap.open(run)
    if name == "manifest.json":
        with pytest.raises(RunExists):
            on_disk(run, overwrite=True)


def test_a_reader_survives_a_change_of_directory(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    reader = DirectoryReader(Path("run"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert_sample(reader, 1)


def test_tensors_that_a_shard_lacks_are_named(run: Path) -> None:
    rewrite(run, lambda record: record["samples"][0]["fields"][0]["blocks"][0].update(tensor="0/gone"))
    reader = DirectoryReader(run)
    with pytest.raises(CorruptRun, match=r"safetensors has no tensor 0/gone"):
        whole_map(reader, (0,), range(8))


# --- a disk that fails --------------------------------------------------------------------------------------------


class Disk:
    """`os.pwrite` on a disk with so much room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 40
        self._write = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, file: int, data: Any, offset: int) -> int:
        data = memoryview(data)
        if offset >= shard.HEADER:  # the header's room was taken when the shard was opened
            data = data[: self.room]
            self.room -= data.nbytes
        if not data.nbytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(file, data, offset)


def test_a_full_disk_is_an_error_and_costs_no_listed_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    made = on_disk(tmp_path / "run", held=0)
    fill(made, 2)
    made.writer.flush()  # type: ignore[attr-defined]
    disk.room = 100  # a part of the next block fits
    made.writer.write(field(2), block(range(8), 8))
    made.writer.commit(sample(2))
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; samples .* are whole. Free space"):
        made.writer.flush()  # type: ignore[attr-defined]
    disk.room = 1 << 40  # also where room comes back, what lacks a block is never listed
    with pytest.raises(StoreError, match=r"takes no more since a write failed: .*No space left"):
        made.writer.write(field(3), block(range(8), 8))
    made.writer.close()
    reader = made.reader()
    assert isinstance(reader, DirectoryReader)
    assert [s.index for s in reader.samples] == [0, 1]
    assert_sample(reader, 0)
    assert_sample(reader, 1)
    assert len(shards(tmp_path / "run")) == 1


def test_a_disk_that_fails_late_stops_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    made = on_disk(tmp_path / "run", held=0)
    disk.room = 0
    with pytest.raises(StoreError, match="No space left"):
        for index in range(1000):  # 16 MiB are buffers
            made.writer.write(field(index), block(range(8), 100_000, seed=index))
    with pytest.raises(StoreError, match="takes no more"):
        made.writer.write(field(1000), block(range(8), 8))


def test_an_interrupted_write_is_never_listed(made_run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(made_run, 1)
    writer: Any = made_run.writer
    real = writer._ring.borrow

    def interrupt() -> None:
        monkeypatch.setattr(writer._ring, "borrow", real)
        raise KeyboardInterrupt

    writer.flush()
    monkeypatch.setattr(writer._ring, "borrow", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer.write(field(1), block(range(8), 8))
    with pytest.raises(StoreError, match="takes no more"):
        writer.commit(sample(1))
    assert [s.index for s in made_run.read().samples] == [0]


@pytest.fixture
def made_run(tmp_path: Path) -> Made:
    """A run directory whose blocks are not held back."""
    return on_disk(tmp_path / "run", held=0)


def test_samples_in_a_shard_that_cannot_be_finished_are_not_listed(
    made_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "SIZE", shard.HEADER + 2000)
    fill(made_run, 3)  # two in the first shard, which is whole; one in the second
    settle(made_run)
    real, failed = files.sync, []

    def broken(file: int) -> None:
        if not failed:
            failed.append(file)
            raise OSError(errno.EIO, "Input/output error")
        real(file)

    monkeypatch.setattr(files, "sync", broken)
    with pytest.raises(StoreError, match="Input/output error"):
        made_run.writer.close()
    made_run.writer.close()
    reader = made_run.reader()
    assert [s.index for s in reader.samples] == [0, 1]
    assert [path.suffix for path in shards(tmp_path / "run")] == [".safetensors"]


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_journal_that_fails_leaves_no_torn_line(
    made_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fill(made_run, 1)
    made_run.writer.flush()  # type: ignore[attr-defined]
    before = journal(tmp_path / "run").read_bytes()
    file = made_run.writer._journal._file  # type: ignore[attr-defined]
    write, sync = files.write, files.sync

    def half(to: int, data: memoryview, offset: int) -> None:
        write(to, data[:20] if to == file and call == "write" else data, offset)
        if to == file and call == "write":
            fail()

    def unsure(to: int) -> None:
        if to == file and call == "sync":
            fail()
        sync(to)

    monkeypatch.setattr(files, "write", half)
    monkeypatch.setattr(files, "sync", unsure)
    fill(made_run, 1, first=1)
    with pytest.raises(StoreError, match=r"cannot write the journal .*No space left on device; free space"):
        made_run.writer.flush()  # type: ignore[attr-defined]
    assert journal(tmp_path / "run").read_bytes() == before
    assert [s.index for s in made_run.reader().samples] == [0]


# --- shards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("constant", "value"), [("SIZE", (64 << 10) + 2000), ("HEADER", 1024)])
def test_a_shard_rolls_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str, value: int) -> None:
    monkeypatch.setattr(shard, constant, value)
    if constant == "HEADER":
        monkeypatch.setattr(directory, "HEADER", value)
        monkeypatch.setattr(directory, "LARGEST_HEADER", value)
    made = on_disk(tmp_path / "run", held=0)
    fill(made, 9, ids=np.arange(8), tokens=("Ġ" * 20,) * 8)
    reader = made.read()
    files = shards(tmp_path / "run")
    assert 3 <= len(files) <= 12
    assert isinstance(reader, DirectoryReader)
    for index in range(9):
        assert_sample(reader, index)
        assert reader.sample(index).sequences["main"].tokens == ("Ġ" * 20,) * 8
    for file in files:
        assert load_file(file)


def test_a_tensor_larger_than_a_shard_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "SIZE", shard.HEADER + 100)
    made = on_disk(tmp_path / "run", held=0)
    fill(made, 2)
    reader = made.read()
    assert isinstance(reader, DirectoryReader)
    assert len(shards(tmp_path / "run")) == 2
    assert_sample(reader, 1)


def test_shards_of_discarded_samples_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "SIZE", shard.HEADER + 800)
    made = on_disk(tmp_path / "run", held=0)
    for index in range(3):
        made.writer.write(field(index), block(range(8), 8))
        made.writer.discard(index)
    assert not len(made.read().samples)
    assert shards(tmp_path / "run") == []


def test_two_readers_read_while_a_writer_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "GROUP", 1)
    made = on_disk(tmp_path / "run")
    fill(made, 1)
    settle(made)
    first = DirectoryReader(tmp_path / "run")
    fill(made, 1, first=1)
    settle(made)
    second = DirectoryReader(tmp_path / "run")
    assert (len(first.samples), len(second.samples)) == (1, 2)
    assert_sample(first, 0)
    assert_sample(second, 0)
    assert_sample(second, 1)
    made.writer.close()
    assert only_field(second, 1)[0].sample == 1
    assert isinstance(second.samples[0].sequences["main"], TokenSequence)
