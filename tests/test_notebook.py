"""The task of the notebook that this grew from: what one token of a sentence attends to in one head of GPT-2."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

import attnprobe as ap


@pytest.fixture
def seed(data: Path) -> dict[str, Any]:
    return json.loads((data / "seed-attention.json").read_text())


@pytest.fixture
def tokenizer(data: Path) -> GPT2Tokenizer:
    return GPT2Tokenizer(str(data / "gpt2-tokenizer" / "vocab.json"), str(data / "gpt2-tokenizer" / "merges.txt"))


def test_the_real_tokenizer_gives_the_notebooks_strings(seed: dict[str, Any], tokenizer: GPT2Tokenizer) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=48, n_layer=1)).eval()
    with torch.no_grad(), ap.record(model, tokenizer) as rec:
        model(**tokenizer(seed["text"], return_tensors="pt"))
    head = rec.run[seed["layer"], seed["head"]]
    assert list(head.query_labels) == seed["tokens"]
    row = head.row(seed["source_token"])
    assert row.equals(head.row(" explore"))
    assert row.equals(head.row(seed["source_index"]))
    assert row.name == "Ġexplore"
    assert list(row.index) == seed["tokens"]
    assert row.iloc[11:].eq(0).all()
    assert abs(row.sum() - 1) < 1e-5
    assert head.to_pandas().shape == (14, 14)


def test_a_token_of_two_pieces_and_bytes_that_are_no_text(tokenizer: GPT2Tokenizer) -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=48, n_layer=1)).eval()
    with torch.no_grad(), ap.record(model, tokenizer) as rec:
        model(**tokenizer("naïve 🦊 fox\n fox", return_tensors="pt"))
    sequence = rec.run.samples[0].sequences["main"]
    assert len(sequence.tokens) == sequence.length
    assert tokenizer.convert_tokens_to_ids(list(sequence.tokens)) == sequence.ids.tolist()
    assert rec.run[0, 0].row("Ċ").name == "Ċ"
    with pytest.raises(ap.TokenError, match="2 positions"):
        rec.run[0, 0].row("Ġfox")
    with pytest.raises(ap.TokenError, match="near are"):
        rec.run[0, 0].row("Ġfo")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_table_of_the_real_checkpoint(seed: dict[str, Any], tokenizer: GPT2Tokenizer, attention: str) -> None:
    directory = os.environ.get("ATTNPROBE_GPT2")
    if not directory:
        pytest.skip("ATTNPROBE_GPT2 names no directory with the real GPT-2 checkpoint")
    model = GPT2LMHeadModel.from_pretrained(directory, attn_implementation=attention, dtype=torch.float32).eval()
    with torch.no_grad(), ap.record(model, tokenizer) as rec:
        model(**tokenizer(seed["text"], return_tensors="pt"))
    assert (rec.run.num_layers, rec.run.num_heads) == (seed["num_layers"], seed["num_heads"])
    row = rec.run[seed["layer"], seed["head"]].row(seed["source_token"])
    assert np.abs(row.to_numpy() - np.array(seed["weights"])).max() <= 1e-4
