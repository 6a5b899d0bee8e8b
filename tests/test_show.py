"""The views: what a terminal shows, what a figure shows, and what labels cannot do to either."""

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from attnprobe.errors import AttnprobeError
from attnprobe.show.colors import levels, viridis
from attnprobe.show.plots import NAMED, PIXELS, plot_map
from attnprobe.show.prepare import group_starts, printable, shrink
from attnprobe.show.terminal import SHADES, has_color, heatmap, row_table


def causal(length: int, seed: int = 0) -> np.ndarray:
    """A softmax map of random logits."""
    logits = np.random.default_rng(seed).normal(size=(length, length)).astype(np.float32)
    weights = np.tril(np.exp(logits))
    return weights / weights.sum(1, keepdims=True)


def test_shrinking_keeps_the_largest_weight_of_each_cell() -> None:
    values = causal(37)
    small = shrink(values, 5, 4)
    rows, columns = [*group_starts(37, 5), 37], [*group_starts(37, 4), 37]
    expected = [[values[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].max() for j in range(4)] for i in range(5)]
    np.testing.assert_array_equal(small, expected)


def test_a_map_that_fits_is_not_shrunk() -> None:
    values = causal(6)
    np.testing.assert_array_equal(shrink(values, 10, 10), values)


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("Ġexplore", "Ġexplore"),
        ("\n", r"\n"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202ex", r"\u202ex"),
        ("\x9b", r"\x9b"),
        ("\ud800", r"\ud800"),
        ("[red]", "[red]"),
        ("日本", "日本"),
    ],
)
def test_labels_cannot_control_a_terminal(label: str, shown: str) -> None:
    assert printable(label) == shown


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (14, 14), (14, 900), (700, 30), (513, 513)])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [24, 80])
def test_heatmap_fits_its_width(shape: tuple[int, int], color: bool, width: int) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    lines = heatmap(values, width, color).plain.split("\n")
    assert max(map(cell_len, lines)) <= width
    assert 2 <= len(lines) <= max(1300, shape[0])


def test_heatmap_without_color_is_ascii() -> None:
    drawn = heatmap(causal(200), 80).plain
    assert drawn.isascii()
    assert set(drawn.split("\n")[5][6:]) <= set(SHADES)


def test_heatmap_shows_a_diagonal_one_weight_wide_in_a_long_map() -> None:
    values = np.eye(2000, k=-1000, dtype=np.float32)
    lines = heatmap(values, 70).plain.split("\n")[:-1]
    marked = [line[6:].rstrip() for line in lines]
    assert not any(marked[: len(marked) // 2 - 1])
    assert all(SHADES[-1] in line for line in marked[len(marked) // 2 + 1 :])


def test_heatmap_leaves_only_zeros_blank() -> None:
    values = np.zeros((2, 4), np.float32)
    values[:, 1], values[:, 2] = 1.0, 1e-6
    first = heatmap(values, 6 + 4).plain.split("\n")[0][6:]
    assert first == " @. "


def test_heatmap_names_positions_of_the_rows_it_has() -> None:
    lines = heatmap(causal(512)[100:500], 80, row_positions=range(100, 500)).plain.split("\n")
    assert lines[0].split()[0] == "100"
    assert lines[-1].split()[0] == "0"


def test_a_map_without_rows_says_so() -> None:
    assert "no weights" in heatmap(np.zeros((0, 5), np.float32)).plain


def test_small_weights_are_seen_and_the_largest_is_brightest() -> None:
    scale = levels(np.array([[0.0, 1 / 512, 0.5]]))[0]
    assert scale[0] == 0 and scale[1] > 0.05 and scale[2] == 1
    assert viridis(0.0) == "#440154" and viridis(1.0) == "#fde725"


def test_row_table_lists_position_token_weight_and_bar() -> None:
    weights = np.array([0.5, 0.125, 0.375, 0.0], np.float32)
    lines = row_table(weights, ["Ma", "ia", "Ġis", "Ġa"], 60, query=2).plain.split("\n")
    assert len(lines) == 5
    assert lines[1].split() == ["0", "Ma", "0.5000", lines[1].split()[3]]
    assert lines[3].split()[:4] == [">", "2", "Ġis", "0.3750"]
    assert sum(line.startswith(">") for line in lines) == 1
    bars = [line.count("█") for line in lines[1:]]
    assert bars[0] > bars[2] > bars[1] > bars[3] == 0


def test_row_table_keeps_the_largest_weights_in_order_and_counts_the_rest() -> None:
    weights = np.linspace(0, 1, 100, dtype=np.float32)[::-1].copy()
    weights /= weights.sum()
    lines = row_table(weights, [f"t{i}" for i in range(100)], 80, limit=10).plain.split("\n")
    assert [line.split()[1] for line in lines[1:-1]] == [f"t{i}" for i in range(10)]
    assert "90 smaller weights" in lines[-1]
    assert f"{weights[10:].sum():.4f}" in lines[-1]


@pytest.mark.parametrize("width", [30, 80])
def test_row_table_fits_whatever_the_tokens(width: int) -> None:
    labels = ["\n\t\x1b[2J", "[bold]x[/bold]", "日本語" * 30, "x" * 200]
    table = row_table(np.full(4, 0.25, np.float32), labels, width)
    lines = table.plain.split("\n")
    assert len(lines) == 5
    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in table.plain
    assert "[bold]x" in table.plain


def test_row_table_without_block_characters() -> None:
    table = row_table(np.array([0.9, 0.1], np.float32), ["a", "b" * 99], 40, blocks=False).plain
    assert table.isascii() and "####" in table


def test_color_is_off_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert not has_color(Console(force_terminal=True))
    monkeypatch.delenv("NO_COLOR")
    assert has_color(Console(force_terminal=True, color_system="truecolor"))
    with Path("/dev/null").open("w") as file:
        assert not has_color(Console(file=file))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("color", [False, True])
def test_what_is_no_number_is_a_question_mark(color: bool) -> None:
    values = causal(8)
    values[5, 2] = np.nan
    drawn = heatmap(values, 6 + 8, color).plain
    assert drawn.count("?") == 1 and (color or SHADES[-1] in drawn)
    assert "?" in heatmap(np.full((3, 3), np.nan, np.float32), 20, color).plain
    table = row_table(values[5], list("abcdefgh"), 60, color, limit=2).plain.split("\n")
    assert len(table) == 4 and any(line.split()[1:] == ["c", "nan"] for line in table)
    assert "nan" not in table[-1]


# --- figures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def axes() -> object:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_a_small_map_names_its_tokens(axes: object) -> None:
    values, tokens = causal(5), ["Ma", "ia", "Ġ$x$", "\n", "Ġa"]
    ax = plot_map(values, tokens, tokens, "layer 0, head 1", axes)  # type: ignore[arg-type]
    assert ax is axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Ma", "ia", r"Ġ\$x\$", r"\n", "Ġa"]
    np.testing.assert_array_equal(ax.images[0].get_array(), values)
    assert ax.get_title() == "layer 0, head 1"
    ax.figure.canvas.draw()


def test_a_large_map_is_logarithmic_and_names_positions(axes: object) -> None:
    values = causal(300)[100:200]
    labels = [f"t{i}" for i in range(300)]
    ax = plot_map(values, labels[100:200], labels, "", axes, range(100, 200), range(7, 307))  # type: ignore[arg-type]
    assert type(ax.images[0].norm).__name__ == "LogNorm"
    assert ax.get_yticklabels()[0].get_text() == "100"
    assert ax.get_xticklabels()[0].get_text() == "7"
    assert len(ax.get_xticks()) <= 10
    ax.figure.canvas.draw()


def test_a_huge_map_keeps_its_diagonal(axes: object) -> None:
    values = np.eye(PIXELS * 2, k=-7, dtype=np.float32)
    labels = [str(i) for i in range(PIXELS * 2)]
    ax = plot_map(values, labels, labels, "", axes)  # type: ignore[arg-type]
    ax.figure.canvas.draw()
    drawn, box = ax.images[0].get_array(), ax.get_window_extent()  # no weight may fall between two pixels
    assert drawn.shape[0] <= min(box.height, PIXELS) and drawn.shape[1] <= min(box.width, PIXELS)
    assert (np.asarray(drawn).max(1)[8:] == 1).all()


def test_few_rows_of_a_long_sample(axes: object) -> None:
    values = causal(100)[:2]
    ax = plot_map(values, ["a", "b"], [str(i) for i in range(100)], "", axes)  # type: ignore[arg-type]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert len(ax.get_xticks()) < NAMED


def test_a_figure_is_made_where_none_is_given() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ax = plot_map(causal(4), list("abcd"), list("abcd"))
    assert ax.figure.number in plt.get_fignums()
    plt.close(ax.figure)


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(AttnprobeError, match=r"pip install attnprobe\[plots\]"):
        plot_map(causal(4), list("abcd"), list("abcd"))


def test_nothing_to_plot_is_an_error() -> None:
    with pytest.raises(AttnprobeError, match="nothing to plot"):
        plot_map(np.zeros((0, 4), np.float32), [], list("abcd"))
