"""Samples are found in a journal's line without parsing it; what is found is what parsing finds."""

import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_contract import MANIFEST, block, field, sample, whole_map

from attnprobe.errors import CorruptRun
from attnprobe.fields import Sample
from attnprobe.store import directory, records
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.journal import read_lines
from attnprobe.store.listed import Hashes, read_journal
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.records import Record, Stored, find_parts

NASTY = (
    '{"index":1,"id":"x","named":true,',
    '],"samples":[',
    ',{"file":"a"',
    '"',
    "\\",
    '\\"',
    "\n",
    "\t",
    "é",
    "\ud800",
    "",
)
words = st.text(max_size=12) | st.sampled_from(NASTY)


def line_of(record: dict[str, Any], separators: tuple[str, str] | None = (",", ":")) -> bytes:
    text = json.dumps(record, separators=separators).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def place(path: Path, line: bytes) -> dict[str, Any] | None:
    """The parts of a line that stands alone in a journal, behind some other bytes."""
    path.write_bytes(b"x" * 7 + line)
    return find_parts(path, line, 7)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), words, st.dictionaries(words, words, max_size=3)), max_size=4),
    st.lists(
        st.tuples(st.integers(0, 1 << 40), words, st.booleans(), st.dictionaries(words, words, max_size=3)),
        min_size=1,
        max_size=4,
    ),
)
def test_parts_are_what_parsing_gives(
    tmp_path_factory: pytest.TempPathFactory, shards: list[Any], samples: list[Any]
) -> None:
    whole = {
        "shards": [
            {"file": f"s{n}.safetensors", "size": s, "xxh3_64": {w: "", **h}} for n, (s, w, h) in enumerate(shards)
        ],
        "samples": [
            {"index": i, "id": w, "named": b, "prompt_length": 0, "sequences": h, "fields": [{w: {"file": w}}]}
            for i, w, b, h in samples
        ],
    }
    found = place(tmp_path_factory.getbasetemp() / "journal.jsonl", line_of(whole))
    assert found is not None
    for shard, wanted in zip(found["shards"], whole["shards"], strict=True):
        assert isinstance(shard["xxh3_64"], Stored)
        assert {**shard, "xxh3_64": shard["xxh3_64"].load()} == wanted
    assert [one.load() for one in found["samples"]] == whole["samples"]
    for one, wanted in zip(found["samples"], whole["samples"], strict=True):
        assert (one.index, one.id, one.named) == (wanted["index"], wanted["id"], wanted["named"])


ONE = {"index": 3, "id": "a", "named": False, "prompt_length": 1, "sequences": {}, "fields": []}


@pytest.mark.parametrize(
    ("record", "separators"),
    [
        ({"shards": [], "samples": [ONE]}, None),
        ({"samples": [ONE], "shards": []}, (",", ":")),
        ({"shards": [], "samples": [ONE], "more": 1}, (",", ":")),
        ({"shards": [], "samples": [dict(reversed(ONE.items()))]}, (",", ":")),
        ({"shards": [], "samples": [{**ONE, "index": -1}]}, (",", ":")),
        ({"shards": [], "samples": [{**ONE, "index": True}]}, (",", ":")),
        ({"shards": [], "samples": [{**ONE, "id": 7}]}, (",", ":")),
        ({"shards": [], "samples": [ONE, 7]}, (",", ":")),
        ({"shards": [{"size": 1, "file": "a", "xxh3_64": {}}], "samples": [ONE]}, (",", ":")),
        ({"writer": {"started": "now"}}, (",", ":")),
    ],
)
def test_lines_written_in_another_way_are_left_to_the_parser(
    tmp_path: Path, record: dict[str, Any], separators: tuple[str, str] | None
) -> None:
    found = place(tmp_path / "journal.jsonl", line_of(record, separators))
    if found is not None:  # what is found and makes no sense is refused when it is used
        with pytest.raises(CorruptRun, match="cannot be read"):
            [one.load() for one in found["samples"]]


def write(path: Path, count: int = 5) -> Path:
    writer = DirectoryWriter(path, MANIFEST)
    for index in range(count):
        writer.write(field(index), block(range(8), 8, seed=index))
        one = sample(index)
        writer.commit(Sample(index, NASTY[index], one.sequences, one.prompt_length, named=index % 2 == 0))
    writer.close()
    return path


def journal(run: Path) -> Path:
    (path,) = (run / "journal").iterdir()
    return path


def test_opening_parses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write(tmp_path / "run")
    loaded: list[int] = []
    real = Stored.load
    monkeypatch.setattr(Stored, "load", lambda self: loaded.append(self.start) or real(self))
    reader = DirectoryReader(run)
    assert reader.next_index == 5
    assert reader.named == {NASTY[0], NASTY[2], NASTY[4]}
    assert loaded == []
    assert reader.sample(3).id == reader.sample(3).id == NASTY[3]
    assert len(loaded) == 1  # what was used last is held
    np.testing.assert_array_equal(
        whole_map(reader, (0, 1, 3), range(8), index=3), block(range(8), 8, seed=3).values.numpy()
    )
    before = len(loaded)
    again = pickle.loads(pickle.dumps(reader))
    assert again.sample(3).id == NASTY[3] and len(loaded) == before + 1


def test_what_is_found_is_what_the_journal_says(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    found = read_journal(journal(run))
    (line,) = (line for line in read_lines(journal(run)) if "samples" in line)
    assert [one.load() for one in found.samples] == line["samples"]
    assert isinstance(found.hashes, Hashes)
    assert dict(found.hashes.items()) == {shard["file"]: shard["xxh3_64"] for shard in line["shards"]}
    assert found.shards == {shard["file"]: shard["size"] for shard in line["shards"]}


def change(run: Path, old: bytes, new: bytes) -> None:
    """Change a journal's bytes, and make its checksums fit."""
    lines = []
    for line in journal(run).read_bytes().splitlines(keepends=True):
        text = line[9:-1].replace(old, new)
        lines.append(b"%08x %s\n" % (zlib.crc32(text), text))
    journal(run).write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"prompt_length":8', b'"prompt_length":8]', r"record at byte \d+ cannot be read"),
        (b'"prompt_length":8', b'"index":9,"prompt_length":8', "is another than when the run was opened"),
        (b'"prompt_length":8', b'"deep":' + b"[" * 100_000 + b"]" * 100_000, "cannot be read|is missing"),
        (b'"prompt_length":8', b'"prompt_length":9', "makes no sense"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused_when_it_is_used(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    run = write(tmp_path / "run")
    change(run, old, new)
    reader = DirectoryReader(run)
    uses: tuple[Callable[[], object], ...] = (lambda: reader.sample(1), lambda: reader.fields(1), lambda: reader.nbytes)
    for use in uses:
        with pytest.raises(CorruptRun, match=words):
            use()


def test_hashes_that_make_no_sense_are_refused_when_they_are_used(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    change(run, b'"xxh3_64":{', b'"xxh3_64":{"a":7,')
    found = read_journal(journal(run))
    (name,) = found.shards
    with pytest.raises(CorruptRun, match="the hashes of .* make no sense"):
        found.hashes[name]


def test_a_journal_that_is_replaced_while_a_run_is_open_is_noticed(tmp_path: Path) -> None:
    run, other = write(tmp_path / "run"), write(tmp_path / "other", 3)
    reader = DirectoryReader(run)
    os.replace(journal(other), journal(run))
    with pytest.raises(CorruptRun, match="cannot be read|is another than"):
        for index in range(5):
            reader.sample(index)


def test_a_whole_record_needs_no_file() -> None:
    record = Record(3, "a", False, ONE)
    assert record.load() is ONE


def test_a_group_of_many_samples_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "GROUP", 2000)
    run = write(tmp_path / "run")
    lines = [line for line in read_lines(journal(run)) if "samples" in line]
    assert [len(line["samples"]) for line in lines] == [3, 2]
    assert [one.index for one in read_journal(journal(run)).samples] == [0, 1, 2, 3, 4]
    assert records.find_parts(journal(run), b"00000000 {}\n", 0) is None
