"""What every store promises, whatever it is made of. `tests/test_stores.py` runs this on each of them.

A store's test module gives a fixture ``made``: it opens a writer, and `Made.read` gives a reader of what is committed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnprobe.codes import encode
from attnprobe.errors import NotKept, StoreError
from attnprobe.fields import WEIGHT_DTYPES, Block, Field, Rows, Sample, Site, TokenSequence
from attnprobe.store.base import Manifest, Reader, Writer
from attnprobe.store.reading import read_rows

SITES = tuple(Site(f"h.{n}.attn", "self", "decoder", n, 4, 2) for n in range(3))
MANIFEST = Manifest(
    model={"class": "Tiny", "name": "tiny", "revision": "abc", "config": "0123"},
    sites=SITES,
    keep=({"what": "weights", "layers": "all", "keys": "all"},),
    versions={"attnprobe": "0.1.0", "torch": "2"},
    created="2025-01-01T00:00:00+00:00",
)
KINDS = list(WEIGHT_DTYPES)


@dataclass
class Made:
    """An open store of the kind under test."""

    writer: Writer
    reader: Callable[[], Reader]

    def read(self) -> Reader:
        """Close the writer, and read what was committed."""
        self.writer.close()
        return self.reader()


def sample(index: int = 0, length: int = 8, **parts: Any) -> Sample:
    return Sample(index, f"s{index}", {"main": TokenSequence(length, **parts)}, prompt_length=length)


def field(index: int = 0, site: int = 0, dtype: str = "float32", heads: tuple[int, ...] = (0, 1, 3)) -> Field:
    return Field(index, SITES[site], 0, heads, dtype)


def block(
    rows: Rows, width: int, heads: tuple[int, ...] = (0, 1, 3), start: int = 0, dtype: str = "float32", seed: int = 0
) -> Block:
    random = torch.Generator().manual_seed(seed)
    values = torch.rand(len(heads), len(rows), width, generator=random) + 0.25
    scale = 1000 if dtype == "int32" else 1
    return Block(heads, rows, start, encode(values * scale, dtype))


def dense(blocks: list[Block], heads: int, length: int) -> np.ndarray:
    """The definition: a whole map with every block put where it says."""
    whole = np.zeros((heads, length, length), np.float32)
    for part in blocks:
        columns = np.arange(part.start, part.start + part.values.shape[2])
        numbers = part.values.float().numpy()
        if part.values.dtype == torch.uint8:
            numbers = np.where(numbers > 0, 2 ** ((numbers.astype(np.float64) - 254) * 24 / 253), 0)
        whole[np.ix_(part.heads, list(part.rows), columns)] = numbers
    return whole


def write(made: Made, of: Field, blocks: list[Block], length: int = 8) -> Reader:
    for part in blocks:
        made.writer.write(of, Block(part.heads, part.rows, part.start, part.values.clone()))
    made.writer.commit(sample(of.sample, length))
    return made.read()


def only_field(reader: Reader, index: int = 0) -> tuple[Field, Any]:
    ((of, pieces),) = reader.fields(index).items()
    return of, pieces


def whole_map(reader: Reader, heads: tuple[int, ...], rows: Rows, length: int = 8, index: int = 0) -> np.ndarray:
    of, pieces = only_field(reader, index)
    return read_rows(reader, of, pieces, heads, rows, range(length))


class StoreContract:
    """The suite."""

    @pytest.mark.parametrize("dtype", KINDS)
    def test_blocks_come_back_bit_equal(self, made: Made, dtype: str) -> None:
        part = block(range(8), 8, dtype=dtype)
        reader = write(made, field(dtype=dtype), [part])
        read = whole_map(reader, (0, 1, 3), range(8))
        assert read.dtype == (np.float16 if dtype == "float16" else np.float32)
        assert torch.equal(encode(torch.from_numpy(read), dtype), part.values)
        assert reader.nbytes == part.nbytes
        assert only_field(reader)[0] == field(dtype=dtype)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
    def test_blocks_may_come_in_any_order_of_rows(self, made: Made, order: tuple[int, ...]) -> None:
        parts = [block(range(0, 3), 3, seed=1), block(range(3, 5), 5, seed=2), block(range(5, 8), 8, seed=3)]
        reader = write(made, field(), [parts[i] for i in order])
        np.testing.assert_array_equal(whole_map(reader, (0, 1, 3), range(8)), dense(parts, 4, 8)[[0, 1, 3]])

    def test_rows_subsets_are_kept_as_they_are(self, made: Made) -> None:
        parts = [block((0, 2, 3), 8, seed=1), block(range(4, 8, 3), 8, seed=2)]
        reader = write(made, field(), parts)
        np.testing.assert_array_equal(
            whole_map(reader, (3, 1), (7, 0, 4, 3, 2)), dense(parts, 4, 8)[np.ix_([3, 1], [7, 0, 4, 3, 2])]
        )

    def test_heads_may_lie_in_different_blocks(self, made: Made) -> None:
        parts = [block(range(8), 8, heads=(1,), seed=1), block(range(8), 8, heads=(0, 3), seed=2)]
        reader = write(made, field(), parts)
        np.testing.assert_array_equal(whole_map(reader, (0, 1, 3), range(8)), dense(parts, 4, 8)[[0, 1, 3]])

    def test_columns_outside_of_a_block_are_zero(self, made: Made) -> None:
        parts = [block(range(8), 3, start=4)]
        reader = write(made, field(), parts)
        read = whole_map(reader, (0, 1, 3), range(8))
        np.testing.assert_array_equal(read, dense(parts, 4, 8)[[0, 1, 3]])
        assert (read[:, :, :4] == 0).all() and (read[:, :, 4:7] > 0).all()

    def test_blocks_without_columns_hold_rows_of_zeros(self, made: Made) -> None:
        parts = [block(range(2), 0), block(range(2, 4), 2, start=6, seed=1), block(range(4, 8), 0, start=100)]
        reader = write(made, field(), parts)
        np.testing.assert_array_equal(whole_map(reader, (0, 1, 3), range(8)), dense(parts, 4, 8)[[0, 1, 3]])

    def test_one_row_blocks_are_joined_to_about_a_mebibyte(self, made: Made) -> None:
        rows, width = 600, 2000
        values = torch.rand(1, rows, width)
        for row in range(rows):
            made.writer.write(field(heads=(2,)), Block((2,), range(row, row + 1), 0, values[:, row : row + 1].clone()))
        made.writer.commit(sample(0, width))
        reader = made.read()
        sizes = [4 * np.prod(piece.shape) for piece in only_field(reader)[1]]
        assert len(sizes) == 5 and all(1 << 20 <= size < 3 << 19 for size in sizes[:-1])
        assert torch.equal(torch.from_numpy(whole_map(reader, (2,), range(rows), width)), values)

    def test_joining_does_not_fill_up_with_zeros_where_a_window_moves(self, made: Made) -> None:
        rows, width = 3000, 16
        for row in range(rows):
            made.writer.write(field(heads=(2,)), block(range(row, row + 1), width, (2,), start=row, seed=row))
        made.writer.commit(sample(0, rows + width))
        reader = made.read()
        assert len(only_field(reader)[1]) < rows / 20
        assert reader.nbytes < 6 * 4 * rows * width
        read = whole_map(reader, (2,), (17, 2999), rows + width)[0]
        np.testing.assert_array_equal(read[0, 17:33], block(range(1), width, (2,), seed=17).values[0, 0])
        assert read[1].nonzero()[0].tolist() == list(range(2999, 2999 + width))

    def test_nothing_uncommitted_is_there(self, made: Made) -> None:
        for index in (0, 1):
            made.writer.write(field(index), block(range(8), 8))
        made.writer.commit(sample(1))
        reader = made.read()
        assert [s.index for s in reader.samples] == [1]
        assert not reader.fields(0) and reader.fields(1)
        assert reader.nbytes == 4 * 3 * 64

    def test_a_discarded_sample_is_gone(self, made: Made) -> None:
        big = torch.rand(1, 600, 600)  # passes the joining, so that it lies in the store before it is discarded
        for index in (0, 1, 2):
            made.writer.write(field(index, heads=(2,)), Block((2,), range(600), 0, big.clone()))
            made.writer.write(field(index, 1), block(range(8), 8))
        made.writer.discard(0)
        made.writer.commit(sample(1, 600))
        made.writer.discard(2)
        made.writer.discard(1)  # too late: it is committed
        made.writer.discard(7)  # was never there
        reader = made.read()
        assert [s.index for s in reader.samples] == [1]
        assert not reader.fields(0) and not reader.fields(2) and len(reader.fields(1)) == 2
        np.testing.assert_array_equal(
            read_rows(reader, *next(iter(reader.fields(1).items())), (2,), range(600), range(600)), big
        )

    def test_a_committed_sample_takes_no_more(self, made: Made) -> None:
        made.writer.write(field(), block(range(4), 8))
        made.writer.commit(sample())
        with pytest.raises(StoreError, match="sample 0 is committed already"):
            made.writer.write(field(), block(range(4, 8), 8))
        with pytest.raises(StoreError, match="sample 0 is committed already"):
            made.writer.commit(sample())
        _, pieces = only_field(made.read())
        assert [list(piece.rows) for piece in pieces] == [[0, 1, 2, 3]]

    def test_samples_come_in_order_of_index(self, made: Made) -> None:
        for index in (2, 0, 1):
            made.writer.write(field(index), block(range(8), 8, seed=index))
        for index in (1, 2, 0):
            made.writer.commit(sample(index))
        reader = made.read()
        assert [s.id for s in reader.samples] == ["s0", "s1", "s2"]
        for index in range(3):
            read = whole_map(reader, (0, 1, 3), range(8), index=index)
            np.testing.assert_array_equal(read, block(range(8), 8, seed=index).values)

    def test_a_sample_is_found_by_its_id(self, made: Made) -> None:
        for index, name in ((2, "a"), (5, "b"), (1, "b")):
            made.writer.write(field(index), block(range(8), 8, seed=index))
            made.writer.commit(Sample(index, name, {"main": TokenSequence(8)}, 8, named=True))
        reader = made.read()
        found = [reader.find(name) for name in ("a", "b", "c")]
        assert [one and one.index for one in found] == [2, 1, None]  # of two the first

    def test_what_was_not_kept_is_refused_and_what_was_is_named(self, made: Made) -> None:
        reader = write(made, field(), [block((0, 1, 5), 8), block((6,), 8, heads=(1,))])
        of, pieces = only_field(reader)
        with pytest.raises(NotKept, match=r"head 2 of layer 0 .*h\.0\.attn.* was not kept; kept are heads 0 to 1, 3"):
            read_rows(reader, of, pieces, (0, 2), (0,), range(8))
        with pytest.raises(NotKept, match=r"row 6 of layer 0 .*sample 0, was not kept; kept are rows 0 to 1, 5$"):
            read_rows(reader, of, pieces, (0,), (0, 6), range(8))
        assert read_rows(reader, of, pieces, (1,), (6,), range(8)).shape == (1, 1, 8)

    def test_one_site_has_several_fields_of_any_axes(self, made: Made) -> None:
        of = field()
        pooled = replace(of, what="pooled_max", axes=("query_cell", "key_cell"), dtype="float16")
        received = replace(of, what="received", axes=("key",))
        largest = replace(of, what="top", axes=("query", "rank"))
        their_keys = replace(largest, what="top_keys", dtype="int32")
        parts = {
            of: block(range(8), 8),
            pooled: block(range(4), 4, dtype="float16", seed=1),
            received: block(range(8), 1, seed=2),
            largest: block((2, 5), 3, seed=3),
            their_keys: block((2, 5), 3, dtype="int32", seed=3),
            replace(of, what="top_rest", axes=("query",)): block((2, 5), 1, seed=4),
        }
        for one, part in parts.items():
            made.writer.write(one, Block(part.heads, part.rows, part.start, part.values.clone()))
        made.writer.commit(sample())
        reader = made.read()
        assert set(reader.fields(0)) == set(parts)
        for one, part in parts.items():
            read = read_rows(reader, one, reader.fields(0)[one], (3, 0), part.rows, range(part.values.shape[2]))
            np.testing.assert_array_equal(read, part.values[[2, 0]].numpy())

    @pytest.mark.parametrize(
        "parts",
        [
            {},
            {"ids": np.array([5, -1, 2**40])},
            {"ids": np.zeros(3, np.int64), "tokens": ("Ġa", "", "\x00\n\t\x7f"), "texts": (" é", "日本", "👩‍🚀\u202e")},
            {"tokens": ('"', "\\", "\ud800"), "texts": ("</script>", "'", "\u2028")},
            {"positions": np.array([7, 8, 0])},
        ],
    )
    def test_ids_strings_and_positions_come_back(self, made: Made, parts: Mapping[str, Any]) -> None:
        made.writer.write(field(), block(range(3), 3))
        more = {"main": TokenSequence(3, **parts), "source": TokenSequence(5, ids=np.arange(5))}
        made.writer.commit(Sample(0, "näme/0", more, prompt_length=2))
        (read,) = made.read().samples
        assert (read.id, read.prompt_length, read.sequences["main"].length) == ("näme/0", 2, 3)
        for name in ("ids", "positions"):
            expected, got = parts.get(name), getattr(read.sequences["main"], name)
            assert got is None if expected is None else got.tolist() == expected.tolist()
        for name in ("tokens", "texts"):
            assert getattr(read.sequences["main"], name) == parts.get(name)
        assert read.sequences["source"].ids.tolist() == [0, 1, 2, 3, 4]  # type: ignore[union-attr]

    def test_no_samples_are_a_run_too(self, made: Made) -> None:
        reader = made.read()
        assert not len(reader.samples) and reader.nbytes == 0 and not reader.fields(0)
        assert reader.manifest.model["class"] == "Tiny"
        assert tuple(reader.manifest.sites) == SITES

    def test_closing_twice_is_harmless_and_then_nothing_is_taken(self, made: Made) -> None:
        made.writer.write(field(), block(range(8), 8))
        made.writer.commit(sample())
        made.writer.write(field(1), block(range(8), 8))
        made.writer.close()
        made.writer.close()
        with pytest.raises(StoreError, match="closed"):
            made.writer.write(field(2), block(range(8), 8))
        with pytest.raises(StoreError, match="closed"):
            made.writer.commit(sample(1))
        assert [s.index for s in made.reader().samples] == [0]

    def test_two_readers_see_the_same(self, made: Made) -> None:
        first = write(made, field(), [block(range(8), 8)])
        second = made.reader()
        a, b = whole_map(first, (0, 1), range(8)), whole_map(second, (0, 1), range(8))
        np.testing.assert_array_equal(a, b)
        a[:] = 7  # what is read belongs to the caller
        np.testing.assert_array_equal(whole_map(second, (0, 1), range(8)), b)
        np.testing.assert_array_equal(whole_map(first, (0, 1), range(8)), b)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[tuple[Any, ...]], str]:
    """Any rows of a 12 x 12 map of 4 heads, cut into blocks, in any order: arguments of `block`."""
    dtype = draw(st.sampled_from(KINDS))
    groups = draw(st.sampled_from([((0, 1, 2, 3),), ((0, 2), (1, 3)), ((3,), (0, 1, 2))]))
    rows = sorted(draw(st.sets(st.integers(0, 11), min_size=1)))
    cuts = sorted({0, len(rows), *draw(st.lists(st.integers(0, len(rows)), max_size=3))})
    parts = []
    for heads in groups:
        for first, stop in pairwise(cuts):
            chosen = tuple(rows[first:stop])
            together = range(chosen[0], chosen[-1] + 1)
            start = draw(st.integers(0, 12))
            width = draw(st.integers(0, 12 - start))
            seed = draw(st.integers(0, 99))
            parts.append((together if tuple(together) == chosen else chosen, width, heads, start, dtype, seed))
    return draw(st.permutations(parts)), dtype


def slices_equal_a_dense_map(make: Callable[[], Made]) -> None:
    """Any heads, rows and columns of any layout are those of the dense map."""

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(layouts(), st.data())
    def check(layout: tuple[list[tuple[Any, ...]], str], data: st.DataObject) -> None:
        parts, dtype = [block(*arguments) for arguments in layout[0]], layout[1]
        reader = write(make(), field(dtype=dtype, heads=(0, 1, 2, 3)), parts, 12)
        kept = sorted({row for part in parts for row in part.rows})
        heads = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
        rows = data.draw(st.lists(st.sampled_from(kept), max_size=6))
        start = data.draw(st.integers(0, 12))
        columns = range(start, data.draw(st.integers(start, 12)))
        of, pieces = only_field(reader)
        read = read_rows(reader, of, pieces, heads, rows, columns)
        np.testing.assert_array_equal(read, dense(parts, 4, 12)[np.ix_(heads, rows, list(columns))])

    check()
