"""Whatever lies in a run directory, only attnprobe's own errors come out of it, and nothing outside of it is read."""

import ast
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fuzzing import (
    DEEP,
    HEADER,
    MANIFEST,
    WHOLE,
    check_header,
    copy,
    dump,
    dump_journal,
    load_journal,
    parse_as_safetensors,
    read_everything,
    spoil,
    spoil_bytes,
    with_header,
    write_run,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_format import restore

import attnprobe as ap
from attnprobe.errors import AttnprobeError, CorruptRun, RunExists, SelectionError, StoreError
from attnprobe.fidelity import Fidelity
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.leftovers import find_leftovers
from attnprobe.store.listed import read_journal
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.shard_file import RAW, ShardFile

PACKAGE = Path(__file__).parents[1] / "attnprobe"
pytestmark = pytest.mark.usefixtures("unchecked")  # a type checker's errors are none of attnprobe's
DEPTHS = (50, 200, 900, 990, 100_000)


def fuzzed(examples: int) -> Callable[..., Any]:
    """A test of so many examples, which keeps its files from one to the next."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


def chooser(data: st.DataObject) -> Callable[[int], int]:
    return lambda count: data.draw(st.integers(0, count - 1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is as it should be."""
    return write_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(tmp_path: Path, whole: Path) -> Path:
    """The same, to spoil."""
    for file in whole.rglob("*.*"):
        to = tmp_path / "run" / file.relative_to(whole)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(file.read_bytes())
    return tmp_path / "run"


def only(run: Path, name: str) -> Path:
    (path,) = (run / name).iterdir()
    return path


# --- headers and shards -------------------------------------------------------------------------------------------


def test_a_header_is_taken() -> None:
    assert check_header(WHOLE) and check_header(with_header(dump(HEADER)))


@given(st.data())
@fuzzed(400)
def test_headers_whose_parts_are_changed(data: st.DataObject) -> None:
    header, choose = copy(HEADER), chooser(data)
    for _ in range(choose(2) + 1):
        spoil(header, choose)
    check_header(with_header(dump(header, DEPTHS[choose(len(DEPTHS))])))


@given(st.data())
@fuzzed(400)
def test_headers_whose_bytes_are_changed(data: st.DataObject) -> None:
    choose = chooser(data)
    check_header(spoil_bytes(WHOLE, choose))
    check_header(with_header(spoil_bytes(dump(HEADER), choose)))


@pytest.mark.parametrize(
    "text",
    [
        '{"a":{"dtype":"U8","shape":[0,2147483648,2147483648,2147483648],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[2147483648,2147483648,2147483648,0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[0.0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"more":1}}',
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        '{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"__metadata__":{"a":1}}',
        '{"__metadata__":null}',
        ' {"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F4","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"U8","shape":[0],"data_offsets":[18446744073709551616,18446744073709551616]}}',
        "[]",
        "{}x",
        "{" * 5000,
    ],
)
def test_headers_that_are_refused(text: str) -> None:
    assert not check_header(struct.pack("<Q", len(text)) + text.encode())


def test_a_header_is_no_longer_than_its_file_and_its_cap() -> None:
    for length in (0, 1, 3, 1 << 20, (16 << 20) + 1, 1 << 63, (1 << 64) - 1):
        assert not check_header(struct.pack("<Q", length) + b"{}")
    assert check_header(struct.pack("<Q", 2) + b"{}")


@given(st.data())
@fuzzed(150)
def test_shards_whose_bytes_are_changed(tmp_path: Path, data: st.DataObject) -> None:
    path, choose = tmp_path / "x.safetensors", chooser(data)
    path.write_bytes(spoil_bytes(WHOLE, choose) if choose(2) else WHOLE + bytes(choose(2)))
    size = path.stat().st_size
    try:
        file = ShardFile(path, size)
    except CorruptRun:
        return
    assert load_file(path).keys() == file.entries.keys()
    theirs = parse_as_safetensors(path.read_bytes())
    for name, entry in file.entries.items():
        if entry.dtype in RAW:
            assert file.whole(entry).tobytes() == theirs[name][2]


@pytest.mark.parametrize("change", [-1, 1, 1 << 40])
def test_a_shard_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(WHOLE)
    with pytest.raises(CorruptRun, match="and should have"):
        ShardFile(path, len(WHOLE) + change)


# --- journals, manifests, and what else is JSON -------------------------------------------------------------------


def test_a_whole_run_is_read_in_every_way(whole: Path) -> None:
    assert {type(error) for error in read_everything(whole)} == {ap.errors.NotKept}


@given(st.data())
@fuzzed(200)
def test_journals_whose_parts_are_changed(run: Path, whole: Path, data: st.DataObject) -> None:
    records, choose = load_journal(only(whole, "journal")), chooser(data)
    for _ in range(choose(2) + 1):
        spoil(records, choose)
    only(run, "journal").write_bytes(dump_journal(records, DEPTHS[choose(len(DEPTHS))]))
    read_everything(run)


@given(st.data())
@fuzzed(80)
def test_journals_whose_bytes_are_changed(run: Path, whole: Path, data: st.DataObject) -> None:
    choose = chooser(data)
    lines = only(whole, "journal").read_bytes().splitlines()
    if choose(2):  # a changed byte is noticed by the line's checksum
        changed = spoil_bytes(b"\n".join(lines) + b"\n", choose)
    else:  # unless this is changed too
        number = choose(len(lines))
        text = spoil_bytes(lines[number][9:], choose)
        lines[number] = b"%08x %s" % (zlib.crc32(text), text)
        changed = b"\n".join(lines) + b"\n"
    only(run, "journal").write_bytes(changed)
    read_everything(run)


@given(st.binary(max_size=200) | st.builds(lambda t: b"%08x %s\n" % (zlib.crc32(t), t), st.binary(max_size=50)))
@fuzzed(100)
def test_journals_of_any_bytes(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(junk * 2)
    try:
        assert read_journal(tmp_path / "x.jsonl").samples == []
    except CorruptRun as error:
        assert "x.jsonl" in str(error)


@given(st.data())
@fuzzed(80)
def test_manifests_whose_parts_are_changed(run: Path, whole: Path, data: st.DataObject) -> None:
    manifest, choose = json.loads((whole / "manifest.json").read_bytes()), chooser(data)
    for _ in range(choose(2) + 1):
        spoil(manifest, choose)
    (run / "manifest.json").write_bytes(dump(manifest, DEPTHS[choose(len(DEPTHS))]))
    read_everything(run)


@given(st.data())
@fuzzed(60)
def test_manifests_whose_bytes_are_changed(run: Path, whole: Path, data: st.DataObject) -> None:
    (run / "manifest.json").write_bytes(spoil_bytes((whole / "manifest.json").read_bytes(), chooser(data)))
    try:
        ap.open(run)
    except AttnprobeError as error:
        assert str(error)


@pytest.mark.parametrize("keys", ["::2", "1:9:3", "-1:", "5", "0,1", "0:" + "9" * 5000, "all,all", ""])
def test_kept_columns_that_are_no_one_range_are_refused(run: Path, keys: str) -> None:
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["keep"][0]["keys"] = keys
    (run / "manifest.json").write_bytes(dump(manifest))
    with pytest.raises(CorruptRun, match="keys of keep are"):
        ap.open(run)


@given(st.data())
@fuzzed(100)
def test_fidelity_whose_parts_are_changed(tmp_path: Path, data: st.DataObject) -> None:
    choose = chooser(data)
    found = {"a": {"dtype": "float32", "difference": 0.5, "row_sum": 0.0, "lost": 0.0, "reason": ""}}
    for _ in range(choose(2) + 1):
        spoil(found, choose)
    text = dump(found, DEPTHS[choose(len(DEPTHS))])
    (tmp_path / "fidelity.json").write_bytes(spoil_bytes(text, choose) if choose(4) == 0 else text)
    try:
        fidelity = Fidelity.load(tmp_path)
    except CorruptRun:
        return
    assert fidelity is not None and str(fidelity) and len(fidelity.off) <= len(fidelity)


def test_a_run_of_format_3_with_spoilt_fidelity_is_refused(tmp_path: Path) -> None:
    run = restore(3, tmp_path / "run")
    for text in (dump(DEEP), b"[]", b"{", b"\xff", b'{"a":{"dtype":1}}', b"0" * 5000):
        (run / "fidelity.json").write_bytes(text)
        with pytest.raises(CorruptRun, match=r"fidelity"):
            ap.open(run)
    (run / "fidelity.json").unlink()
    (run / "fidelity.json").mkdir()
    assert ap.open(run).fidelity is None


@given(st.data())
@fuzzed(60)
def test_tokens_whose_bytes_are_changed(run: Path, whole: Path, data: st.DataObject) -> None:
    shard, choose = only(whole, "shards").read_bytes(), chooser(data)
    strings = '["a", "Ġb"]'.encode()
    start = shard.index(strings)
    spoilt = spoil_bytes(strings, choose)[: len(strings)].ljust(len(strings))  # in its place
    only(run, "shards").write_bytes(shard[:start] + spoilt + shard[start + len(strings) :])
    sample = DirectoryReader(run).sample(0)
    try:
        assert all(isinstance(one, str) for one in sample.main.tokens or ())
    except CorruptRun as error:
        assert "which should hold tokens of 2 tokens" in str(error)


@pytest.mark.parametrize("depth", range(880, 1000, 10))
def test_what_is_deep_is_refused(run: Path, whole: Path, depth: int) -> None:
    """Python reads JSON almost as deep as it can print it: between them there must be no gap."""
    for key in ("heads", "axes", "what", "dtype", "site", "blocks"):
        records = load_journal(only(whole, "journal"))
        records[1]["samples"][0]["fields"][0][key] = DEEP
        only(run, "journal").write_bytes(dump_journal(records, depth))
        with pytest.raises(CorruptRun):
            DirectoryReader(run).fields(0)
    manifest = json.loads((whole / "manifest.json").read_bytes())
    for key in ("model", "versions"):
        (run / "manifest.json").write_bytes(dump({**manifest, key: {"x": DEEP}}, depth))
        with pytest.raises(CorruptRun):
            ap.open(run)


def test_sites_that_differ_in_axes_are_no_one_array(run: Path, whole: Path) -> None:
    for what, change in (("entropy", {"axes": ["key"]}), ("distances", {"axes": ["bucket"]})):
        records = load_journal(only(whole, "journal"))
        for field in records[1]["samples"][0]["fields"]:
            if (field["site"], field["what"]) == ("h.1", what):
                field.update(change)
        only(run, "journal").write_bytes(dump_journal(records))
        sample = ap.open(run).sample(0)
        with pytest.raises(
            SelectionError, match=rf"sites have {what} on other axes, or of other lengths, than layer 0"
        ):
            sample.measures[what]
        assert sample["h.1", 0].measures[what].values.size


# --- paths --------------------------------------------------------------------------------------------------------

NAMES = (
    "../x.safetensors",
    "/etc/x.safetensors",
    "a/../../x.safetensors",
    "..",
    ".",
    "",
    ".x.safetensors",
    "x.safetensors\0",
    "x\0.safetensors",
    "x.safetensors\n",
    "x" * 300 + ".safetensors",
    "é.safetensors",
    "\ud800.safetensors",
    "a\\b.safetensors",
    "x.safetensors/",
    "-x.safetensors",
)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_bare_names_are_refused(run: Path, whole: Path, name: str) -> None:
    for place in ("shards", "dropped"):
        records = load_journal(only(whole, "journal"))
        if place == "shards":
            records[1]["shards"][0]["file"] = name
        else:
            records[-1]["dropped"] = [name]
        only(run, "journal").write_bytes(dump_journal(records))
        with pytest.raises(CorruptRun, match="which is no name of a shard"):
            ap.open(run)
    for part in ("fields", "sequences"):
        records = load_journal(only(whole, "journal"))
        sample = records[1]["samples"][0]
        place = sample["fields"][0]["blocks"][0] if part == "fields" else sample["sequences"]["main"]["ids"]
        place["file"] = name
        only(run, "journal").write_bytes(dump_journal(records))
        with pytest.raises(CorruptRun, match="which the journal does not list"):
            DirectoryReader(run).sample(0)


@pytest.mark.parametrize("tensor", ["../../manifest.json", "/etc/passwd", "\0", "\ud800", "", "x" * 10_000])
def test_names_of_tensors_are_no_paths(run: Path, whole: Path, tensor: str) -> None:
    records = load_journal(only(whole, "journal"))
    records[1]["samples"][0]["fields"][0]["blocks"][0]["tensor"] = tensor
    only(run, "journal").write_bytes(dump_journal(records))
    with pytest.raises(CorruptRun, match="has no tensor"):
        ap.open(run).sample(0)["h.0", 0].numpy()


def place_of(run: Path, name: str) -> Path:
    return only(run, name.removeprefix("a ")) if name.startswith("a ") else run / name


EVERY_PLACE = ("manifest.json", "journal", "shards", "a journal", "a shards")


@pytest.mark.parametrize("name", EVERY_PLACE)
def test_links_are_not_followed_though_they_lead_to_the_very_thing(run: Path, tmp_path: Path, name: str) -> None:
    path = place_of(run, name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptRun, match="is a link|is listed and not there"):
        ap.open(run)
    with pytest.raises(StoreError):
        DirectoryWriter(run, MANIFEST, resume=True)
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["pipe", "directory", "nothing"])
@pytest.mark.parametrize("name", EVERY_PLACE)
def test_other_things_in_place_of_files_are_refused_at_once(run: Path, tmp_path: Path, name: str, kind: str) -> None:
    path = place_of(run, name)
    path.rename(tmp_path / "elsewhere")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    started = time.monotonic()
    if (name == "a journal" and kind == "nothing") or (name == "journal" and kind == "directory"):
        assert len(ap.open(run)) == 0  # nothing is listed
    else:
        with pytest.raises(StoreError):
            ap.open(run)
    assert time.monotonic() - started < 20


def test_what_a_linked_directory_holds_is_not_cleared(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    victim = tmp_path / "mine" / "0123abcd-00000.safetensors"
    victim.write_bytes(b"mine")
    (run / "shards").rename(tmp_path / "shards")
    (run / "shards").symlink_to(tmp_path / "mine")
    with pytest.raises(CorruptRun, match="is a link"):
        find_leftovers(run, everywhere=True)
    with pytest.raises((CorruptRun, RunExists)):
        DirectoryWriter(run, MANIFEST, resume=True)
    assert victim.read_bytes() == b"mine"


# --- memory -------------------------------------------------------------------------------------------------------


def peak(read: Callable[[], Any]) -> int:
    """Bytes that Python and numpy take at most while something is read."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def block_of(
    shape: list[int], rows: list[list[int]] | None = None, heads: list[list[int]] | None = None
) -> dict[str, Any]:
    return {"shape": shape, "rows": rows or [[0, shape[1], 1]], "heads": heads or [[0, shape[0], 1]]}


HUGE = 1 << 24
HOSTILE_BLOCKS: dict[str, tuple[dict[str, Any], int]] = {  # what a block says, and how often it is there
    "a shape of exbibytes": (block_of([1, 1 << 30, 1 << 30]), 1),
    "a shape as large as is read": (block_of([1, HUGE, HUGE]), 1),
    "a run of rows": (block_of([1, 1 << 39, 0], [[0, 1 << 39, 1]]), 1),
    "runs of rows without columns": (block_of([1, 60_000, 0], [[0, 30_000, 1], [30_001, 60_001, 1]]), 100),
    "runs of heads without columns": (block_of([60_000, 0, 0], [], [[0, 30_000, 1], [30_001, 60_001, 1]]), 100),
    "other runs of heads than the field's": (block_of([60_000, 0, 0], [], [[0, 60_000, 1], [60_000, 60_000, 1]]), 100),
    "a gap between rows": (block_of([1, 2, 0], [[0, 1, 1], [HUGE - 1, HUGE, 1]]), 1),
    "a step": (block_of([1, 2, 0], [[0, HUGE, HUGE - 1]]), 1),
}


@pytest.mark.parametrize("name", HOSTILE_BLOCKS)
def test_no_more_is_taken_than_a_run_is_large(run: Path, whole: Path, name: str) -> None:
    """Sizes that a run merely claims are refused before anything of that size is made."""
    change, times = HOSTILE_BLOCKS[name]
    records = load_journal(only(whole, "journal"))
    sample = records[1]["samples"][0]
    sample["sequences"] = {"main": {"length": HUGE}, "s": {"length": HUGE}}
    sample["fields"] = sample["fields"][:1]
    (field,) = sample["fields"]
    field["blocks"] = [{**field["blocks"][0], **change}] * times
    field["heads"] = [[0, 60_001, 1]] if "other" in name else change["heads"]
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["sites"][0]["heads"] = 60_001
    (run / "manifest.json").write_bytes(dump(manifest))
    only(run, "journal").write_bytes(dump_journal(records))
    size = sum(file.stat().st_size for file in run.rglob("*.*"))

    def read() -> None:
        reader = DirectoryReader(run)
        try:
            assert reader.nbytes <= size
            reader.fields(0)
        except CorruptRun as error:
            assert "makes no sense" in str(error)

    assert peak(read) < 30 * size + (16 << 20)  # the heads that a site may have are held once


@pytest.mark.parametrize(("layer", "heads"), [((1 << 16) + 1, 2), (0, 1 << 17), (1 << 16, 1 << 16), (1 << 10, 1 << 11)])
def test_models_of_more_heads_than_there_can_be_are_refused(run: Path, layer: int, heads: int) -> None:
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["sites"][0]["layer"], manifest["sites"][1]["heads"] = layer, heads
    (run / "manifest.json").write_bytes(dump(manifest))
    with pytest.raises(CorruptRun, match="is not a manifest"):
        ap.open(run)


@pytest.mark.parametrize("count", [1000])
def test_a_header_of_many_small_parts_takes_a_small_multiple_of_its_size(count: int) -> None:
    for part in ("[]", "{}", '{"a":[]}', "[" * 20 + "]" * 20, '"a"', "0"):
        text = ("{" + ",".join(f'"{number}":{part}' for number in range(count)) + "}").encode()
        file = struct.pack("<Q", len(text)) + text
        assert peak(lambda file=file: check_header(file)) < 60 * len(file) + (1 << 16)


LIMITED = """
import resource, sys
sys.path[:0] = {paths!r}
import attnprobe as ap
from attnprobe.errors import AttnprobeError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
run = ap.open({run!r})
for read in (lambda: run[0, 0].numpy(), lambda: run[0, 0][:, :100], lambda: run.sample(0).layer_array(0)):
    try:
        read()
    except AttnprobeError as error:
        print(type(error).__name__)
"""


@pytest.mark.slow
def test_a_map_that_does_not_fit_in_memory_is_an_error_of_attnprobe(run: Path, whole: Path) -> None:
    """A row of zeros takes no bytes in a run, and in memory it does."""
    records = load_journal(only(whole, "journal"))
    records[1]["samples"] = records[1]["samples"][:1]
    sample = records[1]["samples"][0]
    sample["sequences"] = {"main": {"length": 60_000}, "s": {"length": 60_000}}
    sample["fields"] = sample["fields"][:1]
    (field,) = sample["fields"]
    field["blocks"] = [{**field["blocks"][0], **block_of([2, 60_000, 0])}]
    only(run, "journal").write_bytes(dump_journal(records))
    paths = [str(Path(__file__).parent), str(PACKAGE.parent)]
    code = LIMITED.format(paths=paths, run=str(run))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["BudgetError", "BudgetError"]  # 6 million zeros are there


# --- nothing that is read is run ----------------------------------------------------------------------------------

RUNNERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
# A model on its way from a process to the one that it starts to measure memory: nobody else's file.
HANDED_ON = "bench/memory.py"
LOADERS = {"torch.load", "torch.jit.load", "torch.package", "np.load", "numpy.load", "pd.read_pickle"}


def test_nothing_in_the_package_runs_what_it_reads() -> None:
    found = []
    files = sorted(PACKAGE.rglob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                wrong = called in CALLS or called in LOADERS or called.endswith((".to_pickle", ".read_pickle"))
                wrong |= any(word.arg == "allow_pickle" for word in node.keywords)
                wrong &= not (called == "torch.load" and str(file.relative_to(PACKAGE)) == HANDED_ON)
                found += [f"{file.name}:{node.lineno}: {called}"] * wrong
            found += [f"{file.name}: {name}" for name in names if name.split(".")[0] in RUNNERS or name in LOADERS]
    assert len(files) > 50 and found == []


# --- fuzzing by coverage ------------------------------------------------------------------------------------------


@pytest.mark.atheris
@pytest.mark.slow
@pytest.mark.parametrize("target", ["header", "journal", "manifest"])
def test_a_fuzzer_that_follows_coverage_finds_nothing(target: str, tmp_path: Path) -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris is not installed; it has wheels for some versions of Python only")
    command = [
        sys.executable,
        str(Path(__file__).parent / "fuzz_targets.py"),
        target,
        "-max_total_time=10",
        "-rss_limit_mb=0",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
