"""Figures of a run: what is drawn is where it is in the map, and nothing of matplotlib is changed."""

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
from attnprobe.errors import NotKept, SelectionError
from attnprobe.show.colors import table

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

LONG = 4096
NEEDLE = (3001, 1234)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def causal(length: int, seed: int = 0) -> np.ndarray:
    weights = np.tril(np.random.default_rng(seed).random((length, length)).astype(np.float32) + 0.01)
    return weights / weights.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def long() -> ap.Run:
    """A map whose only large weight is one among 16 million."""
    weights = np.tril(np.random.default_rng(0).random((LONG, LONG), np.float32)) / 100
    weights[NEEDLE] = 0.9
    return ap.from_attentions((torch.from_numpy(weights)[None, None],))


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=3, n_embd=12, n_positions=128, vocab_size=30)).eval()


@pytest.fixture(scope="module")
def run(model: GPT2LMHeadModel) -> ap.Run:
    """Weights and measures of a short sample."""
    ids = torch.arange(60)[None] % 23
    with ap.record(model, keep=[ap.Weights(), ap.Measures(names="all")]) as recorder, torch.no_grad():
        model(ids)
    return recorder.run


@pytest.fixture(scope="module")
def several(model: GPT2LMHeadModel) -> ap.Run:
    with ap.record(model, measures="default") as recorder, torch.no_grad():
        for length in (20, 30):
            model(torch.arange(length)[None] % 7, use_cache=False)
    return recorder.run


def rgb_of(figure: Any) -> np.ndarray:
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.canvas.draw()
    pixels: np.ndarray = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    return pixels


# --- a head -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 3), (6, 5)])
def test_a_needle_in_a_long_map_is_seen_where_it_is(size: tuple[int, int], long: ap.Run) -> None:
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    ax = long[0, 0].plot(figure.subplots(), scale="linear")
    pixels = rgb_of(figure)
    x, y = ax.transData.transform(NEEDLE[::-1])
    box = ax.get_window_extent()
    inside = pixels[-int(box.y1) : -int(box.y0), int(box.x0) : int(box.x1)].copy()
    inside[[0, 1, -2, -1]] = inside[:, [0, 1, -2, -1]] = 255  # the frame
    dark = np.abs(inside - table("magma")[0]).sum(-1) < 30  # the highest level, reversed for paper
    rows, columns = np.nonzero(dark)
    assert 1 <= dark.sum() <= 12
    cell = box.width / ax.images[0].get_array().shape[1] + 1
    assert abs(rows.mean() - (box.y1 - y)) <= cell and abs(columns.mean() - (x - box.x0)) <= cell


def test_a_mean_is_another_picture_and_a_part_is_of_its_own_weights(long: ap.Run) -> None:
    head = long[0, 0]
    largest, mean = (head.plot(how=how).images[0].get_array() for how in ("max", "mean"))
    assert largest.max() == np.float32(0.9) and mean.max() < 0.05
    part = head.plot(rows=slice(2990, 3010), columns=slice(1230, 1240))
    np.testing.assert_array_equal(part.images[0].get_array().filled(0), head[2990:3010, 1230:1240])
    assert [label.get_text() for label in part.get_yticklabels()][11] == "[3001]" or part.get_yticklabels()[
        11
    ].get_text()
    without = head.plot(columns=slice(1, None)).images[0].get_array()
    assert without.shape == largest.shape


@pytest.mark.parametrize("scale", ["log", "linear", "sqrt", "row"])
def test_pixels_have_the_colors_of_the_scale(scale: str) -> None:
    from attnprobe.show.scales import scale_of

    weights = causal(12)
    run = ap.from_attentions((torch.from_numpy(weights)[None, None],), [f"t{i}" for i in range(12)])
    figure = Figure(figsize=(5, 5), dpi=100, layout="constrained")
    ax = run[0, 0].plot(figure.subplots(), scale=scale, map="viridis")
    pixels = rgb_of(figure)
    levels = scale_of(weights, scale).levels(weights)
    for row, column in ((11, 0), (11, 11), (5, 3), (8, 2)):
        x, y = ax.transData.transform((column, row))
        shown = pixels[-int(y), int(x)]
        expected = table("viridis")[::-1][min(int(levels[row, column] * 256), 255)].astype(int)
        assert np.abs(shown - expected).max() <= 6  # matplotlib's own steps differ by one
    x, y = ax.transData.transform((9, 2))
    assert (pixels[-int(y), int(x)] == 255).all()  # zero is the paper


def test_rows_that_were_not_kept_are_grey(tmp_path: Path) -> None:
    small = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=900, vocab_size=30)).eval()
    queries = [*range(300), *range(600, 900)]
    with ap.record(small, to=tmp_path / "run", queries=queries), torch.no_grad():
        small(torch.arange(900)[None] % 23)
    figure = Figure(figsize=(4, 4), dpi=100, layout="constrained")
    ax = ap.open(tmp_path / "run")[0, 0].plot(figure.subplots())
    pixels = rgb_of(figure)
    x, y = ax.transData.transform((100, 450))
    assert (pixels[-int(y), int(x)] == 0xD9).all()


def test_labels_are_text_and_nothing_else() -> None:
    labels = ["$x$", "a\nb", "\x1b[2J", "</text><script>", "$", "x" * 99]
    run = ap.from_attentions((torch.from_numpy(causal(6))[None, None],), labels)
    ax = run[0, 0].plot()
    shown = [label.get_text() for label in ax.get_xticklabels()]
    assert shown[:5] == [r"\$x\$", r"a\nb", r"\x1b[2J", "</text><script>", r"\$"] and len(shown[5]) == 24
    file = io.StringIO()
    ax.figure.savefig(file, format="svg")
    written = file.getvalue()
    assert "<script>" not in written and "&lt;script&gt;" in written and ">$x$<" in written and "\x1b" not in written


def test_cross_attention_names_its_module() -> None:
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=16, vocab_size=20, add_cross_attention=True)
    crossed = GPT2LMHeadModel(config).eval()
    with ap.record(crossed) as recorder, torch.no_grad():
        crossed(torch.arange(4)[None], encoder_hidden_states=torch.randn(1, 6, 8), use_cache=False)
    ax = recorder.run["transformer.h.0.crossattention", 1].plot()
    assert "crossattention" in ax.get_title() and ax.images[0].get_array().shape == (4, 6)
    grid = recorder.run.plot_grid(kind="cross")
    assert [label.get_text() for label in grid.get_xticklabels()] == ["0", "1"]


# --- all heads ----------------------------------------------------------------------------------------------------


def test_the_grid_has_every_head_at_its_place(run: ap.Run) -> None:
    ax = run.plot_grid()
    drawn = ax.images[0].get_array().filled(0)
    pitch = drawn.shape[0] // 2
    assert drawn.shape == (2 * pitch, 3 * pitch)
    for layer in range(2):
        for head in range(3):
            part = drawn[layer * pitch : layer * pitch + 60, head * pitch : head * pitch + 60]
            np.testing.assert_array_equal(part, run[layer, head].numpy())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]


def test_the_grid_has_only_what_was_kept(model: GPT2LMHeadModel) -> None:
    with ap.record(model, heads="L0H2,L1H1") as recorder, torch.no_grad():
        model(torch.arange(10)[None])
    ax = recorder.run.plot_grid()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]
    drawn = ax.images[0].get_array()
    pitch = drawn.shape[0] // 2
    assert drawn[:pitch, :pitch].mask.all() and not drawn[:pitch, pitch:].mask.all()


def test_the_grid_of_a_measure_has_its_means(run: ap.Run, several: ap.Run) -> None:
    np.testing.assert_array_equal(
        run.plot_grid("entropy").images[0].get_array(), run.sample().measures.numpy()["entropy"]
    )
    ax = several.plot_grid("first_mass")
    summary = several.measures.summary()
    np.testing.assert_array_equal(ax.images[0].get_array(), summary["first_mass(1)"].values[..., 0])
    assert "2 samples" in ax.get_title()
    one = several.plot_grid("entropy", sample=1).images[0].get_array()
    np.testing.assert_array_equal(one, several.sample(1).measures.numpy()["entropy"])


def test_pooled_maps_stand_in_for_weights_that_were_not_kept(several: ap.Run) -> None:
    sample = several.sample(1)
    ax = sample[1, 2].plot()
    np.testing.assert_array_equal(
        ax.images[0].get_array().filled(0), sample[1, 2].measures["pooled_max"].values.astype(np.float32)
    )
    assert sample.plot_grid(how="mean").images[0].get_array().max() <= 1


# --- measures -----------------------------------------------------------------------------------------------------


def test_curves_are_quantiles_of_heads_and_chosen_heads(run: ap.Run) -> None:
    figure = run.plot_measures(["entropy", "distances"], heads="L0H1,L1H2")
    curve, bars = figure.axes
    values = run.measures["entropy"].values
    np.testing.assert_allclose(curve.lines[0].get_ydata(), np.median(values.reshape(6, -1), 0), rtol=1e-5)
    np.testing.assert_allclose(curve.lines[1].get_ydata(), values[0, 1], rtol=1e-5)
    np.testing.assert_allclose(bars.lines[2].get_ydata(), run.measures["distances"].values[1, 2], rtol=1e-5)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[2:] == ["L0H1", "L1H2"] and len(figure.legends[0].legend_handles) == 4
    rgb_of(figure)


def test_heads_are_points_of_two_means(run: ap.Run) -> None:
    figure = run.plot_measures(["entropy"], scatter=("entropy", "first_mass"))
    points = np.asarray(figure.axes[-1].collections[0].get_offsets())
    means = run.sample().measures.numpy()
    expected = np.stack([means["entropy"].reshape(-1), means["first_mass(1)"].reshape(-1)], 1)
    np.testing.assert_allclose(points, expected, rtol=1e-6)
    figure = run.plot_measures()
    titles = [ax.get_title() for ax in figure.axes]
    assert {"entropy", "received", "distances", "induction"} <= set(titles) and "heads, layers dark to light" in titles


def test_what_was_not_kept_names_what_to_keep(run: ap.Run, several: ap.Run, model: GPT2LMHeadModel) -> None:
    with ap.record(model, measures=["entropy.mean"]) as recorder, torch.no_grad():
        model(torch.arange(10)[None])
    means = recorder.run
    with pytest.raises(NotKept, match=r'measures=\["entropy"\]'):
        means.plot_measures("entropy")
    with pytest.raises(NotKept, match="Weights"):
        means.plot_grid()
    with pytest.raises(NotKept, match="Weights"):
        means[0, 0].plot()
    with pytest.raises(NotKept, match=r'measures=\["induction"\]'):
        means.plot_grid("induction")
    with pytest.raises(SelectionError, match="sample=0"):
        several.plot_measures()
    with pytest.raises(SelectionError, match="L0H3,L1H6"):
        run.plot_measures(heads="3.1")
    with pytest.raises(SelectionError, match="L7H0"):
        run.plot_measures(["entropy"], heads=[(7, 0)])
    with pytest.raises(SelectionError, match="no colour map"):
        run[0, 0].plot(map="jet")
    with pytest.raises(SelectionError, match="no scale"):
        run[0, 0].plot(scale="cubic")
    with pytest.raises(NotKept, match="cross"):
        run.plot_grid(kind="cross")


# --- matplotlib ---------------------------------------------------------------------------------------------------


def test_nothing_global_of_matplotlib_changes(run: ap.Run) -> None:
    before, known = dict(matplotlib.rcParams), sorted(matplotlib.colormaps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run[0, 1].plot()
        run.plot_grid()
        run.plot_grid("entropy")
        run.plot_measures()
        with pytest.raises(SelectionError):
            run[0, 1].plot(map="jet")
    assert dict(matplotlib.rcParams) == before and sorted(matplotlib.colormaps) == known


def test_saved_text_is_text_and_the_map_is_one_image(run: ap.Run) -> None:
    figure = run[0, 1].plot().figure
    svg, pdf = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg")
    figure.savefig(pdf, format="pdf")
    assert ">attention weight</text>" in svg.getvalue() and svg.getvalue().count("<image") <= 2
    assert b"/Subtype /Type3" not in pdf.getvalue() and b"/Subtype /CIDFontType2" in pdf.getvalue()
    width = float(re.search(r'width="([\d.]+)pt"', svg.getvalue())[1])  # type: ignore[index]
    assert width < 7.1 * 72


def test_users_go_on_with_what_they_get(run: ap.Run) -> None:
    figure, axes = plt.subplots(1, 2)
    assert run[0, 0].plot(axes[0]) is axes[0] and run.plot_grid(ax=axes[1]) is axes[1]
    axes[0].set_title("mine")
    assert figure is axes[0].figure and isinstance(run.plot_measures("entropy"), Figure)
