"""``attnprobe export``: files that hold what the run holds, and appear whole or not at all."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

import attnprobe as ap
from attnprobe import demo
from attnprobe.cli import export_pictures, export_tables, main
from attnprobe.cli.export_files import check_targets, write_file
from attnprobe.errors import AttnprobeError, RunExists

TOKENS = ["=1+1", "a,b", '"', "line\nfeed", "\r", "\x1b[2J", "", " ", "Ġthe", "Ġthe", "NA", "null", "日本", "-5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of two heads, tokens that files might misread, and measures."""
    path = tmp_path_factory.mktemp("runs") / "run"
    model, tokenizer = demo.load()
    ids = tokenizer("Maia is a cute little baby who likes to explore her world!", return_tensors="pt").input_ids
    keep = [ap.Weights(layers="0,1"), ap.Measures(names=["default", "induction"])]
    with ap.record(model, tokenizer, to=path, keep=keep), torch.no_grad():
        model(ids)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code and result.stdout == "", result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"sample": str})


# --- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_measures_are_read_back_exactly(format: str, run: Path, tmp_path: Path) -> None:
    file = tmp_path / f"m.{format}"
    result = call(run, f"--{format}", file)
    assert result.exit_code == 0, result.output
    expected = ap.open(run).measures.to_pandas().reset_index()
    table = read(file)
    assert list(table.columns) == list(expected.columns)
    for name in expected.columns[3:]:
        np.testing.assert_array_equal(table[name].to_numpy(np.float32), expected[name].to_numpy(np.float32))
    assert "32 rows" in result.stderr and str(file) in result.stderr


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_map_is_read_back_exactly(format: str, run: Path, tmp_path: Path) -> None:
    file = tmp_path / f"m.{format}"
    assert call(run, "1.3", f"--{format}", file).exit_code == 0
    head = ap.open(run)[1, 3]
    table = read(file)
    np.testing.assert_array_equal(table.iloc[:, 2:].to_numpy(np.float32), head.numpy())
    assert table["token"].tolist() == list(head.query_labels) and table["query"].tolist() == list(head.kept)
    assert [name.partition(" ")[2] for name in table.columns[2:]] == list(head.key_labels)
    part = tmp_path / f"part.{format}"
    call(run, "1.3", f"--{format}", part, "--rows", "5:9", "--columns", "1:")
    np.testing.assert_array_equal(read(part).iloc[:, 2:].to_numpy(np.float32), head[5:9, 1:])


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_row_and_the_largest_weights_are_read_back_exactly(format: str, run: Path, tmp_path: Path) -> None:
    row, top = tmp_path / f"row.{format}", tmp_path / f"top.{format}"
    assert call(run, "0.2", "--what", "row", "--query", 7, f"--{format}", row).exit_code == 0
    assert call(run, "0.2", "--what", "top", "--limit", 12, f"--{format}", top).exit_code == 0
    head = ap.open(run)[0, 2]
    np.testing.assert_array_equal(read(row)["weight"].to_numpy(np.float32), head[7])
    assert read(row)["token"].tolist() == list(head.key_labels)
    back = read(top).astype({"weight": np.float32})
    pd.testing.assert_frame_equal(back, head.top(12), check_dtype=False, rtol=0, atol=0)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_any_token_is_read_back(format: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"key": range(len(TOKENS)), "token": TOKENS, "weight": np.float32(1 / 3)})
    file = tmp_path / f"t.{format}"
    export_tables.save(table, file, format)
    back = pd.read_csv(file, keep_default_na=False) if format == "csv" else pd.read_parquet(file)
    assert back["token"].tolist() == TOKENS
    assert (back["weight"].to_numpy(np.float32) == np.float32(1 / 3)).all()


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [["1.3"], ["--grid"], ["--grid", "entropy"], ["--measures"], ["L0H1", "--rows", "3:9", "--map", "cividis"]],
)
def test_pictures_are_written(what: list[str], run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = {name: tmp_path / f"a.{name}" for name in export_pictures.FORMATS}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    result = call(run, *what[:1], *options, *what[1:]) if what[0] != "--grid" else call(run, *what, *options)
    assert result.exit_code == 0, result.output
    assert files["png"].read_bytes().startswith(b"\x89PNG") and files["pdf"].read_bytes().startswith(b"%PDF")
    assert "</text>" in files["svg"].read_text()
    assert result.stdout == "" and result.stderr.count("wrote ") == 3
    assert sorted(tmp_path.iterdir()) == sorted(files.values())


def test_the_same_picture_has_the_same_bytes(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a", "b"):
        call(run, "0.0", "--svg", tmp_path / f"{name}.svg", "--pdf", tmp_path / f"{name}.pdf")
    for format in ("svg", "pdf"):
        assert (tmp_path / f"a.{format}").read_bytes() == (tmp_path / f"b.{format}").read_bytes()


def test_json_is_one_document(run: Path, tmp_path: Path) -> None:
    result = call(run, "0.0", "--csv", tmp_path / "a.csv", "--json", "-q")
    record = json.loads(result.stdout)
    size = (tmp_path / "a.csv").stat().st_size
    assert result.stderr == "" and record["files"] == [
        {"path": str(tmp_path / "a.csv"), "format": "csv", "rows": 22, "columns": 24, "bytes": size}
    ]


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_only_when_asked(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("mine")
    refused(call(run, "0.0", "--csv", file), 2, str(file), "--overwrite")
    assert file.read_text() == "mine"
    assert call(run, "0.0", "--csv", file, "--overwrite").exit_code == 0
    assert file.read_text().startswith('"query"') and list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_nothing_half(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    kept = tmp_path / "kept"
    kept.write_text("mine")
    for path in (tmp_path / "new", kept):
        with pytest.raises(AttnprobeError, match="No space left"):
            write_file(path, fail, overwrite=True)
    assert list(tmp_path.iterdir()) == [kept] and kept.read_text() == "mine"


def test_of_two_writers_the_second_does_not_win(tmp_path: Path) -> None:
    def meanwhile(path: Path) -> None:
        path.write_text("second")
        (tmp_path / "a").write_text("first")

    with pytest.raises(RunExists, match="--overwrite"):
        write_file(tmp_path / "a", meanwhile, overwrite=False)
    assert (tmp_path / "a").read_text() == "first" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a file"),
        (["--png", "F"], "one picture at a time"),
        (["0.0", "--grid", "--png", "F"], "one picture at a time"),
        (["--grid", "--csv", "F"], "are pictures"),
        (["0.0", "--what", "top", "--png", "F"], "are of tables"),
        (["0.0", "--what", "measures", "--csv", "F"], "leave out the head"),
        (["--what", "top", "--csv", "F"], "name it as 3.1"),
        (["0.0", "--what", "row", "--csv", "F"], "--query"),
        (["0.0", "--query", "99", "--csv", "F"], "99"),
        (["9.9", "--png", "F"], "layer 9"),
        (["--grid", "nothing", "--png", "F"], "no mean of 'nothing'"),
        (["--rows", "1:2", "--csv", "F"], "not of the table measures"),
        (["--csv", "F", "--parquet", "F"], "same file"),
        (["--csv", "missing/F"], "no folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], words: str, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    places = [str(tmp_path / one) if one.endswith("F") else one for one in arguments]
    refused(call(run, *places), 2, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "name", "better"),
    [
        ("--png", "x.jpg", "x.png"),
        ("--png", "x.SVG", "x.png"),
        ("--pdf", "x.png", "x.pdf"),
        ("--csv", "a.b.parquet", "a.b.csv"),
        ("--parquet", "x.csv", "x.parquet"),
        ("--html", "x.pdf", "x.html"),
    ],
)
def test_a_name_that_promises_another_format_is_refused(
    option: str, name: str, better: str, run: Path, tmp_path: Path
) -> None:
    refused(call(run, "0.0", option, tmp_path / name), 2, f"{option} writes {option[2:]}", f"name it {better}")
    assert list(tmp_path.iterdir()) == []


def test_other_names_of_a_format_and_names_that_promise_none_are_taken(tmp_path: Path) -> None:
    targets = {"html": "x.HTM", "csv": "x.txt", "png": "x", "svg": "x.1", "pdf": "x.PDF", "parquet": "x.pq"}
    check_targets({name: tmp_path / file for name, file in targets.items()}, overwrite=False)


def test_a_missing_extra_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(call(run, "--parquet", tmp_path / "a.parquet"), 1, "pip install attnprobe[data]")
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_too_large_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_tables, "LARGEST", 100)
    refused(call(run, "0.0", "--csv", tmp_path / "a.csv"), 2, "22 x 22", "--rows 0:1000")
    assert call(run, "0.0", "--csv", tmp_path / "a.csv", "--rows", "0:4").exit_code == 0


def test_the_help_says_what_a_spreadsheet_does() -> None:
    shown = " ".join(call("--help").stdout.split())
    assert "takes one that starts with = + - @ for a formula" in shown.replace("may take", "takes")
