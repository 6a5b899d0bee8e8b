"""Answers of the explorer: every question, against the definition on whole maps, of all kinds of runs, and refusals."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attnprobe as ap
from attnprobe import demo
from attnprobe import levels as levels_module
from attnprobe.codes import as_float32, decode, encode
from attnprobe.explorer import cells, mass, numbers, opened, scores, thumbnails
from attnprobe.explorer.answers import QUESTIONS, Answers
from attnprobe.explorer.frames import Answer, bfloat16
from attnprobe.explorer.pieces import pieces_of
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.pyramid import PATCH
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore
from tests.models import cross_gpt2, gpt2, ids
from tests.planted import NASTY, planted_run

ULP = 2.0**-8  # what rounding to bfloat16 may cost, of a value
DTYPES = ("float32", "float16", "bfloat16", "log-uint8")
T, S = 70, 40
NAMES = {"float32": "<f4", "bfloat16": "<u2"}


def parse(frame: bytes) -> tuple[dict[str, Any], np.ndarray | None]:
    """As the contract has it: a little-endian uint32, JSON, numbers."""
    (length,) = struct.unpack("<I", frame[:4])
    assert (4 + length) % 8 == 0
    head, data = json.loads(frame[4 : 4 + length]), frame[4 + length :]
    return head, np.frombuffer(data, NAMES[head["dtype"]]).reshape(head["shape"]) if data else None


def ask(answers: Answers, question: str, **params: Any) -> tuple[dict[str, Any], Any]:
    head, values = parse(answers.ask(question, {name: str(value) for name, value in params.items()}))
    assert "error" not in head, head["error"]
    return head, values


def refused(answers: Answers, question: str, params: Any) -> str:
    head, values = parse(answers.ask(question, params))
    assert set(head) == {"error"} and values is None
    return str(head["error"])


def of(run: Any, question: str, **params: Any) -> tuple[dict[str, Any], Any]:
    return ask(run if isinstance(run, Answers) else Answers.of([run]), question, run=0, sample=0, **params)


def floats(bits: np.ndarray) -> np.ndarray:
    assert bits.dtype == np.uint16
    return (bits.astype(np.uint32) << 16).view(np.float32)


def close(found: np.ndarray, wanted: np.ndarray, relative: float = ULP) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    there = ~np.isnan(wanted)
    assert (np.abs(found[there] - wanted[there]) <= relative * np.abs(wanted[there]) + 1e-30).all()


def pooled(weights: np.ndarray, tall: int, wide: int, how: str) -> np.ndarray:
    """The definition: NaN is what was not kept; a mean is over kept rows and all columns of a cell."""
    padding = [(0, -length % size) for length, size in zip(weights.shape, (tall, wide), strict=True)]
    wide_map = np.pad(weights, padding, constant_values=np.nan)
    grid = wide_map.reshape(len(wide_map) // tall, tall, -1, wide)
    there = ~np.isnan(grid)
    nothing = ~there.any((1, 3))
    largest = np.where(there, grid, -np.inf).max((1, 3))
    rows = np.maximum(there.any(3).sum(1), 1)
    means = np.where(there, grid, 0).sum((1, 3)) / (rows * wide)
    return np.where(nothing, np.nan, largest if how == "max" else means)


# --- runs of all kinds ---------------------------------------------------------------------------------------------


@dataclass
class Made:
    """A run, and its maps as they are stored, NaN where nothing was kept."""

    run: ap.Run
    answers: Answers
    maps: dict[tuple[str, int], np.ndarray]


SITES = (
    Site("h.0.attn", "self", "decoder", 0, 3, 3),
    Site("h.0.cross", "cross", "decoder", 0, 3, 3, "main", "source"),
    Site("enc.0", "self", "encoder", 0, 3, 3, "source", "source"),
    Site("h.1.attn", "self", "decoder", 1, 3, 3),
)
ROWS = (1, 4, 5, *range(33, 60), 69)  # of layer 1, of heads 0 and 2, over 50 columns


def soft(heads: int, queries: int, keys: int, seed: int, causal: bool) -> torch.Tensor:
    logits = 4 * torch.randn(heads, queries, keys, generator=torch.Generator().manual_seed(seed))
    if causal:
        logits = logits.masked_fill(~torch.ones(queries, keys, dtype=torch.bool).tril(), -torch.inf)
    return logits.softmax(-1)


def make(store: Any, dtype: str, text: bool = True) -> dict[tuple[str, int], np.ndarray]:
    """Sites of all kinds, in blocks that grow like those of generated rows."""
    maps: dict[tuple[str, int], np.ndarray] = {}
    for number, site in enumerate(SITES):
        queries, keys = ((S if name == "source" else T) for name in (site.queries, site.keys))
        partial = site.layer == 1
        values = soft(3, queries, keys, number, causal=site.kind == "self" and site.part == "decoder")
        stored = encode(values, dtype).contiguous()
        heads = (0, 2) if partial else (0, 1, 2)
        stop = 50 if partial else keys
        raw = stored.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else stored.numpy()
        known = decode(raw, dtype).astype(np.float64)
        field = Field(0, site, int(partial), heads, dtype)
        rows = ROWS if partial else tuple(range(queries))
        blocks = [rows] if partial else [rows[:33], rows[33:34], rows[34:]]
        for part in blocks:
            width = min(stop, part[-1] + 1 if site.part == "decoder" and site.kind == "self" else keys)
            block = stored[list(heads)][:, list(part), :width].contiguous()
            at = part if partial else range(part[0], part[-1] + 1)
            store.write(field, Block(heads, at, 0, block))
        for head in heads:
            whole = np.full((queries, keys), np.nan)
            whole[list(rows), :stop] = known[head][list(rows), :stop]
            maps[site.key, head] = whole
    tokens = tuple("\x1b\n" if i == 3 else "x" * 500 if i == 4 else f"Ġ{i}" for i in range(T)) if text else None
    main = TokenSequence(T, np.arange(T) % 9, tokens, tokens)
    store.commit(Sample(0, "first", {"main": main, "source": TokenSequence(S)}, 60))
    store.close()
    return maps


def manifest(dtype: str, text: bool = True) -> Manifest:
    keep = ({"what": "weights", "dtype": dtype, "keys": "all"}, {"what": "weights", "dtype": dtype, "keys": ":50"})
    return Manifest({"class": "Tiny"}, SITES, keep, {}, "2025-01-01T00:00:00+00:00", text=text)


@pytest.fixture(
    scope="module", params=[*(("directory", dtype) for dtype in DTYPES), ("memory", "bfloat16")], ids="-".join
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    where, dtype = request.param
    path = tmp_path_factory.mktemp("runs") / "run"
    store: Any = MemoryStore(manifest(dtype)) if where == "memory" else DirectoryWriter(path, manifest(dtype))
    maps = make(store, dtype)
    run = ap.Run(store) if where == "memory" else ap.open(path)
    return Made(run, Answers.of([run if where == "memory" else path]), maps)


@pytest.fixture(scope="module", params=["memory", "directory"])
def demo_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    """A real model: weights, the largest of each row, and measures of 300 tokens."""
    model, tokenizer = demo.load()
    to = None if request.param == "memory" else tmp_path_factory.mktemp("runs") / "demo"
    tokens = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=300)
    keep = [ap.Weights(dtype="float16"), ap.TopK(k=4), ap.Measures(names=["default", "argmax"])]
    with ap.record(model, tokenizer, to=to, keep=keep) as recorder:
        model(**tokens)
    return recorder.run


def long_map(path: Path, dtype: str = "float16", pyramid: bool = True) -> tuple[ap.Run, np.ndarray]:
    """Two heads of 1,300 tokens, of which the second half of the last rows was not kept; levels 2 and 3 are kept."""
    site = Site("h.0", "self", "decoder", 0, 2, 2)
    keep = ({"what": "weights", "dtype": dtype, "keys": "all", "pyramid": pyramid},)
    writer = DirectoryWriter(path, Manifest({"class": "Long"}, [site], keep, {}, "2025-01-01T00:00:00+00:00"))
    weights = soft(2, 1300, 1300, 5, causal=True)
    rows = [range(0, 130), range(130, 700), range(700, 1000, 2), range(1000, 1300)]
    stored = encode(weights, dtype)
    whole = np.full(weights.shape, np.nan)
    for part in rows:
        block = stored[:, list(part), : part[-1] + 1].contiguous()
        writer.write(Field(0, site, 0, (0, 1), dtype), Block((0, 1), part, 0, block))
        whole[:, list(part)] = stored.float().numpy()[:, list(part)]
    writer.commit(Sample(0, "0", {"main": TokenSequence(1300)}, 1300))
    writer.close()
    return ap.open(path), whole


# --- facts ---------------------------------------------------------------------------------------------------------


def test_runs_are_listed(made: Made, demo_run: ap.Run) -> None:
    head, values = ask(Answers.of([made.run, demo_run]), "runs")
    assert values is None and head["version"] == ap.__version__
    first, second = head["runs"]
    path = made.run.path
    assert first["name"] == ("in memory" if path is None else path.name) and first["path"] == (path and str(path))
    assert (first["samples"], first["model"], first["dtype"]) == (1, "Tiny", made.run["h.0.attn", 0].dtype)
    assert (second["model"], second["dtype"], second["text"]) == ("demo", "float16", True)
    assert ask(Answers.of([]), "runs")[0]["runs"] == []


def test_a_sample_has_its_sites(made: Made) -> None:
    head, _ = of(made.answers, "sample")
    assert (head["id"], head["prompt"], head["sequences"]) == ("first", 60, {"main": T, "source": S})
    found = {site["key"]: site for site in head["sites"]}
    assert list(found) == [site.key for site in SITES]
    assert found["h.0.cross"]["rows"] == T and found["h.0.cross"]["columns"] == S
    assert (found["enc.0"]["queries"], found["enc.0"]["part"]) == ("source", "encoder")
    assert found["h.1.attn"]["heads"] == found["h.1.attn"]["weights"] == [0, 2]
    assert len({site["label"] for site in head["sites"]}) == 4
    assert head["measures"] == []


def test_samples_are_listed_in_part(tmp_path: Path) -> None:
    store = MemoryStore(manifest("float32"))
    site = SITES[0]
    for index, length in enumerate((3, 5, 4)):
        store.write(Field(index, site, 0, (0,)), Block((0,), range(length), 0, torch.rand(1, length, length)))
        store.commit(Sample(index, f"s{index}", {"main": TokenSequence(length)}, length - 1))
    answers = Answers.of([ap.Run(store)])
    head, _ = ask(answers, "samples", run=0, start=1, stop=9)
    assert head["samples"] == [{"id": "s1", "tokens": 5, "prompt": 4}, {"id": "s2", "tokens": 4, "prompt": 3}]
    assert ask(answers, "samples", run=0, start=7, stop=9)[0]["samples"] == []
    assert "at most 4,096" in refused(answers, "samples", {"run": 0, "start": 0, "stop": 4097})
    assert "at most 4,096" in refused(answers, "samples", {"run": 0, "start": 2, "stop": 1})
    assert "no sample 3" in refused(answers, "sample", {"run": 0, "sample": 3})
    assert ask(answers, "sample", run=0, sample=1)[0]["id"] == "s1"


def test_tokens_are_on_one_line_and_not_long(made: Made) -> None:
    head, _ = of(made.answers, "tokens", sequence="main", start=2, stop=6)
    assert head["tokens"] == ["Ġ2", "\\x1b\\n", "x" * 200 + "…", "Ġ5"] == head["texts"]
    head, _ = of(made.answers, "tokens", sequence="source", start=38, stop=256)
    assert head == {"tokens": ["38", "39"], "texts": None}
    params = {"run": 0, "sample": 0, "sequence": "../main", "start": 0, "stop": 4}
    assert "no sequence '../main'; there are main, source" in refused(made.answers, "tokens", params)


def test_tokens_without_text_tell_which_come_again() -> None:
    store = MemoryStore(manifest("float32", text=False))
    make(store, "float32", text=False)
    run = ap.Run(store)
    head, _ = of(run, "tokens", sequence="main", start=7, stop=11)
    assert head["tokens"] == ["~7", "~8", "~0", "~1"] == list(run.sample(0).tokens[7:11])
    assert ask(Answers.of([run]), "runs")[0]["runs"][0]["text"] is False


def test_texts_of_tokens_are_the_text(tmp_path: Path) -> None:
    """Whichever way the tokens were cut into blocks, and whatever characters are made of several tokens."""
    text = "emoji 🙂 naïve 中文 👩\u200d🚀 \x1b[0m\na\tb"
    model, tokenizer = demo.load()
    with ap.record(model, tokenizer, to=tmp_path / "run") as recorder:
        model(**tokenizer(text, return_tensors="pt"))
    run = recorder.run
    assert max(map(ord, "".join(run.samples[0].main.texts))) == 0xFFFD, "parts of characters alone are broken"
    length = run.samples[0].main.length
    whole, _ = of(run, "tokens", sequence="main", start=0, stop=length)
    assert "".join(whole["texts"]) == text.replace("\u200d", "\\u200d").replace("\x1b", "\\x1b").replace(
        "\n", "\\n"
    ).replace("\t", "\\t")
    at = whole["texts"].index("🙂")
    assert whole["texts"][at - 1] == "" and whole["tokens"][at - 1] not in ("", "🙂")
    assert len(whole["texts"]) == length == len(whole["tokens"])
    parts = [of(run, "tokens", sequence="main", start=i, stop=i + 1)[0]["texts"] for i in range(length)]
    assert parts == [[text] for text in whole["texts"]]


@pytest.mark.parametrize(
    ("tokens", "texts", "pieces"),
    [
        (("▁Hello", "▁wor", "ld", "▁"), ("Hello", "wor", "ld", ""), (" Hello", " wor", "ld", " ")),
        (("▁a", "<0xC3>", "<0xA9>", "<0x21>"), ("a", "\ufffd", "\ufffd", "!"), (" a", "", "é", "!")),
        (("Ġð", "ŁĻ", "x"), (" \ufffd", "\ufffd", "x"), (" ", "\ufffd", "x")),  # never finished
        (("Ã", "中", "©"), ("\ufffd", "\ufffd", "\ufffd"), ("\ufffd", "\ufffd", "\ufffd")),  # one tells no bytes
        (("a", "", "b"), ("a", "", "b"), ("a", "[1]", "b")),
        (None, ("a", "\ufffd"), ("a", "\ufffd")),
        (("a",), None, None),
        ((), (), ()),
    ],
)
def test_pieces_make_up_the_text(tokens: Any, texts: Any, pieces: Any) -> None:
    length = len(tokens if texts is None else texts)
    assert pieces_of(TokenSequence(length, None, tokens, texts)) == pieces


def test_half_of_a_surrogate_pair_is_sent() -> None:
    assert parse(Answer({"tokens": ["\ud800", "é"]}).frame())[0]["tokens"] == ["\ud800", "é"]


# --- weights -------------------------------------------------------------------------------------------------------


def test_rows_columns_and_boxes_are_exact(made: Made) -> None:
    for (site, number), whole in made.maps.items():
        kept = np.flatnonzero(~np.isnan(whole[:, 0]))
        columns = int((~np.isnan(whole[kept[0]])).sum())
        for query in (int(kept[0]), int(kept[len(kept) // 2]), int(kept[-1])):
            head, values = of(made.answers, "row", site=site, head=number, query=query)
            assert head["start"] == 0
            np.testing.assert_array_equal(values, whole[query, :columns].astype(np.float32))
        head, values = of(made.answers, "column", site=site, head=number, key=7)
        assert [row for start, stop in head["rows"] for row in range(start, stop)] == kept.tolist()
        np.testing.assert_array_equal(values, whole[kept, 7].astype(np.float32))
        box = {"top": 3, "bottom": 40, "left": 5, "right": whole.shape[1]}
        _, values = of(made.answers, "weights", site=site, head=number, **box)
        np.testing.assert_array_equal(values, whole[3:40, 5:].astype(np.float32))


def test_what_was_not_kept_is_said(made: Made) -> None:
    place = {"run": 0, "sample": 0, "site": "h.1.attn"}
    assert "kept are rows 1, 4 to 5" in refused(made.answers, "row", {**place, "head": 0, "query": 0})
    assert "kept are columns 0 to 49" in refused(made.answers, "column", {**place, "head": 0, "key": 60})
    assert "kept are heads 0, 2" in refused(made.answers, "row", {**place, "head": 1, "query": 1})
    assert "no query 70" in refused(made.answers, "row", {**place, "head": 0, "query": T})
    assert "no key 70" in refused(made.answers, "column", {**place, "head": 0, "key": T})


@pytest.mark.parametrize("how", ["max", "mean"])
def test_patches_are_the_map_pooled(made: Made, how: str) -> None:
    for (site, number), whole in made.maps.items():
        for level in (0, 1, 2, 5, 10):
            place = {"site": site, "head": number, "level": level, "down": 0, "across": 0}
            _, values = of(made.answers, "patch", how=how, **place)
            close(floats(values), pooled(whole, 1 << level, 1 << level, how))


@pytest.mark.parametrize(("pyramid", "at_once"), [(True, 1 << 20), (False, 1 << 20), (False, 20_000)])
def test_patches_of_a_long_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyramid: bool, at_once: int) -> None:
    monkeypatch.setattr(levels_module, "AT_ONCE", at_once)
    run, whole = long_map(tmp_path / "run", pyramid=pyramid)
    answers = Answers.of([run])
    levels = [2, 3] if pyramid else []
    assert of(answers, "head", site="h.0", head=1)[0]["levels"] == {"max": levels, "mean": levels}
    for how in ("max", "mean"):
        for level in (0, 1, 2, 3, 4, 6):
            wanted = pooled(whole[1], 1 << level, 1 << level, how)
            for down, across in ((0, 0), (len(wanted) // PATCH, 0), (1, 1)):
                if max(down, across) * PATCH >= len(wanted):
                    continue
                place = {"site": "h.0", "head": 1, "level": level, "down": down, "across": across}
                _, values = of(answers, "patch", how=how, **place)
                part = wanted[down * PATCH : (down + 1) * PATCH, across * PATCH : (across + 1) * PATCH]
                close(floats(values), part, 2 * ULP if level > 3 and pyramid else ULP)  # of rounded ones


def test_a_level_above_those_that_are_kept_is_made_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = long_map(tmp_path / "run")
    read: list[str] = []
    values = type(run.reader).values
    monkeypatch.setattr(
        type(run.reader), "values", lambda self, field, *rest: (read.append(field.what), values(self, field, *rest))[1]
    )
    of(run, "patch", site="h.0", head=0, level=7, down=0, across=0, how="max")
    assert set(read) == {"pyramid_max(3)"}


def test_strips_are_the_largest_of_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprobe.explorer import pictures

    monkeypatch.setattr(pictures, "AT_ONCE", 300 * PATCH)
    run, whole = long_map(tmp_path / "run", "float32")
    for how, level, down in (
        ("max", 0, 2),
        ("max", 0, 5),
        ("mean", 1, 0),
        ("max", 2, 1),
        ("mean", 3, 0),
        ("max", 5, 0),
    ):
        cells_ = pooled(whole[0], 1 << level, 1 << level, how)[down * PATCH : (down + 1) * PATCH]
        for skip in (0, 1):
            place = {"site": "h.0", "head": 0, "level": level, "down": down, "how": how, "skip": skip}
            _, values = of(run, "strip", **place)
            close(values, np.fmax.reduce(cells_[:, skip:], axis=1), 2 * ULP)
    assert "skip is 2" in refused(Answers.of([run]), "strip", {"run": 0, "sample": 0, **place, "skip": 2})


def test_a_patch_that_is_not_there_is_refused(made: Made) -> None:
    place = {"run": 0, "sample": 0, "site": "h.0.attn", "head": 0, "how": "max"}
    assert "no patch 1, 0" in refused(made.answers, "patch", {**place, "level": 0, "down": 1, "across": 0})
    assert "no patch 0, 1099511627776" in refused(
        made.answers, "patch", {**place, "level": 0, "down": 0, "across": 1 << 40}
    )
    assert "no level 11: there are 0 to 10" in refused(
        made.answers, "patch", {**place, "level": 11, "down": 0, "across": 0}
    )
    assert "no level" in refused(made.answers, "strip", {**place, "level": 11, "down": 0, "skip": 0})


# --- numbers as bits -----------------------------------------------------------------------------------------------


def test_bits_are_those_of_the_nearest_bfloat16() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate(
        [random.integers(0, 0x7F80_0000, 100_000, np.uint32).view(np.float32), np.array([0, 1, 0.5, np.inf], "f4")]
    )
    ties = (np.arange(0x0080, 0x7F00, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    for given in (values, ties, -values):
        wanted = torch.from_numpy(given.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16).copy()
        wanted[given == 0] = 0
        normal = np.abs(given) >= 2.0**-126
        np.testing.assert_array_equal(bfloat16(given)[normal], wanted[normal])


def test_zero_stays_zero_and_nothing_else_becomes_it() -> None:
    bits = bfloat16(np.array([0.0, -0.0, 1e-45, 4e-41, 1e-38, np.nan, -np.nan], np.float32))
    assert bits[:2].tolist() == [0, 0] and (bits[2:5] > 0).all() and np.isnan(floats(bits[5:])).all()
    assert (np.diff(bits[1:5].astype(int)) >= 0).all()


def test_half_precision_is_read_exactly() -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(as_float32(every), every.astype(np.float32))
    odd = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)  # below zero, infinite, NaN
    np.testing.assert_array_equal(as_float32(odd), odd.astype(np.float32))
    torch.set_flush_denormal(True)
    try:
        np.testing.assert_array_equal(as_float32(every).view(np.uint32), every.astype(np.float32).view(np.uint32))
    finally:
        torch.set_flush_denormal(False)


# --- thumbnails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["max", "mean"])
def test_thumbnails_of_short_maps_are_made_of_weights(made: Made, how: str) -> None:
    for site in SITES:
        head, values = of(made.answers, "thumbnails", site=site.key, how=how)
        assert head["heads"] == [0, 2] if site.layer else [0, 1, 2]
        tall, wide = (1 if name == "source" else 2 for name in (site.queries, site.keys))
        assert head["covers"] == [tall, wide] and head["size"] == head["shape"][1:]
        for number, picture in zip(head["heads"], floats(values), strict=True):
            close(picture, pooled(made.maps[site.key, number], tall, wide, how))


@pytest.mark.parametrize("how", ["max", "mean"])
def test_thumbnails_of_long_maps_are_made_of_levels(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, whole = long_map(tmp_path / "run")
    monkeypatch.setattr(thumbnails, "AT_ONCE", 5000)
    head, values = of(run, "thumbnails", site="h.0", how=how)
    assert (head["heads"], head["covers"], head["shape"]) == ([0, 1], [32, 32], [2, 41, 41])
    for number in range(2):
        close(floats(values)[number], pooled(whole[number], 32, 32, how), 2 * ULP)


def test_a_few_queries_of_many_keys_are_seen_apart(tmp_path: Path) -> None:
    site = Site("x", "cross", "decoder", 0, 1, 1, "main", "source")
    keep = ({"what": "weights", "dtype": "float32", "keys": "all", "pyramid": True},)
    writer = DirectoryWriter(tmp_path / "run", Manifest({}, [site], keep, {}, "2025-01-01T00:00:00+00:00"))
    values = soft(1, 20, 3000, 3, causal=False)
    writer.write(Field(0, site, 0, (0,)), Block((0,), range(20), 0, values))
    writer.commit(Sample(0, "0", {"main": TokenSequence(20), "source": TokenSequence(3000)}, 20))
    writer.close()
    head, found = of(ap.open(tmp_path / "run"), "thumbnails", site="x", how="max")
    assert head["covers"] == [1, 64]
    close(floats(found)[0], pooled(values[0].double().numpy(), 1, 64, "max"))


def test_thumbnails_without_weights_are_made_of_pooled_maps_or_empty() -> None:
    model, tokenizer = demo.load()
    tokens = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=300)
    keep = [ap.Measures("0", names=["pooled"]), ap.TopK("1", k=4), ap.Measures("2", names=["entropy"])]
    with ap.record(model, tokenizer, keep=keep) as recorder, ap.record(model, tokenizer) as beside:
        model(**tokens)
    answers, whole = Answers.of([recorder.run]), beside.run
    sites = [site["key"] for site in of(answers, "sample")[0]["sites"]]
    for how in ("max", "mean"):
        head, values = of(answers, "thumbnails", site=sites[0], how=how)
        assert head["covers"] == [8, 8]
        for number in head["heads"]:  # float16 has kept them
            wanted = pooled(whole[0, number].numpy().astype(float), 8, 8, how)
            assert np.abs(floats(values)[number] - wanted).max() < 4e-3
        for site in sites[1:3]:
            head, values = of(answers, "thumbnails", site=site, how=how)
            assert values.shape == (8, 38, 38) and np.isnan(floats(values)).all()
    head, _ = of(answers, "head", site=sites[1], head=3)
    assert (head["dtype"], head["rows"], head["sampled"], head["limits"]["max"]) == ("", [], 0, None)
    error = refused(answers, "row", {"run": 0, "sample": 0, "site": sites[1], "head": 3, "query": 5})
    assert "were not kept; kept are the 4 largest weights of each row" in error


def test_thumbnails_of_what_would_take_too_long_are_empty(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "QUICK", 60)
    monkeypatch.setattr(thumbnails, "WEIGHTS", 3 * T * S)
    answers = Answers.of([made.run])
    assert np.isnan(floats(of(answers, "thumbnails", site="h.0.attn", how="max")[1])).all()
    assert not np.isnan(floats(of(answers, "thumbnails", site="h.0.cross", how="max")[1])).any()


# --- what a few rows tell ------------------------------------------------------------------------------------------


def test_a_head_tells_limits_and_what_was_lost(made: Made) -> None:
    smallest = {"float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126, "log-uint8": 2.0**-24}
    for (site, number), whole in made.maps.items():
        head, _ = of(made.answers, "head", site=site, head=number)
        kept = np.flatnonzero(~np.isnan(whole[:, 0]))
        assert head["shape"] == list(whole.shape) and head["last"] == 10 and head["fidelity"] is None
        assert [row for start, stop in head["rows"] for row in range(start, stop)] == kept.tolist()
        part = whole[kept][:, ~np.isnan(whole[kept[0]])]
        assert head["columns"] == [0, part.shape[1]]
        rows = sorted(
            {int(np.floor(i * (len(kept) - 1) / (min(len(kept), 64) - 1) + 0.5)) for i in range(64)}
            & {*range(len(kept))}
        )
        assert head["sampled"] == min(64, len(kept))
        if len(kept) <= 64:
            rows = list(range(len(kept)))
        part = part[rows]
        above = part[part > 0].astype(np.float32)
        low, high = np.quantile(above.astype(np.float64), [0.5, 0.9995])
        low = np.clip(low, high / 1e5, high / 10)
        assert head["limits"] == pytest.approx({"low": low, "high": high, "max": above.max()}, rel=1e-6)
        lost = possible = 0
        for row in part:
            there = np.flatnonzero(row)
            if len(there):
                inner = row[there[0] : there[-1] + 1]
                possible, lost = possible + len(inner), lost + int((inner < smallest[head["dtype"]]).sum())
        assert head["underflow"] == lost / possible
        error = np.abs(part.sum(1) - 1).max()
        assert head["row_sum_error"] == (None if part.shape[1] < whole.shape[1] else pytest.approx(error, abs=1e-12))


def test_masked_weights_are_not_lost_ones() -> None:
    store = MemoryStore(manifest("float16"))
    values = torch.zeros(3, T, T)
    for row in range(T):
        values[:, row, max(0, row - 9) : row + 1] = 1 / min(10, row + 1)  # a window
    values[1, 60, 55] = 1e-6  # below what has full precision
    values[1, 60, 56] = 0
    store.write(Field(0, SITES[0], 0, (0, 1, 2), "float16"), Block((0, 1, 2), range(T), 0, values.half()))
    store.commit(Sample(0, "0", {"main": TokenSequence(T), "source": TokenSequence(S)}, T))
    answers = Answers.of([ap.Run(store)])
    assert of(answers, "head", site="h.0.attn", head=0)[0]["underflow"] == 0
    assert 0 < of(answers, "head", site="h.0.attn", head=1)[0]["underflow"] <= 2 / 500


def test_the_largest_weight_is_that_of_the_map_where_levels_are_kept(tmp_path: Path) -> None:
    run, whole = long_map(tmp_path / "run")
    head, _ = of(run, "head", site="h.0", head=1)
    assert head["limits"]["max"] == pytest.approx(np.nanmax(whole[1]), rel=ULP)


def test_what_a_recording_found_out_is_told(demo_run: ap.Run) -> None:
    site = demo_run.sites[1].key
    head, _ = of(demo_run, "head", site=site, head=2)
    assert head["title"] == "layer 1, head 2"
    assert demo_run.fidelity is not None
    assert f"{demo_run.fidelity[site].difference:.1e} of what the kernel returned" in head["fidelity"]


def test_rows_of_a_learned_sink_are_whole_with_its_mass() -> None:
    def run(names: list[str]) -> Answers:
        measures = [{"name": name, "unit": "mass", "axes": ["query"]} for name in names]
        keep = ({"what": "weights", "keys": "all"}, {"what": "measures", "measures": measures})
        store = MemoryStore(Manifest({}, SITES, keep, {}, "2025-01-01T00:00:00+00:00"))
        store.write(Field(0, SITES[0], 0, (0,)), Block((0,), range(4), 0, torch.full((1, 4, 4), 0.2)))
        if "sink_mass" in names:
            of_rows = Field(0, SITES[0], 1, (0,), "float32", "sink_mass", ("query",))
            store.write(of_rows, Block((0,), range(4), 0, torch.full((1, 4, 1), 0.2)))
        else:
            mean = Field(0, SITES[0], 1, (0,), "float32", "sink_mass.mean", ("statistic",))
            store.write(mean, Block((0,), range(3), 0, torch.full((1, 3, 1), 0.2)))
        store.commit(Sample(0, "0", {"main": TokenSequence(4)}, 4))
        return Answers.of([ap.Run(store)])

    place = {"site": "h.0.attn", "head": 0}
    assert of(run(["sink_mass"]), "head", **place)[0]["row_sum_error"] == pytest.approx(0, abs=1e-6)
    assert of(run([]), "head", **place)[0]["row_sum_error"] is None


# --- mass ----------------------------------------------------------------------------------------------------------


def box_mass(whole: np.ndarray, top: int, bottom: int, left: int, right: int) -> float | None:
    part = whole[top:bottom, left:right]
    part = part[~np.isnan(part).all(1)]
    return None if not len(part) or np.isnan(part).any() else float(part.sum(1).mean())


def test_mass_is_exact_of_small_boxes(made: Made) -> None:
    for site in SITES:
        for box in ((0, 40, 0, 40), (33, 34, 3, 4), (3, 39, 5, 20), (0, 1, 0, 5)):
            params = dict(zip(("top", "bottom", "left", "right"), box, strict=True))
            head, values = of(made.answers, "mass", site=site.key, **params)
            assert values is None and head["exact"] is True
            wanted = [box_mass(made.maps[site.key, number], *box) for number in head["heads"]]
            assert [one is None for one in wanted] == [one is None for one in head["mass"]]
            assert [one or 0 for one in head["mass"]] == pytest.approx([one or 0 for one in wanted], rel=1e-6)
    head, _ = of(made.answers, "mass", site="h.1.attn", top=0, bottom=T, left=0, right=T)
    assert head["mass"] == [None, None]  # not all of these columns were kept


@pytest.mark.parametrize("cells_", [1 << 20, 1, 5000])
def test_mass_of_a_large_box_is_within_the_bound_of_its_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells_: int
) -> None:
    monkeypatch.setattr(mass, "READ", 1000)
    monkeypatch.setattr(mass, "AT_ONCE", 7000)
    monkeypatch.setattr(mass, "CELLS", cells_)
    run, whole = long_map(tmp_path / "run")
    answers = Answers.of([run])
    boxes = [(0, 1300, 0, 1300), (3, 1297, 1, 1299), (690, 1010, 5, 603), (701, 998, 100, 901), (1200, 1300, 1, 1300)]
    for box in boxes:
        head, _ = of(answers, "mass", site="h.0", **dict(zip(("top", "bottom", "left", "right"), box, strict=True)))
        assert head["exact"] is False
        for number in range(2):
            wanted = box_mass(whole[number], *box)
            assert wanted is not None
            # A mean was rounded to bfloat16, by at most ULP of it, and none of them is below zero.
            assert abs(head["mass"][number] - wanted) <= ULP * wanted + 1e-9
    head, _ = of(answers, "mass", site="h.0", top=500, bottom=1000, left=7, right=10)
    assert head["exact"] is True  # no cell lies inside, so the weights were read
    assert head["mass"][1] == pytest.approx(box_mass(whole[1], 500, 1000, 7, 10), rel=1e-6)


def test_a_box_that_takes_too_long_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mass, "READ", 100)
    monkeypatch.setattr(mass, "MOST", 1000)
    params = {"run": 0, "sample": 0, "site": "h.0.attn", "top": 0, "bottom": 60, "left": 0, "right": 60}
    assert "draw a smaller box" in refused(made.answers, "mass", params)


# --- measures ------------------------------------------------------------------------------------------------------


def test_scores_are_means_by_site_and_head(demo_run: ap.Run) -> None:
    head, _ = of(demo_run, "scores")
    table = demo_run.sample(0).measures.numpy()
    assert set(head["scores"]) == {name for name in table if not name.endswith(("_std", "_count"))}
    assert head["scores"]["entropy"]["unit"] == "nats"
    for name, found in head["scores"].items():
        assert list(found["values"]) == [site.key for site in demo_run.sites]
        np.testing.assert_array_equal(np.array(list(found["values"].values()), np.float32), table[name])


def test_a_measure_is_as_a_head_has_it(demo_run: ap.Run) -> None:
    site = demo_run.sites[2].key
    listed = {one["name"]: one for one in of(demo_run, "sample")[0]["measures"]}
    assert set(listed) == set(demo_run.sample(0).measures.names)
    for name, one in listed.items():
        head, values = of(demo_run, "measure", site=site, head=5, name=name)
        wanted = demo_run[2, 5].measures[name]
        assert (head["name"], head["unit"]) == (name, wanted.unit) and head["axes"] == list(wanted.dims) == one["axes"]
        expected = wanted.values.astype(np.float32)
        np.testing.assert_array_equal(
            values, np.where(wanted.values < 0, np.nan, expected) if name == "argmax" else expected
        )
        for axis, places in head["coords"].items():
            at = list(wanted.coords[axis])
            if isinstance(places, dict):
                places = [places["start"] + places["step"] * i for i in range(len(at))]
            assert places == at
    assert of(demo_run, "measure", site=site, head=5, name="entropy")[0]["coords"] == {"query": {"start": 0, "step": 1}}
    assert of(demo_run, "measure", site=site, head=5, name="pooled_max")[0]["coords"]["key_cell"]["step"] == 2


def test_stripes_are_a_line_a_head(demo_run: ap.Run) -> None:
    for name in ("entropy", "received", "distances", "argmax", "entropy.mean"):
        head, values = of(demo_run, "stripes", name=name)
        wanted = demo_run.measures[name].values.astype(np.float32)
        assert head["covers"] == 1 and list(head["coords"]) == head["axes"]
        assert head["sites"] == [site.key for site in demo_run.sites for _ in range(8)]
        assert head["heads"] == list(range(8)) * 4
        expected = wanted.reshape(-1, wanted.shape[-1])
        np.testing.assert_array_equal(
            values, np.where(expected < 0, np.nan, expected) if name == "argmax" else expected
        )
    params = {"run": 0, "sample": 0, "name": "pooled_max"}
    assert "no measure 'pooled_max' with one axis; there are entropy" in refused(
        Answers.of([demo_run]), "stripes", params
    )


def test_stripes_of_many_values_are_means_of_neighbours(demo_run: ap.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MOST", 32 * 80)
    head, values = of(demo_run, "stripes", name="previous")
    assert head["covers"] == 4 and head["coords"] == {"query": {"start": 0, "step": 4}}
    whole = demo_run.measures["previous"].values.reshape(32, 75, 4).astype(np.float64)
    np.testing.assert_allclose(values, np.nanmean(whole, 2), rtol=1e-5)
    whole = demo_run.measures["argmax"].values.reshape(32, 300)
    np.testing.assert_array_equal(of(demo_run, "stripes", name="argmax")[1], whole[:, ::4])
    monkeypatch.setattr(scores, "READ", 1000)
    params = {"run": 0, "sample": 0, "name": "previous"}
    assert "more than are shown" in refused(Answers.of([demo_run]), "stripes", params)


def test_cross_attention_and_generated_rows_of_real_models() -> None:
    model = cross_gpt2()
    source = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(1))
    with ap.record(model, keep=[ap.Weights(), ap.Measures(names=["entropy", "received"])]) as recorder:
        model(ids(1, 12), encoder_hidden_states=source)
    run = recorder.run
    answers = Answers.of([run])
    sites = {site["key"]: site for site in of(answers, "sample")[0]["sites"]}
    for key, site in sites.items():
        _, values = of(answers, "weights", site=key, head=1, top=0, bottom=12, left=0, right=site["columns"])
        np.testing.assert_array_equal(values, run[key, 1].numpy())
    head, values = of(answers, "stripes", name="received")  # lines of 12 keys, and of 9
    for line, key, number in zip(values, head["sites"], head["heads"], strict=True):
        wanted = run[key, number].measures["received"].values
        np.testing.assert_array_equal(line[: len(wanted)], wanted)
        assert np.isnan(line[len(wanted) :]).all()
    model = gpt2()
    with ap.record(model) as recorder:
        model.generate(ids(1, 5), max_new_tokens=20, do_sample=False)
    whole = recorder.run[1, 2].numpy()
    _, values = of(recorder.run, "patch", site="transformer.h.1.attn", head=2, level=0, down=0, across=0, how="max")
    close(floats(values), whole.astype(float))


# --- a run that grows ----------------------------------------------------------------------------------------------


def test_samples_appear_as_they_are_committed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    writer = DirectoryWriter(path, manifest("float32"))
    answers = Answers.of([path])

    def put(index: int) -> None:
        writer.write(Field(index, SITES[0], 0, (0,)), Block((0,), range(5), 0, torch.full((1, 5, 5), 0.1 * index)))
        writer.commit(Sample(index, f"s{index}", {"main": TokenSequence(5)}, 5))
        writer.flush()

    first, _ = ask(answers, "live", run=0)
    assert (first["samples"], first["writing"]) == (0, True)
    assert ask(answers, "runs")[0]["runs"][0]["note"] == "No sample is listed yet."
    assert "there is none yet" in refused(answers, "sample", {"run": 0, "sample": 0})
    put(1)
    second, _ = ask(answers, "live", run=0)
    assert (second["samples"], second["writing"]) == (1, True) and second["stamp"] != first["stamp"]
    assert ask(answers, "live", run=0)[0] == second
    put(2)
    assert refused(answers, "sample", {"run": 0, "sample": 1})  # until it is asked how far the run is
    assert ask(answers, "live", run=0)[0]["samples"] == 2
    _, values = ask(answers, "row", run=0, sample=1, site="h.0.attn", head=0, query=3)
    np.testing.assert_array_equal(values, np.full(5, 0.2, np.float32))
    writer.close()
    last, _ = ask(answers, "live", run=0)
    assert (last["samples"], last["writing"]) == (2, False)


def test_a_run_in_memory_is_not_written(made: Made) -> None:
    head, _ = ask(made.answers, "live", run=0)
    assert head["samples"] == 1 and head["writing"] is False and head["stamp"]


def test_a_run_that_is_gone_is_told_without_its_path(tmp_path: Path) -> None:
    run, _ = long_map(tmp_path / "run")
    answers = Answers.of([run])
    for file in (tmp_path / "run" / "shards").iterdir():
        file.unlink()
    place = {"run": 0, "sample": 0, "site": "h.0", "head": 0}
    for question, params in (("row", {**place, "query": 3}), ("live", {"run": 0})):
        error = refused(answers, question, params)
        assert "cannot be read; attnprobe verify" in error and str(tmp_path) not in error


# --- refusals ------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    **{"run": 0, "sample": 0, "site": "h.0.attn", "head": 0, "sequence": "main", "name": "entropy", "how": "max"},
    **{"start": 0, "stop": 5, "level": 0, "down": 0, "across": 0, "skip": 0, "query": 3, "key": 3},
    **{"top": 0, "bottom": 5, "left": 0, "right": 5},
}
BAD = (
    *(True, None, 1.0, float("nan"), float("inf"), -1, 1 << 41, 10**5000, "-1", "1.5", "0x1", "1e3", "", " 1", "１"),
    *("9" * 5000, "../../etc/passwd", b"1", [1], {"a": 1}, "nan", "True", "\x00"),
)


@pytest.fixture(scope="module")
def plain() -> Answers:
    store = MemoryStore(manifest("float32"))
    make(store, "float32")
    return Answers.of([ap.Run(store)])


@pytest.mark.parametrize("question", QUESTIONS)
def test_parameters_are_checked(plain: Answers, question: str) -> None:
    wanted = {name: GOOD[name] for name in QUESTIONS[question][1]}
    head, _ = parse(plain.ask(question, wanted))
    assert "error" not in head or question in ("measure", "stripes")  # none were kept
    for name in wanted:
        assert f"lacks the parameter {name}" in refused(
            plain, question, {other: value for other, value in wanted.items() if other != name}
        )
        for value in BAD:
            error = refused(plain, question, {**wanted, name: value})
            assert len(error) < 700 and "Traceback" not in error and "fault of attnprobe" not in error
    for other in ("__class__", "runs", "", 5, None):
        assert "has no parameter" in refused(plain, question, {**wanted, other: 0})
    for params in (None, [], "run=0", 5):
        assert "give parameters by name" in refused(plain, question, params)


@pytest.mark.parametrize("question", ["", "__init__", "ask", "../runs", "RUNS", None, 5, ["runs"], "x" * 100_000])
def test_questions_that_there_are_not(plain: Answers, question: Any) -> None:
    error = refused(plain, question, {})
    assert "there are runs, live, samples" in error and len(error) < 700


def test_places_that_there_are_not(plain: Answers) -> None:
    place = {"run": 0, "sample": 0, "site": "h.0.attn", "head": 0}
    for change, words in (
        ({"run": 1}, "no run 1: there are 1"),
        ({"sample": 1}, "no sample 1: there are 1"),
        ({"site": "h.9"}, "a site 'h.9'"),
        ({"site": "../h.0.attn"}, "a site '../h.0.attn'"),
        ({"head": 3}, "head 3 is out of range"),
    ):
        assert words in refused(plain, "head", {**place, **change})
    assert "there are 0" in refused(Answers.of([]), "head", place)
    box = {"top": 0, "bottom": 5, "left": 0, "right": 5}
    for change in ({"bottom": 0}, {"top": 5}, {"bottom": T + 1}, {"right": T + 1}, {"left": 6}):
        for question in ("weights", "mass"):
            params = {**place, **box, **change}
            params = {name: params[name] for name in QUESTIONS[question][1]}
            assert "are no part of the 70 x 70 weights" in refused(plain, question, params)


def test_answers_are_bounded(plain: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "MOST", 99)
    place = {"run": 0, "sample": 0, "site": "h.0.attn", "head": 0, "top": 0, "bottom": 10, "left": 0, "right": 10}
    assert "more than 99; ask for a smaller box" in refused(plain, "weights", place)
    place = {"run": 0, "sample": 0, "site": "h.0.attn", "head": 0}
    store = MemoryStore(manifest("float32"))
    store.write(Field(0, SITES[0], 0, (0,)), Block((0,), range(2), 0, torch.rand(1, 2, 2)))
    store.commit(Sample(0, "0", {"main": TokenSequence(10**12), "source": TokenSequence(10**12)}, 2))
    answers = Answers.of([ap.Run(store)])  # a run may say what it likes
    assert "more than are shown" in refused(answers, "head", place)
    assert "more than are shown" in refused(answers, "row", {**place, "query": 1})
    assert of(answers, "tokens", sequence="main", start=10**9, stop=10**9 + 2)[0]["tokens"] == [
        "1000000000",
        "1000000001",
    ]


def test_a_fault_is_told_and_logged(
    plain: Answers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(opened.View, "held", fail)
    error = refused(plain, "sample", {"run": 0, "sample": 0})
    assert "sample failed (RuntimeError)" in error and "secret" not in error
    assert "/secret/path" in caplog.text


# --- all at once ---------------------------------------------------------------------------------------------------


def test_threads_get_what_one_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "HEADS", 1)  # things are made and forgotten all the time
    monkeypatch.setattr(opened, "MADE", 1)
    planted = planted_run(tmp_path / "run", tokens=1400, needles=5)
    wanted = [
        (question, {**GOOD, "site": site, "head": head, "level": level})
        for question in (
            "patch",
            "strip",
            "row",
            "column",
            "weights",
            "thumbnails",
            "head",
            "tokens",
            "measure",
            "live",
        )
        for site in planted.sites
        for head in (0, 1)
        for level in (0, 2)
    ]
    asks = [(question, {name: params[name] for name in QUESTIONS[question][1]}) for question, params in wanted]
    alone = Answers.of([planted.path])
    expected = [alone.ask(question, params) for question, params in asks]
    assert not any(b'{"error"' in frame[:20] for frame in expected)
    together = Answers.of([planted.path])
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            assert list(pool.map(lambda one: together.ask(*one), asks)) == expected


def test_needles_are_seen_from_afar(tmp_path: Path) -> None:
    planted = planted_run(tmp_path / "run", tokens=2048, needles=12)
    answers = Answers.of([planted.path])
    for needle in planted.needles:
        place = {"site": planted.sites[0], "head": 0}
        assert of(answers, "row", query=needle.query, **place)[1][needle.key] == np.float32(needle.weight)
        _, values = of(answers, "patch", level=3, down=0, across=0, how="max", **place)
        assert floats(values)[needle.query >> 3, needle.key >> 3] >= needle.weight * (1 - ULP)
    tokens = of(answers, "tokens", sequence="main", start=planted.nasty, stop=planted.nasty + 1)[0]["tokens"]
    assert tokens == [NASTY] == [planted.tokens[planted.nasty]]


def test_pooling_again_is_pooling_at_once() -> None:
    random = np.random.default_rng(1)
    whole = random.random((37, 53))
    whole[5:9] = whole[30] = np.nan
    for how in ("max", "mean"):
        fine = pooled(whole, 2, 4, how)
        counts = np.array([(~np.isnan(whole[at : at + 2, 0])).sum() for at in range(0, 37, 2)])
        found = cells.pool(fine.astype(np.float32), counts, (4, 2), how)
        close(found, pooled(whole, 8, 8, how), 1e-6)
