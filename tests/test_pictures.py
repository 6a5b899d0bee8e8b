"""Cells for a picture: the same as of the whole map, whatever the run keeps and whichever part is looked at."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
from attnprobe import demo
from attnprobe.errors import SelectionError
from attnprobe.maps import Map
from attnprobe.pictures import read_picture
from attnprobe.show.prepare import group_starts, shrink

LENGTH = 1500
CELLS = 40


def planted(length: int, seed: int = 0) -> np.ndarray:
    weights = np.tril(np.random.default_rng(seed).random((length, length)).astype(np.float32) ** 8 + 1e-6)
    weights[:, 0] += 5
    return weights / weights.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def head() -> ap.Head:
    return ap.from_attentions((torch.from_numpy(planted(LENGTH))[None, None],))[0, 0]


def test_few_rows_are_read_as_they_are(head: ap.Head) -> None:
    picture = read_picture(head.levels, 2000, 2000)
    np.testing.assert_array_equal(picture.values, head.numpy())
    assert picture.rows == list(range(LENGTH)) and picture.columns == range(LENGTH)


def test_of_few_rows_only_columns_are_pooled(head: ap.Head) -> None:
    picture = read_picture(head.levels, 40, 30, slice(-40, None))
    np.testing.assert_array_equal(picture.values, shrink(head.numpy()[-40:], 40, 30))
    assert picture.row_starts == list(range(LENGTH - 40, LENGTH))
    assert picture.column_starts == group_starts(LENGTH, 30)


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(None, None), (None, slice(1, None)), (slice(101, 1399), slice(37, 1201)), (range(700, 1411), slice(3))],
)
def test_cells_are_of_the_part_and_of_nothing_else(
    head: ap.Head, how: str, rows: slice | None, columns: slice | None
) -> None:
    picture = read_picture(head.levels, CELLS, CELLS, rows, columns, how)
    down, across = (range(LENGTH)[slice(p.start, p.stop) if p else slice(None)] for p in (rows, columns))
    assert (picture.rows, picture.columns) == (down, across) and max(picture.values.shape) <= CELLS
    expected = [reference(head.numpy(), down, across, size, how) for size in (1 << level for level in range(7))]
    if how == "max":
        assert any(np.array_equal(picture.values, one) for one in expected)
    else:  # a mean counts columns behind the last token, so the sides differ
        inner = [one[1:-1, 1:-1] for one in expected if one.shape == picture.values.shape]
        assert any(np.allclose(picture.values[1:-1, 1:-1], one, rtol=1e-5) for one in inner)


def reference(weights: np.ndarray, down: range, across: range, size: int, how: str) -> np.ndarray:
    """The largest or the mean of groups of whole cells, cut to the part."""

    def edges(part: range) -> list[tuple[int, int]]:
        cells = list(range(part[0] // size, part[-1] // size + 1))
        starts = [cells[i] * size for i in group_starts(len(cells), CELLS)]
        clipped = [min(max(start, part.start), part.stop) for start in starts]
        return list(zip(clipped, [*clipped[1:], part.stop], strict=True))

    pool = np.max if how == "max" else np.mean
    return np.array([[pool(weights[a:b, c:d]) for c, d in edges(across)] for a, b in edges(down)])


def test_cells_of_a_level_are_the_weights_that_they_cover(head: ap.Head) -> None:
    picture = read_picture(head.levels, 94, 94)  # level 4 has 94 cells
    weights = np.pad(head.numpy(), (0, 94 * 16 - LENGTH))
    np.testing.assert_array_equal(picture.values, weights.reshape(94, 16, 94, 16).max((1, 3)))


def test_without_the_first_key_nothing_of_it_is_seen(head: ap.Head) -> None:
    whole, without = (read_picture(head.levels, 64, 64, None, part).values for part in (None, slice(1, None)))
    assert (whole[:, 0] > head.numpy()[:, 0].min()).all()
    assert without.max() == head.numpy()[:, 1:].max() and (without[32:, 0] < whole[32:, 0]).all()


def test_rows_with_gaps_stand_together_or_leave_gaps(tmp_path: Path) -> None:
    model, tokenizer = demo.load()
    ids = tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=600).input_ids
    queries = [*range(0, 200, 2), *range(400, 600, 2)]
    with ap.record(model, to=tmp_path / "run", heads="L0H0", queries=queries, dtype="float16"), torch.no_grad():
        model(ids)
    head = ap.open(tmp_path / "run")[0, 0]
    together = read_picture(head.levels, 300, 60)
    assert together.rows == queries and not np.isnan(together.values).any()
    apart = read_picture(head.levels, 60, 60)
    assert apart.rows == range(0, 599)
    unknown = np.isnan(apart.values).all(1)
    assert unknown.any() and not np.isnan(apart.values[~unknown]).any()
    assert (np.array(apart.row_starts)[unknown] >= 190).all() and (np.array(apart.row_starts)[unknown] < 400).all()


def test_a_long_map_is_read_from_its_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=1400, vocab_size=50)
    model = GPT2LMHeadModel(config).eval()
    with ap.record(model, to=tmp_path / "run"), torch.no_grad():
        model(torch.randint(50, (1, 1400)))
    head = ap.open(tmp_path / "run")[0, 0]
    whole = head.numpy()
    monkeypatch.setattr(Map, "read", lambda *_: pytest.fail("weights were read"))
    picture = read_picture(head.levels, 300, 300)
    np.testing.assert_allclose(picture.values, shrink(pooled(whole, 4), 300, 300), rtol=2**-7, atol=1e-30)


def pooled(weights: np.ndarray, size: int) -> np.ndarray:
    starts = range(0, len(weights), size)
    return np.maximum.reduceat(np.maximum.reduceat(weights, starts, axis=0), starts, axis=1)


@pytest.mark.parametrize(
    ("rows", "how", "words"),
    [
        (slice(0, 10, 2), "max", "without a step"),
        (slice(5, 5), "max", "no part"),
        (range(0, 9999), "max", "no part"),
        (7, "max", "slice"),
        (None, "min", "how='min'"),
    ],
)
def test_what_is_no_part_is_refused(
    head: ap.Head, rows: object, how: str, words: str, unchecked: Iterator[None]
) -> None:
    with pytest.raises(SelectionError, match=words):
        read_picture(head.levels, 10, 10, rows, None, how)  # type: ignore[arg-type]
