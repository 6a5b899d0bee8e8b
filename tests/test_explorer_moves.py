"""The explorer in a real Chromium going from one thing to another: runs, samples, sites, links, failures."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

import attnprobe as ap
from attnprobe import demo
from tests import browsing
from tests.browsing import APP, browser, missing, page, served, state
from tests.planted import planted_run

pytestmark = [pytest.mark.browser, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
settled = partial(browsing.settled, seconds=30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model on 100 tokens; the names of its sites are no others'."""
    path = tmp_path_factory.mktemp("moves") / "tale"
    model, tokenizer = demo.load()
    with ap.record(model, tokenizer, to=path, keep=[ap.Weights(), ap.Measures()]):
        model(**tokenizer(demo.text(), return_tensors="pt", truncation=True, max_length=100))
    return path


@pytest.fixture(scope="module")
def url(tale: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two runs whose sites have other names and as many tokens: made up, and of the bundled model."""
    made = planted_run(tmp_path_factory.mktemp("moves") / "made", 100, needles=2)
    with served([made.path, tale]) as address:
        yield address


def wrong(opened: Any) -> str:
    """The error that stands there, "" if there is none."""
    said: str = opened.evaluate("() => document.querySelector('.ap-status.ap-wrong')?.textContent ?? ''")
    return said


@pytest.mark.parametrize("view", ["heads", "map", "lines", "table", "measures"])
def test_what_is_chosen_while_a_run_is_on_its_way_is_of_that_run(chromium: Any, url: str, view: str) -> None:
    with page(chromium, f"{url}#view={view}") as opened:
        settled(opened)
        opened.route("**/ask/sample*", lambda route: (time.sleep(0.3), route.continue_()))
        # Head 5 is one of the other run only.
        opened.evaluate(f"() => {{ {APP}.set({{ run: 1 }}); {APP}.set({{ head: 5 }}); {APP}.set({{ query: 90 }}); }}")
        assert state(opened)["run"] == 0
        for step in range(6):  # pointing at what is still shown asks nothing of the other run
            opened.mouse.move(200 + 20 * step, 300)
            opened.wait_for_timeout(40)
        settled(opened)
        now = state(opened)
        assert (now["run"], now["head"], now["query"]) == (1, 5, 90)
        assert now["site"] == opened.evaluate(f"() => {APP}.sample.sites[0].key")
        assert wrong(opened) == ""


def test_the_last_of_many_runs_is_shown(chromium: Any, url: str) -> None:
    with page(chromium, url) as opened:
        settled(opened)
        opened.evaluate(f"() => {{ for (let i = 1; i < 20; i++) {APP}.set({{ run: i % 2 }}); }}")
        settled(opened)
        assert state(opened)["run"] == 1
        assert "transformer" in state(opened)["site"]


def test_a_run_that_cannot_be_had_leaves_what_is_shown(chromium: Any, url: str) -> None:
    with page(chromium, "about:blank") as opened:
        opened.goto(url)
        settled(opened)
        before = state(opened)
        opened.evaluate(
            f"""() => {{
                const {{ source }} = {APP};
                const {{ ask }} = source;
                source.ask = (name, ...more) => {{
                  if (name !== "sample") return ask(name, ...more);
                  source.ask = ask;
                  return Promise.reject(new Error("not to be had"));
                }};
                location.hash = "#run=1&view=table";
            }}"""
        )
        opened.wait_for_function("() => document.querySelector('.ap-status.ap-wrong')")
        assert wrong(opened) == "not to be had"
        assert state(opened) == before
        assert opened.locator("select[name=run]").input_value() == "0"
        opened.wait_for_timeout(300)  # browsers limit how often a page may write its address
        assert "run=1" not in opened.url
        opened.evaluate(f"() => {APP}.set({{ run: 1 }})")
        settled(opened)
        assert state(opened)["run"] == 1
        assert wrong(opened) == ""


def test_what_is_chosen_does_not_outlive_its_map(chromium: Any, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=50, decoder_start_token_id=0, **sizes)).eval()
    with ap.record(model, to=tmp_path / "run"):
        model(input_ids=torch.arange(1, 31)[None], decoder_input_ids=torch.arange(1, 9)[None])
    with served([tmp_path / "run"]) as address, page(chromium, f"{address}#view=map") as opened:
        settled(opened)
        sites = opened.evaluate(f"() => {APP}.sample.sites")
        whole = next(one for one in sites if one["rows"] == 30)
        cross = next(one for one in sites if (one["rows"], one["columns"]) == (8, 30))
        chosen = {"query": 25, "key": 20, "box": [5, 25, 3, 20]}
        opened.evaluate(f"more => {APP}.set(more)", {"site": whole["key"], **chosen})
        settled(opened)
        assert {name: state(opened)[name] for name in chosen} == chosen
        opened.evaluate(f"site => {APP}.set({{ site }})", cross["key"])
        settled(opened)
        assert {name: state(opened)[name] for name in chosen} == {"query": None, "key": 20, "box": [5, 8, 3, 20]}
        assert wrong(opened) == ""
        assert opened.locator(".ap-rank").count() > 0


@pytest.mark.parametrize(
    "link",
    [
        "view=zzz&run=99&sample=-3&site=foo&head=xx&row=NaN&span=-1&query=1e9&key=5.5&low=-1&box=5,4,3,2&%%%=&=&&a=b",
        "view=map&box=0,99999999,0,99999999",
        "view=map&query=99999999&row=1e12&column=-1e12&span=0.0001",
        "view=map&low=1e-300&high=1e300&span=1e300",
        "view=table&query=99999999",
        "view=lines&query=99999999&span=1e9&row=1e12",
        "view=measures&curve=no&x=none&y=",
        "sort=-nothing&color=no",
    ],
)
def test_a_link_of_nonsense_opens_what_there_is(chromium: Any, url: str, link: str) -> None:
    with page(chromium, f"{url}#{link}") as opened:
        settled(opened)
        assert wrong(opened) == ""
        assert opened.locator(".ap-main > :visible").first.bounding_box()["height"] > 200


def test_an_error_is_gone_with_what_it_was_about(chromium: Any, url: str) -> None:
    with page(chromium, f"{url}#view=compare&other=7,0,0,none") as opened:
        settled(opened)
        assert "no run 7" in wrong(opened)
        opened.keyboard.press("4")
        settled(opened)
        assert state(opened)["view"] == "table"
        assert wrong(opened) == ""


def test_the_browsers_way_back_leads_to_the_view_before(chromium: Any, url: str) -> None:
    with page(chromium, url) as opened:
        settled(opened)
        opened.evaluate(f"() => {APP}.set({{ view: 'map', head: 1 }})")
        opened.evaluate(f"() => {APP}.set({{ how: 'mean' }})")
        opened.evaluate(f"() => {APP}.set({{ view: 'table' }})")
        settled(opened)
        opened.go_back()
        settled(opened)
        assert [state(opened)[name] for name in ("view", "head", "how")] == ["map", 1, "mean"]
        opened.go_back()
        settled(opened)
        assert state(opened)["view"] == "heads"
        opened.go_forward()
        settled(opened)
        assert state(opened)["view"] == "map"


def test_both_maps_of_a_comparison_are_seen_on_a_phone(chromium: Any, url: str) -> None:
    with page(chromium, f"{url}#view=compare", 375, 700, has_touch=True) as opened:
        settled(opened)
        maps = opened.locator(".ap-pane:visible .ap-map-stage")
        assert [maps.nth(i).bounding_box()["height"] > 180 for i in range(maps.count())] == [True, True]
        opened.wait_for_timeout(500)
        assert opened.locator(".ap-map-loading:visible").count() == 0
        assert opened.locator(".ap-bar").bounding_box()["height"] < 160
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= 375


def test_what_is_no_limit_does_not_stand_there_as_one(chromium: Any, url: str) -> None:
    with page(chromium, f"{url}#view=map") as opened:
        settled(opened)
        field = opened.locator("input[name=high]")
        field.fill("0.25")
        field.press("Enter")
        field.fill("many")
        field.press("Enter")
        assert (state(opened)["high"], field.input_value()) == (0.25, "0.25")


def test_a_finger_draws_a_box(chromium: Any, url: str) -> None:
    with page(chromium, f"{url}#view=map", 600, 860, has_touch=True) as opened:
        settled(opened)
        stage = opened.locator(".ap-map-stage").bounding_box()
        opened.get_by_role("button", name="Box", exact=True).tap()
        places = [
            (stage["x"] + stage["width"] * share, stage["y"] + stage["height"] * (share + 0.2)) for share in (0.3, 0.5)
        ]
        devtools = opened.context.new_cdp_session(opened)
        for kind, place in (("touchStart", places[0]), ("touchMove", places[1]), ("touchEnd", None)):
            points = [{"x": place[0], "y": place[1]}] if place else []
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        settled(opened)
        top, bottom, left, right = state(opened)["box"]
        assert bottom - top > 10
        assert right - left > 10
        assert state(opened)["span"] is None  # the map stayed where it was
        assert opened.get_by_role("button", name="Box", exact=True).get_attribute("aria-pressed") == "false"


def test_keys_are_heard_wherever_the_page_was_clicked(chromium: Any, url: str) -> None:
    with page(chromium, url) as opened:
        settled(opened)
        opened.keyboard.press("5")
        settled(opened)
        assert state(opened)["view"] == "measures"
        opened.mouse.click(600, 857)  # nothing is there
        opened.keyboard.press("4")
        settled(opened)
        assert state(opened)["view"] == "table"
        opened.locator("input[name=token]").click()
        opened.keyboard.press("2")
        assert state(opened)["view"] == "table", "a field's keys are its own"


def test_a_number_key_leads_into_the_view_and_an_arrow_stays_on_the_tabs(chromium: Any, url: str) -> None:
    focused = "() => document.activeElement.className || document.activeElement.tagName"
    with page(chromium, f"{url}#view=compare") as opened:
        settled(opened)
        opened.locator(".ap-tab[data-view=compare]").focus()
        wanted = ["CANVAS", "ap-map-stage", "ap-text", "ap-table-scroll", "ap-measures", "ap-map-stage"]
        for number, name in enumerate(wanted, 1):
            opened.keyboard.press(str(number))
            settled(opened)
            assert opened.evaluate(focused).startswith(name), number
        opened.keyboard.press("2")
        settled(opened)
        opened.wait_for_timeout(300)  # a map that is shown has its size with the next frame
        opened.keyboard.press("+")
        opened.keyboard.press("+")
        opened.wait_for_function(f"() => {APP}.state.span !== null")
        assert state(opened)["view"] == "map"
        opened.locator(".ap-tab[data-view=map]").focus()
        opened.keyboard.press("ArrowRight")
        settled(opened)
        assert state(opened)["view"] == "lines"
        assert opened.evaluate("() => document.activeElement.dataset.view") == "lines"


def test_two_runs_are_compared_at_the_same_head(chromium: Any, tale: Path) -> None:
    with served([tale, tale]) as address, page(chromium, f"{address}#head=3&site=transformer.h.1.attn") as opened:
        settled(opened)
        opened.keyboard.press("6")
        opened.wait_for_function(f"() => {APP}.state.other !== null")
        settled(opened)
        assert state(opened)["other"] == {"run": 1, "sample": 0, "site": "transformer.h.1.attn", "head": 3}
        names = opened.locator(".ap-pane-name:visible").all_inner_texts()
        assert len(set(names)) == 2 and all("tale" in name for name in names)
        for select in ("run", "other-run"):
            entries = opened.locator(f"select[name={select}] option").all_inner_texts()
            assert len(set(entries)) == 2 and all("tale" in entry for entry in entries)


def test_lines_and_table_begin_with_the_same_token(chromium: Any, url: str) -> None:
    with page(chromium, f"{url}#view=lines") as opened:
        settled(opened)
        assert state(opened)["query"] is None
        assert opened.locator(".ap-lines input[name=token]").input_value() == "99"
        assert opened.locator(".ap-lines .ap-current").get_attribute("data-at") == "99"
        opened.keyboard.press("4")
        settled(opened)
        assert opened.locator(".ap-tableview input[name=token]").input_value() == "99"
        assert "query 99" in opened.locator(".ap-foot").inner_text()
        shown = opened.locator(".ap-table tbody td:nth-child(3)")
        weights = [float(text.replace("\u2212", "-")) for text in shown.all_inner_texts()]
        assert len(weights) == 100
        assert weights == sorted(weights, reverse=True)


def test_what_was_said_is_gone_with_the_next_action(chromium: Any, url: str) -> None:
    said = "() => document.querySelector('.ap-status').textContent"
    with page(chromium, f"{url}#view=map") as opened:
        settled(opened)
        for act in ("]", "click"):
            opened.get_by_role("button", name="Copy as Python").click()
            opened.wait_for_function(f"() => ({said})() !== ''")
            if act == "click":
                opened.locator(".ap-map-facts").click()
            else:
                opened.keyboard.press(act)
            assert opened.evaluate(said) == ""
        opened.evaluate(f"() => {APP}.onError(new Error('not to be had'))")
        opened.evaluate(f"() => {APP}.set({{ span: 20 }})")
        assert wrong(opened) == "not to be had"  # a map that moves may have just met it
        opened.evaluate(f"() => {APP}.set({{ query: 5 }})")
        assert wrong(opened) == ""


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled model on words that its tokens cut, and characters that are several of them."""
    path = tmp_path_factory.mktemp("moves") / "letters"
    model, tokenizer = demo.load()
    text = "emoji 🙂 naïve 中文 paint, a painter and the paint.\nThe night"
    with ap.record(model, tokenizer, to=path, keep=[ap.Weights(), ap.Measures()]):
        model(**tokenizer(text, return_tensors="pt"))
    with served([path]) as address:
        yield address


def test_running_text_is_the_text_and_parts_of_characters_can_be_pointed_at(chromium: Any, letters: str) -> None:
    with page(chromium, f"{letters}#view=lines&query=3") as opened:
        settled(opened)
        text = opened.locator(".ap-text:visible")
        assert text.text_content().startswith("emoji 🙂 naïve 中文 paint, a painter and the paint.↵The")
        thin = text.locator(".ap-thin").first
        at = int(thin.get_attribute("data-at"))
        assert thin.get_attribute("title") == f"{at}: ð"  # as the tokenizer shows it
        box = thin.bounding_box()
        assert box["width"] >= 4 and box["height"] >= 8
        thin.click()
        settled(opened)
        assert state(opened)["query"] == at
        assert thin.get_attribute("aria-selected") == "true"


@pytest.mark.parametrize("view", ["lines", "table"])
def test_words_of_several_tokens_are_found_in_the_text(chromium: Any, letters: str, view: str) -> None:
    with page(chromium, f"{letters}#view={view}&query=40&toward=keys") as opened:
        settled(opened)
        field = opened.locator("input[name=token]:visible")

        def search(words: str) -> str:
            field.fill(words)
            field.press("Enter")
            settled(opened)
            said: str = opened.locator(".ap-status").text_content()
            return said

        assert "“\u2068paint\u2069”: 3 places; choose one" in search("paint")
        places = opened.locator(".ap-place:visible")
        # Tokens are whole: the second is of the word "painter", the end of which is one token with the end of "paint".
        assert [one.strip() for one in places.locator(".ap-here").all_text_contents()] == ["paint", "painter", "paint"]
        tokens = opened.evaluate(f"() => {APP}.tokens(0, 0, {APP}.site().queries).pieces(0, 1000)")
        places.nth(2).click()
        settled(opened)
        chosen = state(opened)["query"]
        assert "".join(tokens[: chosen + 1]).endswith("and the paint")
        search("and the paint.\t")  # one place is chosen at once
        assert state(opened)["query"] == chosen + 1
        search("中文")
        assert "".join(tokens[: state(opened)["query"] + 1]).endswith(" 中文")
        said = search("painzz")
        assert "is not in this text" in said and said.endswith("near are “\u2068paint\u2069”, “\u2068painter\u2069”")
        assert opened.locator(".ap-place:visible").count() == 0


def test_a_kind_that_no_head_is_of_names_the_nearest(chromium: Any, letters: str) -> None:
    with page(chromium, letters) as opened:
        settled(opened)
        opened.locator(".ap-kinds section").first.wait_for()
        scores = opened.evaluate(f"async () => (await {APP}.source.ask('scores', {{ run: 0, sample: 0 }})).head.scores")
        words = opened.locator(".ap-kinds section").all_text_contents()
        none = 0
        for measure, name in (("induction", "induction"), ("duplicate", "duplicate"), ("previous", "previous-token")):
            every = [one for site in scores[measure]["values"].values() for one in site if one is not None]
            (said,) = [one[1:] for one in words if one[1:].startswith(name)]
            if max(every) <= 0.4:
                none += 1
                assert "none above 0.4; most:" in said
                assert abs(float(said.split()[-1]) - max(every)) < 0.006
                assert not said.startswith(f"{name} 0")
            else:
                assert "none above" not in said
        assert none > 0, "this text has a kind without a head"
        nearest = opened.locator(".ap-chips", has_text="none above 0.4").first.locator("button")
        label = nearest.text_content().split()[0]
        nearest.click()
        settled(opened)
        now = state(opened)
        site = opened.evaluate(f"() => {APP}.site()")
        assert (now["view"], f"L{site['layer']}H{now['head']}") == ("map", label)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_legend_tells_zero_from_what_was_not_kept(chromium: Any, letters: str, theme: str) -> None:
    with page(chromium, f"{letters}#view=map", color_scheme=theme) as opened:
        settled(opened)
        legend = opened.locator(".ap-map-legend:visible")
        low, zero, kept = (legend.locator("> span").nth(i) for i in range(3))
        assert [zero.text_content(), kept.text_content()] == ["zero", "not kept"]
        assert "first colour" in low.get_attribute("title")
        fill = "one => ['background-color', 'background-image'].map((name) => getComputedStyle(one)[name])"
        page_colour = opened.locator(".attnprobe").evaluate(fill)[0]
        assert zero.locator("i").evaluate(fill) == [page_colour, "none"]
        assert "gradient" in kept.locator("i").evaluate(fill)[1]
        opened.evaluate(f"() => {APP}.set({{ high: 0.25 }})")
        settled(opened)
        opened.wait_for_timeout(100)
        assert low.text_content().endswith("0.25")
