"""The command line: what each command prints and where, and how each failure ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import attnprobe as ap
from attnprobe import demo
from attnprobe.cli import main
from attnprobe.cli.output import exit_code
from attnprobe.sizes import format_bytes

ROOT = Path(__file__).parents[1]
SENTENCE = "Maia is a cute little baby who likes to explore her world!"
WINDOW = 1024


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small random GPT-2 that never ends a text, and a tokenizer of the bundled text."""
    path = tmp_path_factory.mktemp("model")
    bpe = ByteLevelBPETokenizer()
    text = str(Path(demo.__file__).with_name("text.txt"))
    bpe.train([text], vocab_size=400, min_frequency=2, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(path)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=WINDOW, vocab_size=400, bos_token_id=None, eos_token_id=None
    )
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the sentence."""
    path = tmp_path_factory.mktemp("runs") / "maia"
    result = call("capture", model, "--text", SENTENCE, "-o", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="session")
def ids(model: Path) -> torch.Tensor:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    return tokenizer(SENTENCE, return_tensors="pt").input_ids


@pytest.fixture(scope="session")
def tokens(model: Path, ids: torch.Tensor) -> list[str]:
    strings: list[str] = PreTrainedTokenizerFast.from_pretrained(model).convert_ids_to_tokens(ids[0].tolist())
    return strings


def call(*arguments: Any, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)


def process(*arguments: Any, **environment: str) -> subprocess.Popen[str]:
    """A process of its own, without terminal and network."""
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    env |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, "-m", "attnprobe.cli", *map(str, arguments)]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def refused(result: Result, code: int, *words: str) -> None:
    """It ended with this code, one line on stderr that has these words, and nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("recording")]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words:
        assert word in lines[0]


# --- capture ------------------------------------------------------------------------------------------------------


def test_capture_writes_what_eager_attention_computes(model: Path, run: Path, ids: torch.Tensor) -> None:
    eager = GPT2LMHeadModel.from_pretrained(model, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = eager(ids, output_attentions=True).attentions
    recorded = ap.open(run)
    for layer in range(2):
        np.testing.assert_allclose(recorded.sample().layer_array(layer), expected[layer][0].numpy(), atol=1e-6)


def test_capture_prints_path_and_size_and_keeps_progress_off_stdout(model: Path, tmp_path: Path) -> None:
    result = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run")
    path, size = result.stdout.splitlines()
    assert path == str(tmp_path / "run")
    assert size == repr(ap.open(tmp_path / "run"))
    assert "recording" in result.stderr and "tokens/s" in result.stderr


def test_capture_json_is_one_document_of_numbers(model: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    result = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--json", "-q")
    assert result.stderr == ""
    record = json.loads(result.stdout)
    assert record.pop("seconds") > 0
    assert record.pop("bytes") == ap.open(tmp_path / "run").nbytes
    shards = sum(file.stat().st_size for file in (tmp_path / "run" / "shards").iterdir())
    assert record.pop("bytes_on_disk") == shards
    fidelity = record.pop("fidelity")
    assert fidelity["off"] == [] and 0 <= fidelity["worst"] < 1e-5
    length = ids.shape[1]
    assert record == {
        "path": str(tmp_path / "run"), "samples": 1, "tokens": length, "layers": 2, "heads": 2, "dtype": "float32"
    }  # fmt: skip


@pytest.mark.parametrize("how", ["dash", "file", "file dash"])
def test_the_text_may_come_from_a_file_or_from_standard_input(
    how: str, model: Path, tmp_path: Path, tokens: list[str]
) -> None:
    file = tmp_path / "text.txt"
    file.write_text(SENTENCE)
    source, stdin = {
        "dash": (["-"], SENTENCE),
        "file": (["--file", file], None),
        "file dash": (["--file", "-"], SENTENCE),
    }[how]
    result = call("capture", model, *source, "-o", tmp_path / "run", stdin=stdin)
    assert result.exit_code == 0, result.output
    assert list(ap.open(tmp_path / "run").sample().tokens) == tokens


def test_capture_keeps_what_is_selected(model: Path, tmp_path: Path, run: Path) -> None:
    options = ["--heads", "L1H0", "--queries", "-2:", "--keys", ":3", "--dtype", "float16"]
    assert call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", *options).exit_code == 0
    head, whole = ap.open(tmp_path / "run")[1, 0], ap.open(run)[1, 0]
    length = whole.shape[0]
    assert (head.dtype, head.kept) == ("float16", (length - 2, length - 1))
    np.testing.assert_allclose(head[length - 1, :3], whole[length - 1][:3], atol=1e-3)
    with pytest.raises(ap.NotKept):
        ap.open(tmp_path / "run")[0, 0]


@pytest.mark.parametrize(
    ("keep", "items"),
    [
        (["topk:3"], [{"what": "topk", "k": 3, "dtype": "float16"}]),
        (["weights", "topk"], [{"what": "weights", "dtype": "float16"}, {"what": "topk", "k": 8, "dtype": "float16"}]),
        (["weights", "measures:entropy,max"], [{"what": "weights", "dtype": "float16"}, {"what": "measures"}]),
    ],
)
def test_capture_keeps_what_is_named(keep: list[str], items: list[dict[str, Any]], model: Path, tmp_path: Path) -> None:
    named = [part for one in keep for part in ("--keep", one)]
    options = [*named, "--heads", "L1H0", "--queries", "-2:", "--dtype", "float16"]
    result = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    kept = ap.open(tmp_path / "run").manifest.keep
    assert [{name: one[name] for name in wanted} for one, wanted in zip(kept, items, strict=True)] == items
    assert all((one["heads"], one["queries"]) == ({"1": "0"}, "-2:") for one in kept)
    if "measures" in keep[-1]:
        assert [one["name"] for one in kept[-1]["measures"]] == ["entropy", "max"]


def test_capture_of_measures_keeps_the_default_ones_and_no_weights(model: Path, tmp_path: Path) -> None:
    result = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--keep", "measures")
    assert result.exit_code == 0, result.output
    run = ap.open(tmp_path / "run")
    whats = {field.what for field in run.reader.fields(0)}
    assert {"entropy", "received", "pooled_max"} <= whats and "weights" not in whats


def test_generated_tokens_are_recorded(model: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    result = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--generate", 5)
    assert result.exit_code == 0, result.output
    (sample,) = ap.open(tmp_path / "run").samples
    # The last generated token is never given to the model, so it attends to nothing.
    assert (sample.prompt_length, sample.sequences["main"].length) == (ids.shape[1], ids.shape[1] + 4)


def test_max_tokens_cuts_the_text(model: Path, tmp_path: Path, tokens: list[str]) -> None:
    assert call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--max-tokens", 4).exit_code == 0
    assert list(ap.open(tmp_path / "run").sample().tokens) == tokens[:4]


def test_no_text_keeps_no_words(model: Path, tmp_path: Path) -> None:
    assert call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--no-text").exit_code == 0
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert ap.open(tmp_path / "run").samples[0].sequences["main"].tokens is None
    assert b"Maia" not in written and "Ġher".encode() not in written


def test_overwrite_replaces_a_run(model: Path, tmp_path: Path) -> None:
    call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run")
    assert call("capture", model, "--text", "Her", "-o", tmp_path / "run", "--overwrite").exit_code == 0
    assert ap.open(tmp_path / "run").sample().sample.sequences["main"].length < 5


# --- capture, refused ---------------------------------------------------------------------------------------------


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any, device: str) -> None:
        pytest.fail("the model was loaded before the mistake was found")

    monkeypatch.setattr("attnprobe.cli.models.Named.load", load)


@pytest.mark.usefixtures("never_loaded")
def test_a_run_that_exists_is_not_touched(model: Path, run: Path) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    refused(call("capture", model, "--text", SENTENCE, "-o", run), 2, "exists", "--overwrite")
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ([], f"--max-tokens {WINDOW}"),
        (["--generate", 24], f"--max-tokens {WINDOW - 24}"),
        (["--max-tokens", 1000, "--generate", 100], f"--max-tokens {WINDOW - 100}"),
        (["--max-tokens", 1, "--generate", WINDOW], "generate fewer"),
    ],
)
def test_more_tokens_than_the_context_window(options: list[Any], fix: str, model: Path, tmp_path: Path) -> None:
    text = Path(demo.__file__).with_name("text.txt")
    refused(call("capture", model, "--file", text, "-o", tmp_path / "run", *options), 2, f"{WINDOW:,}", fix)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--text", "x", "--heads", "zero"], "zero"),
        (["--text", "x", "--dtype", "int8"], "int8"),
        (["--text", "x", "--budget", "much"], "much"),
        (["--text", "x", "--keep", "everything"], "weights, topk:K, measures"),
        (["--text", "x", "--keep", "topk:some"], "weights, topk:K, measures"),
        (["--text", "x", "--keep", "topk:0"], "k=0"),
        (["--text", "x", "--keep", "measures:nonsense"], "no measure 'nonsense'"),
        (["--text", "x", "--keep", "topk:3", "--keep", "topk:4"], "--keep topk is there twice"),
        (["--text", "x", "--keep", "measures", "--dtype", "float16"], "--dtype float16 has no meaning"),
        (["--text", "x", "--keep", "measures", "--keys", ":5"], "--keys :5 has no meaning"),
        (["--text", ""], "empty"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
        (["--file", sys.executable], "not UTF-8"),
    ],
)
def test_wrong_options(options: list[str], words: str, model: Path, tmp_path: Path) -> None:
    refused(call("capture", model, *options, "-o", tmp_path / "run"), 2, words)


@pytest.mark.usefixtures("never_loaded")
def test_what_does_not_fit_ends_with_4_before_the_model_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attnprobe.planning import free

    monkeypatch.setattr(free, "disk", lambda path: 2 << 20)
    text = Path(demo.__file__).with_name("text.txt")
    result = call("capture", model, "--file", text, "--max-tokens", 1000, "-o", tmp_path / "run", "--heads", "0")
    refused(result, 4, "1,000 tokens do not fit", "of disk", "--keep measures --heads 0", "--queries -")
    assert not (tmp_path / "run").exists()


def test_heads_that_the_model_lacks(model: Path, tmp_path: Path) -> None:
    refused(call("capture", model, "--text", "x", "--heads", "9", "-o", tmp_path / "run"), 2, "head 9", "0 to 1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sources", [[], ["-", "--text", "x"], ["--text", "x", "--file", "y"], ["more"]])
def test_exactly_one_text_is_wanted(sources: list[str], model: Path, tmp_path: Path) -> None:
    result = call("capture", model, *sources, "-o", tmp_path / "run", stdin="x")
    assert result.exit_code == 2
    assert "--text" in result.stderr and "--file" in result.stderr


def test_a_budget_that_is_too_small_ends_with_4_and_leaves_no_run(model: Path, tmp_path: Path) -> None:
    refused(call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--budget", 8), 4, "budget")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(model: Path, tmp_path: Path) -> None:
    refused(call("capture", model, "--text", "x", "-o", tmp_path / "run", "--device", "nonsense"), 2, "nonsense")


def test_a_path_below_a_file_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(call("capture", model, "--text", "x", "-o", tmp_path / "file" / "run"), 1, "cannot write", "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission(model: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(call("capture", model, "--text", "x", "-o", tmp_path / "run"), 1, "not writable")


def test_a_model_directory_that_is_not_there(tmp_path: Path) -> None:
    refused(call("capture", tmp_path / "gone", "--text", "x", "-o", tmp_path / "run"), 1, "no model directory", "gone")


@pytest.mark.slow
def test_a_hub_model_that_is_not_there(tmp_path: Path) -> None:
    started = process("capture", "no-such-owner/no-such-model", "--text", "x", "-o", tmp_path / "run")
    stdout, stderr = started.communicate(timeout=120)
    assert (started.returncode, stdout) == (1, "")
    assert stderr.count("\n") == 1 and "no-such-owner/no-such-model" in stderr and "hub" in stderr


def test_a_traceback_comes_with_verbose_only(tmp_path: Path) -> None:
    arguments = ("info", tmp_path / "gone")
    assert "Traceback" not in call(*arguments).stderr
    assert "Traceback" in call(*arguments, "-v").stderr


def test_exit_codes_of_errors() -> None:
    errors = {
        ap.StoreError: 1, ap.UnsupportedModel: 1, ap.UnsupportedCall: 1, RuntimeError: 1, OSError: 1,
        ap.SelectionError: 2, ap.TokenError: 2, ap.NotKept: 2, ap.RunExists: 2, ap.BudgetError: 4, MemoryError: 4,
    }  # fmt: skip
    assert {error: exit_code(error("")) for error in errors} == errors


@pytest.mark.slow
def test_an_interrupt_ends_with_130_and_leaves_nothing_half(model: Path, tmp_path: Path) -> None:
    started = process("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--generate", 900)
    assert started.stderr is not None
    assert "recording" in started.stderr.readline()
    started.send_signal(signal.SIGINT)
    stdout, stderr = started.communicate(timeout=60)
    assert (started.returncode, stdout, stderr.strip()) == (130, "", "interrupted")
    assert not (tmp_path / "run").exists()


# --- info ---------------------------------------------------------------------------------------------------------


def test_info_says_what_a_run_holds(run: Path, ids: torch.Tensor) -> None:
    result = call("info", run)
    assert result.exit_code == 0 and result.stderr == ""
    assert repr(ap.open(run)) in result.stdout
    for word in ("GPT2LMHeadModel", "sdpa", "2 self-attention", f"{ids.shape[1]} tokens", "Maia is", torch.__version__):
        assert word in result.stdout


def test_capture_and_info_say_how_large_values_and_files_are(model: Path, tmp_path: Path) -> None:
    said = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run").stderr
    shards = sum(file.stat().st_size for file in (tmp_path / "run" / "shards").iterdir())
    size = f"{format_bytes(ap.open(tmp_path / 'run').nbytes)} of values, {format_bytes(shards)} on disk"
    assert f" tokens/s, {size}\n" in said
    assert f"size      {size}\n" in call("info", tmp_path / "run").stdout
    assert json.loads(call("info", tmp_path / "run", "--json").stdout)["bytes_on_disk"] == shards


def test_measures_of_a_short_text_are_noted_before_they_are_recorded(model: Path, tmp_path: Path) -> None:
    result = call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--keep", "measures")
    assert result.exit_code == 0 and "more than the weights themselves (" in result.stderr.splitlines()[0]
    result = call("plan", model, "--tokens", 20, "--keep", "measures")
    assert result.stderr.startswith("note: of 20 tokens, ") and result.exit_code == 0
    assert call("plan", model, "--tokens", 20, "--keep", "weights").stderr == ""


def test_info_json_has_all_of_it(run: Path, ids: torch.Tensor) -> None:
    record = json.loads(call("info", run, "--json").stdout)
    length = ids.shape[1]
    assert record["sample_list"] == [{"id": "0", "tokens": length, "prompt": length}]
    assert (record["samples"], record["tokens"], record["layers"], record["heads"]) == (1, length, 2, 2)
    assert record["bytes"] == ap.open(run).nbytes
    assert [site["key"] for site in record["sites"]] == ["transformer.h.0.attn", "transformer.h.1.attn"]
    assert record["versions"]["torch"] == torch.__version__


def test_info_without_a_run(tmp_path: Path) -> None:
    refused(call("info", tmp_path / "gone"), 1, "no run", "gone")


# --- show ---------------------------------------------------------------------------------------------------------


def test_show_lists_one_tokens_row(run: Path, tokens: list[str]) -> None:
    at = len(tokens) - 2
    result = call("show", run, "1.0", "--query", at)
    rows = [line.removeprefix(">").split() for line in result.stdout.splitlines()[2:]]
    weights = ap.open(run)[1, 0][at]
    assert [row[:3] for row in rows] == [
        [str(i), t, f"{w:.4f}"] for i, (t, w) in enumerate(zip(tokens, weights, strict=True))
    ]
    (marked,) = [line for line in result.stdout.splitlines() if line.startswith(">")]
    assert marked.split()[1] == str(at)


def test_show_json_gives_every_weight_in_full(run: Path, tokens: list[str]) -> None:
    record = json.loads(call("show", run, "L1H0", "--query", 3, "--json").stdout)
    assert record["query"] == {"position": 3, "token": tokens[3]}
    weights = ap.open(run)[1, 0][3]
    assert record["rows"] == [
        {"position": i, "token": token, "weight": float(weights[i])} for i, token in enumerate(tokens)
    ]


def test_show_finds_a_token_as_shown_and_as_text(run: Path, tokens: list[str]) -> None:
    once = next(t for t in tokens if t.startswith("Ġ") and tokens.count(t) == 1)
    shown = call("show", run, "0.0", "--query", once)
    assert shown.exit_code == 0
    assert call("show", run, "0.0", "--query", once.replace("Ġ", " ")).stdout == shown.stdout
    assert call("show", run, "0.0", "--query", tokens.index(once)).stdout == shown.stdout


def test_show_draws_a_map_and_lists_its_largest_weights(run: Path) -> None:
    result = call("show", run, "0.1")
    top = ap.open(run)[0, 1].top(10)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-10].startswith(f"{top['weight'][0]:.4f}")
    record = json.loads(call("show", run, "0.1", "--json").stdout)
    assert [row["key"] for row in record["top"]] == top["key"].tolist()


def test_show_draws_a_run_of_some_rows_and_columns(model: Path, tmp_path: Path) -> None:
    call("capture", model, "--text", SENTENCE, "-o", tmp_path / "run", "--queries", "1,4,5,9", "--keys", "2:5")
    result = call("show", tmp_path / "run", "0.1")
    assert result.exit_code == 0, result.output
    rows = json.loads(call("show", tmp_path / "run", "0.1", "--query", 4, "--json").stdout)["rows"]
    weights = ap.open(tmp_path / "run")[0, 1][4, 2:5]
    assert [(row["position"], row["weight"]) for row in rows] == list(zip([2, 3, 4], weights.tolist(), strict=True))
    (marked,) = [
        line for line in call("show", tmp_path / "run", "0.1", "--query", 4).stdout.splitlines() if line.startswith(">")
    ]
    assert marked.split()[1] == "4"
    refused(call("show", tmp_path / "run", "0.1", "--query", 2), 2, "row 2", "not kept")


def test_show_shrinks_a_long_map_as_it_reads_it(model: Path, tmp_path: Path) -> None:
    text = Path(demo.__file__).with_name("text.txt")
    call("capture", model, "--file", text, "--max-tokens", 500, "--heads", "L0H0", "-o", tmp_path / "run")
    whole = call("show", tmp_path / "run", "0.0")
    assert whole.exit_code == 0 and "log scale, " in whole.stdout and "a cell shows its largest" in whole.stdout
    part = call(
        "show", tmp_path / "run", "0.0", "--rows", "100:", "--columns", "1:", "--scale", "linear", "--how", "mean"
    )
    assert "linear scale, 0 to" in part.stdout and "a cell shows its mean" in part.stdout
    drawn = part.stdout.splitlines()
    assert drawn[1].split()[0] == "100"
    assert next(line for line in drawn if "scale" in line) is not None and drawn.count("") == 1


def test_show_leaves_out_keys_of_a_row(run: Path, tokens: list[str]) -> None:
    record = json.loads(call("show", run, "1.0", "--query", 4, "--columns", "1:4", "--json").stdout)
    assert [row["token"] for row in record["rows"]] == tokens[1:4]


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--rows", "a:b"], "100:200"), (["--rows", "9:3"], "no part"), (["--columns", "5"], "100:200")],
)
def test_show_refuses_what_is_no_part(options: list[str], words: str, run: Path) -> None:
    refused(call("show", run, "0.0", *options), 2, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["3"], "3.1"),
        (["9.0"], "layer 9"),
        (["0.9"], "head 9"),
        (["0.0", "--query", "nonsense"], "nonsense"),
        (["0.0", "--query", "9999"], "9999"),
        (["0.0", "--sample", "7"], "sample 7"),
        (["0.0", "--sample", "name"], "name"),
    ],
)
def test_show_refuses_what_is_not_there(arguments: list[str], words: str, run: Path) -> None:
    refused(call("show", run, *arguments), 2, words)


def test_show_wants_to_know_which_sample(model: Path, tmp_path: Path) -> None:
    loaded = GPT2LMHeadModel.from_pretrained(model, attn_implementation="sdpa").eval()
    with ap.record(loaded, to=tmp_path / "run"), torch.no_grad():
        loaded(torch.arange(8).reshape(2, 4), use_cache=False)
    refused(call("show", tmp_path / "run", "0.0"), 2, "2 samples", "--sample")
    assert call("show", tmp_path / "run", "0.0", "--sample", 1).exit_code == 0


@pytest.fixture(scope="session")
def named(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of samples whose ids are not their places; one would clear the screen."""
    path = tmp_path_factory.mktemp("runs") / "named"
    loaded = GPT2LMHeadModel.from_pretrained(model, attn_implementation="sdpa").eval()
    with ap.record(loaded, to=path) as recorder, torch.no_grad():
        for place, name in enumerate(("0", "1", "3", "4", "\x1b[2J")):
            with recorder.sample(id=name):
                loaded(torch.arange(3 + place)[None], use_cache=False)
    return path


@pytest.mark.parametrize(("which", "shown"), [("1", "1"), ("3", "3"), ("4", "4"), ("2", "3"), ("-5", "0")])
def test_a_sample_is_meant_by_its_id_before_its_place(which: str, shown: str, named: Path) -> None:
    assert json.loads(call("show", named, "0.0", "--sample", which, "--json").stdout)["sample"] == shown


def test_the_ids_that_are_listed_are_all_there_are(named: Path) -> None:
    result = call("show", named, "0.0")
    refused(result, 2, r"5 samples (0, 1, 3, 4, \x1b[2J);")
    assert "\x1b" not in result.stderr


def test_an_id_cannot_control_the_terminal(named: Path) -> None:
    for query in ([], ["--query", "0"]):
        shown = call("show", named, "0.0", "--sample", "\x1b[2J", *query)
        assert shown.exit_code == 0 and r"sample \x1b[2J" in shown.stdout and "\x1b" not in shown.stdout
    failed = call("show", named, "9.9", "--sample", "\x1b[2J", "-v")
    assert "Traceback" in failed.stderr and "\x1b" not in failed.stderr
    assert "\x1b" not in call("info", named).stdout


def test_a_run_that_lists_no_sample_may_still_be_written(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    for journal in (tmp_path / "run" / "journal").iterdir():
        journal.unlink()
    result = call("show", tmp_path / "run", "0.0")
    refused(result, 2, "lists no sample yet", "still be being written")
    assert "overwrite" not in result.stderr


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    from attnprobe.cli.output import Output

    Output(True, False, False).data({"rows": [{"weight": float("nan")}, (float("inf"), 0.5)]})
    assert json.loads(capsys.readouterr().out) == {"rows": [{"weight": None}, [None, 0.5]]}


def test_show_finds_cross_attention_by_its_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=16, vocab_size=20, add_cross_attention=True)
    loaded = GPT2LMHeadModel(config).eval()
    with ap.record(loaded, to=tmp_path / "run"), torch.no_grad():
        loaded(torch.arange(4)[None], encoder_hidden_states=torch.randn(1, 6, 8), use_cache=False)
    name = "transformer.h.0.crossattention"
    result = call("show", tmp_path / "run", f"{name}.1")
    assert result.exit_code == 0 and f"layer 0 ({name}), head 1, sample 0, 4 x 6" in result.stdout
    record = json.loads(call("show", tmp_path / "run", f"{name}.1", "--query", 2, "--json").stdout)
    assert [row["weight"] for row in record["rows"]] == ap.open(tmp_path / "run")[name, 1][2].tolist()
    refused(call("show", tmp_path / "run", "transformer.h.9.attn.1"), 2, "3.1", "L3H1", f"{name}.1")


# --- terminals ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm-256color"}])
@pytest.mark.parametrize("query", [[], ["--query", "5"]])
def test_output_has_80_columns_and_no_color(environment: dict[str, str], query: list[str], run: Path) -> None:
    started = process("show", run, "0.0", *query, COLUMNS="80", **environment)
    stdout, stderr = started.communicate(timeout=120)
    assert (started.returncode, stderr) == (0, "")
    assert max(map(len, stdout.splitlines())) <= 80
    assert ";" not in "".join(part.split("m")[0] for part in stdout.split("\x1b[")[1:])  # no color; dim and bold may be
    assert environment or "\x1b" not in stdout


@pytest.mark.slow
def test_a_terminal_that_cannot_show_unicode(run: Path, tokens: list[str]) -> None:
    started = process("show", run, "0.0", "--query", "5", PYTHONIOENCODING="ascii")
    stdout, _ = started.communicate(timeout=120)
    assert started.returncode == 0 and stdout.isascii()
    assert "#" in stdout and r"\u0120" in stdout


@pytest.mark.slow
def test_wrong_usage_ends_a_process_with_2(run: Path) -> None:
    started = process("show", run)
    stdout, stderr = started.communicate(timeout=120)
    assert (started.returncode, stdout) == (2, "") and "Usage" in stderr


def test_help_names_every_command_and_exit_code() -> None:
    shown = call("--help").stdout
    for word in ("capture", "info", "plan", "show", "130 interrupted"):
        assert word in shown
    assert "attnprobe capture gpt2" in call("capture", "--help").stdout


def test_the_version_is_that_of_the_code() -> None:
    assert call("--version").stdout.split()[-1] == ap.__version__


def test_reading_takes_no_torch(run: Path) -> None:
    program = (
        "import sys\nfrom click.testing import CliRunner\nfrom attnprobe.cli import main\n"
        "helps = [['--help'], ['capture', '--help'], ['plan', '--help']]\n"
        "for line in (*helps, ['info', sys.argv[1]], ['show', sys.argv[1], '0.0']):\n"
        "    assert CliRunner().invoke(main, line).exit_code == 0, line\n"
        "    assert not {'torch', 'transformers'} & set(sys.modules), line\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program, str(run)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["show", "run", "0.0"]])
def test_an_interrupt_while_modules_load(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attnprobe.cli.import_module", load)
    result = call(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_an_interrupt_before_there_is_a_command(tmp_path: Path) -> None:
    """Of what a start imports, click is what takes longest."""
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for start in (["-m", "attnprobe.cli", "--help"], ["-c", "from attnprobe.cli import main"]):
        done = subprocess.run(
            [sys.executable, *start],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever started the tests may ignore it
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9")])
def test_a_model_that_memory_is_too_small_for(
    error: Exception, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("transformers.GPT2LMHeadModel.from_pretrained", load)
    refused(call("capture", model, "--text", "x", "-o", tmp_path / "run"), 4, "out of memory", "--device")
    assert not (tmp_path / "run").exists()


# --- models of other kinds ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints whose class has no SDPA, that is an encoder-decoder, that has no attention; with a tokenizer."""
    path = tmp_path_factory.mktemp("others")
    t5 = T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0)
    made = {
        "bloom": BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=16, n_layer=2, n_head=2)),
        "t5": T5ForConditionalGeneration(t5),
        "mamba": MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, state_size=4)),
    }
    for name, one in made.items():
        shutil.copytree(model, path / name)
        one.save_pretrained(path / name)
    return path


def test_models_of_other_kinds_on_the_command_line(others: Path, tmp_path: Path) -> None:
    assert "returned" in call("sites", others / "bloom").stdout
    assert "main to source" in call("sites", others / "t5").stdout
    refused(call("sites", others / "mamba"), 1, "no attention module of a known kind")
    assert call("capture", others / "bloom", "--text", SENTENCE, "-o", tmp_path / "bloom").exit_code == 0
    assert len(ap.open(tmp_path / "bloom").sites) == 2
    refused(call("capture", others / "t5", "--text", SENTENCE, "-o", tmp_path / "t5"), 2, "--generate N")
    assert call("capture", others / "t5", "--text", "a", "--generate", 3, "-o", tmp_path / "t5").exit_code == 0
    assert {site.kind for site in ap.open(tmp_path / "t5").sites} == {"self", "cross"}


def test_a_name_in_place_of_a_tokenizer_is_refused_at_once() -> None:
    with pytest.raises(ap.SelectionError, match="tokenizer is a str"):
        ap.record(GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=9)), "gpt2")
