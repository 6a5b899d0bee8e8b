"""The rows of a corpus: which files it is of, what becomes of each row, and how rows are put into batches."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("datasets", reason="the extra attnprobe[data] is not installed")

import datasets
import pyarrow as pa
from pyarrow import parquet

from attnprobe.corpus import Batcher, Corpus, Files, Hub, Row, Tally, find_files, read_hub_name
from attnprobe.corpus.rows import DONE, ID_TWICE, NO_ID, NO_JSON, NO_TEXT, NOT_TEXT
from attnprobe.corpus.tables import read_tables
from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.workers import Workers

TEXTS = ["a rose", "is a rose\u2028is", "x " * 3000, "Ġ <NA> nan", '"quoted", comma']


def files(*paths: Path, **options: Any) -> Files:
    found = find_files([str(path) for path in paths], **options)
    assert found is not None
    return found


def write(path: Path, texts: Sequence[Any], **columns: Sequence[Any]) -> Path:
    """Texts in a file of the format that its name says."""
    table = {"text": list(texts), **{name: list(values) for name, values in columns.items()}}
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(table), path)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
        with opened(path, "wb") as file:
            file.write(lines)
    return path


# --- which files -----------------------------------------------------------------------------------------------------


def test_files_globs_and_directories_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", ".hidden/d.jsonl", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "x"}\n')

    def names(*sources: Path) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in files(*sources).paths]

    assert names(tmp_path) == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert names(tmp_path / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(tmp_path / "**/*.jsonl") == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert names(tmp_path / "deep", tmp_path / "a.jsonl") == ["deep/c.jsonl", "a.jsonl"]
    assert files(tmp_path).label == "a.jsonl and 2 more files"


def test_a_name_with_the_signs_of_a_glob_is_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "[a]*.jsonl", ["one"])
    assert files(path).paths == (path,)
    assert [row.text for row in Corpus(files(path)).rows()] == ["one"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["gone.jsonl"], "there is no file .*gone.jsonl"),
        (["*.jsonl"], r"no file matches .*\*.jsonl"),
        (["empty"], "holds no file of a corpus: .jsonl"),
        (["a.txt", "a.txt"], "a.txt is there twice"),
        (["a.txt", "./empty/../a.txt"], "a.txt is there twice"),
        (["a.txt", "b.csv"], r"several formats, b.csv \(csv\) and a.txt \(text\)"),
        (["c.md"], "c.md is of no format"),
        (["d.parquet.gz"], "d.parquet.gz is of no format"),
    ],
)
def test_files_that_are_no_corpus(sources: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a.txt", "b.csv", "c.md", "d.parquet.gz"):
        (tmp_path / name).write_text("text\n")
    with pytest.raises(SelectionError, match=words):
        find_files([f"{tmp_path}/{source}" for source in sources])


def test_samples_of_another_extent_are_of_text_files(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"--sample-by document is for .txt files"):
        files(write(tmp_path / "a.jsonl", ["x"]), sample_by="document")


def test_a_description_tells_other_files_and_not_other_places(tmp_path: Path) -> None:
    first = files(write(tmp_path / "a.jsonl", TEXTS)).describe()
    (tmp_path / "there").mkdir()
    assert files(write(tmp_path / "there" / "a.jsonl", TEXTS)).describe() == first
    assert files(write(tmp_path / "a.jsonl", [*TEXTS[:-1], "another"])).describe() != first
    assert json.loads(json.dumps(first)) == first


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.csv", "a.parquet", "a.txt"])
def test_rows_of_each_format(name: str, tmp_path: Path) -> None:
    corpus = Corpus(files(write(tmp_path / name, TEXTS)))
    corpus.check()
    assert list(corpus.rows()) == [Row(number, str(number), text) for number, text in enumerate(TEXTS)]
    assert corpus.count() in (None, len(TEXTS))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_rows_have_the_ids_of_their_column(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, TEXTS, key=["one", "2", "c/d", "é", "5"])
    assert [row.id for row in Corpus(files(path), id_column="key").rows()] == ["one", "2", "c/d", "é", "5"]


def test_rows_of_several_files_are_counted_through(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", TEXTS)
    write(tmp_path / "b.parquet", TEXTS[:2])
    corpus = Corpus(files(tmp_path))
    assert [row.number for row in corpus.rows()] == list(range(7)) and corpus.count() == 7


@pytest.mark.parametrize(
    ("by", "expected"),
    [("line", ["a", "b", "", "c"]), ("paragraph", ["a\nb", "c\n"]), ("document", ["a\nb\n\nc\n"])],
)
def test_what_a_row_of_a_text_file_is(by: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\nc\r\n")
    corpus = Corpus(files(tmp_path, sample_by=by))
    assert [row.text for row in corpus.rows()] == expected
    assert corpus.count() == {"line": 4, "paragraph": None, "document": 1}[by]


def test_rows_that_are_none_say_why(tmp_path: Path) -> None:
    lines = [
        '{"text": "good", "id": "a"}',
        '{"text": "", "id": "b"}',
        '{"text": null, "id": "c"}',
        '{"text": 5, "id": "d"}',
        '{"text": "x"}',
        '{"text": "x", "id": 1.5}',
        '{"text": "x", "id": "a", "more": [1, {"deep": 2}]}',
        '{"text": "half a pair: \\ud83d", "id": "e"}',
        "",
        "{broken",
        "[1, 2]",
        "[" * 100_000,
        '{"id": 7, "text": "number"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    corpus = Corpus(files(tmp_path), id_column="id")
    corpus.check()
    assert [(row.id, row.problem) for row in corpus.rows()] == [
        ("a", None), ("b", NO_TEXT), ("c", NO_TEXT), ("d", NOT_TEXT), ("", NO_ID), ("", NO_ID), ("a", ID_TWICE),
        ("e", NOT_TEXT), ("", NO_TEXT), ("", NO_JSON), ("", NO_JSON), ("", NO_JSON), ("7", None),
    ]  # fmt: skip
    assert corpus.count() == len(lines)


@pytest.mark.parametrize("world", [1, 2, 5, 9])
def test_workers_share_all_rows_and_agree_which_of_one_id_counts(world: int, tmp_path: Path) -> None:
    ids = ["a", "b", "a", "c", "d", "b", "e", "a"]
    corpus = Corpus(files(write(tmp_path / "a.jsonl", ids, id=ids)), id_column="id")
    rows = [row for rank in range(world) for row in corpus.rows(Workers(rank, world))]
    assert sorted(row.number for row in rows) == list(range(8))
    assert sorted(row.number for row in rows if row.problem is None) == [0, 1, 3, 4, 6]
    assert sum(corpus.count(Workers(rank, world)) or 0 for rank in range(world)) == 8


def test_rows_that_are_done_are_said_to_be(tmp_path: Path) -> None:
    corpus = Corpus(files(write(tmp_path / "a.jsonl", ["x"] * 4, id=["a", "b", "a", ""])), id_column="id")
    problems = [row.problem for row in corpus.rows(done={"a", "other"})]
    assert problems == [DONE, None, ID_TWICE, NO_ID]
    assert [row.problem for row in Corpus(corpus.source).rows(done={"1"})] == [None, DONE, None, None]


def test_a_limit_is_of_all_workers_together(tmp_path: Path) -> None:
    corpus = Corpus(files(write(tmp_path / "a.jsonl", ["x"] * 2500)), limit=1203)
    rows = [row.number for rank in range(2) for row in corpus.rows(Workers(rank, 2))]
    assert sorted(rows) == list(range(1203))
    assert [corpus.count(Workers(rank, 2)) for rank in range(2)] == [602, 601]
    assert corpus.describe() == Corpus(corpus.source).describe()  # a run may be gone on with by another one


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.jsonl", {"column": "body"}, r"a.jsonl has no column 'body' \(--column\); its columns are: text, n"),
        ("a.jsonl", {"id_column": "id"}, r"no column 'id' \(--id-column\); its columns are: text, n"),
        ("a.csv", {"column": "body"}, r"a.csv has no column 'body' \(--column\); its columns are: text, n"),
        ("a.parquet", {"id_column": "id"}, r"a.parquet has no column 'id' \(--id-column\); its columns are: text, n"),
        ("a.parquet", {"column": "n"}, r"'n' of a.parquet holds int64, not text \(--column\); columns of text: text"),
        ("a.txt", {"column": "body"}, r"a.txt has no column 'body' \(--column\); its columns are: text"),
    ],
)
def test_columns_that_are_not_there(name: str, options: dict[str, str], words: str, tmp_path: Path) -> None:
    corpus = Corpus(files(write(tmp_path / name, ["x", "y"], n=[1, 2])), **options)
    with pytest.raises(SelectionError, match=words):
        corpus.check()


@pytest.mark.parametrize("name", ["b.csv", "b.parquet"])
def test_a_later_file_with_other_columns_is_refused_at_once(name: str, tmp_path: Path) -> None:
    write(tmp_path / name.replace("b", "a"), ["x"])
    later = write(tmp_path / name, ["x"])
    later.unlink()
    if later.suffix == ".csv":
        later.write_text("other\n1\n")
    else:
        parquet.write_table(pa.table({"other": [1]}), later)
    with pytest.raises(SelectionError, match=f"{name} has no column 'text'"):
        Corpus(files(tmp_path)).check()


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.txt"])
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\xff\xfe not what its name says")
    with pytest.raises(SelectionError, match=f"cannot read {name}: "):
        Corpus(files(tmp_path)).check()


def test_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(SelectionError, match=r"a.jsonl has no rows"):
        Corpus(files(tmp_path)).check()


def test_what_goes_wrong_midway_says_where(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet", ["x"] * 3000)
    damaged = tmp_path / "b.parquet"
    damaged.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(AttnprobeError, match=r"cannot read a.parquet and 1 more file behind row 2,999: .*--resume"):
        list(Corpus(files(tmp_path)).rows())


# --- the hub ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("imdb", Hub("imdb")),
        ("owner/tales", Hub("owner/tales")),
        ("owner/tales@test", Hub("owner/tales", split="test")),
        ("wikitext:wikitext-2-raw-v1@test[:10%]", Hub("wikitext", "wikitext-2-raw-v1", "test[:10%]")),
    ],
)
def test_a_name_on_the_hub(source: str, expected: Hub) -> None:
    if "[" not in source:
        assert find_files([source]) is None
    assert read_hub_name(source) == expected
    assert read_hub_name(expected.label) == expected


@pytest.mark.parametrize("source", ["", "a b", "owner/", "x@", "x:@test", "a@b@c"])
def test_what_is_no_name_on_the_hub(source: str) -> None:
    with pytest.raises(SelectionError, match=r"write name\[:config\]\[@split\]"):
        read_hub_name(source)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A hub with one dataset; it notes how it was asked, and may get a new commit."""
    state = SimpleNamespace(sha="c1", asked=[], rows=[{"text": t, "key": k} for k, t in enumerate(TEXTS)])

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        state.asked.append((arguments, options))
        return datasets.Dataset.from_list(state.rows).to_iterable_dataset()

    def dataset_info(self: Any, name: str) -> Any:
        if name != "owner/tales":
            raise OSError("404")
        return SimpleNamespace(sha=state.sha)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    return state


def test_rows_of_a_dataset_on_the_hub_are_streamed_at_one_commit(hub: SimpleNamespace) -> None:
    corpus = Corpus(read_hub_name("owner/tales:small@test").pinned(), id_column="key")
    corpus.check()
    assert [(row.id, row.text) for row in corpus.rows()] == [(str(k), text) for k, text in enumerate(TEXTS)]
    options = {"split": "test", "revision": "c1", "streaming": True}
    assert hub.asked == [(("owner/tales", "small"), options)] * 2
    assert corpus.count() is None and corpus.describe()["revision"] == "c1"
    hub.sha = "c2"
    assert read_hub_name("owner/tales").pinned().revision == "c2"
    assert read_hub_name("owner/tales").pinned("c1").revision == "c1"


def test_columns_that_a_dataset_on_the_hub_lacks(hub: SimpleNamespace) -> None:
    with pytest.raises(SelectionError, match=r"tales@train has no column 'id' \(--id-column\).* are: text, key"):
        Corpus(Hub("owner/tales"), id_column="id").check()


def test_a_dataset_that_the_hub_does_not_have(hub: SimpleNamespace) -> None:
    with pytest.raises(AttnprobeError, match=r"cannot read the dataset nobody/none: it is no file here"):
        Hub("nobody/none").pinned()


# --- batches ---------------------------------------------------------------------------------------------------------


def encode(texts: list[str], most: int | None) -> list[list[int]]:
    """A token a letter, and an end, which is there even where the text was cut."""
    return [[*map(ord, text[: None if most is None else most - 1]), 0] if text != "none" else [] for text in texts]


def batches(texts: Sequence[str], tally: Tally, **options: Any) -> list[list[str]]:
    rows = [Row(number, str(number), text) for number, text in enumerate(texts)]
    found = list(Batcher(encode, **options).batches(rows, tally))
    return [["".join(map(chr, piece.ids[:-1])) + f"{piece.ids[-1] or ''}" for piece in batch] for batch in found]


def test_batches_are_of_rows_of_like_length_longest_first() -> None:
    tally = Tally()
    found = batches(["a", "bbbb", "cc", "dddd", "eee"], tally, batch=2)
    assert found == [["bbbb", "dddd"], ["eee", "cc"], ["a"]]
    assert tally == Tally()


def test_batches_have_no_more_tokens_than_wanted_padding_included() -> None:
    found = batches(["a" * 9, "b" * 4, "c" * 4, "d", "e", "f"], Tally(), batch_tokens=10)  # each has an end too
    assert found == [["a" * 9], ["b" * 4, "c" * 4], ["d", "e", "f"]]


def test_few_rows_are_read_ahead() -> None:
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield Row(number, str(number), "x")

    first = next(Batcher(encode, batch=4).batches(rows(), Tally()))
    assert len(first) == 4 and taken == 64


def test_long_texts_are_not_read_ahead_as_far() -> None:
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield Row(number, str(number), "x" * (1 << 20))

    first = next(Batcher(encode, batch=4, max_tokens=3).batches(rows(), Tally()))
    assert len(first) == 4 and taken == 4


def test_few_characters_are_encoded_together_and_no_more_tokens_made_than_tell_that_a_text_is_cut() -> None:
    asked: list[tuple[int, int, int | None]] = []

    def watched(texts: list[str], most: int | None) -> list[list[int]]:
        asked.append((len(texts), sum(map(len, texts)), most))
        return encode(texts, most)

    lengths = (600_000, 10, 200_000, 300_000, 20, 524_288, 1)
    rows = [Row(number, str(number), "x" * length) for number, length in enumerate(lengths)]
    tally = Tally()
    found = list(Batcher(watched, max_tokens=30, window=12).batches(rows, tally))
    together = [one for one in asked if one[2] == 13]
    assert together == [(1, 600_000, 13), (4, 500_030, 13), (1, 524_288, 13), (1, 1, 13)]
    assert {one[2] for one in asked if one not in together} == {12}
    assert sorted(len(piece.ids) for batch in found for piece in batch) == [2, 11, 12, 12, 12, 12, 12]
    assert tally.cut == 5


def test_a_text_of_just_so_many_tokens_is_whole() -> None:
    tally = Tally()
    assert batches(["aaa", "bbbb"], tally, window=4) == [["aaa", "bbb"]]
    assert tally.cut == 1
    assert batches(["aaa", "bbbb"], tally, window=4, long="skip") == [["aaa"]]
    assert batches(["aaa"], tally, window=4, long="fail") == [["aaa"]]


LONG_TEXTS = """
import resource
from attnprobe import demo
from attnprobe.corpus import Batcher, Row, Tally

tokenizer = demo.load()[1]
text = " ".join((demo.text().split() * 200)[:100_000])

def encode(texts, most):
    cut = {} if most is None else {"truncation": True, "max_length": most}
    return tokenizer(texts, verbose=False, **cut)["input_ids"]

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

encode(["a rose"], 4)
before = peak()
rows = (Row(number, str(number), f"{number} {text}") for number in range(24))
(*batches,) = Batcher(encode, batch=2, max_tokens=512).batches(rows, Tally())
print(len(text), sum(map(len, batches)), peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts_that_are_cut() -> None:
    """Encoded whole and together, these 12 MB of text take 700 MiB and more."""
    done = subprocess.run([sys.executable, "-c", LONG_TEXTS], capture_output=True, text=True, check=True)
    characters, rows, mebibytes = map(int, done.stdout.split())
    assert characters > 400_000 and rows == 24
    assert mebibytes < 250


def test_tables_have_few_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [str(number) for number in range(250)])
    assert [table.num_rows for table in read_tables(files(path), ["text"])] == [100, 100, 50]


def test_texts_are_cut_by_the_tokenizer_and_not_by_a_slice() -> None:
    tally = Tally()
    assert batches(["a" * 9, "bb"], tally, max_tokens=4) == [["aaa", "bb"]]
    assert tally.cut == 1
    assert batches(["a" * 9, "bb"], tally, window=3) == [["aa", "bb"]]
    assert batches(["a" * 9], tally, window=6, max_tokens=4) == [["aaa"]]


def test_rows_that_are_longer_than_the_window() -> None:
    tally = Tally()
    assert batches(["a" * 9, "bb"], tally, window=3, long="skip") == [["bb"]]
    assert dict(tally.skipped) == {"longer than the context window": 1} and tally.cut == 0
    with pytest.raises(SelectionError, match=r"row 1 \(id '1'\) has more tokens than .* window, 3; .*--long"):
        batches(["bb", "a" * 9], tally, window=3, long="fail")
    assert batches(["a" * 9], tally, window=3, max_tokens=3, long="fail") == [["aa"]]


def test_rows_that_are_left_out_are_counted() -> None:
    tally = Tally()
    rows = [Row(0, "0", problem=DONE), Row(1, "1", problem=NO_TEXT), Row(2, "2", "none"), Row(3, "3", "x")]
    found = list(Batcher(encode).batches(rows, tally))
    assert [[piece.id for piece in batch] for batch in found] == [["3"]]
    assert tally.done == 1 and dict(tally.skipped) == {NO_TEXT: 1, "without tokens": 1} and tally.handled == 3
