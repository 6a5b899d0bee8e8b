"""The bundled model: small, trained, with heads of known kinds; and the command that shows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
from attnprobe import demo
from attnprobe.demo.__main__ import PERIOD, induction_score, main, previous_token, record_repeat, strongest


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return demo.load()


def test_the_text_is_a_few_thousand_words() -> None:
    text = demo.text()
    assert text.startswith("Maia is a cute little baby who likes to explore her world!")
    assert 2_000 < len(text.split()) < 10_000


def test_a_stretched_demo_runs_on_any_length_and_repeats_its_positions() -> None:
    model, _ = demo.load(positions=1300)
    ids = torch.arange(200, 1500)[None] % 900 + 100
    with torch.no_grad():
        assert torch.isfinite(model(ids).logits).all()
        first = model(ids[:, :8], position_ids=torch.arange(8)[None]).logits
        again = model(ids[:, :8], position_ids=torch.arange(512, 520)[None]).logits
    assert model.config.n_positions == 1300
    assert torch.equal(first, again)


def test_the_demo_is_at_most_8_megabytes() -> None:
    files = [file for file in Path(demo.__file__).parent.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_a_missing_model_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "path", tmp_path)
    with pytest.raises(ap.AttnprobeError, match="install attnprobe again"):
        demo.load()
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "run")])
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_scores_of_heads_that_do_one_thing_only() -> None:
    previous, induction = np.eye(2 * PERIOD, k=-1), np.eye(2 * PERIOD, k=1 - PERIOD)
    assert previous_token(previous) == induction_score(induction) == 1
    assert previous_token(induction) == induction_score(previous) == 0


def test_the_model_is_ready_to_run(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == "sdpa"
    assert model.config.max_position_embeddings >= 512
    assert model.config.name_or_path == "demo"


def test_the_tokenizer_shows_leading_spaces(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    sentence = "Maia is a cute little baby who likes to explore her world!"
    ids = tokenizer(sentence).input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert "Ġher" in tokens and not any(" " in token for token in tokens)
    assert tokenizer.decode(ids) == sentence


@pytest.mark.parametrize("seed", [101, 202, 303])
def test_heads_have_formed(seed: int, loaded: tuple[Any, Any]) -> None:
    """On random tokens that come twice, of seeds that training did not use."""
    run = record_repeat(loaded[0], seed)
    assert strongest(run, previous_token).score > 0.5
    assert strongest(run, induction_score).score > 0.3


def test_greedy_generation_is_recorded(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    inputs = tokenizer("To be, or not to be", return_tensors="pt")
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    plain = model.generate(**inputs, **options)
    with ap.record(model, tokenizer) as recorder:
        recorded = model.generate(**inputs, **options)
    assert torch.equal(plain, recorded)
    (sample,) = recorder.run.samples
    assert sample.sequences["main"].length == plain.shape[1] - 1


def test_the_demo_prints_and_writes_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "runs" / "demo"
    for _ in range(2):  # the second one replaces the first one's run
        result = CliRunner().invoke(main, ["--out", str(out)])
        assert result.exit_code == 0, result.output
    run = ap.open(out)
    assert run.samples[0].sequences["main"].length == 512
    (figure,) = out.parent.glob("demo-*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    for words in ("previous token", "induction", str(out), str(figure), "--query", repr(run)):
        assert words in result.stdout
    assert sum(line.startswith(">") for line in result.stdout.splitlines()) == 1
    assert "\x1b" not in result.stdout


def test_the_demo_replaces_only_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, directory, other = tmp_path / "file", tmp_path / "directory", tmp_path / "other"
    file.write_text("kept")
    directory.mkdir()
    (directory / "notes").write_text("kept")
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=16, vocab_size=20)
    model = GPT2LMHeadModel(config).eval()
    with ap.record(model, to=other), torch.no_grad():
        model(torch.arange(4)[None], use_cache=False)
    monkeypatch.setattr(demo, "load", lambda: pytest.fail("the model was loaded before the mistake was found"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out in (file, directory, other):
        result = CliRunner().invoke(main, ["--out", str(out)])
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert result.stderr.startswith(f"error: {out} exists") and result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
