"""What `rec.fidelity` says: fine where weights are the kernel's, off where not, nothing where that cannot be."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from test_format import restore
from transformers import GPTJConfig, GPTJForCausalLM

import attnprobe as ap
import attnprobe.interface
from attnprobe.fidelity import FILE, Fidelity, SiteFidelity, largest


@pytest.fixture
def model() -> Any:
    return models.gpt2()


@torch.no_grad()
def test_recorded_weights_times_values_are_what_the_kernel_returned(model: Any, tmp_path: Path) -> None:
    with ap.record(model, layers="0,2", heads=1, to=tmp_path / "run") as rec:
        model.generate(models.ids(1, 9), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert list(rec.fidelity) == ["transformer.h.0.attn", "transformer.h.2.attn"], "the selected sites"
    assert rec.fidelity.worst is not None and rec.fidelity.worst < 1e-5 and rec.fidelity.off == ()
    stored = ap.open(tmp_path / "run").fidelity
    assert stored == rec.fidelity and "largest relative difference" in str(stored)


@pytest.mark.parametrize("change", [{"scale": 0.3}, {"causal": "none"}])
@torch.no_grad()
def test_weights_that_are_not_the_kernels_are_named(
    model: Any, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = attnprobe.interface.registry_call

    def altered(implementation: str, module: Any, *rest: Any) -> Any:
        call = original(implementation, module, *rest)
        return replace(call, **change) if module is model.transformer.h[1].attn else call

    monkeypatch.setattr("attnprobe.interface.registry_call", altered)
    with pytest.warns(ap.RecordingWarning, match="transformer.h.1.attn"), ap.record(model) as rec:
        model(models.ids(1, 12), use_cache=False)
    assert rec.fidelity.off == ("transformer.h.1.attn",)


def test_dropout_and_returned_weights_have_no_product_to_compare() -> None:
    model = models.gpt2(attn_pdrop=0.3).train()
    with ap.record(model) as rec:
        model(models.ids(1, 12), use_cache=False)
    assert rec.fidelity.worst is None and rec.fidelity.off == ()
    assert {one.reason for one in rec.fidelity.values()} == {"dropout was applied to the weights"}
    gptj = GPTJForCausalLM(
        GPTJConfig(n_embd=32, n_layer=1, n_head=4, rotary_dim=4, vocab_size=96, n_positions=32)
    ).eval()
    with torch.no_grad(), ap.record(gptj) as rec:
        gptj(models.ids(1, 8))
    (only,) = rec.fidelity.values()
    assert only.difference is None and only.row_sum < 1e-6 and "gave its weights itself" in only.reason


@torch.no_grad()
def test_what_a_storage_dtype_loses_is_told() -> None:
    model = models.gpt2(initializer_range=1.0)
    lost = {}
    for dtype in ("float32", "float16"):
        with ap.record(model, dtype=dtype) as rec:
            model(models.ids(1, 30), use_cache=False)
        lost[dtype] = max(one.lost for one in rec.fidelity.values())
    assert lost["float32"] <= lost["float16"] and lost["float16"] > 0


@pytest.mark.parametrize(
    "text", ["[]", '{"a": {}}', '{"a": {"dtype": "float32", "difference": "x", "row_sum": 0.0, "lost": 0.0}}']
)
def test_a_file_that_makes_no_sense_is_refused(text: str, tmp_path: Path) -> None:
    run = restore(3, tmp_path / "run")  # the last format that had it
    assert ap.open(run).fidelity
    (run / FILE).write_text(text)
    with pytest.raises(ap.CorruptRun, match=r"fidelity\.json.* makes no sense"):
        ap.open(run)


def test_what_is_no_number_is_null_in_a_journal_and_none_when_it_is_read() -> None:
    nan = float("nan")
    found = Fidelity(
        {
            "a": SiteFidelity("float32", nan, 0.0, 0.0),
            "b": SiteFidelity("float16", 1e-7, float("inf"), nan),
            "c": SiteFidelity("float16", None, 1e-7, 0.0, "dropout"),
        }
    )
    text = json.dumps(found.describe(), allow_nan=False)
    assert json.loads(text)["a"] == {"dtype": "float32", "difference": None, "row_sum": 0.0, "lost": 0.0, "reason": ""}
    read = Fidelity.read(json.loads(text), Path("x"))
    assert read.off == found.off == ("a", "b")
    assert math.isnan(read["a"].difference or 0) and math.isnan(read["b"].row_sum) and math.isnan(read["b"].lost)
    assert read["c"] == found["c"] and read["c"].fine
    assert read.worst is not None and math.isnan(read.worst)
    old = Fidelity.read(json.loads(json.dumps({"a": vars(found["a"])})), Path("x"))  # earlier versions wrote NaN
    assert math.isnan(old["a"].difference or 0)


@torch.no_grad()
def test_a_recording_whose_weights_are_none_keeps_that_as_json(tmp_path: Path) -> None:
    model = models.gpt2()
    model.transformer.h[0].attn.c_attn.weight.fill_(torch.nan)
    with pytest.warns(ap.RecordingWarning), ap.record(model, layers="0", to=tmp_path / "run"):
        model(models.ids(1, 5), use_cache=False)
    (file,) = (tmp_path / "run" / "journal").iterdir()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in file.read_bytes().splitlines():
        json.loads(line[9:], parse_constant=refuse)
    fidelity = ap.open(tmp_path / "run").fidelity
    assert fidelity is not None and fidelity.off == ("transformer.h.0.attn",)


def test_a_difference_that_is_no_number_stays() -> None:
    found = Fidelity(
        {"a": SiteFidelity("float32", float("nan"), 0.0, 0.0), "b": SiteFidelity("float32", 1e-7, 0.0, 0.0)}
    )
    assert found.worst != found.worst and found.off == ("a",)
    for numbers in ([1e-7, float("nan")], [float("nan"), 1e-7]):
        assert largest(numbers) != largest(numbers)
