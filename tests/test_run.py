"""What a user reads: runs, samples, heads, by token and by slice, and what they say where it is not there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import attnprobe as ap
from attnprobe.errors import NotKept, SelectionError, TokenError
from attnprobe.fields import Block, Field, Sample, Site, TokenSequence
from attnprobe.sizes import format_bytes, parse_bytes
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.memory import MemoryStore
from attnprobe.strings import Strings

TOKENS = ("Maia", "Ġlikes", "Ġto", "Ġexplore", "Ġto", "<b>")
TEXTS = ("Maia", " likes", " to", " explore", " to", "<b>")
T = len(TOKENS)
HEADS = 3
SOURCE = 4
LOWER = np.tril(np.ones((T, T), np.float32))


def weights(layer: int, rows: int = T, columns: int = T, seed: int = 0) -> np.ndarray:
    """A causal map a head, all values different."""
    random = np.random.default_rng(seed * 100 + layer)
    return (random.permutation(HEADS * rows * columns).reshape(HEADS, rows, columns) + 1).astype(np.float32) / 1000


def site(layer: int, kind: str = "self", **other: Any) -> Site:
    return Site(f"h.{layer}.{'attn' if kind == 'self' else 'cross'}", kind, "decoder", layer, HEADS, HEADS, **other)


CROSS = site(0, "cross", keys="source")
SITES = (site(0), CROSS, site(1), site(2))


def manifest(keep: tuple[dict[str, Any], ...] = ({"keys": "all"},), sites: tuple[Site, ...] = SITES) -> Manifest:
    return Manifest({"class": "Tiny<Model>"}, sites, keep, {}, "2025-01-01T00:00:00+00:00")


def put(store: Any, of: Field, values: np.ndarray, rows: Any = None) -> None:
    rows = range(values.shape[1]) if rows is None else rows
    store.write(of, Block(of.heads, rows, 0, torch.from_numpy(values[list(of.heads)][:, list(rows)].copy())))


def commit(store: Any, index: int = 0, tokens: tuple[str, ...] | None = TOKENS, source: bool = True) -> None:
    main = TokenSequence(T, np.arange(T) * 10, tokens, TEXTS if tokens else None)
    sequences = {"main": main, **({"source": TokenSequence(SOURCE)} if source else {})}
    store.commit(Sample(index, f"s{index}", sequences, prompt_length=T))


@pytest.fixture(params=["memory", "directory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> ap.Run:
    """One sample; layers 0 and 1 whole, cross-attention in layer 0; of layer 2 heads 0, 2 and rows 1, 4, 5."""
    store: Any = MemoryStore(manifest()) if request.param == "memory" else DirectoryWriter(tmp_path / "run", manifest())
    for layer in (0, 1):
        put(store, Field(0, site(layer), 0, (0, 1, 2)), weights(layer) * LOWER)
    put(store, Field(0, CROSS, 0, (0, 1, 2)), weights(7, T, SOURCE))
    put(store, Field(0, site(2), 0, (0, 2)), weights(2) * LOWER, rows=(1, 4, 5))
    commit(store)
    store.close()
    return ap.Run(store) if request.param == "memory" else ap.open(tmp_path / "run")


# --- one head -----------------------------------------------------------------------------------------------------


def test_a_head_is_its_map(run: ap.Run) -> None:
    whole = (weights(1) * LOWER)[2]
    head = run[1, 2]
    np.testing.assert_array_equal(head.numpy(), whole)
    assert torch.equal(head.torch(), torch.from_numpy(whole))
    assert (head.layer, head.number, head.shape, head.dtype, head.nbytes) == (1, 2, (T, T), "float32", 4 * T * T)
    np.testing.assert_array_equal(run[-1, -1][5], (weights(2) * LOWER)[2, 5])
    np.testing.assert_array_equal(run[np.int64(1), np.int64(2)].numpy(), whole)


@pytest.mark.parametrize(
    "index",
    [
        (3, 2),
        (-1, -2),
        (slice(None), 0),
        (2, slice(None)),
        (slice(1, 4), slice(2)),
        (slice(-2, None), slice(-3, -1)),
        (slice(None, None, 2), slice(1, None, 3)),
        (slice(None, None, -1), slice(4, 0, -2)),
        (slice(4, 2), slice(None)),
        (slice(None), slice(5, 5)),
        (np.int64(3), slice(None)),
        4,
        slice(1, 3),
    ],
)
def test_slices_are_those_of_numpy(run: ap.Run, index: Any) -> None:
    np.testing.assert_array_equal(run[0, 1][index], (weights(0) * LOWER)[1][index])


@pytest.mark.parametrize("index", [(6, 0), (0, -7)])
def test_positions_out_of_range_name_the_range(run: ap.Run, index: tuple[int, int]) -> None:
    with pytest.raises(SelectionError, match=r"(row 6|column -7) is out of range: there are 6 \(0 to 5\)"):
        run[0, 0][index]


@pytest.mark.parametrize("index", [..., None, (0, 0, 0), ([0, 1], 0), "Ġto", 1.5])
def test_indices_that_are_no_slices_are_refused(run: ap.Run, index: Any) -> None:
    with pytest.raises((SelectionError, TypeError), match=r"write head\[row, column\]|Expected type"):
        run[0, 0][index]


@pytest.mark.parametrize("query", ["Ġexplore", " explore", 3, -3, np.int64(3)])
def test_a_row_is_labelled(run: ap.Run, query: Any) -> None:
    row = run[1, 0].row(query)
    np.testing.assert_array_equal(row.to_numpy(), (weights(1) * LOWER)[0, 3])
    assert (row.name, row.index.name, tuple(row.index)) == ("Ġexplore", "key", TOKENS)


def test_a_column_is_labelled(run: ap.Run) -> None:
    column = run[1, 0].col(" likes")
    np.testing.assert_array_equal(column.to_numpy(), (weights(1) * LOWER)[0, :, 1])
    assert (column.name, column.index.name, tuple(column.index)) == ("Ġlikes", "query", TOKENS)


def test_the_table_is_labelled(run: ap.Run) -> None:
    table = run[1, 0].to_pandas()
    np.testing.assert_array_equal(table.to_numpy(), (weights(1) * LOWER)[0])
    assert tuple(table.index) == tuple(table.columns) == TOKENS
    assert (table.index.name, table.columns.name) == ("query", "key")


def test_a_token_that_is_not_there_names_near_ones(run: ap.Run) -> None:
    with pytest.raises(
        TokenError, match=r"'Ġexplor' is not a token of sample s0; near are 'Ġexplore'.*or give a position"
    ):
        run[0, 0].row("Ġexplor")
    with pytest.raises(TokenError, match="is not a token"):
        run[0, 0].row("")


@pytest.mark.parametrize("token", ["Ġto", " to"])
def test_a_token_that_is_there_twice_lists_its_positions(run: ap.Run, token: str) -> None:
    with pytest.raises(TokenError, match="stands at 2 positions of sample s0: 2, 4; give a position"):
        run[0, 0].row(token)


@pytest.mark.parametrize("position", [6, -7])
def test_a_position_out_of_range_names_the_range(run: ap.Run, position: int) -> None:
    with pytest.raises(TokenError, match=rf"position {position} is out of range: sample s0 has 6 tokens \(0 to 5\)"):
        run[0, 0].col(position)


@pytest.mark.parametrize("k", [1, 5, 400])
def test_top_is_a_sorted_table(run: ap.Run, k: int) -> None:
    whole = (weights(0) * LOWER)[1]
    order = np.argsort(-whole, axis=None, kind="stable")[:k]
    top = run[0, 1].top(k)
    assert list(top.columns) == ["query", "key", "from", "to", "weight"]
    assert top["query"].tolist() == (order // T).tolist() and top["key"].tolist() == (order % T).tolist()
    np.testing.assert_array_equal(top["weight"], whole.reshape(-1)[order])
    assert top["from"].tolist() == [TOKENS[q] for q in order // T]


def test_top_settles_ties_by_position_over_many_rows() -> None:
    length = 600  # more than are read at once
    values = np.zeros((1, length, length), np.float32)
    values[0, [3, 290, 599], [1, 7, 0]] = 0.5
    values[0, 400, 4] = 0.75
    one = Site("h.0", "self", "decoder", 0, 1, 1)
    store = MemoryStore(manifest(sites=(one,)))
    put(store, Field(0, one, 0, (0,)), values)
    store.commit(Sample(0, "s0", {"main": TokenSequence(length)}, length))
    top = ap.Run(store)[0, 0].top(5)
    assert top[["query", "key"]].to_numpy().tolist() == [[400, 4], [3, 1], [290, 7], [599, 0], [0, 0]]
    with pytest.raises(SelectionError, match=r"top\(0\): ask for at least one"):
        ap.Run(store)[0, 0].top(0)


# --- what was not kept --------------------------------------------------------------------------------------------


def test_rows_that_were_not_kept_are_refused_and_the_kept_are_named(run: ap.Run) -> None:
    head = run[2, 2]
    whole = (weights(2) * LOWER)[2]
    assert head.kept == (1, 4, 5)
    for read in (head.numpy, lambda: head[0], lambda: head.row("Maia")):
        with pytest.raises(NotKept, match=r"row 0 of layer 2 .* was not kept; kept are rows 1, 4 to 5 "):
            read()
    np.testing.assert_array_equal(head[4:, :3], whole[4:, :3])
    table = head.to_pandas()
    np.testing.assert_array_equal(table.to_numpy(), whole[[1, 4, 5]])
    assert tuple(table.index) == ("Ġlikes", "Ġto", "<b>")
    assert tuple(head.col(0).index) == ("Ġlikes", "Ġto", "<b>")
    assert set(head.top(100)["query"]) == {1, 4, 5}
    assert "rows 1, 4 to 5 kept" in repr(head)


def test_heads_and_layers_that_were_not_kept_are_refused_and_the_kept_are_named(run: ap.Run) -> None:
    with pytest.raises(NotKept, match=r"head 1 of layer 2 .* was not kept; kept are heads 0, 2$"):
        run[2, 1]
    with pytest.raises(SelectionError, match=r"head 3 is out of range: layer 0 .* has 3 heads \(0 to 2\)"):
        run[0, 3]
    with pytest.raises(NotKept, match=r"layer 3 was not kept of sample s0; kept are self-attention layers 0 to 2"):
        run[3, 0]
    with pytest.raises(NotKept, match=r"layer 'h\.9' was not kept .*by name there are h\.0\.cross"):
        run["h.9", 0]
    with pytest.raises(NotKept, match="was not kept"):
        run.sample().layer_array(2)


def test_columns_that_were_not_kept_are_not_zeros() -> None:
    store = MemoryStore(manifest(({"keys": "1:4"},)))
    values = torch.from_numpy(weights(0)[:, :, 1:4].copy())
    store.write(Field(0, site(0), 0, (0, 1, 2)), Block((0, 1, 2), range(T), 1, values))
    commit(store, source=False)
    head = ap.Run(store)[0, 1]
    assert head.kept_keys == range(1, 4)
    np.testing.assert_array_equal(head[2:, 1:4], weights(0)[1, 2:, 1:4])
    for index in ((slice(None), slice(None)), (0, 0), (0, 4), 5):
        with pytest.raises(NotKept, match=r"were not all kept; kept are columns 1 to 3: write head\[:, 1:4\]"):
            head[index]
    assert tuple(head.row("Maia").index) == TOKENS[1:4]
    assert tuple(head.to_pandas().columns) == TOKENS[1:4]
    np.testing.assert_array_equal(head.to_pandas().to_numpy(), weights(0)[1, :, 1:4])
    best = head.top(1)
    assert weights(0)[1, best["query"][0], best["key"][0]] == weights(0)[1, :, 1:4].max()
    assert "columns 1 to 3 kept" in repr(head)


def test_rows_that_two_selections_kept_are_read_together() -> None:
    store = MemoryStore(manifest(({"keys": "all"}, {"keys": "all"}, {"keys": ":2"})))
    put(store, Field(0, site(0), 0, (1,)), weights(0), rows=(0, 1, 3))
    half = Field(0, site(0), 1, (0, 1, 2), "float16")
    store.write(half, Block(half.heads, (3, 5), 0, torch.from_numpy(weights(0)[:, [3, 5]]).half()))
    store.write(Field(0, site(0), 2, (1,)), Block((1,), range(T), 0, torch.from_numpy(weights(0)[[1], :, :2].copy())))
    commit(store, source=False)
    head = ap.Run(store)[0, 1]
    assert head.kept == (0, 1, 3, 5)
    expected = weights(0)[1, [0, 1, 3, 5]]
    expected[3] = expected[3].astype(np.float16)
    np.testing.assert_array_equal(head.to_pandas().to_numpy(), expected)
    np.testing.assert_array_equal(head[:, :2], weights(0)[1, :, :2])
    with pytest.raises(NotKept, match="kept are rows 0 to 1, 3, 5"):
        head[2]
    assert ap.Run(store).describe()["heads"] == "3"


# --- layers, sites, samples ---------------------------------------------------------------------------------------


def test_a_layer_is_a_dict_of_its_kept_heads(run: ap.Run) -> None:
    assert list(run[0]) == [0, 1, 2] and list(run[2]) == list(run[-1]) == [0, 2]
    np.testing.assert_array_equal(run[2][2][5], (weights(2) * LOWER)[2, 5])
    np.testing.assert_array_equal(run.sample().layer_array(1), weights(1) * LOWER)


def test_cross_attention_is_read_by_name(run: ap.Run) -> None:
    head = run["h.0.cross", 1]
    assert head.shape == (T, SOURCE)
    np.testing.assert_array_equal(head.numpy(), weights(7, T, SOURCE)[1])
    assert tuple(head.row("Ġexplore").index) == ("0", "1", "2", "3")
    assert list(run["h.0.cross"]) == [0, 1, 2]
    assert run.sample().site(0, kind="cross") == CROSS
    np.testing.assert_array_equal(run[0, 1].numpy(), (weights(0) * LOWER)[1])
    assert [s.key for s in run.sample().sites] == ["h.0.attn", "h.0.cross", "h.1.attn", "h.2.attn"]


def test_a_layer_with_several_sites_asks_for_a_name() -> None:
    encoder = Site("encoder.0", "self", "encoder", 0, HEADS, HEADS, "source", "source")
    store = MemoryStore(manifest(sites=(encoder, site(0))))
    put(store, Field(0, encoder, 0, (0, 1, 2)), weights(3, SOURCE, SOURCE))
    put(store, Field(0, site(0), 0, (0, 1, 2)), weights(0))
    commit(store)
    run = ap.Run(store)
    with pytest.raises(SelectionError, match=r"layer 0 has several sites; name one: encoder\.0, h\.0\.attn"):
        run[0, 1]
    labelled = run.with_labels(list("abcdef"))
    assert tuple(labelled["encoder.0", 1].to_pandas().index) == ("0", "1", "2", "3")
    assert tuple(labelled["h.0.attn", 1].to_pandas().index) == tuple("abcdef")
    assert [tuple(a.shape) for a in run.to_bertviz()["attention"]] == [(1, HEADS, T, T)]


def test_several_samples_are_listed_where_one_is_meant() -> None:
    store = MemoryStore(manifest())
    for index in range(3):
        put(store, Field(index, site(0), 0, (0, 1, 2)), weights(0, seed=index))
        commit(store, index, source=False)
    run = ap.Run(store)
    with pytest.raises(SelectionError, match=r"3 samples \(s0, s1, s2\), .*write run\.sample\(i\)\[layer, head\]"):
        run[0, 0]
    for which in (1, -2, "s1", np.int64(1)):
        np.testing.assert_array_equal(run.sample(which)[0, 2].numpy(), weights(0, seed=1)[2])
    with pytest.raises(NotKept, match=r"there is no sample 3; the run has 3 \(0 to 2\)"):
        run.sample(3)
    with pytest.raises(NotKept, match="there is no sample 'x'; there are s0, s1, s2"):
        run.sample("x")
    assert [s.id for s in run.samples] == ["s0", "s1", "s2"]


# --- labels -------------------------------------------------------------------------------------------------------


def test_labels_of_your_own(run: ap.Run) -> None:
    words = ["one", "two", "three", "four", "five", "six"]
    for head in (run.with_labels(words)[1, 0], run[1, 0].with_labels(words)):
        row = head.row("four")
        assert row.name == "four" and tuple(row.index) == tuple(words)
        assert head.row(" explore").name == "four"  # the tokens' own names still hold
    assert run.with_labels(words).tokens == tuple(words)
    cross = run["h.0.cross", 0].with_labels(words, list("wxyz"))
    assert tuple(cross.to_pandas().columns) == tuple("wxyz")
    with pytest.raises(SelectionError, match="5 labels for 6 tokens; give one a token"):
        run.with_labels(words[:5])
    with pytest.raises(SelectionError, match="6 labels for 4 keys; give one a position"):
        run["h.0.cross", 0].with_labels(words)


def test_without_strings_labels_are_ids_and_unknown_ones_positions() -> None:
    store = MemoryStore(manifest())
    put(store, Field(0, site(0), 0, (0, 1, 2)), weights(0))
    put(store, Field(1, site(0), 0, (0, 1, 2)), weights(0))
    main = TokenSequence(T, np.array([7, -1, 9, 9, 1, 2]))
    store.commit(Sample(0, "s0", {"main": main}, T))
    store.commit(Sample(1, "s1", {"main": TokenSequence(T)}, T))
    run = ap.Run(store)
    assert run.sample(0).tokens == ("#7", "[1]", "#9", "#9", "#1", "#2")
    assert run.sample(0)[0, 0].row("#7").name == "#7"
    assert run.sample(1).tokens == ("0", "1", "2", "3", "4", "5")


def test_strings_are_looked_up_once_an_id() -> None:
    class Tokenizer:
        asked: list[int] = []  # noqa: RUF012

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
            self.asked.extend(ids)
            return [None if number == 99 else f"Ġ{number}" for number in ids]

        def decode(self, ids: list[int], **options: Any) -> str:
            return "".join(f" {number}" for number in ids if number != 99)

    tokenizer = Tokenizer()
    strings = Strings(tokenizer)
    assert strings([3, 3, -1, 99]) == (("Ġ3", "Ġ3", "", ""), (" 3", " 3", "", ""))
    assert strings([3]) == (("Ġ3",), (" 3",))
    assert tokenizer.asked == [3, 99]


# --- what they say ------------------------------------------------------------------------------------------------


def test_repr_says_how_much_of_what(run: ap.Run) -> None:
    assert re.fullmatch(r"1 sample x 3 layers x 2 to 3 heads x 6 tokens, float32, \d+ bytes", repr(run))
    assert re.fullmatch(r"<Head layer 1 \(self, h\.1\.attn\) head 2: 6 x 6, float32, 144 bytes>", repr(run[1, 2]))
    assert repr(run.sample()) == "<sample s0: 6 tokens, 4 sites>"
    assert (run.num_layers, run.num_heads, len(run.sites)) == (3, HEADS, 4)
    assert run.nbytes == 4 * (2 * HEADS * T * T + HEADS * T * SOURCE + 2 * 3 * T)
    assert (run.path is None) == isinstance(run.reader, MemoryStore)


def test_repr_of_one_of_each_and_of_nothing() -> None:
    one = Site("h.0", "self", "decoder", 0, 1, 1)
    store = MemoryStore(manifest(sites=(one,)))
    assert repr(ap.Run(store)) == "0 samples"
    assert "<td>0</td>" in ap.Run(store)._repr_html_()
    store.write(Field(0, one, 0, (0,), "float16"), Block((0,), range(1), 0, torch.ones(1, 1, 1, dtype=torch.float16)))
    store.commit(Sample(0, "s0", {"main": TokenSequence(1)}, 1))
    assert repr(ap.Run(store)) == "1 sample x 1 layer x 1 head x 1 token, float16, 2 bytes"


def test_html_is_escaped_and_says_shape_dtype_and_size(run: ap.Run) -> None:
    html = run._repr_html_()
    assert "Tiny&lt;Model&gt;" in html and "Tiny<Model>" not in html
    assert "float32" in html and "bytes" in html and "<td>6</td>" in html
    head = run[0, 0]._repr_html_()
    assert "&lt;Head layer 0" in head and "6 x 6, float32, 144 bytes" in head
    assert "<th>&lt;b&gt;</th>" in head and "<th><b></th>" not in head
    assert f"<td>{(weights(0) * LOWER)[0, 5, 5]:.2f}</td>" in head


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (9_999, "9999 bytes"),
        (37_632, "0.0376 MB"),
        (999_499_999, "999 MB"),
        (999_999_999, "1 GB"),
        (12.34e9, "12.3 GB"),
        (999_999_999_999, "1 TB"),
        (2_345e12, "2345 TB"),
    ],
)
def test_sizes_are_written_in_few_characters(size: float, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [(7, 7), ("256 MiB", 256 << 20), ("2GB", 2 * 10**9), ("1.5 ki", 1536), (" 3 k ", 3000), ("1TiB", 1 << 40)],
)
def test_sizes_are_read(text: int | str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "1 PB", "1e9", 0, "0.5"])
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(SelectionError, match='is not a size; write bytes, "256 MiB" or "2 GB"'):
        parse_bytes(text)


# --- for other tools ----------------------------------------------------------------------------------------------


def test_bertviz_takes_it(run: ap.Run) -> None:
    arguments = run.to_bertviz(layers=[0, 1])
    assert arguments["tokens"] == list(TOKENS) and isinstance(arguments["tokens"], list)
    for layer, attention in enumerate(arguments["attention"]):
        assert attention.dtype == torch.float32
        assert torch.equal(attention, torch.from_numpy(weights(layer) * LOWER)[None])
    with pytest.raises(NotKept, match="was not kept"):
        run.to_bertviz()  # layer 2 is there in part


def test_circuitsvis_takes_it(run: ap.Run) -> None:
    arguments = run.to_circuitsvis(1)
    assert arguments["tokens"] == list(TOKENS) and arguments["attention"].dtype == np.float32
    np.testing.assert_array_equal(arguments["attention"], weights(1) * LOWER)
    one = run[1, 2].to_circuitsvis()
    np.testing.assert_array_equal(one["attention"], (weights(1) * LOWER)[2])
    assert one["tokens"] == list(TOKENS)


def test_half_precision_goes_out_as_float32() -> None:
    one = site(0)
    store = MemoryStore(manifest(sites=(one,)))
    values = torch.from_numpy(weights(0)).half()
    store.write(Field(0, one, 0, (0, 1, 2), "float16"), Block((0, 1, 2), range(T), 0, values))
    commit(store, source=False)
    run = ap.Run(store)
    assert run[0, 0].numpy().dtype == np.float16
    assert torch.equal(run.to_bertviz()["attention"][0][0], values.float())
    assert run.to_circuitsvis(0)["attention"].dtype == run[0, 0].to_circuitsvis()["attention"].dtype == np.float32
    assert isinstance(run[0, 0].row(1), pd.Series)


def test_a_head_may_be_named_as_in_a_selection(run: ap.Run) -> None:
    assert np.array_equal(run["L1H2"].numpy(), run[1, 2].numpy())


def test_a_run_is_gone_through_sample_by_sample(run: ap.Run) -> None:
    assert [sample.sample.id for sample in run] == ["s0"]
    assert len(run) == 1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("key", [(0, slice(None)), (0, "1"), (0.0, 0), (0, 1, 2), 0.5])
def test_an_index_that_makes_no_sense_names_the_forms(run: ap.Run, key: Any) -> None:
    with pytest.raises(SelectionError, match=r"write \[layer, head\]"):
        run[key]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("token", [None, [1, 2], 1.5])
def test_what_is_neither_token_nor_position_is_refused(run: ap.Run, token: Any) -> None:
    with pytest.raises(TokenError, match="neither a token nor a position"):
        run[0, 0].row(token)


def test_without_text_labels_tell_repeats_only() -> None:
    store = MemoryStore(Manifest({}, SITES, ({"keys": "all"},), {}, "2025-01-01T00:00:00+00:00", text=False))
    put(store, Field(0, site(0), 0, (0,)), weights(0))
    store.commit(Sample(0, "s", {"main": TokenSequence(T, np.array([0, 1, 2, 3, 2, -1]))}, T))
    store.close()
    run = ap.Run(store)
    assert run.sample().tokens == ("~0", "~1", "~2", "~3", "~2", "[5]")
    assert run[0, 0].row("~3").name == "~3"


def test_numpy_takes_a_head_as_an_array(run: ap.Run) -> None:
    assert np.array_equal(np.asarray(run[1, 2]), run[1, 2].numpy())
    with pytest.raises(NotKept):
        np.asarray(run[2, 0])


def test_a_weight_that_is_no_number_is_on_top() -> None:
    store = MemoryStore(manifest())
    values = weights(0)
    values[0, 3, 2] = np.nan
    put(store, Field(0, site(0), 0, (0,)), values)
    commit(store, source=False)
    store.close()
    top = ap.Run(store)[0, 0].top(3)
    assert len(top) == 3
    assert (top["query"][0], top["key"][0]) == (3, 2)
    assert np.isnan(top["weight"][0]) and top["weight"].notna()[1:].all()


def test_the_largest_weights_are_found_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few values, so that many are as large as the last one, in pieces of two rows; NaN counts as largest."""
    monkeypatch.setattr("attnprobe.maps.TOGETHER", 2)
    values = torch.randint(0, 4, (HEADS, T, T), generator=torch.Generator().manual_seed(0)).float()
    values[1, 3, 2] = values[1, 5, 0] = torch.nan
    store = MemoryStore(manifest())
    put(store, Field(0, site(0), 0, (0, 1, 2)), values.numpy())
    commit(store, source=False)
    for head in range(HEADS):
        flat = np.nan_to_num(values[head].numpy(), nan=np.inf).reshape(-1)
        for k in (1, 3, 10, T * T):
            wanted = np.argsort(-flat, kind="stable")[:k]
            top = ap.Run(store)[0, head].top(k)
            assert (top["query"] * T + top["key"]).tolist() == wanted.tolist()
            np.testing.assert_array_equal(np.nan_to_num(top["weight"], nan=np.inf), flat[wanted])
