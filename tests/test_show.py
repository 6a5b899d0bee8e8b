"""The views: what a terminal shows, what a figure shows, and what labels cannot do to either."""

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.show.colors import MAPS, color, table
from attnprobe.show.plots import NAMED, PIXELS, plot_map
from attnprobe.show.prepare import group_starts, printable, shrink
from attnprobe.show.scales import SCALES, Scale, scale_of
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


# --- colours and scales -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["magma", "viridis", "cividis"])
def test_colors_are_matplotlibs(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    expected = np.rint(matplotlib.colormaps[name](np.arange(256))[:, :3] * 255)
    np.testing.assert_array_equal(table(name), expected)
    for level in (0.0, 0.123, 0.5, 0.999, 1.0):
        assert color(level, name) == matplotlib.colors.to_hex(matplotlib.colormaps[name](level))


def test_the_map_of_differences_goes_the_way_of_matplotlibs_in_even_steps() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    rgb = table("difference").astype(float)
    path = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 256))[:, :3] * 255
    apart = np.sqrt(np.square(rgb[:, None] - path[None]).sum(-1)).min(1)
    assert apart.max() < 3  # all of its colours are on the way
    np.testing.assert_allclose(rgb[[0, -1]], path[[0, -1]], atol=0.51)
    assert np.ptp(rgb[127:129].mean(0)) < 3 and rgb[127:129].min() > 240  # the middle has no hue, and is light
    steps = np.sqrt(np.square(np.diff(oklab(rgb / 255), axis=0)).sum(1))
    for side in (steps[:127], steps[128:]):
        assert side.std() < 0.25 * side.mean()  # 8 bits round


def oklab(rgb: np.ndarray) -> np.ndarray:
    """B. Ottosson 2020, A perceptual color space for image processing."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    first = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    second = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.array(first).T) @ np.array(second).T


def test_every_map_has_256_colors_and_another_name_is_refused() -> None:
    assert [table(name).shape for name in MAPS] == [(256, 3)] * len(MAPS)
    with pytest.raises(SelectionError, match="magma, viridis, cividis, difference"):
        table("jet")


def test_scales_follow_their_formulas() -> None:
    weights = np.array([[0.0, 0.001, 0.01, 0.1, 0.5], [0.0, 0.0, 0.02, 0.01, 0.04]])
    expected = {
        "log": np.log(np.maximum(weights, 1e-3) / 1e-3) / np.log(100),
        "linear": weights / 0.1,
        "sqrt": np.sqrt(weights / 0.1),
        "row": np.log(np.maximum(weights / [[0.5], [0.04]], 1e-3) / 1e-3) / np.log(100),
    }
    assert set(expected) == set(SCALES)
    for name, levels in expected.items():
        np.testing.assert_allclose(Scale(name, 1e-3, 0.1).levels(weights), np.clip(levels, 0, 1), atol=1e-12)


def test_limits_are_quantiles_of_the_weights_above_zero() -> None:
    weights = np.r_[np.zeros(5000), np.geomspace(1e-4, 1e-1, 1001)][None]
    scale = scale_of(weights)
    assert scale.low == pytest.approx(1e-4 * 1000**0.2) and 0.09 < scale.high <= 0.1
    alike = scale_of(np.full((3, 3), 0.25))
    assert alike.levels(np.full((3, 3), 0.25)).min() == 1 and alike.low < 0.25
    assert not scale_of(np.zeros((2, 2))).levels(np.zeros((2, 2))).any()
    with pytest.raises(SelectionError, match="log, linear, sqrt, row"):
        scale_of(weights, "cubic")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SCALES)
def test_the_lowest_and_the_largest_weight_are_seen_apart(name: str) -> None:
    values = np.array([[0.0, 1 / 512, 0.5], [np.nan, np.inf, 0.25]])
    levels = scale_of(values, name).levels(values)
    assert levels[0, 0] == 0 and levels[0, 2] == 1 and levels[0, 1] < 0.1
    assert np.isnan(levels[1, :2]).all()
    assert "scale, " in str(scale_of(values, name))


@pytest.mark.parametrize("name", MAPS)
def test_a_terminal_has_the_colors_of_the_map(name: str) -> None:
    values = causal(20)
    drawn = heatmap(values, 40, True, map=name)
    used = {str(span.style).split()[0] for span in drawn.spans if "#" in str(span.style)}
    assert len(used) > 3 and used <= {color(level, name) for level in np.linspace(0, 1, 32)}
    rows = row_table(values[-1], [str(i) for i in range(20)], 60, True, map=name)
    bars = {str(span.style) for span in rows.spans if "#" in str(span.style)}
    assert bars and bars <= {color(level, name) for level in np.linspace(0, 1, 1001)}


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
    np.testing.assert_array_equal(ax.images[0].get_array().filled(0), values)
    assert ax.images[0].get_array().mask[0, 1] and not ax.images[0].get_array().mask[1, 0]  # zero is the paper
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
    assert (drawn.filled(0).max(1)[8:] == 1).all()


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
