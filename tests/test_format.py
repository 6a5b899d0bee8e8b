"""docs/format.md says what is on the disk, byte for byte, and a reader made of it reads what attnprobe reads.

``tests/data/formatN`` holds a run of each format. Those of formats 1 to 3 are as the versions that wrote these formats
left them; that of format 4 is what `write_run` writes. Shards are kept as text: their header in one line, then the
bytes of each tensor in a line of hexadecimal digits.
"""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from format_reader import read_lines, read_run
from safetensors import safe_open
from safetensors.torch import load_file

import attnprobe as ap
from attnprobe.codes import encode
from attnprobe.errors import StoreError
from attnprobe.fields import Block, Field, Rows, Sample, Site, TokenSequence
from attnprobe.measured import read_measure
from attnprobe.store import directory
from attnprobe.store.base import FORMAT, READABLE, Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.journal import Journal
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.reading import kept_rows, read_rows

DATA = Path(__file__).parent / "data"
ROOM = 64 << 10  # of a shard's header, with its length

SITES = (Site("h.0.attn", "self", "decoder", 0, 4, 2), Site("cross", "cross", "decoder", 1, 2, 2, "main", "source"))
MANIFEST = Manifest(
    model={"class": "Tiny", "name": "tiny", "revision": None, "config_xxh3": "00", "device": "cpu"},
    sites=SITES,
    keep=(
        {"what": "weights", "layers": "all", "keys": "all", "dtype": "float32"},
        {"what": "measures", "measures": [{"name": "entropy", "unit": "nats", "axes": ["query"]}]},
    ),
    versions={"attnprobe": "0.4.0", "torch": "2.11.0"},
    created="2026-01-01T00:00:00+00:00",
    data={"files": ["a.txt"], "column": "text"},
)
NAN = math.nan


# --- runs as text -------------------------------------------------------------------------------------------------


def as_text(shard: bytes) -> str:
    (length,) = struct.unpack("<Q", shard[:8])
    header, data = shard[8 : 8 + length].decode(), shard[8 + length :]
    assert length == ROOM - 8
    entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
    return "\n".join(
        [header.rstrip(" "), *(data[slice(*entry["data_offsets"])].hex() for entry in entries.values()), ""]
    )


def from_text(text: str) -> bytes:
    header, *data = text.splitlines()
    return struct.pack("<Q", ROOM - 8) + header.encode().ljust(ROOM - 8, b" ") + bytes.fromhex("".join(data))


def restore(version: int, to: Path) -> Path:
    """The run of a format, as files."""
    for file in (DATA / f"format{version}").rglob("*.*"):
        path = to / file.relative_to(DATA / f"format{version}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".txt":
            path.with_suffix(".safetensors").write_bytes(from_text(file.read_text()))
        else:
            path.write_bytes(file.read_bytes())
    return to


# --- a run of format 4 --------------------------------------------------------------------------------------------


def put(
    writer: DirectoryWriter,
    sample: int,
    values: Any,
    rows: Rows,
    heads: tuple[int, ...] = (0, 3),
    dtype: str = "float32",
    group: int = 0,
    start: int = 0,
    site: Site = SITES[0],
    causal: bool = False,
    **parts: Any,
) -> None:
    stored = encode(torch.tensor(values, dtype=torch.int32 if dtype == "int32" else torch.float32), dtype)
    writer.write(Field(sample, site, group, heads, dtype, **parts), Block(heads, rows, start, stored, causal))


def put_everything(writer: DirectoryWriter) -> None:
    """Sample 0: a field of each dtype and kind."""
    put(writer, 0, [[[1]], [[1]]], range(1), causal=True)
    put(writer, 0, [[[0.75, 0.25, 0], [0.5, 0.25, 0.25]], [[0, 1, 0], [0.125, 0.375, 0.5]]], range(1, 3), causal=True)
    put(writer, 0, [[[0.5, 0.25]]], (0, 2)[1:], heads=(2,), dtype="float16", group=1, start=1)
    put(writer, 0, [[[1, 0.125, 0.5, 0]]], range(3, 4), heads=(1,), dtype="bfloat16", group=2)
    put(
        writer,
        0,
        [[[1, 0.5, 2**-24, 0], [NAN, 1, 0, 0], [0.25] * 4]],
        (0, 2, 3),
        heads=(1,),
        dtype="log-uint8",
        group=3,
    )
    put(writer, 0, [[[0], [0.5], [0.75], [NAN]]], range(4), heads=(0,), group=4, what="entropy", axes=("query",))
    put(writer, 0, [[[0.5], [0.25], [3]]], range(3), (0,), group=4, what="entropy.mean", axes=("statistic",))
    put(writer, 0, [[[7, -1]]], range(1), (0,), "int32", 4, what="counts(2)", axes=("bucket", "side"))
    put(writer, 0, [[[1, 0], [0.5, 0.25]]], range(0, 4, 2), (1,), "bfloat16", 5, what="top", axes=("query", "rank"))
    put(writer, 0, [[[0, -1], [2, 0]]], range(0, 4, 2), (1,), "int32", 5, what="top_keys", axes=("query", "rank"))
    put(writer, 0, [[[0], [0.25]]], range(0, 4, 2), (1,), group=5, what="top_rest", axes=("query",))
    tokens, texts = ("<s>", "Ġé", "\ud800", ""), ("", " é", "\n", "")
    main = TokenSequence(4, np.array([1, 260, 7, -1]), tokens, texts, np.array([0, 1, 2, 9]))
    writer.commit(Sample(0, "a", {"main": main}, 3, named=True))


def write_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two writers, of which the second does a sample that the first has listed; one of its shards is set aside."""
    ids, minutes = iter(("00000001", "00000002")), iter(range(10))
    monkeypatch.setattr(directory.secrets, "token_hex", lambda count: next(ids))
    monkeypatch.setattr(directory, "host", lambda: "0123456789abcdef")
    monkeypatch.setattr(directory, "now", lambda: f"2026-01-01T00:0{next(minutes)}:00.000000+00:00")
    first = DirectoryWriter(path, MANIFEST, held=0, resume=True, workers=(0, 2))
    second = DirectoryWriter(path, MANIFEST, held=0, resume=True, workers=(1, 2))
    put_everything(first)
    put(first, 2, [[[0.25, 0.75]], [[1, 0]]], range(1), (0, 1), site=SITES[1])
    pair = {"main": TokenSequence(1), "source": TokenSequence(2)}
    first.commit(Sample(2, "2", pair, 1))
    put(second, 0, [[[0.5]]], range(1), (1,))
    second.commit(Sample(0, "a", {"main": TokenSequence(1)}, 1, named=True))
    put(second, 2, [[[0.25, 0.25]], [[0.5, 0.5]]], range(1), (0, 1), site=SITES[1])
    second.commit(Sample(2, "2", pair, 1))
    second.flush()
    put(second, 3, [[[1]]], range(1), (1,))
    second.commit(Sample(3, "b", {"main": TokenSequence(1)}, 0, named=True))
    found = {"dtype": "float32", "difference": 2**-20, "row_sum": 0.0, "lost": 0.0, "reason": ""}
    first.note("fidelity", {"h.0.attn": found})
    second.close()
    first.close()
    start = {"started": "2026-01-02T00:00:00.000000+00:00", "host": "0123456789abcdef", "rank": 0, "world": 1}
    repair = Journal(path / "journal" / "00000003.jsonl", {"writer": {**start, "repair": True}})
    repair.append({"dropped": ["00000002-00001.safetensors"]})
    repair.append({"ended": "2026-01-02T00:01:00.000000+00:00"})
    repair.close()
    (path / "aside").mkdir()
    (path / "shards" / "00000002-00001.safetensors").rename(path / "aside" / "00000002-00001.safetensors")
    return path


def files_of(run: Path) -> Iterator[tuple[str, Path]]:
    return ((path.relative_to(run).as_posix(), path) for path in sorted(run.rglob("*")) if path.is_file())


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return restore(4, tmp_path / "golden")


def test_what_is_written_is_what_was_written_byte_for_byte(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, wanted = dict(files_of(write_run(tmp_path / "run", monkeypatch))), dict(files_of(golden))
    assert list(written) == list(wanted)
    for name, path in written.items():
        if path.suffix == ".safetensors":
            assert as_text(path.read_bytes()).splitlines() == as_text(wanted[name].read_bytes()).splitlines()
        assert path.read_bytes() == wanted[name].read_bytes(), name


# --- a reader made of the page ------------------------------------------------------------------------------------


def assert_reads_the_same(run: Path) -> dict[int, dict[str, Any]]:
    """A reader made of the page gives what attnprobe gives."""
    reader, found = DirectoryReader(run), read_run(run)
    assert [sample.index for sample in reader.samples] == sorted(found)
    for sample in reader.samples:
        mine = found[sample.index]
        assert sample.id == mine["record"]["id"] and sample.prompt_length == mine["record"]["prompt_length"]
        assert sample.named == mine["record"].get("named", False)
        assert sample.sequences.keys() == mine["sequences"].keys()
        for name, sequence in sample.sequences.items():
            assert sequence.length == mine["record"]["sequences"][name]["length"]
            for part in ("ids", "positions", "tokens", "texts"):
                own, theirs = mine["sequences"][name].get(part), getattr(sequence, part)
                assert (own is None and theirs is None) or list(own) == list(theirs)
        fields = reader.fields(sample.index)
        assert [(field.site.key, field.what, field.group) for field in fields] == list(mine["fields"])
        for field, pieces in fields.items():
            heads, rows, values = mine["fields"][field.site.key, field.what, field.group]
            assert (list(field.heads), kept_rows(pieces)) == (heads, rows)
            read = read_rows(reader, field, pieces, heads, rows, range(values.shape[2]))
            np.testing.assert_array_equal(read, values)
            if field.what not in ("weights", "top", "top_keys", "top_rest"):
                measure = read_measure(reader, [(field, pieces)], heads)
                np.testing.assert_array_equal(measure.values.reshape(values.shape), values)
    return found


def test_a_reader_made_of_the_page_reads_what_attnprobe_reads(golden: Path) -> None:
    found = assert_reads_the_same(golden)
    assert [(number, one["record"]["id"]) for number, one in found.items()] == [(0, "a"), (2, "2"), (3, "2")]
    fields = {key[1:]: values.tolist() for key, (_, _, values) in found[0]["fields"].items()}
    whole = [[[1, 0, 0], [0.75, 0.25, 0], [0.5, 0.25, 0.25]], [[1, 0, 0], [0, 1, 0], [0.125, 0.375, 0.5]]]
    assert fields["weights", 0] == whole
    assert fields["weights", 1] == [[[0, 0.5, 0.25]]]
    assert fields["weights", 2] == [[[1, 0.125, 0.5, 0]]]
    coded = np.array(fields["weights", 3])
    exact = [[[1, 0.5, 2**-24, 0], [NAN, 1, 0, 0], [0.25] * 4]]
    np.testing.assert_allclose(coded, exact, rtol=2 ** (12 / 253) - 1)
    np.testing.assert_array_equal(np.array(coded)[np.isin(exact, (0, 1, 2**-24))], [1, 2**-24, 0, 1, 0, 0])
    np.testing.assert_array_equal(fields["entropy", 4], [[[0], [0.5], [0.75], [NAN]]])
    assert fields["entropy.mean", 4] == [[[0.5], [0.25], [3]]]
    assert fields["counts(2)", 4] == [[[7, -1]]]
    assert fields["top", 5] == [[[1, 0], [0.5, 0.25]]]
    assert fields["top_keys", 5] == [[[0, -1], [2, 0]]]
    assert fields["top_rest", 5] == [[[0], [0.25]]]
    assert {key: one[:2] for key, one in found[0]["fields"].items()}["h.0.attn", "weights", 3] == ([1], [0, 2, 3])
    main = found[0]["sequences"]["main"]
    assert (main["ids"].tolist(), main["positions"].tolist()) == ([1, 260, 7, -1], [0, 1, 2, 9])
    assert (main["tokens"], main["texts"]) == (["<s>", "Ġé", "\ud800", ""], ["", " é", "\n", ""])
    assert found[2]["fields"]["cross", "weights", 0][2].tolist() == [[[0.25, 0.75]], [[1, 0]]]
    assert found[3]["fields"]["cross", "weights", 0][2].tolist() == [[[0.25, 0.25]], [[0.5, 0.5]]]


def test_a_line_that_was_never_finished_is_not_there(golden: Path) -> None:
    with (golden / "journal" / "00000002.jsonl").open("ab") as file:
        file.write(b'00000000 {"shards":[')
    assert len(assert_reads_the_same(golden)) == 3


@pytest.mark.parametrize("version", READABLE)
def test_every_shard_is_a_plain_safetensors_file_with_the_hashes_of_the_journal(version: int, tmp_path: Path) -> None:
    run = restore(version, tmp_path / "run")
    listed = [s for path in (run / "journal").iterdir() for line in read_lines(path) for s in line.get("shards", ())]
    assert listed
    dtypes = set()
    for shard in listed:
        (path,) = run.rglob(shard["file"])
        assert path.stat().st_size == shard["size"]
        tensors = load_file(path)
        with safe_open(path, "pt") as opened:
            assert opened.metadata() == {"format": "pt", "attnprobe.format": str(version)}
            assert set(opened.keys()) == set(tensors) == set(shard["xxh3_64"])
            for name, tensor in tensors.items():
                same = opened.get_tensor(name)
                assert same.dtype == tensor.dtype and torch.equal(same.view(torch.uint8), tensor.view(torch.uint8))
                data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
                assert xxhash.xxh3_64_hexdigest(data) == shard["xxh3_64"][name]
        dtypes |= {tensor.dtype for tensor in tensors.values()}
    if version == FORMAT:
        assert dtypes == {
            torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8
        }  # fmt: skip


# --- formats of the past and of the future ------------------------------------------------------------------------


def test_a_run_of_format_1_is_read(tmp_path: Path) -> None:
    run = ap.open(restore(1, tmp_path / "run"))
    assert_reads_the_same(tmp_path / "run")
    assert [(sample.index, sample.id, sample.prompt_length) for sample in run.samples] == [(0, "0", 3), (1, "one", 1)]
    first, second = run.sample(0), run.sample(1)
    assert first[0, 0].numpy().tolist() == [[1, 0, 0], [0.25, 0.75, 0], [0.5, 0.25, 0.25]]
    assert first[0, 1].row("Ġb").tolist() == [0.5, 0.5, 0]
    assert first[1, 1][2].tolist() == [0, 0.5, 0.5] and first[1, 1].dtype == "bfloat16"
    assert first.sample.main.texts == ("a", " b", "a") and first.sample.main.positions is None
    assert second[0, 1].numpy().tolist() == [[1, 0], [0.75, 0.25]] and second[0, 1].numpy().dtype == np.float16
    assert second.sample.main.ids.tolist() == [1, -1] and second.sample.main.positions.tolist() == [4, 5]
    assert run.sites[0].route == "registry" and run.manifest.data is None and run.fidelity is None


@pytest.mark.parametrize(("version", "layer"), [(2, 1), (3, 0)])
def test_runs_of_formats_2_and_3_are_read(tmp_path: Path, version: int, layer: int) -> None:
    run = ap.open(restore(version, tmp_path / "run"))
    assert_reads_the_same(tmp_path / "run")
    head = run[layer, 0]
    assert head.numpy().tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert head.measures["entropy"].values.tolist() == [0.5, 0.75]
    assert head.measures.means == {"entropy": (0.625, 0.125, 2)}
    assert run[layer, 1].measures["counts"].values.tolist() == [[7, 8]]
    values, keys, rest = head.topk.numpy()
    assert (values.tolist(), keys.tolist(), rest.tolist()) == ([[0.75], [0.5]], [[1], [0]], [0.25, 0.5])
    if version == 2:
        assert run.sites[1].route == "registry" and run.fidelity is None
        assert run.samples[0].main.ids.tolist() == [0, 0]
    else:
        assert run.sites[0].route == "sdpa" and list(run.samples[0].sequences) == ["image"]
        assert run.fidelity is not None and run.fidelity["visual.0"].difference == 2**-10


def test_a_run_of_format_4_is_read(golden: Path) -> None:
    run = ap.open(golden)
    assert [sample.named for sample in run.samples] == [True, False, False]
    assert run.sample("a")[0, 3][1].tolist() == [0, 1, 0, 0]
    assert run.manifest.data == {"files": ["a.txt"], "column": "text"}
    assert run.fidelity is not None and run.fidelity["h.0.attn"].difference == 2**-20


@pytest.mark.parametrize("version", [FORMAT + 1, 99, 0, -1, "4", 4.0, True, None])
def test_another_format_is_refused(golden: Path, version: object) -> None:
    manifest = json.loads((golden / "manifest.json").read_text())
    (golden / "manifest.json").write_text(json.dumps({**manifest, "format": version}))
    with pytest.raises(StoreError, match=r"has format .*reads (up to 4|1 to 4)|has no format, so it is no manifest"):
        ap.open(golden)


def test_the_page_is_of_the_format_that_is_written() -> None:
    page = (DATA.parents[1] / "docs" / "format.md").read_text()
    assert page.startswith(f"# The run directory, format {FORMAT}\n")
    assert list(READABLE) == list(range(1, FORMAT + 1))
    assert f"formats 1 to {FORMAT}" in page.lower()
