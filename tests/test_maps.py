"""One whole row is read by a short way where it lies in one place: it has to be the row that the long way reads."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attnprobe as ap
from attnprobe.codes import encode
from attnprobe.errors import NotKept, SelectionError
from attnprobe.fields import WEIGHT_DTYPES, Block, Field, Sample, Site, TokenSequence
from attnprobe.maps import Map
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore
from tests import models

T, K, HEADS = 9, 12, 3
SITE = Site("h.0", "cross", "decoder", 0, HEADS, HEADS, keys="source")
Layout = tuple[str, str, list[Block]]  # dtype, kept keys, blocks
Make = Callable[[list[Layout]], ap.Run]


@pytest.fixture(params=["memory", "directory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a run of one sample of T rows and K columns; a field each layout."""
    numbers = iter(range(10_000))

    def made(layouts: list[Layout]) -> ap.Run:
        keep = tuple({"keys": keys} for _, keys, _ in layouts)
        manifest = Manifest({"class": "Made"}, (SITE,), keep, {}, "2025-01-01T00:00:00+00:00")
        where = tmp_path / f"run{next(numbers)}"
        store: Any = MemoryStore(manifest) if request.param == "memory" else DirectoryWriter(where, manifest)
        for group, (dtype, _, blocks) in enumerate(layouts):
            heads = tuple(sorted({head for block in blocks for head in block.heads}))
            for block in blocks:
                values = encode(block.values, dtype).clone()
                store.write(Field(0, SITE, group, heads, dtype), Block(block.heads, block.rows, block.start, values))
        store.commit(Sample(0, "s", {"main": TokenSequence(T), "source": TokenSequence(K)}, T))
        store.close()
        return ap.Run(store) if request.param == "memory" else ap.open(where)

    return made


def block(heads: tuple[int, ...], rows: Any, start: int, width: int, seed: int = 0) -> Block:
    random = torch.Generator().manual_seed(seed)
    return Block(heads, rows, start, torch.randint(1, 2**8, (len(heads), len(rows), width), generator=random) / 2**8)


def dense(blocks: list[Block]) -> np.ndarray:
    """The definition: NaN where a row was not kept, zero where it has no column."""
    whole = np.full((HEADS, T, K), np.nan, np.float32)
    for one in blocks:
        whole[np.ix_(one.heads, list(one.rows))] = 0
        columns = range(one.start, one.start + one.values.shape[2]) if one.values.shape[2] else []
        whole[np.ix_(one.heads, list(one.rows), list(columns))] = one.values
    return whole


def ways(run: ap.Run, head: int) -> tuple[Map, list[int]]:
    """The map of a head, and a list that counts how often the long way is gone."""
    found, counted = run[SITE.key, head]._map, [0]
    reads = Map.read

    def read(rows: Any, columns: range) -> np.ndarray:
        counted[0] += 1
        return reads(found, rows, columns)

    object.__setattr__(found, "read", read)
    return found, counted


def check_rows(run: ap.Run, whole: np.ndarray, short: bool | None = None) -> None:
    """Every row of every head, by place and from the end, is that of the definition, or refused as it should be."""
    for head in range(HEADS):
        kept = np.flatnonzero(~np.isnan(whole[head]).any(1)).tolist()
        if not kept:
            continue
        found, counted = ways(run, head)
        long = found.read(kept, range(K))
        np.testing.assert_array_equal(long, whole[head, kept])
        counted[0] = 0
        for place, row in enumerate(kept):
            one = found[row]
            assert one.dtype == long.dtype
            assert one.tolist() == found[row - T].tolist() == found[np.int8(row - T)].tolist() == long[place].tolist()
            one += 1  # it is the caller's
        if short is not None:
            assert (counted[0] == 0) == short
        for row in sorted(set(range(T)) - set(kept)):
            for index in (row, np.int64(row - T)):
                with pytest.raises(NotKept, match=f"row {row} of .* was not kept"):
                    found[index]
        for row in (T, -T - 1, np.int64(T)):
            with pytest.raises(SelectionError, match=f"row {row} is out of range: there are {T}"):
                found[row]


HEAD = (0, 1, 2)
CASES: dict[str, tuple[list[Block], bool]] = {
    "one block": ([block(HEAD, range(T), 0, K)], True),
    "causal blocks": ([block(HEAD, range(n, n + 3), 0, n + 4, n) for n in (0, 3, 6)], True),
    "any order": ([block(HEAD, range(n, n + 3), 0, K, n) for n in (6, 0, 3)], True),
    "a window that moves": ([block(HEAD, range(n, n + 1), n, 3, n) for n in range(T)], True),
    "generated rows": ([block(HEAD, range(4), 0, 4), *(block(HEAD, range(n, n + 1), 0, n) for n in range(4, T))], True),
    "heads apart": ([block((1,), range(T), 0, K, 1), block((0, 2), range(T), 2, 6, 2)], True),
    "heads cut differently": (
        [block((1,), range(5), 0, K, 1), block((1,), range(5, T), 0, K, 2), block((0, 2), range(T), 0, K, 3)],
        True,
    ),
    "no columns": ([block(HEAD, range(3), 0, 0), block(HEAD, range(3, T), K, 0)], True),
    "the first rows lack": ([block(HEAD, range(4, T), 0, K)], True),
    "a gap": ([block((1,), range(2), 0, K, 1), block((0, 1), range(6, 8), 0, K, 2)], True),
    "a gap within a joined block": ([block(HEAD, range(2), 0, K, 1), block(HEAD, range(6, 8), 0, K, 2)], False),
    "of one head rows lack": ([block((0, 1), range(T), 0, K, 1), block((2,), range(3, 5), 0, K, 2)], True),
    "every second row": ([block(HEAD, range(0, T, 2), 0, K)], False),
    "listed rows": ([block(HEAD, (0, 3, 4), 0, K, 1), block(HEAD, range(5, T), 0, K, 2)], False),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_a_row_is_that_of_the_definition(make: Make, name: str) -> None:
    blocks, short = CASES[name]
    check_rows(make([("float32", "all", blocks)]), dense(blocks), short)


@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_a_row_of_any_dtype_is_read_as_by_the_long_way(make: Make, dtype: str) -> None:
    run = make([(dtype, "all", [block(HEAD, range(n, n + 3), n, 5, n) for n in (0, 3, 6)])])
    found, counted = ways(run, 1)
    rows = [found[row] for row in range(T)]
    assert counted == [0]
    wide = found.read(range(T), range(K))
    np.testing.assert_array_equal(rows, wide)
    assert {row.dtype for row in rows} == {wide.dtype} == {np.dtype("float16" if dtype == "float16" else "float32")}


def test_several_fields_go_the_long_way(make: Make) -> None:
    precise, coarse = [block(HEAD, range(4, T), 0, K, 1)], [block(HEAD, range(T), 0, K, 2)]
    whole = dense(coarse)
    whole[:, 4:] = dense(precise)[:, 4:]
    check_rows(make([("float16", "all", coarse), ("float32", "all", precise)]), whole, False)


def test_some_columns_are_refused_as_a_row_of_all(make: Make) -> None:
    run = make([("float32", "2:8", [block(HEAD, range(T), 2, 6)])])
    for row in (3, np.int64(3)):
        with pytest.raises(NotKept, match=r"columns 0 to 11 of .* were not all kept.*write head\[:, 2:8\]"):
            run[SITE.key, 1][row]
    np.testing.assert_array_equal(run[SITE.key, 1][3, 2:8], dense([block(HEAD, range(T), 2, 6)])[1, 3, 2:8])


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Any rows of a map, heads together or apart, cut anywhere, in any order: arguments of `block`."""
    parts: list[tuple[Any, ...]] = []
    for heads in draw(st.sampled_from([((0, 1, 2),), ((0, 2), (1,)), ((2,), (0, 1)), ((1,),)])):
        rows = sorted(draw(st.sets(st.integers(0, T - 1), min_size=1)))
        cuts = sorted({0, len(rows), *draw(st.lists(st.integers(0, len(rows)), max_size=4))})
        for first, stop in pairwise(cuts):
            chosen = tuple(rows[first:stop])
            together = range(chosen[0], chosen[-1] + 1)
            start = draw(st.integers(0, K))
            width = draw(st.integers(0, K - start))
            parts.append((heads, together if tuple(together) == chosen else chosen, start, width, len(parts)))
    return list(draw(st.permutations(parts)))


def test_rows_of_any_layout_are_those_of_the_definition(make: Make) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(layouts())
    def check(layout: list[tuple[Any, ...]]) -> None:
        blocks = [block(*arguments) for arguments in layout]
        check_rows(make([("float32", "all", blocks)]), dense(blocks))

    check()


@pytest.mark.parametrize("window", [None, 4])
def test_rows_of_a_recorded_generation_are_those_of_the_whole_map(tmp_path: Path, window: int | None) -> None:
    model = models.gpt2() if window is None else sliding(window)
    with torch.no_grad(), ap.record(model, to=tmp_path / "run") as rec:
        model.generate(models.ids(1, 7), max_new_tokens=9, min_new_tokens=9, do_sample=False, pad_token_id=0)
    for layer, heads in ((layer, rec.run[layer]) for layer in range(rec.run.num_layers)):
        for number, head in heads.items():
            whole = head.numpy()
            assert whole.shape == (15, 15), (layer, number)
            for row in range(-15, 15):
                np.testing.assert_array_equal(head[row], whole[row])
            if window is not None:
                assert (whole[10, : 11 - window] == 0).all() and (whole[10, 11 - window : 11] > 0).all()


def sliding(window: int) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(
        vocab_size=models.VOCABULARY, num_key_value_heads=2, sliding_window=window, eos_token_id=models.END, **sizes
    )
    return MistralForCausalLM(config).eval()
