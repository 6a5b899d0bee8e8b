"""What weights are stored as: codes of one byte within a stated bound, floats as they are."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch

import attnprobe as ap
from attnprobe import demo
from attnprobe.checking import smallest_kept
from attnprobe.codes import BOUND, LEAST, SMALLEST, STORED_AS, decode, encode
from attnprobe.fields import DTYPES, MEASURE_DTYPES, WEIGHT_DTYPES
from attnprobe.keep import resolve
from attnprobe.sites import find_sites

CODE = "log-uint8"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]

# The definition, in Python's own numbers.
VALUES = [0.0, *(2 ** ((code - 254) * 24 / 253) for code in range(1, 255)), math.nan]


def through(weights: torch.Tensor) -> np.ndarray:
    """What is read of what was kept."""
    read: np.ndarray = decode(encode(weights, CODE).cpu().numpy(), CODE)
    return read


def all_exponents() -> torch.Tensor:
    """Floats from the smallest above 0 to 1: of each exponent 4096, both ends and the halfway points of codes."""
    bits = torch.arange(0, 0x3F80_0000 + 1, 1 << 11, dtype=torch.int32)
    halfway = torch.tensor([2 ** ((code - 254.5) * 24 / 253) for code in range(1, 255)], dtype=torch.float32)
    around = [halfway.view(torch.int32) + step for step in (-2, -1, 0, 1, 2)]
    return torch.cat([bits, bits[1:] - 1, *around]).view(torch.float32)


def within(read: np.ndarray, kept: np.ndarray) -> bool:
    """Whether it is what is promised."""
    read, kept = read.astype(np.float64), kept.astype(np.float64)
    bound = np.where(kept >= 2.0**-24, (2 ** (12 / 253) - 1) * kept, 2.0**-24)
    return bool((np.abs(read - kept) <= bound).all())


# --- codes ----------------------------------------------------------------------------------------------------------


def test_what_is_promised_is_what_is_written() -> None:
    assert pytest.approx(2 ** (12 / 253) - 1, rel=1e-12) == BOUND and LEAST == 2.0**-24
    assert pytest.approx(2 ** (-24 - 12 / 253), rel=1e-12) == SMALLEST
    assert 0.0334 < BOUND < 0.0335
    assert set(STORED_AS) == set(DTYPES)
    assert {name: getattr(torch, stored).itemsize for name, stored in STORED_AS.items()} == DTYPES


@pytest.mark.parametrize("device", DEVICES)
def test_every_float_is_read_within_the_bound(device: str) -> None:
    weights = all_exponents()
    assert weights.min() == 0 and weights.max() == 1
    assert len(set((weights.view(torch.int32) >> 23).tolist())) == 128, "every exponent up to that of 1"
    assert within(through(weights.to(device)), weights.numpy())


@pytest.mark.parametrize("device", DEVICES)
def test_the_nearest_code_in_the_logarithm_is_taken(device: str) -> None:
    weights = all_exponents()
    weights = weights[weights >= 2.0**-24]
    exact = 254 + np.log2(weights.double().numpy()) * 253 / 24
    codes = encode(weights.to(device), CODE).cpu().numpy()
    assert codes.min() == 1 and np.abs(codes - exact).max() < 0.5 + 1e-3


def test_codes_mean_what_the_definition_says() -> None:
    read = decode(np.arange(256, dtype=np.uint8), CODE)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, VALUES, rtol=1e-7)
    assert (read[0], read[1], read[254]) == (0, 2.0**-24, 1) and np.isnan(read[255])


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_read_is_kept_as_it_is(device: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    again = encode(torch.from_numpy(decode(codes, CODE)).to(device), CODE)
    assert again.dtype == torch.uint8 and again.cpu().tolist() == codes.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("weight", "code"),
    [
        (0.0, 0),
        (-0.0, 0),
        (1e-45, 0),
        (0.99 * 2 ** (-24 - 12 / 253), 0),
        (1.01 * 2 ** (-24 - 12 / 253), 1),
        (2.0**-24, 1),
        (1.0, 254),
        (1 + 1e-6, 254),
        (math.inf, 254),
        (math.nan, 255),
        (-0.25, 255),
    ],
)
def test_the_ends_of_the_scale(weight: float, code: int, device: str) -> None:
    assert encode(torch.tensor([weight], device=device), CODE).tolist() == [code]


def test_a_larger_weight_never_has_a_smaller_code() -> None:
    codes = encode(all_exponents().sort().values, CODE).int()
    assert (codes.diff() >= 0).all() and codes.unique().tolist() == list(range(255))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_have_the_codes_of_the_same_numbers(dtype: torch.dtype) -> None:
    weights = torch.rand(3, 70, generator=torch.Generator().manual_seed(0)).pow(8).to(dtype)
    assert torch.equal(encode(weights, CODE), encode(weights.float(), CODE))
    assert within(through(weights), weights.double().numpy())


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (2, 1, 3), (3, 700, 601), (1, 1, 400_000)])
def test_any_shape_and_any_strides(shape: tuple[int, ...]) -> None:
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = weights.clone()
    codes = encode(weights, CODE)
    assert codes.shape == weights.shape and torch.equal(weights, before)
    assert codes.flatten().tolist() == [c for one in weights.flatten().split(999) for c in encode(one, CODE).tolist()]
    read = decode(codes.numpy(), CODE)
    assert read.shape == shape and read.tolist() == np.float32(VALUES)[codes.numpy()].tolist()
    if weights.ndim == 3:
        part = weights.permute(0, 2, 1)[:, ::3, 5:]
        assert torch.equal(encode(part, CODE), codes.permute(0, 2, 1)[:, ::3, 5:])
        np.testing.assert_array_equal(decode(codes.numpy()[:, 1::2, ::3], CODE), read[:, 1::2, ::3])


def test_weights_that_a_gradient_flows_through_can_be_kept() -> None:
    weights = torch.rand(4, requires_grad=True)
    assert not encode(weights, CODE).requires_grad
    with torch.inference_mode():
        assert encode(torch.rand(4), CODE).dtype == torch.uint8


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_codes_do_not_depend_on_the_default_dtype(default: torch.dtype) -> None:
    weights = all_exponents()
    codes, before = encode(weights, CODE), torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        assert torch.equal(encode(weights, CODE), codes)
    finally:
        torch.set_default_dtype(before)


# --- floats ---------------------------------------------------------------------------------------------------------


def test_bfloat16_is_read_from_its_bits_as_torch_does() -> None:
    patterns = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    floats = patterns.view(torch.bfloat16).float().numpy()
    read = decode(patterns.numpy().view(np.uint16).reshape(4, -1), "bfloat16")
    assert read.dtype == np.float32 and read.shape == (4, 1 << 14)
    np.testing.assert_array_equal(read.reshape(-1).view(np.uint32), floats.view(np.uint32))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_the_others_are_as_they_are(dtype: str) -> None:
    values = torch.tensor([[0.0, 1.0, 3.0]])
    stored = encode(values, dtype)
    assert str(stored.dtype) == f"torch.{dtype}"
    assert decode(stored.numpy(), dtype).dtype == dtype and decode(stored.numpy(), dtype).tolist() == values.tolist()
    assert encode(stored, dtype) is stored


def test_reading_codes_takes_no_torch() -> None:
    """The modules themselves: what the package imports beside them is another test's."""
    package = str(Path(ap.__file__).parent)
    code = f"""
import sys, types
import numpy as np
package = types.ModuleType("attnprobe")
package.__path__ = [{package!r}]
sys.modules["attnprobe"] = package
from attnprobe.codes import decode
assert decode(np.array([254], np.uint8), "log-uint8").tolist() == [1.0]
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_runs() -> tuple[ap.Run, ap.Run]:
    """The bundled model on 60 tokens and 40 generated ones, in float32 and in codes, both from the same tiles."""
    model, tokenizer = demo.load()
    inputs = tokenizer(demo.text()[:2000], return_tensors="pt", truncation=True, max_length=60)
    keep = [ap.Weights(), ap.TopK(k=5)]
    coded = [ap.Weights(dtype=CODE), ap.TopK(k=5, dtype=CODE)]
    with torch.no_grad(), ap.record(model, tokenizer, keep=keep) as a, ap.record(model, tokenizer, keep=coded) as b:
        model.generate(**inputs, max_new_tokens=40, min_new_tokens=40, do_sample=False)
    return a.run, b.run


def heads_of(run: ap.Run) -> list[ap.Head]:
    site_heads = [(site.layer, head) for site in run.sites for head in range(site.heads)]
    return [run[layer, head] for layer, head in site_heads]


def test_a_recording_is_within_the_bound_of_the_same_in_float32(two_runs: tuple[ap.Run, ap.Run]) -> None:
    exact, coded = map(heads_of, two_runs)
    assert len(exact) == len(coded) > 8 and exact[0].shape[0] > 90, "the prompt, and generated rows joined to blocks"
    for want, got in zip(exact, coded, strict=True):
        assert (want.dtype, got.dtype, got.numpy().dtype) == ("float32", CODE, np.float32)
        assert got.kept == want.kept and want.numpy().max() > 0.1
        assert within(got.numpy(), want.numpy())
        assert (np.triu(got.numpy(), 1) == 0).all()
        np.testing.assert_array_equal(got.numpy(), through(torch.from_numpy(want.numpy())))
    assert coded[0].row(5).tolist() == coded[0].numpy()[5].tolist() and coded[0].torch().dtype == torch.float32


def test_a_recording_takes_a_byte_a_weight(two_runs: tuple[ap.Run, ap.Run]) -> None:
    exact, coded = ([h.nbytes for h in heads_of(run)] for run in two_runs)
    top, of_top = 5 * (4 + 4) + 4, 5 * (1 + 4) + 4
    rows = len(heads_of(two_runs[0])[0].kept)
    for four, one in zip(exact, coded, strict=True):
        weights = (four - rows * top) // 4
        # Joined rows are padded with zeros to the widest: blocks of less bytes take in more rows.
        assert weights <= one - rows * of_top <= 1.5 * weights


def test_the_largest_weights_of_rows(two_runs: tuple[ap.Run, ap.Run]) -> None:
    for want, got in zip(*map(heads_of, two_runs), strict=True):
        (values, keys, rest), (coded, coded_keys, coded_rest) = want.topk.numpy(), got.topk.numpy()
        np.testing.assert_array_equal(keys, coded_keys)
        np.testing.assert_array_equal(rest, coded_rest)
        assert coded.dtype == np.float32 and within(coded, values) and (np.diff(coded, axis=1) <= 0).all()


def test_fidelity_is_of_the_weights_before_they_are_stored(two_runs: tuple[ap.Run, ap.Run]) -> None:
    exact, coded = (run.fidelity for run in two_runs)
    assert exact and coded and coded.off == () and coded.worst == exact.worst
    assert coded[next(iter(coded))].lost >= exact[next(iter(exact))].lost


def test_weights_that_become_zero_are_said_to_be_lost() -> None:
    sites = find_sites(models.gpt2()).sites
    items = {dtype: [resolve(ap.Weights(dtype=dtype), 0, sites)] for dtype in WEIGHT_DTYPES}
    for dtype, kept in items.items():
        smallest = smallest_kept(kept)
        assert encode(torch.tensor(0.98 * smallest, dtype=torch.float64), dtype) == 0 or dtype != CODE
        assert encode(torch.tensor(smallest * 1.01, dtype=torch.float64), dtype) > 0
    both = smallest_kept(items["float32"] + items[CODE])
    assert both == SMALLEST


@torch.no_grad()
def test_padded_batches_are_cut_to_their_samples() -> None:
    model, batch = models.gpt2(), models.padded([9, 14, 5], "left")
    with ap.record(model) as a, ap.record(model, dtype=CODE, queries="1:", keys=":7") as b:
        model(**batch)
    for want, got in zip(a.run, b.run, strict=True):
        exact = want[1, 2].numpy()[1:, :7]
        assert got[1, 2].kept == tuple(range(1, got[1, 2].shape[0]))
        np.testing.assert_array_equal(got[1, 2][1:, :7], through(torch.from_numpy(exact.copy())))


@torch.no_grad()
def test_a_weight_that_is_not_a_number_stays_one() -> None:
    model = models.gpt2()
    with pytest.warns(ap.RecordingWarning), ap.record(model, dtype=CODE, layers="0") as rec:
        embeddings = torch.randn(1, 6, 64)
        embeddings[0, 3] = math.nan
        model(inputs_embeds=embeddings)
    read = rec.run[0, 0].numpy()
    assert np.isnan(read[3:, :4]).all() and not np.isnan(read[:3]).any()


@torch.no_grad()
def test_of_several_fields_the_most_precise_is_read() -> None:
    model = models.gpt2()
    for dtypes in (["log-uint8", "bfloat16"], ["log-uint8", "float16"], ["bfloat16", "log-uint8", "float32"]):
        keep = [ap.Weights("0", queries="2:" if n else "all", dtype=dtype) for n, dtype in enumerate(dtypes)]
        with ap.record(model, keep=keep) as rec, ap.record(model) as plain:
            model(models.ids(1, 9))
        exact, read = plain.run[0, 1].numpy(), rec.run[0, 1].numpy()
        best = min(dtypes, key=WEIGHT_DTYPES.index)
        assert read.dtype == np.float32
        want = torch.from_numpy(exact).to(getattr(torch, best)).float().numpy()
        np.testing.assert_array_equal(read[2:], want[2:])
        assert within(read, exact)


@pytest.mark.parametrize(
    ("load", "keep", "to"),
    [
        ((1, 300, 0), [ap.Weights(dtype=CODE)], None),
        ((3, 40, 30), [ap.Weights(dtype=CODE, queries="-20:")], None),
        ((2, 130, 5), [ap.TopK(k=5, dtype=CODE), ap.Weights("1", keys=":99", dtype=CODE)], None),
        ((2, 130, 5), [ap.TopK(k=5, dtype=CODE), ap.Weights("1", keys=":99", dtype=CODE)], "run"),
    ],
)
def test_planned_bytes_are_those_of_the_run(
    load: tuple[int, int, int], keep: list[Any], to: str | None, tmp_path: Path
) -> None:
    batch, tokens, generate = load
    model = models.gpt2(n_positions=512)
    model.generation_config.eos_token_id = None
    options: dict[str, Any] = {"keep": keep, "to": to and tmp_path / to, "budget": "1 MiB"}
    ids = models.ids(batch, tokens)
    plan = ap.plan(model, ids, generate=generate, **options)
    with torch.no_grad(), ap.record(model, **options) as rec:
        if generate:
            mask = torch.ones_like(ids)
            model.generate(ids, attention_mask=mask, max_new_tokens=generate, do_sample=False, pad_token_id=0)
        else:
            model(ids, use_cache=False)
    assert plan.nbytes == rec.run.nbytes > 0


def test_a_plan_counts_encoding() -> None:
    model = models.gpt2(n_positions=2048)
    half, code = (ap.plan(model, 2000, dtype=dtype) for dtype in ("float16", CODE))
    assert code.nbytes < 0.55 * half.nbytes and code.operations > half.operations
    assert code.need.host is not None and half.need.host is not None and code.need.host < half.need.host


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", torch.uint8, "log_uint8", "LOG-UINT8", "int32"])
def test_other_names_are_refused(dtype: Any) -> None:
    for item in (ap.Weights, ap.TopK):
        with pytest.raises(ap.SelectionError, match="write one of float32, float16, bfloat16, log-uint8"):
            item(dtype=dtype)


def test_a_measure_is_not_stored_in_codes() -> None:
    @ap.row_measure(unit="mass", formula="sum", source="here", dtype=CODE)
    def mass(rows: ap.SampleRows) -> torch.Tensor:
        return rows.weights.sum(-1)

    assert set(MEASURE_DTYPES) == set(DTYPES) - {CODE}
    with pytest.raises(ap.SelectionError, match="one of float32, float16, bfloat16, int32$"):
        ap.Measures(names=[mass])
