"""Verification and repair: what is damaged is found, with file, tensor and byte; what is whole raises no alarm."""

import json
import os
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
import xxhash
from click.testing import CliRunner
from models import gpt2, ids, padded
from safetensors.torch import load_file
from store_contract import MANIFEST, field, sample
from test_format import restore
from test_resume import killed, put, start
from transformers import (
    BertConfig,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import attnprobe as ap
from attnprobe import demo, verifying
from attnprobe.cli import main
from attnprobe.codes import encode
from attnprobe.errors import CorruptRun, StoreError
from attnprobe.fields import Block
from attnprobe.store import directory, files, journal
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.verifying import shards as shard_checks

TEXTS = ("Maia likes to explore", "To be, or not to be", "A rose is a rose is a rose", "The end")


# --- a small run, and ways to damage it ---------------------------------------------------------------------------


def record(run: Path, model: Any, *inputs: dict[str, Any], **options: Any) -> ap.Run:
    with ap.record(model, to=run, **options) as rec:
        for one in inputs:
            with torch.no_grad():
                model(**one)
    return rec.run


def causal_rows(length: int, heads: int = 3, seed: int = 0) -> torch.Tensor:
    """Rows of a causal softmax."""
    logits = torch.randn(heads, length, length, generator=torch.Generator().manual_seed(seed))
    return logits.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two samples in a shard each: causal weights of three heads, top-k, a measure, ids and strings."""
    writer = DirectoryWriter(tmp_path / "run", MANIFEST)
    for index in range(2):
        values = causal_rows(8, seed=index)
        for rows in (range(0, 3), range(3, 8)):  # which are joined
            part = values[:, rows.start : rows.stop, : rows.stop].contiguous()
            writer.write(field(index), Block((0, 1, 3), rows, 0, part, causal=True))
        keys = torch.tensor([[[0, -1], [1, 0], [7, 3]]], dtype=torch.int32)
        of = replace(field(index, 1, heads=(2,)), axes=("query", "rank"))
        writer.write(
            replace(of, what="top"), Block((2,), range(3), 0, torch.tensor([[[1.0, 0], [0.5, 0.5], [0.6, 0]]]))
        )
        writer.write(replace(of, what="top_keys", dtype="int32"), Block((2,), range(3), 0, keys))
        writer.write(
            replace(of, what="top_rest", axes=("query",)), Block((2,), range(3), 0, torch.full((1, 3, 1), 0.25))
        )
        entropy = torch.tensor([[[0.0], [torch.nan], [1.5]]])
        writer.write(replace(of, what="entropy", axes=("query",)), Block((2,), range(3), 0, entropy))
        writer.commit(sample(index, ids=np.arange(8), tokens=tuple("abcdefgh")))
        writer.flush()
    writer.close()
    return tmp_path / "run"


def header(shard: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a safetensors file begin, and its entries, read as the format's page says."""
    with open(shard, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return 8 + length, entries


def shards(run: Path) -> list[Path]:
    return sorted((run / "shards").iterdir())


def journals(run: Path) -> list[Path]:
    return sorted((run / "journal").iterdir())


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line[9:]) for line in file.read_bytes().splitlines()]


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    texts = [json.dumps(one, separators=(",", ":")).encode() for one in records]
    file.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))


def change(run: Path, tensor: str, at: int, value: Any, dtype: Any = np.float32, vouch: bool = True) -> tuple[str, int]:
    """Put a value into a tensor and, to `vouch` for it, its new checksum into the journal; gives file and offset."""
    for shard in shards(run):
        base, entries = header(shard)
        if tensor not in entries:
            continue
        start, stop = (base + offset for offset in entries[tensor]["data_offsets"])
        data = bytearray(shard.read_bytes())
        offset = start + at * np.dtype(dtype).itemsize
        new = np.array(value, dtype).tobytes()
        data[offset : offset + len(new)] = new
        shard.write_bytes(data)
        if vouch:
            (file,) = journals(run)
            records = lines(file)
            for line in records:
                for one in line.get("shards", ()):
                    if one["file"] == shard.name:
                        one["xxh3_64"][tensor] = xxhash.xxh3_64_hexdigest(bytes(data[start:stop]))
            write_lines(file, records)
        return f"shards/{shard.name}", offset
    raise AssertionError(f"there is no {tensor}")


def only(run: Path) -> verifying.Finding:
    """The only finding."""
    report = ap.verify(run)
    assert not report.ok
    (found,) = report.findings
    return found


# --- what is whole -------------------------------------------------------------------------------------------------


def bert() -> Any:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, vocab_size=96)
    ).eval()


def gpt_oss() -> Any:
    torch.manual_seed(0)
    config = GptOssConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=96,
        intermediate_size=32, num_local_experts=2, num_experts_per_tok=1, sliding_window=4, pad_token_id=0,
    )  # fmt: skip
    model = GptOssForCausalLM._from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.sinks.normal_()
    return model


def t5() -> Any:
    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4, vocab_size=96, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def bloom() -> Any:
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=96)).eval()


BATCH = {"input_ids": ids(2, 12)}
CLEAN: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any], tuple[str, str]]] = {
    # model, inputs, options; which of the rows' sums are compared with 1, and which rows with the causal rule
    "causal, padded left": (gpt2, padded([5, 12], "left"), {}, ("all", "all")),
    "causal, padded right": (gpt2, padded([5, 12], "right"), {}, ("all", "all")),
    "causal, eager": (lambda: gpt2(attention="eager"), BATCH, {}, ("all", "all")),
    "float16": (gpt2, BATCH, {"dtype": "float16"}, ("all", "all")),
    "bfloat16": (gpt2, BATCH, {"dtype": "bfloat16"}, ("all", "all")),
    "log-uint8": (gpt2, BATCH, {"dtype": "log-uint8"}, ("all", "all")),
    "rows": (gpt2, BATCH, {"queries": "-3:"}, ("all", "all")),
    "keys": (gpt2, BATCH, {"keys": ":4"}, ("none", "all")),
    "top-k and measures": (gpt2, BATCH, {"keep": [ap.TopK(k=3), ap.Measures(names="all")]}, ("all", "all")),
    "an encoder": (bert, BATCH, {}, ("all", "none")),
    "sinks": (gpt_oss, BATCH, {}, ("none", "all")),
    "sinks that are kept": (gpt_oss, BATCH, {"keep": [ap.Weights(), ap.Measures(names="sink_mass")]}, ("all", "all")),
    "sinks in half": (
        gpt_oss, BATCH, {"keep": [ap.Weights(dtype="float16"), ap.Measures(names="sink_mass")]}, ("all", "all"),
    ),
    "weights that a module gave": (bloom, {**BATCH, "output_attentions": True}, {}, ("all", "none")),
    "half precision": (
        lambda: bloom().bfloat16(), {**BATCH, "output_attentions": True}, {"dtype": "bfloat16"}, ("all", "none"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLEAN)
def test_a_run_that_is_whole_raises_no_alarm(tmp_path: Path, kind: str) -> None:
    make, inputs, options, (sums, causal) = CLEAN[kind]
    found = record(tmp_path / "run", make(), inputs, **options)
    report = ap.verify(tmp_path / "run")
    assert report.ok and report.findings == [] and report.notes == []
    counts, reader = report.counts, DirectoryReader(tmp_path / "run")
    rows = sum(
        piece.shape[0] * piece.shape[1]
        for one in found.samples
        for of, pieces in reader.fields(one.index).items()
        if of.what == "weights"
        for piece in pieces
    )
    assert counts.rows == rows
    assert counts.sums == (rows if sums == "all" else 0)
    assert counts.causal == (rows if causal == "all" else 0)
    assert counts.samples == len(found.samples) and counts.shards == len(shards(tmp_path / "run"))
    assert counts.nbytes == sum(shard.stat().st_size for shard in shards(tmp_path / "run"))
    assert counts.tensors == sum(len(load_file(shard)) for shard in shards(tmp_path / "run"))


def test_generation_raises_no_alarm(tmp_path: Path) -> None:
    model = gpt2()
    with ap.record(model, to=tmp_path / "run") as rec:
        model.generate(**padded([5, 9], "left"), max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert len(rec.run.samples) == 2
    assert ap.verify(tmp_path / "run").findings == []


def test_a_prompt_of_which_each_token_sees_all_raises_no_alarm(tmp_path: Path) -> None:
    """As of a prefix language model: the mask is the caller's, and the module says that it is causal."""
    model, mask = gpt2(), torch.ones(12, 12).tril().bool()
    mask[:6, :6] = True
    record(tmp_path / "run", model, {"input_ids": ids(1, 12), "attention_mask": mask[None, None]})
    weights = ap.open(tmp_path / "run")[0, 0].numpy()
    assert weights[0, 5] > 0
    report = ap.verify(tmp_path / "run")
    assert report.findings == [] and report.counts.causal < report.counts.rows


def test_cross_attention_raises_no_alarm(tmp_path: Path) -> None:
    model = t5()
    with ap.record(model, to=tmp_path / "run"):
        model(input_ids=ids(2, 9), decoder_input_ids=ids(2, 5), use_cache=False)
    report = ap.verify(tmp_path / "run")
    assert report.findings == [] and report.counts.sums == report.counts.rows
    kinds = {of.site.kind for of in DirectoryReader(tmp_path / "run").fields(0)}
    assert kinds == {"self", "cross"}


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_runs_of_every_format_are_verified(tmp_path: Path, version: int) -> None:
    report = ap.verify(restore(version, tmp_path / "run"))
    of_values = {"row sum", "above 1", "nan", "negative", "infinite"}
    assert {one.problem for one in report.findings} <= of_values  # what lies in these runs are no weights of a model
    assert any("does not tell which maps are causal" in note for note in report.notes) == (version < 4)
    file = flip_last(tmp_path / "run")
    assert {one.problem for one in ap.verify(tmp_path / "run").findings if one.file == file} >= {"checksum"}


def flip_last(run: Path) -> str:
    """Flip the last bit of the last shard."""
    shard = shards(run)[-1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    return f"shards/{shard.name}"


def test_no_run_and_newer_runs_are_errors_and_no_findings(tmp_path: Path, run: Path) -> None:
    with pytest.raises(StoreError, match="there is no run"):
        ap.verify(tmp_path / "none")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(StoreError, match="a newer attnprobe wrote"):
        ap.verify(run)


# --- what is damaged -----------------------------------------------------------------------------------------------

WEIGHTS, TOP = "1/h.0.attn/weights.0", "1/h.1.attn"
VALUES: list[tuple[str, int, Any, Any, str, str]] = [
    # tensor, number of the value, what is put there, its dtype, the problem, words
    (f"{WEIGHTS}/00000", 106, np.nan, np.float32, "nan", "the value is nan"),
    (f"{WEIGHTS}/00000", 105, np.inf, np.float32, "infinite", "the value is inf"),
    (f"{WEIGHTS}/00000", 34, -0.25, np.float32, "negative", "the value is -0.25"),
    (f"{WEIGHTS}/00000", 187, 1.5, np.float32, "above 1", "the value is 1.5"),
    (f"{TOP}/top.0/00000", 3, 1.25, np.float32, "above 1", "the value is 1.25"),
    (f"{TOP}/top_rest.0/00000", 2, -1.0, np.float32, "negative", "the value is -1"),
    (f"{TOP}/top_keys.0/00000", 4, 8, np.int32, "position", "there is no key 8"),
    (f"{TOP}/top_keys.0/00000", 5, -2, np.int32, "position", "there is no key -2"),
    (f"{TOP}/entropy.0/00000", 0, -np.inf, np.float32, "infinite", "the value is infinite"),
    ("1/sequences/main/ids", 6, -2, np.int64, "tokens", "there is no token -2"),
]


@pytest.mark.parametrize(("tensor", "at", "value", "dtype", "problem", "words"), VALUES)
def test_a_wrong_value_is_named_with_its_byte(
    run: Path, tensor: str, at: int, value: Any, dtype: Any, problem: str, words: str
) -> None:
    file, offset = change(run, tensor, at, value, dtype)
    found = {one.problem: one for one in ap.verify(run).findings}
    assert found.keys() - {"row sum"} == {problem}
    one = found[problem]
    assert (one.file, one.tensor, one.offset, one.sample) == (file, tensor, offset, "s1")
    assert words in one.message and str(one) == f"{file}, tensor {tensor}, byte {offset:,}: {one.message}"


def test_a_row_that_does_not_sum_to_1_is_named_with_its_first_byte(run: Path) -> None:
    file, offset = change(run, f"{WEIGHTS}/00000", 2 * 64 + 6 * 8, 0.0)  # head 3, row 6, its first column
    found = only(run)
    assert (found.problem, found.file, found.offset) == ("row sum", file, offset)
    assert found.message.startswith("row 6 of head 3 sums to 0.") and "and should to 1 (within 1e-05)" in found.message


def test_a_row_of_zeros_has_no_key(run: Path) -> None:
    change(run, f"{WEIGHTS}/00000", 3 * 8, np.zeros(8))
    assert ap.verify(run).ok


def test_a_row_that_looks_ahead_is_named(run: Path) -> None:
    at = 64 + 5 * 8  # head 1, row 5: half of its first weight goes to the column behind its own
    old = float(load_file(shards(run)[1])[f"{WEIGHTS}/00000"].flatten()[at])
    change(run, f"{WEIGHTS}/00000", at, old / 2)
    file, offset = change(run, f"{WEIGHTS}/00000", at + 6, old / 2)
    found = only(run)
    assert (found.problem, found.file, found.offset) == ("causality", file, offset)
    assert found.message.startswith(f"row 5 looks ahead, at column 6 with {old / 2:.6g}")


def test_a_row_that_looks_ahead_may_where_nothing_says_that_it_may_not(tmp_path: Path) -> None:
    writer = DirectoryWriter(tmp_path / "run", MANIFEST)
    writer.write(field(), Block((0, 1, 3), range(8), 0, torch.full((3, 8, 8), 1 / 8)))
    writer.commit(sample())
    writer.close()
    assert ap.verify(tmp_path / "run").ok


@pytest.mark.parametrize(
    ("strings", "words"),
    [(list("abcdefg"), "has 7 strings, and the sequence 8 tokens"), (list(range(10, 18)), "is no list of strings")],
)
def test_strings_that_are_not_one_a_token_are_named(run: Path, strings: list[Any], words: str) -> None:
    text = json.dumps(strings).encode().ljust(len(json.dumps(list("abcdefgh"))))
    file, offset = change(run, "0/sequences/main/tokens", 0, np.frombuffer(text, np.uint8), np.uint8)
    found = only(run)
    assert (found.problem, found.file, found.offset) == ("tokens", file, offset) and words in found.message


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "log-uint8"])
def test_what_rounding_does_not_explain_is_found_in_every_dtype(tmp_path: Path, dtype: str) -> None:
    for share in (1.0, 0.9):
        writer = DirectoryWriter(tmp_path / "run", MANIFEST, overwrite=True)
        values = encode(causal_rows(64) * share, dtype)
        writer.write(field(dtype=dtype), Block((0, 1, 3), range(64), 0, values))
        writer.commit(sample(0, 64))
        writer.close()
        report = ap.verify(tmp_path / "run")
        assert [one.problem for one in report.findings] == ([] if share == 1 else ["row sum"])
        assert share == 1 or "(192 such in this tensor)" in report.findings[0].message


def test_the_mass_of_a_sink_is_part_of_a_row(tmp_path: Path) -> None:
    """A model with learned sinks, whose mass is kept: what is missing from a row is found, and at the right byte."""
    record(tmp_path / "run", gpt_oss(), BATCH, keep=[ap.Weights(), ap.Measures(names="sink_mass")])
    weights = ap.open(tmp_path / "run").sample(1)[1, 2].numpy()
    assert weights.sum(1).max() < 1
    tensor = "1/model.layers.1.self_attn/weights.0/00000"
    file, offset = change(tmp_path / "run", tensor, 0, 0.0)
    found = only(tmp_path / "run")
    assert (found.problem, found.file, found.offset) == ("row sum", file, offset)


def test_without_the_mass_of_its_sink_a_row_may_sum_to_anything_up_to_1(tmp_path: Path) -> None:
    record(tmp_path / "run", gpt_oss(), BATCH)
    tensor = "1/model.layers.1.self_attn/weights.0/00000"
    change(tmp_path / "run", tensor, 0, 0.0)
    assert ap.verify(tmp_path / "run").ok
    change(tmp_path / "run", tensor, 0, 0.9999)  # the first row has the sink's mass beside it
    change(tmp_path / "run", tensor, 1, 0.5)
    assert {one.problem for one in ap.verify(tmp_path / "run").findings} == {"row sum", "causality"}


def put_level(run: Path, values: torch.Tensor, what: str = "pyramid_max(2)") -> str:
    """A run of a map whose level holds some values; gives the tensor's name."""
    writer = DirectoryWriter(run, MANIFEST)
    level = replace(field(heads=(0,)), what=what, axes=("query_cell", "key_cell"), dtype="bfloat16")
    writer.write(level, Block((0,), range(2), 0, values.view(1, 2, -1).bfloat16()))
    writer.commit(sample(0, 8))
    writer.close()
    return f"{level.name}/00000"


@pytest.mark.parametrize("what", ["pyramid_max(2)", "pyramid_mean(2)"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [(torch.nan, "nan"), (torch.inf, "infinite"), (-torch.inf, "infinite"), (-0.5, "negative"), (1.0078125, "above 1")],
)
def test_cells_of_levels_are_shares_too(tmp_path: Path, what: str, value: float, problem: str) -> None:
    tensor = put_level(tmp_path / "run", torch.tensor([0, 0.25, 1, value]), what)
    found = only(tmp_path / "run")
    assert (found.problem, found.tensor) == (problem, tensor)
    base, entries = header(shards(tmp_path / "run")[0])
    assert found.offset == base + entries[tensor]["data_offsets"][0] + 3 * 2


def test_cells_that_are_rounded_raise_no_alarm(tmp_path: Path) -> None:
    """Weights may be above 1 by what a softmax in float32 is off; the nearest number of bfloat16 is 1."""
    put_level(tmp_path / "run", torch.tensor([1 + 9e-6, 1 - 1e-9, 2.0**-133, 0]))
    assert ap.verify(tmp_path / "run").findings == []


def test_measures_of_ones_own_may_be_infinite_and_levels_of_maps_may_not(tmp_path: Path) -> None:
    own = {"what": "measures", "measures": [{"name": "mine", "unit": "", "axes": ["query"], "own": True}]}
    writer = DirectoryWriter(tmp_path / "run", replace(MANIFEST, keep=(*MANIFEST.keep, own)))
    values = torch.tensor([[[0.5], [torch.inf], [torch.nan]]])
    mine = replace(field(heads=(0,)), what="mine", axes=("query",), group=1)
    writer.write(mine, Block((0,), range(3), 0, values))
    level = replace(field(heads=(0,)), what="pyramid_max(2)", axes=("query_cell", "key_cell"), dtype="bfloat16")
    writer.write(level, Block((0,), range(2), 0, values[:, 1:].bfloat16()))
    writer.commit(sample(0, 8))
    writer.close()
    found = ap.verify(tmp_path / "run").findings
    assert [(one.problem, one.tensor) for one in found] == [
        (problem, f"{level.name}/00000") for problem in ("infinite", "nan")
    ]


@pytest.mark.parametrize("at_once", [1, 40, 256])
def test_chunks_do_not_matter(run: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for tensor, at, value, dtype, *_ in VALUES:
        change(run, tensor, at, value, dtype)
    change(run, f"{WEIGHTS}/00000", 16, 0.0)
    whole = ap.verify(run)
    assert len(whole.findings) >= len(VALUES)
    monkeypatch.setattr(shard_checks, "CHUNK", at_once)
    assert ap.verify(run) == whole


def test_memory_is_bounded_whatever_a_tensors_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_checks, "CHUNK", 256 << 10)
    writer = DirectoryWriter(tmp_path / "run", MANIFEST)
    values = torch.full((2, 4096, 2048), 1 / 2048)
    writer.write(field(heads=(0, 1)), Block((0, 1), range(4096), 0, values))
    writer.commit(sample(0, 4096))
    writer.close()
    assert shards(tmp_path / "run")[0].stat().st_size > 64 << 20
    ap.verify(tmp_path / "run")
    tracemalloc.start()
    report = ap.verify(tmp_path / "run")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.ok and report.counts.sums == 8192
    assert peak < 6 << 20


def test_every_damage_is_told_and_not_only_the_first(run: Path) -> None:
    change(run, f"{WEIGHTS}/00000", 106, np.nan)
    change(run, "0/h.0.attn/weights.0/00000", 0, 0.5)
    shards(run)[0].write_bytes(shards(run)[0].read_bytes()[:-1])
    assert [one.problem for one in ap.verify(run).findings] == ["size", "nan"]


def test_a_missing_shard_is_named(run: Path) -> None:
    shard = shards(run)[0]
    shard.unlink()
    found = only(run)
    assert (found.problem, found.file) == ("missing", f"shards/{shard.name}")


def test_a_linked_shard_is_not_followed(run: Path, tmp_path: Path) -> None:
    shard = shards(run)[0]
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert only(run).problem == "unreadable"


def rewrite_header(shard: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Another header in the same room."""
    data = bytearray(shard.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + length])
    edit(entries)
    data[8 : 8 + length] = json.dumps(entries, separators=(",", ":")).encode().ljust(length)
    shard.write_bytes(data)


def swap_names(entries: dict[str, Any]) -> None:
    a, b = "1/h.1.attn/top_rest.0/00000", "1/h.1.attn/entropy.0/00000"
    entries[a], entries[b] = entries[b], entries[a]


def other_shape(entries: dict[str, Any]) -> None:
    entries[f"{WEIGHTS}/00000"]["shape"] = [3, 64, 1]


def other_dtype(entries: dict[str, Any]) -> None:
    entries[f"{WEIGHTS}/00000"]["dtype"] = "I32"


def other_name(entries: dict[str, Any]) -> None:
    entries[f"{WEIGHTS}/00009"] = entries.pop(f"{WEIGHTS}/00000")


def other_metadata(entries: dict[str, Any]) -> None:
    entries["__metadata__"]["format"] = "tf"


@pytest.mark.parametrize(
    ("edit", "problems"),
    [
        (swap_names, {"checksum", "nan", "above 1"}),
        (other_shape, {"header"}),
        (other_dtype, {"header"}),
        (other_name, {"header"}),
        (other_metadata, {"header"}),
    ],
)
def test_a_header_that_is_not_the_journals_is_found_where_safetensors_opens_it(
    run: Path, edit: Callable[[dict[str, Any]], None], problems: set[str]
) -> None:
    rewrite_header(shards(run)[1], edit)
    assert load_file(shards(run)[1])
    found = ap.verify(run).findings
    assert found and {one.problem for one in found} <= problems
    assert {one.file for one in found} == {f"shards/{shards(run)[1].name}"}


def test_flipped_bits_are_found(run: Path) -> None:
    """200 bits anywhere in shards and journals; safetensors opens most of these shards."""
    chance = random.Random(0)
    opened = 0
    for turn in range(200):
        targets = [*shards(run), *journals(run)]
        file = targets[turn % len(targets)]
        before = file.read_bytes()
        data = bytearray(before)
        header_too = turn % 4 == 0 or file.suffix != ".safetensors"
        at = chance.randrange(0 if header_too else 64 << 10, len(data))
        data[at] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        report = ap.verify(run)
        assert not report.ok, f"byte {at} of {file.name}"
        assert f"{file.parent.name}/{file.name}" in {one.file for one in report.findings}
        if file.suffix == ".safetensors":
            try:
                load_file(file)
                opened += 1
            except (safetensors.SafetensorError, UnicodeDecodeError):
                pass
        file.write_bytes(before)
    assert opened > 60
    assert ap.verify(run).ok


def test_a_checksum_that_does_not_fit_is_named_with_the_tensors_byte(run: Path) -> None:
    tensor = f"{WEIGHTS}/00000"
    base, entries = header(shards(run)[1])
    value = float(load_file(shards(run)[1])[tensor].flatten()[25])
    file, _ = change(run, tensor, 25, np.nextafter(np.float32(value), np.float32(1)), vouch=False)
    found = only(run)
    assert (found.problem, found.file, found.tensor) == ("checksum", file, tensor)
    assert found.offset == base + entries[tensor]["data_offsets"][0]


# --- journals ------------------------------------------------------------------------------------------------------


def test_a_damaged_line_is_named_with_its_byte(run: Path) -> None:
    (file,) = journals(run)
    data = bytearray(file.read_bytes())
    begin = data.index(b"\n") + 1
    data[begin + 40] ^= 1
    file.write_bytes(data)
    found = only(run)
    assert (found.problem, found.file, found.offset) == ("journal", f"journal/{file.name}", begin)
    assert "line 2 is damaged" in found.message


def test_a_last_line_that_is_torn_is_no_fault_and_one_that_is_damaged_is(run: Path) -> None:
    (file,) = journals(run)
    whole = file.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    file.write_bytes(whole[:-7])
    report = ap.verify(run)
    assert report.ok and any("was being written when its writer ended" in note for note in report.notes)
    file.write_bytes(whole[:-1] + b"\x0b")  # its line feed
    assert (only(run).problem, only(run).offset) == ("journal", last)
    file.write_bytes(whole[:-9] + b"x" + whole[-8:])
    assert (only(run).problem, only(run).offset) == ("journal", last)


def test_records_that_make_no_sense_are_named(run: Path) -> None:
    (file,) = journals(run)
    records = lines(file)
    records[1]["samples"][0]["prompt_length"] = 99
    write_lines(file, records)
    found = only(run)
    assert (found.problem, found.file, found.sample) == ("record", f"journal/{file.name}", "s0")


@pytest.mark.parametrize("hashes", [{"x": 1}, {"x": None}, [], "x", 7, None])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_checksums_that_make_no_sense_are_named(run: Path, hashes: Any, separators: tuple[str, str]) -> None:
    (file,) = journals(run)
    records = lines(file)
    bad = records[2]["shards"][0]
    bad["xxh3_64"] = hashes
    texts = [json.dumps(one, separators=separators).encode() for one in records]
    file.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(text), text) for text in texts))
    found = only(run)
    assert (found.problem, found.file) == ("journal", f"journal/{file.name}")
    assert "make no sense" in found.message or "makes no sense" in found.message
    assert call("verify", run).exit_code == 3


def test_a_shard_whose_checksums_make_no_sense_is_set_aside_and_redone(corpus: Path) -> None:
    before, owner = maps(corpus), samples_by_shard(corpus)
    bad = next(name for name, one in owner.items() if one == "t1")
    file = corpus / "journal" / f"{bad.partition('-')[0]}.jsonl"
    records = lines(file)
    (shard,) = (one for line in records for one in line.get("shards", ()) if one["file"] == bad)
    shard["xxh3_64"] = dict.fromkeys(shard["xxh3_64"], 1)
    write_lines(file, records)
    report = ap.verify(corpus, repair=True)
    assert report.ok and [one.problem for one in report.findings] == ["journal"]
    assert [path.name for path in (corpus / "aside").iterdir()] == [bad]
    assert ap.verify(corpus).findings == []
    assert record_texts(corpus, TEXTS) == ("t1",)
    assert all(np.array_equal(maps(corpus)[name], values) for name, values in before.items())


def test_a_journal_that_is_there_twice_is_named(run: Path) -> None:
    (file,) = journals(run)
    (run / "journal" / "z-copy.jsonl").write_bytes(file.read_bytes())
    found = only(run)
    assert (found.problem, found.file) == ("listed twice", "journal/z-copy.jsonl")


def test_a_manifest_that_is_none_is_named(run: Path) -> None:
    (run / "manifest.json").write_text("{")
    assert only(run).problem == "manifest"
    assert not ap.verify(run, repair=True).ok


def test_two_attempts_at_one_sample_are_noted(tmp_path: Path) -> None:
    writers = [start(tmp_path / "run"), start(tmp_path / "run")]
    for writer in writers:
        put(writer, 0, "a")
        writer.close()
    report = ap.verify(tmp_path / "run")
    assert "the sample 'a' was recorded 2 times, and one of them is read" in report.notes


@pytest.mark.parametrize(("count", "more"), [(2, ""), (3, ""), (4, " and 1 more"), (1234, " and 1,231 more")])
def test_many_attempts_are_one_note(tmp_path: Path, count: int, more: str) -> None:
    for _ in range(2):
        writer = start(tmp_path / "run")
        for index in range(count):
            put(writer, index, f"s{index}")
        writer.close()
    # The first writer's are read.
    named = ", ".join(f"'s{index}'" for index in range(min(count, 3)))
    note = f"{count:,} samples were recorded more than once, and one of each is read: {named}{more}"
    assert ap.verify(tmp_path / "run").notes == [note]


def test_many_samples_of_one_name_are_noted_in_few_words(tmp_path: Path) -> None:
    writer = start(tmp_path / "run")
    for index in range(10):
        put(writer, index, f"s{index // 2}")
    writer.close()
    notes = [f"2 samples are named 's{n}'" for n in range(3)]
    assert ap.verify(tmp_path / "run").notes == [*notes, "2 more names are those of several samples"]


@pytest.mark.slow
def test_what_a_killed_writer_left_is_noted_and_no_fault(tmp_path: Path) -> None:
    process = killed(tmp_path / "run", wait="sys.stdin.readline()", listed=True)
    assert any("of a writer that lives" in note for note in ap.verify(tmp_path / "run").notes)
    process.communicate("die\n")
    report = ap.verify(tmp_path / "run")
    assert not [one for one in report.findings if one.problem not in ("above 1", "row sum")]  # what `put` writes
    assert any("that no journal lists (a resume removes them)" in note for note in report.notes)


# --- repair --------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four named samples, a shard each, by two writers."""
    monkeypatch.setattr(directory, "GROUP", 1)
    assert record_texts(tmp_path / "run", TEXTS[:2]) == ("t0", "t1")
    assert record_texts(tmp_path / "run", TEXTS) == ("t2", "t3")
    return tmp_path / "run"


def record_texts(run: Path, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Record what is not there yet; gives the ids that were recorded now."""
    model, tokenizer = demo.load()
    now = []
    with ap.record(model, tokenizer, to=run, layers="0", resume=True) as rec:
        for number, text in enumerate(texts):
            if (name := f"t{number}") not in rec.done:
                with rec.sample(id=name, index=number):
                    model(**tokenizer(text, return_tensors="pt"), use_cache=False)
                rec.flush()
                now.append(name)
    return tuple(now)


def maps(run: Path) -> dict[str, np.ndarray]:
    found = ap.open(run)
    return {one.id: found.sample(one.id).layer_array(0) for one in found.samples}


def samples_by_shard(run: Path) -> dict[str, str]:
    reader = DirectoryReader(run)
    return {
        piece.place[0]: one.id
        for one in reader.samples
        for pieces in reader.fields(one.index).values()
        for piece in pieces
    }


def flip(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[(64 << 10) + 100] ^= 16  # of the first weights
    shard.write_bytes(data)


def cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-10])


def break_header(shard: Path) -> None:
    shard.write_bytes(b"\0" + shard.read_bytes()[1:])


@pytest.mark.parametrize("fails", ["mkdir", "open", "rename"])
def test_a_repair_that_the_disk_refuses_says_how_far_it_came(
    corpus: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = min((corpus / "shards").iterdir())
    flip(bad)
    before = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    call = getattr(os, fails)

    def read_only(path: Any, *arguments: Any, **options: Any) -> Any:
        if fails == "open" and not arguments[0] & os.O_CREAT:
            return call(path, *arguments, **options)
        raise OSError(30, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, read_only)
        with pytest.raises(StoreError, match=rf"cannot repair {corpus}: Read-only file system \(") as error:
            ap.verify(corpus, repair=True)
    unchanged = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()} == before
    assert unchanged == ("the run is as it was; repair it again" in str(error.value)) == (fails == "open")
    assert unchanged or "a part is done" in str(error.value)
    assert ap.verify(corpus, repair=True).ok and ap.verify(corpus).ok


@pytest.mark.parametrize("damage", [flip, cut_short, break_header, Path.unlink])
def test_a_resume_redoes_exactly_what_a_repair_set_aside(corpus: Path, damage: Callable[[Path], None]) -> None:
    before, owner = maps(corpus), samples_by_shard(corpus)
    assert sorted(owner.values()) == ["t0", "t1", "t2", "t3"]
    bad = next(name for name, one in owner.items() if one == "t1")
    damage(corpus / "shards" / bad)
    if damage in (cut_short, Path.unlink):
        with pytest.raises(CorruptRun, match="verify --repair"):
            ap.open(corpus)
    report = ap.verify(corpus, repair=True)
    assert report.ok and {one.file for one in report.findings} == {f"shards/{bad}"}
    assert not (corpus / "shards" / bad).exists()
    assert (corpus / "aside" / bad).exists() == (damage is not Path.unlink)
    assert sorted(one.id for one in ap.open(corpus).samples) == ["t0", "t2", "t3"]
    assert ap.verify(corpus).ok
    assert record_texts(corpus, TEXTS) == ("t1",)
    after = maps(corpus)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], values) for name, values in before.items())
    report = ap.verify(corpus)
    assert report.findings == [] and report.counts.samples == 4


def test_a_damaged_journal_is_set_aside_with_its_shards(corpus: Path) -> None:
    before, owner = maps(corpus), samples_by_shard(corpus)
    writer = next(name for name, one in owner.items() if one == "t0").partition("-")[0]
    file = corpus / "journal" / f"{writer}.jsonl"
    data = bytearray(file.read_bytes())
    data[data.index(b"\n") + 50] ^= 1  # in the line of t0; that of t1 is whole
    file.write_bytes(data)
    with pytest.raises(CorruptRun, match="verify --repair"):
        ap.open(corpus)
    report = ap.verify(corpus, repair=True)
    assert report.ok and len(report.findings) == 1
    assert sorted(path.name for path in (corpus / "aside").iterdir()) == sorted(
        [file.name, *(name for name in owner if name.startswith(writer))]
    )
    assert sorted(one.id for one in ap.open(corpus).samples) == ["t2", "t3"]
    assert record_texts(corpus, TEXTS) == ("t0", "t1")
    assert all(np.array_equal(maps(corpus)[name], values) for name, values in before.items())
    assert ap.verify(corpus).findings == []


def test_a_damaged_last_line_is_cut_off_and_kept(corpus: Path) -> None:
    owner = samples_by_shard(corpus)
    writer = next(name for name, one in owner.items() if one == "t3").partition("-")[0]
    file = corpus / "journal" / f"{writer}.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    assert b"samples" in whole[-2]
    damaged = whole[-2][:60] + b"~" + whole[-2][61:]
    file.write_bytes(b"".join([*whole[:-2], damaged]))
    report = ap.verify(corpus, repair=True)
    assert report.ok and "is damaged" in report.findings[0].message
    assert file.read_bytes() == b"".join(whole[:-2])
    assert (corpus / "aside" / f"{file.name}.cut").read_bytes() == damaged
    assert ap.verify(corpus).ok
    assert record_texts(corpus, TEXTS) == ("t3",)


def test_a_repair_that_was_lost_comes_to_light_and_is_made_again(corpus: Path) -> None:
    """The journal of a repair is damaged: what it took off the list is missing again."""
    owner = samples_by_shard(corpus)
    bad = next(name for name, one in owner.items() if one == "t1")
    flip(corpus / "shards" / bad)
    known = set(journals(corpus))
    ap.verify(corpus, repair=True)
    (repair,) = set(journals(corpus)) - known
    data = bytearray(repair.read_bytes())
    data[data.index(b"dropped")] ^= 1
    repair.write_bytes(data)
    report = ap.verify(corpus, repair=True)
    assert report.ok and sorted(one.id for one in ap.open(corpus).samples) == ["t0", "t2", "t3"]
    assert record_texts(corpus, TEXTS) == ("t1",)


def test_records_that_make_no_sense_are_redone(corpus: Path) -> None:
    owner = samples_by_shard(corpus)
    bad = next(name for name, one in owner.items() if one == "t2")
    file = corpus / "journal" / f"{bad.partition('-')[0]}.jsonl"
    records = lines(file)
    next(one for line in records for one in line.get("samples", ()) if one["id"] == "t2")["prompt_length"] = 999
    write_lines(file, records)
    assert ap.verify(corpus, repair=True).ok
    assert (corpus / "aside" / bad).exists()
    assert record_texts(corpus, TEXTS) == ("t2",)
    assert ap.verify(corpus).ok


def test_a_repair_of_what_is_whole_changes_nothing(corpus: Path) -> None:
    before = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    report = ap.verify(corpus, repair=True)
    assert report.ok and report.aside == []
    assert {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()} == before


def test_what_was_recorded_wrong_is_not_taken_off_the_list(run: Path) -> None:
    """A repair takes away what the disk did; a resume would record the same numbers again."""
    change(run, f"{WEIGHTS}/00000", 106, np.nan)
    change(run, "0/sequences/main/ids", 0, -2, np.int64)
    shard = shards(run)[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    report = ap.verify(run, repair=True)
    assert {one.problem for one in report.findings} == {"checksum", "tokens", "nan"}
    assert [one.problem for one in report.left] == ["nan"] and not report.ok
    assert [one.id for one in ap.open(run).samples] == ["s1"]
    result = call("verify", run, "--repair")
    assert result.exit_code == 3 and "1 of these are left: no repair sets right what was recorded so" in result.stdout


def test_a_run_that_is_being_written_is_not_repaired(corpus: Path) -> None:
    flip(shards(corpus)[0])
    writer = start_again(corpus)
    with pytest.raises(StoreError, match="is being written by the writer .*, so it is not repaired"):
        ap.verify(corpus, repair=True)
    assert not (corpus / "aside").exists()
    writer.close()
    assert ap.verify(corpus, repair=True).ok


def start_again(run: Path) -> DirectoryWriter:
    return DirectoryWriter(run, DirectoryReader(run).manifest, resume=True)


def test_writers_of_other_machines_are_taken_to_live_unless_one_knows_better(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "host", lambda: "another")
    for module in ("store.directory", "store.leftovers", "store.writers"):
        monkeypatch.setattr(f"attnprobe.{module}.host", lambda: "another")
    flip(shards(corpus)[0])
    (file, *_) = journals(corpus)
    write_lines(file, [line for line in lines(file) if "ended" not in line])
    with pytest.raises(StoreError, match=r"of another machine has not ended, so it is not repaired; .*--force"):
        ap.verify(corpus, repair=True)
    assert ap.verify(corpus, repair=True, force=True).ok


@pytest.mark.slow
def test_what_a_writer_of_another_machine_left_is_removed_where_one_knows_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No resume here dares to, and a repair only with `force`; files without any journal are let be."""
    run = tmp_path / "run"
    killed(run, listed=True).wait()
    left = sorted(run.glob("shards/*.partial"))
    lost = run / "shards" / "0123abcd-00000.safetensors"
    lost.write_bytes(b"who knows")
    whole = set(shards(run)) - {*left, lost}
    assert left and whole
    monkeypatch.setattr(journal, "host", lambda: "another")
    for module in ("store.directory", "store.leftovers", "store.writers", "verifying.check"):
        monkeypatch.setattr(f"attnprobe.{module}.host", lambda: "another")
    start(run).close()
    assert {*left, lost} <= set(shards(run))
    notes = ap.verify(run).notes
    assert any(note.startswith(f"{len(left)} file") and "another machine" in note for note in notes)
    assert any(note == "1 file of a writer whose journal is not there" for note in notes)
    assert not any("a resume removes" in note for note in notes)
    report = ap.verify(run, repair=True, force=True)
    assert [line for line in report.aside if "is removed" in line] == [
        f"shards/{one.name}, which no journal lists, is removed" for one in left
    ]
    assert set(shards(run)) == {lost, *whole}
    assert [one.id for one in ap.open(run).samples] == ["a", "b"]
    assert not any("another machine" in note for note in ap.verify(run).notes)


OPERATIONS = ("create", "write", "truncate", "sync", "close", "rename", "remove", "sync_directory")


def kill_at(number: int) -> Callable[[], None]:
    """Kill this process at its so many-th operation on files."""
    done = 0

    def arm() -> None:
        def wrap(operation: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any) -> Any:
                nonlocal done
                done += 1
                if done == number:
                    os._exit(9)
                return operation(*arguments)

            return counted

        for name in OPERATIONS:
            setattr(files, name, wrap(getattr(files, name)))

    return arm


def damaged_thrice(run: Path) -> None:
    """A bad shard, a missing one, and a journal that is damaged at its end."""
    owner = {one: name for name, one in samples_by_shard(run).items()}
    flip(run / "shards" / owner["t0"])
    (run / "shards" / owner["t2"]).unlink()
    file = run / "journal" / f"{owner['t3'].partition('-')[0]}.jsonl"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)


def damaged_in_the_middle(run: Path) -> None:
    owner = {one: name for name, one in samples_by_shard(run).items()}
    file = run / "journal" / f"{owner['t0'].partition('-')[0]}.jsonl"
    data = bytearray(file.read_bytes())
    data[data.index(b"\n") + 50] ^= 1
    file.write_bytes(data)
    flip(run / "shards" / owner["t3"])


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "left"), [(damaged_thrice, {"t1", "t3"}), (damaged_in_the_middle, {"t2"})])
def test_a_repair_may_be_killed_at_any_moment_and_made_again(
    corpus: Path, tmp_path: Path, damage: Callable[[Path], None], left: set[str]
) -> None:
    damage(corpus)
    saved = {path.relative_to(corpus): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    kills = 0
    for number in range(1, 200):
        copy = tmp_path / f"copy{number}"
        for name, data in saved.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(data)
        child = os.fork()
        if not child:
            try:
                kill_at(number)()
                ap.verify(copy, repair=True)
            finally:
                os._exit(0)
        killed_now = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        kills += killed_now
        try:
            there = {one.id for one in ap.open(copy).samples}
            assert there >= left  # a damaged sample may still be listed, and none that is whole is lost
        except CorruptRun:
            pass
        report = ap.verify(copy, repair=True)
        assert report.ok and ap.verify(copy).findings == []
        assert {one.id for one in ap.open(copy).samples} == left
        names = {name.name for name in saved if name.parent.name == "shards"}
        kept = {path.name for path in (*(copy / "shards").iterdir(), *(copy / "aside").iterdir())}
        assert names <= kept  # nothing was deleted
        if not killed_now:
            break
    assert kills > 15


# --- the command ---------------------------------------------------------------------------------------------------


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_the_command_says_in_one_line_what_was_checked(run: Path) -> None:
    result = call("verify", run)
    assert result.exit_code == 0 and result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line == f"{run}: {ap.verify(run)}" and line.endswith(": nothing is wrong")
    assert ": 2 shards, 14 tensors, " in line and ", 2 samples, 48 rows of weights (48 sums and 48 for" in line


def test_the_command_ends_with_3_and_names_the_byte(run: Path) -> None:
    file, offset = change(run, f"{WEIGHTS}/00000", 106, np.nan)
    result = call("verify", run)
    assert result.exit_code == 3
    assert f"{file}, tensor {WEIGHTS}/00000, byte {offset:,}: the value is nan" in result.stdout.splitlines()
    told = json.loads(call("verify", run, "--json").stdout)
    assert told["ok"] is False and told["counts"]["shards"] == 2
    assert [(one["file"], one["offset"], one["problem"]) for one in told["findings"]] == [(file, offset, "nan")]


def test_the_command_prints_some_and_lists_all(tmp_path: Path) -> None:
    writer = DirectoryWriter(tmp_path / "run", MANIFEST)
    for index in range(30):
        writer.write(field(index), Block((0, 1, 3), range(8), 0, torch.full((3, 8, 8), -1.0)))
        writer.commit(sample(index))
    writer.close()
    result = call("verify", tmp_path / "run")
    assert result.exit_code == 3 and "... and 40 more (--json lists all)" in result.stdout
    assert len(json.loads(call("verify", tmp_path / "run", "--json").stdout)["findings"]) == 60


def test_the_command_repairs(corpus: Path) -> None:
    bad = shards(corpus)[0]
    flip(bad)
    assert call("verify", corpus, "--force").exit_code == 2
    result = call("verify", corpus, "--repair")
    assert result.exit_code == 0
    assert f"shards/{bad.name} is set aside as aside/{bad.name}" in result.stdout
    assert call("verify", corpus).exit_code == 0


def test_the_command_fails_where_there_is_no_run(tmp_path: Path) -> None:
    result = call("verify", tmp_path / "none")
    assert result.exit_code == 1 and result.stderr.startswith("error: there is no run")


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
