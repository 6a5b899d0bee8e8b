"""Which layers, heads, rows and columns are meant: the grammar, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprobe.errors import SelectionError
from attnprobe.selection import Indices, Selection

LENGTH = 12


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [
        ("all", range(12)),
        (":", range(12)),
        ("0,3-5", (0, 3, 4, 5)),
        (" 3 , 3-4, 4 ", (3, 4)),
        ("-1", (11,)),
        ("-1,0", (0, 11)),
        ("::4", (0, 4, 8)),
        ("1:6:2", (1, 3, 5)),
        ("-3:", (9, 10, 11)),
        ("-64:", range(12)),
        (":-10", (0, 1)),
        ("3:99", range(3, 12)),
        (5, (5,)),
        (-1, (11,)),
        (np.int64(5), (5,)),
        ([3, 0, 3], (0, 3)),
        ([-1, 0], (0, 11)),
        ((np.int32(4), 2), (2, 4)),
        (np.array([7, 1]), (1, 7)),
        (torch.tensor([7, 1]), (1, 7)),
        ({4, 2}, (2, 4)),
        (range(2, 8, 3), (2, 5)),
        (range(5, 2, -1), (3, 4, 5)),
        (range(-2, 0), (10, 11)),
        (slice(None), range(12)),
        (slice(2, None, 5), (2, 7)),
        (slice(np.int64(-2), None), (10, 11)),
    ],
)
def test_every_form_selects(spec: object, numbers: tuple[int, ...]) -> None:
    assert Indices.parse(spec, "heads").resolve(LENGTH, "head") == tuple(numbers)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "cannot read ''; write \"all\""),
        ("1,,2", "cannot read ''"),
        ("x", "cannot read 'x'"),
        ("1.5", "cannot read '1.5'"),
        ("-:", "cannot read '-:'"),
        ("1:2:-1", "cannot read '1:2:-1'"),
        ("5-3", "'5-3' runs backwards"),
        ("::0", "the step must be positive"),
        (slice(0, 4, -1), "the step must be positive"),
        (slice("a", None), "bounds of a slice are ints"),
        (True, "heads=True is not a selection"),
        (None, "heads=None is not a selection"),
        (1.5, "heads=1.5 is not a selection"),
        (b"03", "is not a selection"),
        ({0: 1}, "is not a selection"),
        ([], "heads is empty: nothing would be recorded"),
        (range(0), "heads is empty"),
        (["0"], "holds '0', which is not an int"),
        ([0, True], "holds True"),
        (np.array([True, False]), "which is not an int"),
        ([0.5], "holds 0.5"),
    ],
)
def test_malformed_is_refused(spec: object, words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        Indices.parse(spec, "heads")


@pytest.mark.parametrize("spec", ["12", "-13", "3-12", "40-50", 12, [0, 12], range(4, 13), "all,12"])
def test_out_of_range_names_the_valid_range(spec: object) -> None:
    with pytest.raises(SelectionError, match=r"head -?\d+ is out of range: there are 12 \(heads 0 to 11\)"):
        Indices.parse(spec, "heads").resolve(LENGTH, "head")


@pytest.mark.parametrize("spec", ["12:", "5:5", "8:3", slice(4, 2)])
def test_empty_selection_names_the_valid_range(spec: object) -> None:
    with pytest.raises(SelectionError, match=r"select nothing of 12 \(heads 0 to 11\)"):
        Indices.parse(spec, "heads").resolve(LENGTH, "head")


bound = st.none() | st.integers(-25, 25)
part = (
    st.integers(-25, 25).map(str)
    | st.just("all")
    | st.tuples(st.integers(0, 25), st.integers(0, 25)).map(lambda p: f"{min(p)}-{max(p)}")
    | st.tuples(bound, bound, st.none() | st.integers(1, 6)).map(
        lambda p: ":".join("" if b is None else str(b) for b in p)
    )
)


def members(spec: str, length: int) -> set[int]:
    """The definition: what Python's own list of positions gives, with what is out of range left out."""
    positions = list(range(length))
    chosen: set[int] = set()
    for word in spec.split(","):
        if word == "all":
            chosen.update(positions)
        elif ":" in word:
            chosen.update(positions[slice(*(int(b) if b else None for b in word.split(":")))])
        elif "-" in word[1:]:
            low, high = map(int, word.split("-"))
            chosen.update(p for p in positions if low <= p <= high)
        else:
            chosen.update(p for p in positions if int(word) in (p, p - length))
    return chosen


@given(st.lists(part, min_size=1, max_size=3).map(",".join), st.integers(0, 20), st.data())
def test_within_is_the_definition_cut_to_a_window(spec: str, length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    found = Indices.parse(spec, "queries").within(start, stop, length)
    assert list(found) == sorted(p for p in members(spec, length) if start <= p < stop)


@given(st.lists(part, min_size=1, max_size=3).map(",".join), st.integers(1, 20))
def test_resolve_is_the_definition_or_refuses(spec: str, length: int) -> None:
    try:
        found = Indices.parse(spec, "heads").resolve(length, "head")
    except SelectionError:
        words = [w for w in spec.split(",") if w != "all" and ":" not in w]
        numbers = [int(n) for w in words for n in (w.split("-") if "-" in w[1:] else [w])]
        assert not members(spec, length) or any(not -length <= n < length for n in numbers)
    else:
        assert list(found) == sorted(members(spec, length))


@pytest.mark.parametrize(
    ("spec", "from_end"), [("all", False), ("0,3-5", False), ("-1", True), ("0,-4:", True), (":-1", True), (-2, True)]
)
def test_counting_from_the_end_is_known_before_the_length(spec: object, from_end: bool) -> None:
    assert Indices.parse(spec, "queries").from_end is from_end


# --- layers and heads together ------------------------------------------------------------------------------------


def picked(selection: Selection, layers: int = 8, heads: int = 12) -> dict[int, tuple[int, ...]]:
    every = {layer: selection.heads_of(layer, layers, heads) for layer in range(layers)}
    return {layer: chosen for layer, chosen in every.items() if chosen}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"layers": "0,3-4", "heads": "-1"}, {0: (11,), 3: (11,), 4: (11,)}),
        ({"layers": {0: [9], 5: "0-2"}}, {0: (9,), 5: (0, 1, 2)}),
        ({"heads": {0: [9], -1: "all"}}, {0: (9,), 7: tuple(range(12))}),
        ({"heads": "L5H1,L6H9"}, {5: (1,), 6: (9,)}),
        ({"layers": "l5h1, L5H3,L5H1"}, {5: (1, 3)}),
        ({"layers": {0: 1}, "heads": ":"}, {0: (1,)}),
    ],
)
def test_layers_and_heads(words: dict[str, object], expected: dict[int, tuple[int, ...]]) -> None:
    assert picked(Selection.parse(**words)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layers": "8"}, r"layer 8 is out of range: there are 8 \(layers 0 to 7\)"),
        ({"layers": {8: "all"}}, r"layer 8 is out of range: there are 8 \(layers 0 to 7\)"),
        ({"heads": "L9H0"}, r"layer 9 is out of range: there are 8 \(layers 0 to 7\)"),
        ({"heads": "L5H12"}, r"head 12 is out of range: there are 12 \(heads 0 to 11\)"),
        ({"heads": {5: [3, 12]}}, r"head 12 is out of range"),
        ({"heads": "12"}, r"head 12 is out of range"),
    ],
)
def test_absent_layers_and_heads_are_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        picked(Selection.parse(**words))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layers": "0", "heads": "L5H1"}, "already named layer by layer; '0' beside them"),
        ({"layers": [0, 1], "heads": {5: "all"}}, "already named layer by layer"),
        ({"layers": "L5H1", "heads": "L5H1"}, "already named layer by layer"),
        ({"layers": {0: "all"}, "heads": {0: "all"}}, "already named layer by layer"),
        ({"heads": "L5H1,3"}, "cannot read '3'; write heads across layers as \"L5H1,L6H9\""),
        ({"heads": {}}, "heads is empty"),
        ({"heads": {5: []}}, "heads of layer 5 is empty"),
        ({"heads": {5: "x"}}, "heads of layer 5 'x': cannot read 'x'"),
        ({"kind": "both"}, 'write "all", "self" or "cross"'),
        ({"generated": "some"}, 'write "all" or "none"'),
        ({"keys": "0,5"}, "keys='0,5': key columns are one range"),
        ({"keys": "::2"}, "key columns are one range"),
        ({"keys": "-5:"}, "key columns are one range counted from the start"),
        ({"keys": "-1"}, "key columns are one range"),
        ({"keys": "5:5"}, "select nothing"),
        ({"keys": ":0"}, "select nothing"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Selection.parse(**words)  # type: ignore[arg-type]


def test_a_layer_that_is_no_number_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"heads names the layer '5', which is not an int"):
        Selection.parse(heads={0: "all", "5": "all"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("all", slice(None)),
        (":512", slice(None, 512)),
        ("128:256", slice(128, 256)),
        ("128-255", slice(128, 256)),
        (range(8), slice(0, 8)),
        (3, slice(3, 4)),
        ("7:", slice(7, None)),
    ],
)
def test_keys_are_one_range_that_its_description_gives_back(keys: object, expected: slice) -> None:
    selection = Selection.parse(keys=keys)  # type: ignore[arg-type]
    assert selection.keys == expected
    assert Selection.parse(keys=str(selection.describe()["keys"])).keys == expected


def test_a_description_parses_to_the_same_selection() -> None:
    words = {"layers": [0, -1], "heads": range(1, 4), "queries": slice(-64, None), "kind": "self", "generated": "none"}
    described = Selection.parse(**words).describe()  # type: ignore[arg-type]
    assert described == {
        "layers": "0,-1",
        "heads": "1-3",
        "queries": "-64:",
        "keys": "all",
        "generated": "none",
        "kind": "self",
    }
    assert Selection.parse(**described).describe() == described  # type: ignore[arg-type]
    assert Selection.parse(heads={0: [9], 5: "all"}).describe()["heads"] == {"0": "9", "5": "all"}
