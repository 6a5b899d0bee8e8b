"""The explorer's map in a real Chromium: what it draws is what was recorded, whatever the zoom."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnprobe.run import open_run
from tests.browsing import browser, missing, page, served
from tests.planted import Planted, planted_run

pytestmark = [pytest.mark.browser, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

LENGTH = 3000  # not a multiple of a patch
MAP = "document.querySelector('.ap-map').attnprobe"
NO_SPAN = "#view=map"
# Colours of the 3 x 3 pixels of the picture where the middles of some cells of a level are drawn.
PIXELS = """([level, cells]) => {
  const map = document.querySelector('.ap-map');
  const { view } = map.attnprobe;
  const pen = map.querySelector('canvas').getContext('2d');
  const size = 2 ** level;
  return cells.map(([down, across]) => {
    const x = view.origin.x + view.area.width / 2 + ((across + 0.5) * size - view.column) * view.pixels;
    const y = view.origin.y + view.area.height / 2 + ((down + 0.5) * size - view.row) * view.pixels;
    return [...pen.getImageData(Math.floor(x) - 1, Math.floor(y) - 1, 3, 3).data];
  });
}"""
FRAMES = """async ([query, key, frames, factor]) => {
  const stage = document.querySelector('.ap-map-stage'), map = document.querySelector('.ap-map').attnprobe;
  const { left, top } = stage.getBoundingClientRect();
  const times = [];
  let before = null;
  for (let i = 0; i < frames; i++) {
    const view = map.view;
    const clientX = left + view.origin.x + view.area.width / 2 + (key + 0.5 - view.column) * view.pixels;
    const clientY = top + view.origin.y + view.area.height / 2 + (query + 0.5 - view.row) * view.pixels;
    const deltaY = (-240 * Math.log2(factor)) / frames;
    stage.dispatchEvent(new WheelEvent('wheel', { deltaY, clientX, clientY, bubbles: true, cancelable: true }));
    const now = await new Promise(requestAnimationFrame);
    if (before !== null) times.push(now - before);
    before = now;
  }
  return times;
}"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_run(tmp_path_factory.mktemp("map") / "run", LENGTH, needles=12)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def url(planted: Planted) -> Iterator[str]:
    with served([planted.path]) as address:
        yield address


def settled(opened: Any) -> None:
    """Wait until all that is seen is there and drawn."""
    opened.wait_for_selector(".ap-map-stage")
    late = "new Promise((_, no) => setTimeout(() => no(new Error('the map does not settle')), 30000))"
    opened.evaluate(f"Promise.race([{MAP}.settled(), {late}])")


def view_of(opened: Any) -> dict[str, Any]:
    found: dict[str, Any] = opened.evaluate(f"{MAP}.view")
    return found


def state_of(opened: Any) -> dict[str, Any]:
    found: dict[str, Any] = opened.evaluate("document.querySelector('.attnprobe').app.state")
    return found


def point_at(opened: Any, query: float, key: float) -> tuple[float, float]:
    """Where in the page a weight is drawn."""
    view, box = view_of(opened), opened.locator(".ap-map-stage").bounding_box()
    x = box["x"] + view["origin"]["x"] + view["area"]["width"] / 2 + (key + 0.5 - view["column"]) * view["pixels"]
    y = box["y"] + view["origin"]["y"] + view["area"]["height"] / 2 + (query + 0.5 - view["row"]) * view["pixels"]
    return x, y


def hover(opened: Any, query: float, key: float) -> str:
    """The readout once the pointer rests on a weight."""
    opened.mouse.move(*point_at(opened, query, key))
    opened.wait_for_timeout(50)
    settled(opened)
    opened.wait_for_timeout(50)
    text: str = opened.locator(".ap-map-readout").text_content()
    return text


def number(text: str) -> np.float32:
    """The exact weight that a readout says."""
    found = re.search(r": (-?[0-9.]+(?:e-?\d+)?)(?: ·|$)", text)
    assert found, text
    return np.float32(found[1])


def expected_colours(opened: Any, values: np.ndarray) -> np.ndarray:
    """Colours of weights on the logarithmic scale by matplotlib, each with its neighbours of 256: ``[cell, 3, 3]``."""
    from matplotlib import colormaps

    limits = opened.evaluate("(({ low, high }) => [low, high])(document.querySelector('.attnprobe').app.colours())")
    low, high = np.log(limits)
    index = np.clip(np.floor(256 * (np.log(values.astype(np.float64)) - low) / (high - low)), 0, 255).astype(int)
    table = np.rint(colormaps["magma"](np.arange(256))[:, :3] * 255).astype(int)
    return table[np.clip(index[:, None] + [-1, 0, 1], 0, 255)]


def check_pixels(opened: Any, planted: Planted, seed: int) -> int:
    """Compare cells that are drawn with levels that Python reads; gives the level."""
    level: int = opened.evaluate(f"{MAP}.counts.level")
    view, head = view_of(opened), open_run(planted.path)[0, 0]
    half = np.array([view["area"]["height"], view["area"]["width"]]) / 2 / view["pixels"]
    centre = np.array([view["row"], view["column"]])
    first = np.ceil(np.maximum(centre - half, 0) / 2**level).astype(int)
    last = np.floor(np.minimum(centre + half, LENGTH) / 2**level).astype(int)
    cells = np.random.default_rng(seed).integers(first, last, (400, 2))
    read = head.levels.read(level)
    near = [(cell.query >> level, cell.key >> level) for cell in planted.needles]
    inside = [cell for cell in near if all(a <= at < b for a, at, b in zip(first, cell, last, strict=True))]
    cells = np.concatenate([cells, np.array(inside, int).reshape(-1, 2)])
    got = np.array(opened.evaluate(PIXELS, [level, cells.tolist()])).reshape(len(cells), 9, 4)[..., :3]
    if 2**level * view["pixels"] >= 4:  # larger cells are where they belong to the pixel, smaller ones within one
        got = got[:, 4:5]
    values = read[cells[:, 0], cells[:, 1]]
    there = values > 0
    assert there.sum() > 50
    expected = expected_colours(opened, values[there])
    assert (expected[:, :, None] == got[there][:, None]).all(axis=3).any(axis=(1, 2)).all()
    page_colour = opened.evaluate("document.querySelector('.attnprobe').app.colours().background")
    background = [int(page_colour[i : i + 2], 16) for i in (1, 3, 5)]
    assert (got[values == 0] == background).all(axis=2).any(axis=1).all()
    return level


def test_what_is_drawn_are_the_levels_at_every_zoom(chromium: Any, url: str, planted: Planted) -> None:
    needle = planted.needles[4]
    with page(chromium, url + NO_SPAN, color_scheme="dark") as opened:
        settled(opened)
        levels = [check_pixels(opened, planted, 0)]
        for seed in range(1, 7):
            opened.mouse.move(*point_at(opened, needle.query, needle.key))
            opened.mouse.wheel(0, -240)
            settled(opened)
            levels.append(check_pixels(opened, planted, seed))
            opened.mouse.move(5, 5)  # out of the way: the crosshair is on another canvas, but its readout may wrap
    assert levels[0] >= 2
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 0


def test_a_needle_is_seen_from_afar_and_read_exactly_by_zooming_in(chromium: Any, url: str, planted: Planted) -> None:
    with page(chromium, url + NO_SPAN, color_scheme="dark") as opened:
        settled(opened)
        for needle in planted.needles[:3]:
            text = hover(opened, needle.query, needle.key)
            assert "largest of" in text
            times = opened.evaluate(FRAMES, [needle.query, needle.key, 60, 400])
            assert np.median(times) < 60  # 17 where nothing else runs
            settled(opened)
            text = hover(opened, needle.query, needle.key)
            assert f"query {needle.query:,} " in text
            assert f"key {needle.key:,} " in text
            assert planted.tokens[needle.query] in text
            assert number(text) == np.float32(needle.weight)
            opened.locator(".ap-map-stage").focus()
            opened.keyboard.press("0")
            settled(opened)
            assert state_of(opened)["span"] is None


def test_the_key_m_goes_to_the_largest_weight_of_a_coarse_cell(chromium: Any, url: str, planted: Planted) -> None:
    needle = planted.needles[2]
    with page(chromium, url + NO_SPAN) as opened:
        settled(opened)
        size = 2 ** opened.evaluate(f"{MAP}.counts.level")
        hover(opened, needle.query // size * size, needle.key // size * size)
        opened.locator(".ap-map-stage").focus()
        opened.keyboard.press("m")
        for _ in range(50):
            opened.wait_for_timeout(50)
            settled(opened)
            text = opened.locator(".ap-map-readout").text_content()
            if f"query {needle.query:,} " in text and "…" not in text:
                break
        assert number(text) == np.float32(needle.weight)


def test_by_keys_alone(chromium: Any, url: str) -> None:
    with page(chromium, url + NO_SPAN) as opened:
        settled(opened)
        opened.locator(".ap-map-stage").focus()
        before = view_of(opened)
        for key in ("+", "+", "ArrowDown", "ArrowRight"):
            opened.keyboard.press(key)
        settled(opened)
        after = view_of(opened)
        assert after["pixels"] == pytest.approx(before["pixels"] * 2.25)
        assert after["row"] - before["row"] == pytest.approx(60 / after["pixels"])
        assert after["column"] - before["column"] == pytest.approx(60 / after["pixels"])
        opened.keyboard.press("Shift+ArrowDown")  # the crosshair comes to the middle
        for key in ("Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowLeft", "Enter"):
            opened.keyboard.press(key)
        state = state_of(opened)
        assert (state["query"], state["key"]) == (int(after["row"]) + 2, int(after["column"]) - 1)
        opened.wait_for_timeout(500)
        said = opened.locator(".ap-map [aria-live]").first.text_content()
        assert f"query {state['query']:,} " in said
        opened.keyboard.press("b")
        for key in ("Shift+ArrowDown", "Shift+ArrowRight", "Shift+ArrowRight", "b"):
            opened.keyboard.press(key)
        top, left = state["query"], state["key"]
        assert state_of(opened)["box"] == [top, top + 2, left, left + 3]
        opened.keyboard.press("Escape")
        state = state_of(opened)
        assert state["query"] is state["key"] is state["box"] is None
        role = opened.locator(".ap-map-stage")
        assert role.get_attribute("role") == "application"
        assert f"{LENGTH} queries by {LENGTH} keys" in role.get_attribute("aria-label")


def test_a_link_reopens_what_was_seen(chromium: Any, url: str) -> None:
    with page(chromium, url + NO_SPAN) as opened:
        settled(opened)
        x, y = point_at(opened, 2000, 700)
        opened.mouse.move(x, y)
        opened.mouse.wheel(0, -700)
        settled(opened)
        opened.mouse.click(x, y)
        opened.wait_for_timeout(400)
        seen, state, link = view_of(opened), state_of(opened), opened.url
    assert (state["query"], state["key"]) == pytest.approx((2000, 700), abs=3)
    with page(chromium, url + link[link.index("#") :], width=900, height=700) as opened:
        settled(opened)
        again = view_of(opened)
        assert (again["row"], again["column"]) == pytest.approx((seen["row"], seen["column"]))
        shorter = [min(view["area"].values()) / view["pixels"] for view in (seen, again)]
        assert shorter[0] == pytest.approx(shorter[1])
        assert state_of(opened)["query"] == state["query"]


def test_dragging_moves_and_with_shift_draws_a_box(chromium: Any, url: str) -> None:
    with page(chromium, f"{url}{NO_SPAN}&row=1500&column=800&span=200") as opened:
        settled(opened)
        before = view_of(opened)
        opened.mouse.move(500, 400)
        opened.mouse.down()
        opened.mouse.move(560, 430, steps=3)
        opened.mouse.up()
        settled(opened)
        after = view_of(opened)
        moved = [(before[axis] - after[axis]) * after["pixels"] for axis in ("column", "row")]
        assert moved == pytest.approx([60, 30], abs=1e-3)
        assert state_of(opened)["query"] is None
        corners = (1450, 760), (1490, 830)
        opened.keyboard.down("Shift")
        opened.mouse.move(*point_at(opened, *corners[1]))
        opened.mouse.down()
        opened.mouse.move(*point_at(opened, *corners[0]), steps=3)
        opened.mouse.up()
        opened.keyboard.up("Shift")
        assert state_of(opened)["box"] == [1450, 1491, 760, 831]


def test_two_fingers_zoom_about_the_point_between_them(chromium: Any, url: str) -> None:
    phone = {"width": 420, "height": 900, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with page(chromium, f"{url}{NO_SPAN}&row=1500&column=800&span=1000", **phone) as opened:
        settled(opened)
        client = opened.context.new_cdp_session(opened)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            named = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": named})

        before = view_of(opened)
        x, y = point_at(opened, 1500, 800)
        touch("touchStart", (x - 20, y))
        touch("touchStart", (x - 20, y), (x + 20, y))
        for away in (30, 40, 50, 60):
            touch("touchMove", (x - away, y), (x + away, y))
        touch("touchEnd")
        settled(opened)
        after = view_of(opened)
        assert after["pixels"] / before["pixels"] == pytest.approx(3, rel=0.01)
        assert (after["row"], after["column"]) == pytest.approx((1500.5, 800.5), abs=2)


def test_frames_are_drawn_only_when_something_changed(chromium: Any, url: str) -> None:
    with page(chromium, url + NO_SPAN) as opened:
        settled(opened)
        hover(opened, 1500, 700)
        opened.wait_for_timeout(300)
        before = opened.evaluate(f"{MAP}.counts.frames")
        opened.wait_for_timeout(500)
        assert opened.evaluate(f"{MAP}.counts.frames") == before


def test_colours_change_without_asking_again(chromium: Any, url: str) -> None:
    pixel = "[...document.querySelector('.ap-map canvas').getContext('2d').getImageData(400, 600, 1, 1).data].join()"
    with page(chromium, url + NO_SPAN) as opened:
        settled(opened)
        loaded, seen = opened.evaluate(f"{MAP}.cache.loaded"), set()
        for change in (
            "scale: 'log'",
            "scale: 'sqrt'",
            "map: 'viridis'",
            "scale: 'linear', high: 0.001",
            "scale: 'row'",
        ):
            opened.evaluate(f"document.querySelector('.attnprobe').app.set({{ {change} }})")
            settled(opened)
            seen.add(opened.evaluate(pixel))
        assert len(seen) == 5
        assert opened.evaluate(f"{MAP}.cache.loaded") == loaded


def test_another_head_and_back_is_not_fetched_twice(chromium: Any, url: str) -> None:
    with page(chromium, url + NO_SPAN) as opened:
        settled(opened)
        loaded = opened.evaluate(f"{MAP}.cache.loaded")
        for head in (1, 0, 1, 0):
            opened.evaluate(f"document.querySelector('.attnprobe').app.set({{ head: {head} }})")
            settled(opened)
        assert opened.evaluate(f"{MAP}.cache.loaded") == 2 * loaded


def test_what_was_not_kept_is_striped_or_said(chromium: Any, tmp_path: Path) -> None:
    import torch

    import attnprobe as ap
    from attnprobe import demo

    model, tokenizer = demo.load()
    ids = tokenizer(demo.text(), return_tensors="pt").input_ids[:, :200]
    keep = [ap.Weights("L0H0,L0H2", queries="-50:"), ap.Measures("L0H0,L0H1,L0H2", names=["entropy"])]
    with ap.record(model, tokenizer, to=tmp_path / "some", keep=keep), torch.no_grad():
        model(ids)
    with served([tmp_path / "some"]) as address, page(chromium, address + NO_SPAN) as opened:
        settled(opened)
        assert "not kept" in hover(opened, 20, 20)
        assert "not kept" not in hover(opened, 190, 20)
        assert number(hover(opened, 170, 150)) == np.float32(open_run(tmp_path / "some")[0, 0][170, 150])
        block = "getContext('2d').getImageData({}, {}, 12, 12).data"
        points = [point_at(opened, query, 180) for query in (20, 160)]
        box = opened.locator(".ap-map-stage").bounding_box()
        kinds = []
        for x, y in points:
            where = block.format(int(x - box["x"]), int(y - box["y"]))
            kinds.append(
                opened.evaluate(
                    f"new Set(new Uint32Array(document.querySelector('.ap-map canvas').{where}.buffer)).size"
                )
            )
        assert kinds[0] > 1, "stripes"
        assert kinds[1] == 1, "zero, behind the diagonal, is the page"
        opened.evaluate("document.querySelector('.attnprobe').app.set({ head: 1 })")
        settled(opened)
        note = opened.locator(".ap-map-note")
        assert note.is_visible()
        assert "weights are kept of its heads 0, 2" in note.text_content()
        opened.evaluate("document.querySelector('.attnprobe').app.set({ head: 2 })")
        settled(opened)
        assert note.is_hidden()
        assert number(hover(opened, 170, 150)) == np.float32(open_run(tmp_path / "some")[0, 2][170, 150])
