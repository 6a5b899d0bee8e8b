"""``attnprobe capture --dataset`` from end to end: what is recorded, gone on with, and refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from corpus_checks import listed
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

pytest.importorskip("datasets", reason="the extra attnprobe[data] is not installed")

import attnprobe as ap
from attnprobe import demo
from attnprobe.cli import main, progress

ROOT = Path(__file__).parents[1]
WORDS = demo.text().split()
LENGTHS = (3, 40, 7, 1, 25, 12, 60, 5, 9, 30, 2, 18)
TEXTS = [" ".join(WORDS[31 * n : 31 * n + length]) for n, length in enumerate(LENGTHS)]


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def capture(run: Path, *arguments: Any, model: Any = "demo") -> Result:
    return call("capture", model, "-o", run, *arguments)


def captured(run: Path, *arguments: Any, model: Any = "demo") -> dict[str, Any]:
    """What a capture that went well prints as JSON."""
    result = capture(run, *arguments, "--json", model=model)
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert result.stdout == "" and line.lower().startswith("error: "), result.stderr
    assert not [word for word in words if word not in line], line


def alone(text: str, layer: int = 1, most: int | None = None) -> np.ndarray:
    """The demo model's weights of one layer, as eager attention returns them of one text."""
    model, tokenizer = demo.load()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        ids = tokenizer(text, return_tensors="pt").input_ids[:, :most]
        weights: np.ndarray = model(ids, output_attentions=True).attentions[layer][0].numpy()
    return weights


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "key": f"k{n}"}) + "\n" for n, text in enumerate(TEXTS)))
    return path


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any, device: str) -> None:
        pytest.fail("the model was loaded before the mistake was found")

    monkeypatch.setattr("attnprobe.cli.models.Named.load", load)


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_rows_in_padded_batches_are_what_each_is_alone(texts: Path, tmp_path: Path) -> None:
    record = captured(tmp_path / "run", "--dataset", texts, "--id-column", "key", "--batch", 5, "--layers", "1")
    assert (record["rows"], record["cut"], record["left_out"], record["worker"]) == (12, 0, {}, "0/1")
    run = ap.open(tmp_path / "run")
    assert [sample.id for sample in run.samples] == [f"k{n}" for n in range(12)]
    tokenizer = demo.load()[1]
    for number, text in enumerate(TEXTS):
        sample = run.sample(number)
        assert list(sample.tokens) == tokenizer.tokenize(text)
        np.testing.assert_allclose(sample.layer_array(1), alone(text), atol=1e-5)
    assert record["tokens"] == sum(sample.main.length for sample in run.samples)


@pytest.mark.parametrize("kind", ["txt", "parquet", "csv"])
def test_files_of_other_formats(kind: str, texts: Path, tmp_path: Path) -> None:
    import pandas as pd

    file = tmp_path / f"texts.{kind}"
    table = pd.DataFrame({"body": TEXTS[:3]})
    if kind == "txt":
        file.write_text("\n".join(TEXTS[:3]))
    elif kind == "csv":
        table.to_csv(file, index=False)
    else:
        table.to_parquet(file)
    column = [] if kind == "txt" else ["--column", "body"]
    captured(tmp_path / "run", "--dataset", file, "--layers", "1", *column)
    run = ap.open(tmp_path / "run")
    assert [sample.id for sample in run.samples] == ["0", "1", "2"]
    for number in range(3):
        np.testing.assert_allclose(run.sample(number).layer_array(1), alone(TEXTS[number]), atol=1e-5)


def test_padding_on_either_side_is_no_part_of_a_sample(tmp_path: Path) -> None:
    model, tokenizer = demo.load()
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = tokenizer(TEXTS[:3], return_tensors="pt", padding=True)
        positions = (batch.attention_mask.cumsum(-1) - 1).clamp(min=0)  # on the left, the model is to be told
        with torch.no_grad(), ap.record(model, tokenizer, to=tmp_path / side, layers="1", resume=True) as rec:
            with rec.sample(id=["a", "b", "c"], index=[4, 2, 9]):
                model(**batch, position_ids=positions, use_cache=False)
        run = ap.open(tmp_path / side)
        assert [(s.index, s.id) for s in run.samples] == [(2, "b"), (4, "a"), (9, "c")]
        for name, text in zip("abc", TEXTS, strict=False):
            np.testing.assert_allclose(run.sample(name).layer_array(1), alone(text), atol=1e-5)


def test_rows_are_cut_left_out_and_told(tmp_path: Path) -> None:
    lines = [*(json.dumps({"text": text}) for text in (*TEXTS[:2], "")), "{broken"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    options = ("--dataset", tmp_path / "a.jsonl", "--layers", "1", "--max-tokens", 6)
    record = captured(tmp_path / "run", *options)
    assert (record["rows"], record["cut"]) == (2, 1)
    assert record["left_out"] == {"without text": 1, "that are no JSON object": 1}
    np.testing.assert_allclose(ap.open(tmp_path / "run").sample(1).layer_array(1), alone(TEXTS[1], most=6), atol=1e-5)
    result = capture(tmp_path / "again", *options)
    assert "2 rows recorded, 1 cut, left out: 1 that are no JSON object, 1 without text" in result.stdout
    assert re.search(r"recorded \d+ tokens in .* tokens/s, .* on disk", result.stderr)


def test_statistics_without_text_of_the_first_rows(texts: Path, tmp_path: Path) -> None:
    options = ("--keep", "measures:entropy", "--no-text", "--limit", 4)
    captured(tmp_path / "run", "--dataset", texts, *options)
    run = ap.open(tmp_path / "run")
    assert len(run) == 4 and run.samples[1].main.tokens is None
    weights = alone(TEXTS[1]).astype(np.float64)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)
    np.testing.assert_allclose(run.sample(1).measures["entropy"].numpy()[1], entropy, atol=1e-4)
    assert b"lighthouse" not in b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors"))


def tokenizer_with_ends(path: Path, **options: Any) -> None:
    """A tokenizer that puts a text between <s> and </s>, saved."""
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>"]
    bpe.train_from_iterator([demo.text()], vocab_size=400, special_tokens=special, show_progress=False)
    bpe._tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", **options
    )
    fast.save_pretrained(path)


SMALL: dict[str, Any] = dict(
    vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=1
)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_sees_whole_texts_and_the_ends_of_cut_ones(kind: str, texts: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if kind == "bert":
        model: Any = BertForMaskedLM(BertConfig(max_position_embeddings=32, **SMALL))
    else:  # two of the positions are not for tokens, which the tokenizer alone knows
        model = RobertaForMaskedLM(RobertaConfig(max_position_embeddings=34, **SMALL))
    model.save_pretrained(tmp_path / "model")
    tokenizer_with_ends(tmp_path / "model", **({"model_max_length": 32} if kind == "roberta" else {}))
    record = captured(tmp_path / "run", "--dataset", texts, model=tmp_path / "model")
    run, tokenizer = ap.open(tmp_path / "run"), PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    eager = type(model).from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    lengths = [len(tokenizer(text).input_ids) for text in TEXTS]
    assert record["cut"] == sum(length > 32 for length in lengths) > 0
    for number, text in enumerate(TEXTS):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
        assert run.sample(number).tokens[-1] == "</s>"
        with torch.no_grad():
            expected = eager(input_ids=inputs.input_ids, output_attentions=True).attentions
        for layer in range(2):
            np.testing.assert_allclose(run.sample(number).layer_array(layer), expected[layer][0].numpy(), atol=1e-5)


def test_the_head_of_the_model_does_not_run(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, *arguments: Any, **options: Any) -> None:
        pytest.fail("the logits of a whole batch were made")

    monkeypatch.setattr(GPT2LMHeadModel, "forward", forward)
    assert captured(tmp_path / "run", "--dataset", texts, "--layers", "0")["rows"] == 12


def test_a_dataset_on_the_hub_is_gone_on_with_at_the_commit_of_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    newest, asked = ["c1"], []

    def load_dataset(name: str, config: str | None, **options: Any) -> Any:
        asked.append((name, config, options["split"], options["revision"], options["streaming"]))
        return datasets.Dataset.from_dict({"body": TEXTS[:4]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name: type("Info", (), {"sha": newest[0]}))
    options = ("--dataset", "owner/tales:small@test", "--column", "body", "--layers", "0", "--resume")
    assert captured(tmp_path / "run", *options, "--limit", 2)["rows"] == 2
    newest[0] = "c2"
    record = captured(tmp_path / "run", *options)
    assert (record["rows"], record["done"]) == (2, 2)
    assert set(asked) == {("owner/tales", "small", "test", "c1", True)}
    data = ap.open(tmp_path / "run").manifest.data
    assert data is not None and (data["name"], data["revision"]) == ("owner/tales", "c1")
    refused(capture(tmp_path / "run", *options, "--dataset", "owner/other@test"), 2, "there is no file")
    refused(
        capture(tmp_path / "run", "--dataset", "owner/other:small@test", *options[2:]),
        1, "of other data: name was 'owner/tales' and is 'owner/other'",
    )  # fmt: skip


# --- what is said ----------------------------------------------------------------------------------------------------


def test_progress_has_rows_speed_bytes_and_the_time_left(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    result = capture(tmp_path / "run", "--dataset", texts, "--batch", 4, "--layers", "0")
    assert "recording 12 rows ..." in result.stderr
    lines = [line for line in result.stderr.splitlines() if " left" in line]
    assert [line.split(" rows")[0] for line in lines] == ["4 of 12", "8 of 12", "12 of 12"]
    assert all(re.search(r"[\d,]+ tokens/s, [\d.]+ [kM]?B, \d:\d\d:\d\d left$", line) for line in lines), lines
    assert lines[-1].endswith("0:00:00 left")


def test_a_worker_says_which_it_is(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    result = capture(tmp_path / "run", "--dataset", texts, "--layers", "0", "--resume")
    assert result.exit_code == 0, result.output
    assert "worker 1/3: recording 4 rows ..." in result.stderr
    assert [sample.index for sample in ap.open(tmp_path / "run").samples] == [1, 4, 7, 10]


# --- gone on with ----------------------------------------------------------------------------------------------------


def test_an_interrupt_keeps_what_is_whole_and_a_resume_does_the_rest(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GPT2Model

    forward, calls = GPT2Model.forward, []

    def interrupted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(options["input_ids"].shape)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)

    monkeypatch.setattr(GPT2Model, "forward", interrupted)
    options = ("--dataset", texts, "--id-column", "key", "--layers", "1", "--batch", 3)
    before = signal.getsignal(signal.SIGTERM)
    result = capture(tmp_path / "run", *options)
    assert result.exit_code == 130 and result.stdout == ""
    assert "is kept (6 of 12 rows); the same command with --resume goes on" in result.stderr
    assert "rows      6 of 12 of the corpus\n" in call("info", tmp_path / "run").stdout
    assert call("verify", tmp_path / "run").stderr == "note: 6 of 12 rows of the corpus are listed\n"
    assert signal.getsignal(signal.SIGTERM) is before
    whole = listed(tmp_path / "run")
    assert len(whole) == 6
    record = captured(tmp_path / "run", *options, "--resume")
    assert (record["rows"], record["done"]) == (6, 6)
    assert [batch for batch, _ in calls] == [3, 3, 3, 3, 3]
    monkeypatch.undo()
    assert listed(tmp_path / "run") == Counter({f"k{n}": 1 for n in range(12)})
    assert "rows      12 of 12 of the corpus\n" in call("info", tmp_path / "run").stdout
    assert call("verify", tmp_path / "run").stderr == ""
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(ap.open(tmp_path / "run").sample(number).layer_array(1), alone(text), atol=1e-5)


def test_a_whole_run_is_gone_on_with_in_no_time(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured(tmp_path / "run", "--dataset", texts, "--layers", "0", "--resume", "--limit", 3)
    monkeypatch.setattr("attnprobe.cli.models.Named.load", lambda *_: pytest.fail("loaded for nothing"))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    result = capture(tmp_path / "run", "--dataset", texts, "--layers", "0", "--resume", "--limit", 3)
    assert result.exit_code == 0 and result.stdout == f"{tmp_path / 'run'}\n"
    assert "no row is left to record (3 recorded already)" in result.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("worlds", [(1, 4), (3, 2)])
def test_another_number_of_workers_goes_on(worlds: tuple[int, int], texts: Path, tmp_path: Path) -> None:
    options = ("--dataset", texts, "--id-column", "key", "--layers", "0", "--resume")
    first, then = worlds
    captured(tmp_path / "run", *options, "--worker", f"0/{first}", "--limit", 8)
    for rank in range(then):
        captured(tmp_path / "run", *options, "--worker", f"{rank}/{then}")
    assert listed(tmp_path / "run") == Counter({f"k{n}": 1 for n in range(12)})
    assert [sample.index for sample in ap.open(tmp_path / "run").samples] == list(range(12))


def test_a_worker_without_rows_ends_well(texts: Path, tmp_path: Path) -> None:
    record = captured(tmp_path / "run", "--dataset", texts, "--resume", "--worker", "15/16")
    assert (record["rows"], record["worker"]) == (0, "15/16") and not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rows, and the file that it is of."""
    path = tmp_path_factory.mktemp("begun")
    (path / "texts.jsonl").write_text("".join(json.dumps({"text": t, "other": t}) + "\n" for t in TEXTS))
    captured(path / "run", "--dataset", path / "texts.jsonl", "--layers", "0", "--limit", 2)
    return path


@pytest.mark.usefixtures("begun", "never_loaded")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "1"], "of another selection: keep[0]: layers was '0' and is '1'"),
        (["--layers", "0", "--dtype", "float16"], "selection: keep[0]: dtype was 'float32' and is 'float16'"),
        (["--layers", "0", "--no-text"], "of another selection: text was True and is False"),
        (["--layers", "0", "--column", "other"], "of other data: column was 'text' and is 'other'"),
        (["--layers", "0", "--max-tokens", "9"], "of other data: max_tokens was None and is 9"),
        (["--layers", "0", "--long", "skip"], "of other data: long was 'cut' and is 'skip'"),
    ],
)  # fmt: skip
def test_a_run_of_something_else_is_not_gone_on_with(options: list[str], words: str, begun: Path) -> None:
    before = listed(begun / "run")
    refused(capture(begun / "run", "--dataset", begun / "texts.jsonl", "--resume", *options), 1, words)
    assert listed(begun / "run") == before


def test_other_files_another_format_and_another_model_are_refused(begun: Path, tmp_path: Path) -> None:
    options = ("--layers", "0", "--resume")
    (tmp_path / "texts.jsonl").write_text('{"text": "x"}\n')
    refused(
        capture(begun / "run", "--dataset", tmp_path / "texts.jsonl", *options),
        1,
        f"of other data: files[0]: bytes was {(begun / 'texts.jsonl').stat().st_size} and is 14;",
    )
    both = [begun / "texts.jsonl", tmp_path / "more.jsonl"]
    both[1].write_text('{"text": "x"}\n')
    words = "of other data: files has 2 where it had 1: files[1] is {'name': 'more.jsonl', 'bytes': 14"
    refused(capture(begun / "run", "--dataset", both[0], "--dataset", both[1], *options), 1, words)
    model, tokenizer = demo.load()
    with torch.no_grad():
        model.transformer.wpe.weight += 1
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    result = capture(begun / "run", "--dataset", begun / "texts.jsonl", *options, model=tmp_path / "model")
    refused(result, 1, "of another model: name was 'demo'")
    manifest = begun / "run" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(text), "format": 3}))
    try:
        refused(capture(begun / "run", "--dataset", begun / "texts.jsonl", *options), 1, "has format 3")
    finally:
        manifest.write_text(text)


# --- refused before the model is loaded ------------------------------------------------------------------------------


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--text", "x"], ["--text is of one text, and --dataset of many"]),
        (["--file", "x"], ["--file is of one text"]),
        (["--generate", "3"], ["--generate is of one text"]),
        (["-"], ["a text from standard input is of one text"]),
        (["--column", "body"], ["texts.jsonl has no column 'body' (--column)", "text, key"]),
        (["--sample-by", "document"], ["--sample-by document is for .txt files"]),
        (["--worker", "3/2", "--resume"], ["write I/N"]),
        (["--worker", "1/2"], ["this is worker 1/2 (--worker)", "add --resume"]),
        (["--resume", "--overwrite"], ["choose one"]),
        (["--long", "split"], ["'split' is not one of 'cut', 'skip', 'fail'"]),
        (
            ["--long", "fail", "--batch", "1"],
            ["row 12 (id '12') has more tokens than the context window, 1,024; cut", "--long cut"],
        ),
        (["--heads", "99"], ["head 99"]),
        (["--dtype", "int8"], ["int8"]),
        (["--dataset", "gone.jsonl"], ["there is no file gone.jsonl"]),
    ],
)
def test_bad_input(options: list[str], words: list[str], texts: Path, tmp_path: Path) -> None:
    with texts.open("a") as file:
        file.write(json.dumps({"text": " ".join(WORDS[:1000]), "key": "long"}) + "\n")
    refused(capture(tmp_path / "run", "--dataset", texts, *options), 2, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--resume"], "--resume goes on with --dataset; of one text all is recorded or nothing"),
        (["--limit", "3"], "--limit is of a corpus; give --dataset too"),
        (["--column", "text"], "--column is of a corpus; give --dataset too"),
    ],
)
def test_options_of_a_corpus_with_one_text(option: list[str], words: str, tmp_path: Path) -> None:
    refused(capture(tmp_path / "run", "--text", "x", *option), 2, words)


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize("model_last", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_glob_that_the_shell_made_files_of(count: int, model_last: bool, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jsonl" for number in range(count)]
    for file in files:
        file.write_text('{"text": "To be"}\n')
    words = ["--dataset", *files, "demo"] if model_last else ["demo", "--dataset", *files]
    result = call("capture", "-o", tmp_path / "run", *words)
    refused(result, 2, f"{str(files[1])!r} belongs to no option", "quote the glob")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("never_loaded")
def test_a_text_from_standard_input_beside_a_corpus(texts: Path, tmp_path: Path) -> None:
    refused(capture(tmp_path / "run", "-", "--dataset", texts), 2, "a text from standard input is of one text")


@pytest.mark.usefixtures("never_loaded")
def test_places_that_are_taken(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    refused(capture(tmp_path / "notes", "--dataset", texts), 2, "exists already", "--resume", "--overwrite")
    refused(capture(tmp_path / "notes", "--dataset", texts, "--resume"), 2, "is not a run of attnprobe")
    refused(capture(tmp_path / "notes" / "mine.txt" / "run", "--dataset", texts, "--resume"), 1, "is not a directory")


@pytest.mark.usefixtures("never_loaded")
def test_a_corpus_of_which_no_row_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": 3}\n')
    refused(
        capture(tmp_path / "run", "--dataset", tmp_path), 2,
        "of a.jsonl no row can be recorded: 1 whose text is no string of Unicode, 1 without text",
    )  # fmt: skip


@pytest.mark.usefixtures("never_loaded")
def test_a_launcher_that_contradicts_itself(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(capture(tmp_path / "run", "--dataset", texts, "--resume"), 2, "RANK=2 and WORLD_SIZE=2 contradict")


@pytest.mark.usefixtures("never_loaded")
def test_what_does_not_fit_ends_with_4(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprobe.planning import free

    monkeypatch.setattr(free, "disk", lambda path: 1 << 20)
    refused(capture(tmp_path / "run", "--dataset", texts), 4, "do not fit", "of disk", "--keep topk:4")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("never_loaded")
def test_a_resume_that_does_not_fit_names_no_selection_that_it_would_refuse(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attnprobe.planning import free

    monkeypatch.setattr(free, "disk", lambda path: 1 << 10)
    options = ("--dataset", begun / "texts.jsonl", "--layers", "0", "--resume")
    result = capture(begun / "run", *options)
    refused(result, 4, "do not fit", "of disk", "free some, or run fewer samples together (--batch), and go on")
    assert "--keep" not in result.stderr and "--queries" not in result.stderr and "nearest" not in result.stderr
    result = capture(begun / "run", *options, "--batch", 1)
    refused(result, 4, "; free some, and go on: what the run lists is kept")


def test_a_recording_that_goes_on_and_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprobe.planning import free

    model, tokenizer = demo.load()
    inputs = tokenizer(TEXTS[1], return_tensors="pt")

    def run(to: str, name: str) -> None:
        with ap.record(model, tokenizer, to=tmp_path / to, layers="0", resume=True) as rec, rec.sample(id=name):
            model(**inputs, use_cache=False)

    run("run", "a")
    monkeypatch.setattr(free, "disk", lambda path: 1 << 10)
    with pytest.raises(ap.BudgetError, match="; free some, and go on: what the run lists is kept$"):
        run("run", "b")
    with pytest.raises(ap.BudgetError, match="nothing near fits"):
        run("new", "a")
    assert [sample.id for sample in ap.open(tmp_path / "run").samples] == ["a"]


@pytest.mark.usefixtures("never_loaded")
def test_an_encoder_decoder(texts: Path, tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config(vocab_size=400, d_model=16, num_layers=1, num_heads=2).save_pretrained(tmp_path / "model")
    tokenizer_with_ends(tmp_path / "model")
    result = capture(tmp_path / "run", "--dataset", texts, model=tmp_path / "model")
    refused(result, 2, "is an encoder-decoder", "record() in Python")


def test_the_library_is_missing(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(capture(tmp_path / "run", "--dataset", texts), 2, 'pip install "attnprobe[data]"')


# --- a process of its own --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_signal_of_a_cluster_ends_with_130_and_what_is_whole_stays(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=64, vocab_size=500)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer_with_ends(tmp_path / "model")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[n % 12] for n in range(40_000)))
    command = [sys.executable, "-m", "attnprobe.cli", "capture", "model", "--dataset", "a.txt", "-o", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    started = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
    while progress.bytes_on_disk(tmp_path / "run") < 5 << 20:  # rows come in
        assert started.poll() is None
        time.sleep(0.05)
    started.terminate()
    stdout, stderr = started.communicate(timeout=60)
    assert (started.returncode, stdout, stderr.splitlines()[-1]) == (130, "", "interrupted")
    assert "what is listed in run is kept" in stderr
    run = ap.open(tmp_path / "run")
    assert 0 < len(run) < 40_000 and not list((tmp_path / "run").rglob("*.partial"))
    assert len(listed(tmp_path / "run")) == len(run)
