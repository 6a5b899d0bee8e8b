"""Levels of maps: what a run keeps of them, and what is made of weights, against the definition on the whole map."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import DynamicCache

import attnprobe as ap
from attnprobe import demo
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.pyramid import LAST, PATCH, SMALL, cells, levels_of
from attnprobe.run import Run
from attnprobe.store import pyramids
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter

References = dict[tuple[int, str], np.ndarray]
ULP = 2.0**-8  # of bfloat16: half of it is what rounding may cost


def reference(weights: np.ndarray, level: int, rows: Sequence[int] | None = None, how: str = "max") -> np.ndarray:
    """The definition, in float64: the map is widened by zeros to whole cells; rows that were not kept do not count."""
    size = 1 << level
    queries, keys = weights.shape
    down, across = cells(queries, level), cells(keys, level)
    wide = np.zeros((down * size, across * size))
    wide[:queries, :keys] = weights
    kept = np.zeros(down * size, bool)
    kept[list(range(queries) if rows is None else rows)] = True
    grid = wide.reshape(down, size, across, size)
    counts = kept.reshape(down, size).sum(1)
    masked = np.where(kept.reshape(down, size, 1, 1), grid, -np.inf if how == "max" else 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = masked.max((1, 3)) if how == "max" else masked.sum((1, 3)) / (counts[:, None] * size)
    return np.where(counts[:, None] > 0, pooled, np.nan)


def causal(length: int, seed: int = 0, heads: int = 2) -> torch.Tensor:
    logits = torch.randn(heads, length, length, generator=torch.Generator().manual_seed(seed)) * 3
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    return logits.masked_fill(~mask, -torch.inf).softmax(-1)


def of_one(sites: Sequence[Site], dtype: str, pyramid: bool = True, keys: str = "all") -> Manifest:
    keep = ({"what": "weights", "dtype": dtype, "keys": keys, "pyramid": pyramid},)
    return Manifest({"class": "Test"}, sites, keep, {}, "now")


def site(heads: int = 2, queries: str = "main", keys: str = "main") -> Site:
    return Site("h.0", "self" if queries == keys else "cross", "decoder", 0, heads, heads, queries, keys)


def written(
    path: Path,
    weights: torch.Tensor,
    cuts: Sequence[Sequence[int]],
    dtype: str = "float32",
    groups: Sequence[tuple[int, ...]] | None = None,
    causal: bool = True,
    **options: Any,
) -> Run:
    """A run of one map of some heads, written in blocks of these rows, a group of heads after the other."""
    heads, queries, keys = weights.shape
    one = site(heads) if queries == keys else site(heads, "main", "source")
    field = Field(0, one, 0, tuple(range(heads)), dtype)
    writer = DirectoryWriter(path, of_one([one], dtype), **options)
    from attnprobe.codes import encode

    for group in groups or [field.heads]:
        for rows in cuts:
            stop = rows[-1] + 1 if causal else keys
            block = encode(weights[list(group)][:, list(rows), :stop], dtype).contiguous()
            at = range(rows[0], rows[-1] + 1) if len(rows) == rows[-1] + 1 - rows[0] else tuple(rows)
            writer.write(field, Block(tuple(group), at, 0, block))
    sequences = {"main": TokenSequence(queries)} | ({} if queries == keys else {"source": TokenSequence(keys)})
    writer.commit(Sample(0, "0", sequences, queries))
    writer.close()
    return ap.open(path)


def cut(length: int, *stops: int) -> list[range]:
    return [range(a, b) for a, b in itertools.pairwise([0, *stops, length])]


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert (np.isnan(found) == np.isnan(wanted)).all()
    there = ~np.isnan(wanted)
    assert (np.abs(found[there] - wanted[there]) <= ULP * np.abs(wanted[there]) + 1e-30).all()


def check(run: Run, weights: np.ndarray, rows: Sequence[int] | None = None) -> None:
    for number, how in itertools.product(range(len(weights)), ("max", "mean")):
        levels = run["h.0", number].levels
        for level in (0, 1, *levels.kept):
            close(levels.read(level, how=how), reference(weights[number], level, rows, how))


# --- which there are -----------------------------------------------------------------------------------------------


def test_levels_end_with_the_first_that_fits_a_patch() -> None:
    assert [list(levels_of(n, n)) for n in (0, 14, SMALL, SMALL + 1, 2048, 2049, 32768)] == [
        [], [], [], [2, 3], [2, 3], [2, 3, 4], [2, 3, 4, 5, 6, 7],
    ]  # fmt: skip
    for length in (SMALL + 1, 5000, 131072):
        top = levels_of(10, length)[-1]
        assert cells(length, top) <= PATCH < cells(length, top - 1)
    assert levels_of(1 << 24, 1)[-1] == LAST


def test_a_small_map_has_none_and_a_large_one_has_all(tmp_path: Path) -> None:
    for length, kept in ((SMALL, ()), (SMALL + 1, (2, 3))):
        weights = causal(length, heads=1)
        run = written(tmp_path / str(length), weights, cut(length, 512))
        assert run[0, 0].levels.kept == kept
        check(run, weights.numpy())


# --- what they hold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "log-uint8"])
def test_levels_are_of_the_stored_weights(tmp_path: Path, dtype: str) -> None:
    weights = causal(2100)
    run = written(tmp_path / "run", weights, cut(2100, 130, 271, 412, 1024, 1500, 2047), dtype)
    assert run[0, 1].levels.kept == (2, 3, 4)
    check(run, np.stack([run[0, head].numpy().astype(np.float64) for head in range(2)]))


@settings(max_examples=6, deadline=None)
@given(
    stops=st.lists(st.integers(1, 1299), unique=True, max_size=12).map(sorted),
    narrow=st.booleans(),
    bound=st.sampled_from([64 << 10, 256 << 10, 64 << 20]),
    at_once=st.sampled_from([1000, 40_000, pyramids.AT_ONCE]),
)
def test_blocks_may_be_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], narrow: bool, bound: int, at_once: int
) -> None:
    weights = causal(1300)
    groups = [(0,), (1,)] if narrow else [(0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramids, "AT_ONCE", at_once)
        path = tmp_path_factory.mktemp("run") / "run"
        run = written(path, weights, cut(1300, *stops), groups=groups, held=bound)
    if bound == 64 << 20:  # where memory is short, a map that is small so far is given up
        assert run[0, 0].levels.kept == (2, 3)
    check(run, weights.numpy())


def test_rows_with_gaps_count_what_was_kept(tmp_path: Path) -> None:
    weights = causal(1400)
    rows = [*range(0, 700, 3), *range(1000, 1040), 1399]
    run = written(tmp_path / "run", weights, [rows[:50], rows[50:200], rows[200:]])
    levels = run[0, 0].levels
    assert levels.kept == (2, 3)
    for how in ("max", "mean"):
        for level in (1, 2, 3, 5):
            close(levels.read(level, how=how), reference(weights[0].numpy(), level, rows, how))
    assert np.isnan(levels.read(2)[200]).all()  # rows 800 to 803 were not kept


def test_heads_may_come_in_other_groups_later(tmp_path: Path) -> None:
    weights = causal(1300, heads=4)
    one = site(4)
    writer = DirectoryWriter(tmp_path / "run", of_one([one], "float32"))
    field = Field(0, one, 0, (0, 1, 2, 3), "float32")

    def write(heads: tuple[int, ...], rows: range) -> None:
        writer.write(
            field, Block(heads, rows, 0, weights[list(heads), rows.start : rows.stop, : rows.stop].contiguous())
        )

    for heads in ((0, 1, 2), (3,)):
        write(heads, range(0, 601))
    for heads in ((0,), (1, 3), (2,)):
        write(heads, range(601, 1290))
    write((0, 1, 2, 3), range(1290, 1300))
    writer.commit(Sample(0, "0", {"main": TokenSequence(1300)}, 1300))
    writer.close()
    run = ap.open(tmp_path / "run")
    assert run[0, 3].levels.kept == (2, 3)
    check(run, weights.numpy())


def test_cross_attention_of_two_lengths(tmp_path: Path) -> None:
    weights = torch.rand(2, 40, 3000, generator=torch.Generator().manual_seed(1)).softmax(-1)
    run = written(tmp_path / "run", weights, cut(40, 17), causal=False)
    levels = run["h.0", 1].levels
    assert levels.kept == (2, 3, 4)
    assert levels.shape(4) == (3, 188)
    check(run, weights.numpy())


def test_a_window_is_kept_where_it_is(tmp_path: Path) -> None:
    length, width = 2200, 100
    weights = torch.zeros(1, length, length)
    for row in range(length):
        weights[0, row, max(0, row - width) : row + 1] = 1 / min(row + 1, width + 1)
    one = site(1)
    writer = DirectoryWriter(tmp_path / "run", of_one([one], "float16"))
    for first in range(0, length, 550):
        left = max(0, first - width)
        block = weights[:, first : first + 550, left : first + 550].half().contiguous()
        writer.write(Field(0, one, 0, (0,), "float16"), Block((0,), range(first, first + 550), left, block))
    writer.commit(Sample(0, "0", {"main": TokenSequence(length)}, length))
    writer.close()
    run = ap.open(tmp_path / "run")
    check(run, weights.half().float().numpy())
    fields = run.reader.fields(0)
    finest = next(pieces for field, pieces in fields.items() if field.what == "pyramid_max(2)")
    assert sum(piece.shape[1] * piece.shape[2] for piece in finest) < 550 * 300  # of 550 x 550 cells


def test_a_patch_lies_in_one_piece_of_a_plain_file(tmp_path: Path) -> None:
    weights = causal(3000, heads=1)
    run = written(tmp_path / "run", weights, cut(3000, 1000, 2000))
    (shard,) = (tmp_path / "run" / "shards").iterdir()
    tensors = load_file(shard)
    whole = [name for name, tensor in tensors.items() if "pyramid" in name and tensor.shape == (1, PATCH, PATCH)]
    assert len(whole) == 2 * 3 + 2  # level 2: the second and the first strip; level 3: the first
    patch = run[0, 0].levels.patch(2, 1, 0)
    assert any(torch.equal(tensors[name][0].float(), torch.from_numpy(patch)) for name in whole)
    close(patch, reference(weights[0].numpy(), 2)[256:512, :256])
    close(run[0, 0].levels.patch(2, 2, 2, "mean"), reference(weights[0].numpy(), 2, how="mean")[512:, 512:])


@given(level=st.integers(0, 4), ends=st.tuples(*[st.integers(0, 700)] * 4))
@settings(max_examples=40, deadline=None)
def test_any_part_is_what_the_whole_has_there(large: tuple[Run, References], level: int, ends: tuple[int, ...]) -> None:
    run, references = large
    rows, columns = slice(*sorted(ends[:2])), slice(*sorted(ends[2:]))
    for how in ("max", "mean"):
        close(run[0, 0].levels.read(level, rows, columns, how), references[level, how][rows, columns])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, References]:
    weights = causal(2100, heads=1)
    run = written(tmp_path_factory.mktemp("large") / "run", weights, cut(2100, 900, 1800))
    kinds = itertools.product(range(5), ("max", "mean"))
    return run, {(level, how): reference(weights[0].numpy(), level, how=how) for level, how in kinds}


# --- a whole recording ---------------------------------------------------------------------------------------------


def long_demo() -> tuple[Any, torch.Tensor]:
    """The bundled model with a longer window, its positions repeated."""
    model, tokenizer = demo.load()
    inner = model.transformer
    with torch.no_grad():
        inner.wpe.weight = torch.nn.Parameter(inner.wpe.weight.repeat(2, 1))
    inner.config.n_positions = 2048
    ids = tokenizer(demo.text() * 4, return_tensors="pt", truncation=False).input_ids[:, :1500]
    return model, ids


def test_a_recording_keeps_them_beside_its_weights(tmp_path: Path) -> None:
    model, ids = long_demo()
    padded = torch.cat([torch.zeros(2, 11, dtype=torch.long), ids.repeat(2, 1)], 1)
    mask = torch.ones_like(padded)
    mask[0, :11] = 0
    padded[1, :11] = ids[0, 20:31]
    words: dict[str, Any] = {"layers": "1", "heads": "0,6", "dtype": "float16"}
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", **words) as rec:
        model(padded, attention_mask=mask)
    assert rec.run.sample(0)[1, 6].levels.kept == rec.run.sample(1)[1, 6].levels.kept == (2, 3)
    for number in range(2):
        head = rec.run.sample(number)[1, 6]
        weights = head.numpy().astype(np.float64)
        assert weights.shape == (1500 + 11 * number,) * 2
        for level, how in itertools.product((2, 3), ("max", "mean")):
            close(head.levels.read(level, how=how), reference(weights, level, how=how))
    assert not [name for name in rec.run.sample(0).measures.names if "pyramid" in name]


def test_generated_rows_are_in_them(tmp_path: Path) -> None:
    model, ids = long_demo()
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", layers="1", heads="6") as rec:
        model.generate(ids[:, :1100], max_new_tokens=9, do_sample=False, pad_token_id=0)
    head = rec.run[1, 6]
    assert head.shape == (1108, 1108)
    for level in (2, 3):
        close(head.levels.read(level), reference(head.numpy(), level))


def test_rows_may_come_in_several_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a short pass all heads come together and wait to be joined; of a long one, a few at a time pass at once."""
    model, ids = long_demo()
    monkeypatch.setattr("attnprobe.store.join.BLOCK", 64 << 10)
    monkeypatch.setattr("attnprobe.engines.layout.CPU_TILE", 1 << 20)
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", layers="1", budget="64 MiB") as rec:
        cache = DynamicCache()
        for start, stop in ((0, 30), (30, 1230), (1230, 1231), (1231, 1500)):
            model(ids[:, start:stop], past_key_values=cache)
    groups = {piece.heads for field, pieces in rec.run.reader.fields(0).items() for piece in pieces}
    assert len(groups) > 2
    for number in range(8):
        head = rec.run[1, number]
        assert head.levels.kept
        for level in (2, 3):
            close(head.levels.read(level), reference(head.numpy(), level))


def test_they_can_be_left_out(tmp_path: Path) -> None:
    model, ids = long_demo()
    for pyramid in (True, False):
        keep = ap.Weights("1", heads="6", pyramid=pyramid)
        with torch.no_grad(), ap.record(model, to=tmp_path / str(pyramid), keep=keep):
            model(ids)
    with_levels, without = (ap.open(tmp_path / str(pyramid))[1, 6] for pyramid in (True, False))
    assert with_levels.levels.kept == (2, 3)
    assert without.levels.kept == ()
    assert (with_levels.numpy() == without.numpy()).all()
    close(with_levels.levels.read(2, how="mean"), without.levels.read(2, how="mean"))


def test_in_memory_they_are_made_of_the_weights() -> None:
    model, ids = long_demo()
    with torch.no_grad(), ap.record(model, layers="1", heads="6", queries="-300:", keys=":700") as rec:
        model(ids)
    head = rec.run[1, 6]
    weights = np.zeros((1500, 700))
    weights[1200:] = head[1200:, :700]
    for level in (0, 1, 2, 4):
        found = head.levels.read(level)
        edge = cells(700, level)
        close(found[:, :edge], reference(weights, level, range(1200, 1500)))
        assert np.isnan(found[:, edge:]).all()


def test_part_of_the_columns(tmp_path: Path) -> None:
    model, ids = long_demo()
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", layers="1", heads="6", keys="100:1205") as rec:
        model(ids)
    levels = rec.run[1, 6].levels
    weights = np.zeros((1500, 1500))
    weights[:, 100:1205] = rec.run[1, 6][:, 100:1205]
    for level in (1, *levels.kept):
        first, stop = 100 >> level, cells(1205, level)
        found = levels.read(level)
        close(found[:, first:stop], reference(weights, level)[:, first:stop])
        assert np.isnan(found[:, :first]).all()
        assert np.isnan(found[:, stop:]).all()
    assert levels.kept == (2, 3)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"dtype": "float16", "queries": "-300:"},
        {"queries": "::7", "keys": "33:1200", "dtype": "log-uint8"},
        {"queries": "0:900", "generated": "none"},
        {"pyramid": False},
    ],
)
def test_a_plan_knows_their_bytes(tmp_path: Path, words: dict[str, Any]) -> None:
    model, ids = long_demo()
    keep = ap.Weights("0-1", heads="1-3", **words)
    planned = ap.plan(model, ids[:, :1200], generate=5, to=tmp_path / "run", keep=keep)
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", keep=keep) as rec:
        model.generate(ids[:, :1200], max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0)
    assert rec.run.nbytes == planned.nbytes
    assert ap.plan(model, ids[:, :1200], generate=5, keep=keep).nbytes == planned.nbytes - sum(
        piece.shape[0] * piece.shape[1] * piece.shape[2] * 2
        for field, pieces in rec.run.reader.fields(0).items()
        if "pyramid" in field.what
        for piece in pieces
    )


# --- memory and refusals -------------------------------------------------------------------------------------------


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    sites = [Site(f"h.{n}", "self", "decoder", n, 2, 2) for n in range(6)]
    bound = 128 << 10
    writer = DirectoryWriter(tmp_path / "run", of_one(sites, "float32"), held=2 * bound)
    weights = causal(1500)
    most = 0
    for first in range(0, 1500, 150):
        for one in sites:
            values = weights[:, first : first + 150, : first + 150].contiguous()
            writer.write(Field(0, one, 0, (0, 1)), Block((0, 1), range(first, first + 150), 0, values))
            most = max(most, writer._pyramids._waiting)
    assert 0 < most <= bound
    writer.commit(Sample(0, "0", {"main": TokenSequence(1500)}, 1500))
    assert writer._pyramids._waiting == 0
    assert not writer._pyramids._folds
    writer.close()
    run = ap.open(tmp_path / "run")
    for layer in range(6):
        for level in run[layer, 0].levels.kept:
            close(run[layer, 0].levels.read(level), reference(weights[0].numpy(), level))
        close(run[layer, 1].levels.read(3), reference(weights[1].numpy(), 3))  # kept or made


def test_a_discarded_sample_leaves_nothing_waiting(tmp_path: Path) -> None:
    one = site()
    writer = DirectoryWriter(tmp_path / "run", of_one([one], "float32"))
    weights = causal(1200)
    writer.write(Field(0, one, 0, (0, 1)), Block((0, 1), range(1200), 0, weights))
    assert writer._pyramids._waiting > 0
    writer.discard(0)
    assert writer._pyramids._waiting == 0
    writer.close()


def test_what_is_no_level_is_refused(large: tuple[Run, References]) -> None:
    levels = large[0][0, 0].levels
    for bad in ((-1, "max"), (LAST + 1, "max"), (2, "median")):
        with pytest.raises(SelectionError, match=r"levels are 0 to 10"):
            levels.read(bad[0], how=bad[1])
    with pytest.raises(SelectionError, match="no step"):
        levels.read(2, slice(0, 10, 2))
    with pytest.raises(SelectionError, match="no patch 3, 0"):
        levels.patch(2, 3, 0)


def test_other_words_in_place_of_slices_and_levels_are_refused(unchecked: None, large: tuple[Run, References]) -> None:
    levels: Any = large[0][0, 0].levels
    with pytest.raises(SelectionError, match=r"rows='mean': give a slice of cells.*; how='mean' is given by name"):
        levels.read(4, "mean")
    for part in (3, "rows", slice("a"), slice(0, 1.5), (0, 4)):
        with pytest.raises(SelectionError, match="columns=.*: give a slice of cells, as in slice"):
            levels.read(2, columns=part)
    for level in ("2", 1.5, None, True):
        with pytest.raises(SelectionError, match="levels are 0 to 10"):
            levels.read(level)
        with pytest.raises(SelectionError, match="levels are 0 to 10"):
            levels.patch(level, 0, 0)
    assert levels.read(np.int64(2), slice(-3, None), slice(np.int64(4))).shape == (3, 4)


def test_levels_are_shown_in_a_line(large: tuple[Run, References]) -> None:
    levels = large[0][0, 0].levels
    queries, keys = levels.shape(0)
    kept = ", ".join(map(str, levels.kept))
    assert repr(levels).startswith(f"levels 0 to 10 of {queries:,} x {keys:,} weights of ")
    assert repr(levels).endswith(f"; kept: {kept}") and len(repr(levels)) < 160


def test_a_run_without_weights_has_no_levels() -> None:
    model, tokenizer = demo.load()
    with torch.no_grad(), ap.record(model, measures="entropy") as rec:
        model(**tokenizer("To be, or not to be", return_tensors="pt"))
    with pytest.raises(NotKept, match="weights"):
        _ = rec.run[0, 0].levels


def test_a_small_map_that_cannot_grow_is_not_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[int] = []
    fold = pyramids.Pyramids._fold
    monkeypatch.setattr(pyramids.Pyramids, "_fold", lambda self, *args: (folded.append(1), fold(self, *args)))
    model, ids = long_demo()
    with torch.no_grad(), ap.record(model, to=tmp_path / "run", layers="1", heads="6"):
        model(ids[:, :SMALL], use_cache=False)
        assert not folded
        model(ids[:, : SMALL + 1], use_cache=False)
        assert folded
    run = ap.open(tmp_path / "run")
    assert run.sample(0)[1, 6].levels.kept == ()
    assert run.sample(1)[1, 6].levels.kept == (2, 3)
