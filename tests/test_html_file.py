"""The explorer as one HTML file: what it holds, how large it may be, and that it asks nothing of a network."""

import base64
import json
import re
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
import attnprobe.show
from attnprobe.explorer.answering import unpack
from attnprobe.explorer.answers import Answers
from attnprobe.explorer.contents import Contents, key_of
from attnprobe.explorer.file import Size, write_html
from attnprobe.explorer.frames import Answer
from attnprobe.explorer.some import SomeSamples

STATIC = Path(attnprobe.show.__file__).parent / "static"
NODE = shutil.which("node")
SITES = [f"transformer.h.{layer}.attn" for layer in range(2)]


@pytest.fixture(scope="module", autouse=True)
def joinable() -> None:
    if not (STATIC / "map.js").exists():
        pytest.skip("the front end is not whole")


def record(path: Path | None = None, tokens: int = 9, samples: int = 1, **what: Any) -> ap.Run:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=tokens, initializer_range=0.3)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad(), ap.record(model, to=path, **what) as rec:
        for _ in range(samples):
            model(torch.randint(50, (1, tokens)))
    return rec.run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    return record(tmp_path_factory.mktemp("runs") / "small", samples=3)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> ap.Run:
    """Maps of 4 x 4 patches of weights."""
    return record(tmp_path_factory.mktemp("runs") / "long", tokens=800)


class Page(HTMLParser):
    """The elements of a page, with their attributes and texts, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(("/" + tag, {}, ""))

    def handle_data(self, data: str) -> None:
        if self.elements:
            tag, attrs, text = self.elements[-1]
            self.elements[-1] = tag, attrs, text + data

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, text) for found, attrs, text in self.elements if found == tag]


def held(path: Path) -> dict[str, bytes]:
    """The frames that a file holds."""
    page = Page(path.read_text(encoding="utf-8"))
    ((_, data),) = [one for one in page.of("script") if one[0].get("type") == "application/json"]
    return {key: zlib.decompress(base64.b64decode(text)) for key, text in json.loads(data).items()}


def test_it_holds_what_the_server_would_answer(run: ap.Run, tmp_path: Path) -> None:
    file = tmp_path / "it.html"
    size = write_html([run], file)
    frames = held(file)
    assert (size.total, size.left) == (file.stat().st_size, ())
    answers = Answers.of([run])
    for sample in range(3):
        place = {"run": 0, "sample": sample}
        for name, params in (
            ("sample", place),
            ("scores", place),
            ("tokens", {**place, "sequence": "main", "start": 0, "stop": 9}),
            *(("thumbnails", {**place, "site": site, "how": how}) for site in SITES for how in ("max", "mean")),
        ):
            assert frames[key_of(name, params)] == answers.ask(name, params)
        for site in SITES:
            for head in range(2):
                one = {**place, "site": site, "head": head}
                assert frames[key_of("head", one)] == answers.ask("head", one)
                for how in ("max", "mean"):
                    patch = {**one, "level": 0, "down": 0, "across": 0, "how": how}
                    assert frames[key_of("patch", patch)] == answers.ask("patch", patch)
                _, weights = unpack(frames[key_of("weights", {**one, "top": 0, "bottom": 9, "left": 0, "right": 9})])
                np.testing.assert_array_equal(weights, run.sample(sample)[site, head].numpy())


def test_it_does_not_say_where_the_run_lay(run: ap.Run, tmp_path: Path) -> None:
    write_html([run], tmp_path / "it.html")
    head, _ = unpack(held(tmp_path / "it.html")["runs?"])
    assert [(one["name"], one["path"], one["samples"]) for one in head["runs"]] == [("small", "small", 3)]
    assert run.path is not None and str(run.path.parent) not in (tmp_path / "it.html").read_text()


def test_it_does_not_say_where_the_model_lay(run: ap.Run, tmp_path: Path) -> None:
    manifest = replace(run.manifest, model={**run.manifest.model, "name": "/home/somebody/models/small"})
    write_html(ap.Run(Elsewhere(run.reader, manifest)), tmp_path / "it.html")
    (told,) = unpack(held(tmp_path / "it.html")["runs?"])[0]["runs"]
    assert (told["model"], told["title"]) == ("small", "small, 3 samples")
    assert not any(b"somebody" in frame for frame in held(tmp_path / "it.html").values())


class Elsewhere(SomeSamples):
    """The same run with another manifest."""

    def __init__(self, reader: Any, manifest: Any) -> None:
        super().__init__(reader, reader.samples, None)
        self._manifest = manifest

    @property
    def manifest(self) -> Any:
        return self._manifest


def test_samples_are_chosen_and_numbered_anew(run: ap.Run, tmp_path: Path) -> None:
    file = tmp_path / "it.html"
    write_html([run], file, samples=[2, run.samples[0].id, -1])
    frames = held(file)
    assert unpack(frames["runs?"])[0]["runs"][0]["samples"] == 2
    for place, original in enumerate((2, 0)):
        one = {"run": 0, "sample": place, "site": SITES[1], "head": 1}
        _, weights = unpack(frames[key_of("weights", {**one, "top": 0, "bottom": 9, "left": 0, "right": 9})])
        np.testing.assert_array_equal(weights, run.sample(original)[1, 1].numpy())
    assert key_of("sample", {"run": 0, "sample": 2}) not in frames
    with pytest.raises(ap.NotKept, match="no sample 7"):
        write_html([run], tmp_path / "other.html", samples=[7])
    assert not (tmp_path / "other.html").exists()


def test_maps_are_of_the_heads_that_are_named_and_small_pictures_of_all(run: ap.Run, tmp_path: Path) -> None:
    file = tmp_path / "it.html"
    write_html([run], file, heads=[(1, 0)])
    maps = {key for key in held(file) if key.startswith("patch?")}
    assert len(maps) == 2 * 3 and all("&head=0&" in key and key.endswith(f"&site={SITES[1]}") for key in maps)
    assert sum(key.startswith("thumbnails?") for key in held(file)) == 2 * 2 * 3
    assert sum(key.startswith("head?") for key in held(file)) == 4 * 3
    with pytest.raises(ap.NotKept, match="layer 5"):
        write_html([run], file, heads=[(5, 0)])


def test_two_runs_are_in_one_file(run: ap.Run, long: ap.Run, tmp_path: Path) -> None:
    write_html([run, long], tmp_path / "it.html", heads=[(0, 0)])
    frames = held(tmp_path / "it.html")
    assert [one["name"] for one in unpack(frames["runs?"])[0]["runs"]] == ["small", "long"]
    assert unpack(frames[key_of("sample", {"run": 1, "sample": 0})])[0]["sequences"] == {"main": 800}


def levels_in(file: Path, how: str = "max") -> dict[int, int]:
    """How many patches of each level there are."""
    found: dict[int, int] = {}
    for key in held(file):
        if key.startswith("patch?") and f"how={how}" in key:
            level = int(re.search(r"level=(\d+)", key)[1])  # type: ignore[index]
            found[level] = found.get(level, 0) + 1
    return found


def test_maps_are_as_fine_as_there_is_room_for(long: ap.Run, tmp_path: Path) -> None:
    file = tmp_path / "it.html"
    told: list[Size] = []
    whole = write_html([long], file, max_size="200 MB", told=told.append)
    assert levels_in(file) == levels_in(file, "mean") == {2: 4, 1: 16, 0: 64}
    assert whole.left == ()
    assert abs(told[0].total / whole.total - 1) < 0.3
    sizes = whole.parts
    least = sum(sizes[what] for what in (
        "the page", "samples and tokens", "small pictures of all heads", "what is known of each head",
        "maps in one picture each",
    ))  # fmt: skip
    finer = sizes["maps in cells of 2 x 2"]
    some = write_html([long], file, max_size=least + int(1.5 * finer))
    assert levels_in(file) == {2: 4, 1: 16}
    assert "maps of every weight" in some.left and some.total <= least + int(1.5 * finer)
    fewest = write_html([long], file, max_size=least + finer // 8)
    assert levels_in(file) == {2: 4} and fewest.total <= least + finer // 8
    one = write_html([long], file, heads=[(1, 1)], max_size=least + int(1.5 * finer))
    assert levels_in(file)[0] == 16 and one.total <= least + int(1.5 * finer)


def test_exact_weights_come_before_curves_and_means_and_a_file_without_them_says_what_they_need(
    long: ap.Run, tmp_path: Path
) -> None:
    order = [part.what for part in Contents(Answers.of([long]), [1]).parts()]
    levels = [at for at, what in enumerate(order) if what.startswith("maps ") and "means" not in what]
    later = [at for at, what in enumerate(order) if "means" in what or what.endswith("of every token")]
    assert max(levels) < order.index("exact weights") < min(later)
    file = tmp_path / "it.html"
    whole = write_html([long], file, [(1, 0)], max_size="200 MB")
    assert whole.lacking == "" and "need" not in str(whole)
    exact = whole.parts["exact weights"]
    before = sum(whole.parts[what] for what in list(whole.parts)[: list(whole.parts).index("exact weights")])
    less = write_html([long], file, [(1, 0)], max_size=before + exact // 2)
    assert "exact weights" in less.left and not any(key.startswith("weights?") for key in held(file))
    assert before + exact < less.exact < 1.4 * (before + exact)
    needed = re.search(r"\. Lines, Table and exact numbers need about (\d+) MB: --max-size (\d+MB)$", str(less))
    assert needed is not None and int(needed[1]) == -(-less.exact // 1_000_000)
    enough = write_html([long], file, [(1, 0)], max_size=needed[2])
    assert "exact weights" in enough.parts and any(key.startswith("weights?") for key in held(file))


def test_parts_that_are_left_out_stand_between_semicolons() -> None:
    size = Size({"the page": 10}, ("maps in cells of 2 x 2", "exact weights"), (1, 3), 12_100_000)
    assert str(size) == (
        "10 bytes: 10 bytes the page; of 1 of 3 samples; left out: maps in cells of 2 x 2; exact weights. "
        "Lines, Table and exact numbers need about 13 MB: --max-size 13MB"
    )


def test_what_exact_weights_need_is_told_where_an_estimate_erred(
    long: ap.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_html([long], tmp_path / "it.html", [(1, 0)], max_size="200 MB")
    monkeypatch.setattr("attnprobe.explorer.file._expected", lambda answers, part: 10)
    names = list(whole.parts)
    enough = sum(whole.parts[what] for what in names[: names.index("exact weights") + 1])
    size = write_html([long], tmp_path / "it.html", [(1, 0)], max_size=enough - 1000)
    assert "exact weights" in size.left and enough < size.exact < 1.2 * enough


def opens(path: Path) -> Any:
    """The state that a file's page starts with."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"explorer\.mountFile\(.*, (\{.*\})\);\n", text)
    assert found is not None
    return json.loads(found[1])["state"]


def test_a_file_of_named_heads_opens_on_the_first_of_them(run: ap.Run, tmp_path: Path) -> None:
    file = tmp_path / "it.html"
    write_html([run], file, heads=[(-1, 1), (0, 0)], samples=[2])
    assert opens(file) == {"view": "map", "site": SITES[1], "head": 1}
    write_html([run], file)
    assert opens(file) == {}


@pytest.mark.skipif(NODE is None, reason="there is no node")
@pytest.mark.parametrize(("hash", "view", "head"), [("", "map", 1), ("#view=table&head=2", "table", 2)])
def test_a_link_of_a_file_wins_over_what_it_opens_on(tmp_path: Path, hash: str, view: str, head: int) -> None:
    """The settings that the app gets, in the place of which stands what tells of them."""
    for file in STATIC.glob("*.js"):
        shutil.copy(file, tmp_path)
    (tmp_path / "app.js").write_text("export const createApp = async (element, source, settings) => settings;\n")
    (tmp_path / "ask.mjs").write_text(f"""
import {{ fromHash, changed }} from "./state.js";
globalThis.location = {{ hash: "{hash}" }};
globalThis.history = {{ replaceState: (state, title, address) => (location.hash = address) }};
const {{ mountFile }} = await import("./main.js");
const settings = await mountFile({{}}, {{}}, {{ state: {{ view: "map", site: "a b", head: 1 }} }});
console.log(JSON.stringify([changed(fromHash(location.hash), settings.state), settings.link, location.hash]));
""")
    command = [NODE, "--experimental-default-type=module", str(tmp_path / "ask.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    state, link, address = json.loads(done.stdout)
    assert (state["view"], state["head"], link) == (view, head, True)
    assert address == (hash or "#view=map&site=a%20b&head=1")


def test_what_is_too_large_is_refused_before_it_is_written_unless_told(long: ap.Run, tmp_path: Path) -> None:
    file = tmp_path / "it.html"
    with pytest.raises(
        ap.BudgetError, match=r"about .* MB: .* the page.*more than 0.1 MB: take fewer heads.*--max-size"
    ):
        write_html([long], file, max_size="100 kB")
    assert list(tmp_path.iterdir()) == []
    size = write_html([long], file, max_size="100 kB", force=True)
    assert file.stat().st_size == size.total > 100_000
    assert levels_in(file) == {2: 4}
    assert [one.name for one in tmp_path.iterdir()] == ["it.html"]


def test_a_size_is_never_beyond_its_limit_although_estimates_err(
    long: ap.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "it.html"
    whole = write_html([long], file, max_size="200 MB")
    monkeypatch.setattr("attnprobe.explorer.file._expected", lambda answers, part: 10)
    limit = whole.total * 2 // 3
    size = write_html([long], file, max_size=limit)
    assert size.total == file.stat().st_size <= limit
    assert "maps of every weight" in {*size.left, *size.parts} and size.left


def test_it_needs_nothing_from_elsewhere_and_its_policy_says_so(run: ap.Run, tmp_path: Path) -> None:
    write_html([run], tmp_path / "it.html")
    text = (tmp_path / "it.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [attrs.get("href") for attrs, _ in page.of("link")] == ["data:,"]
    assert all("src" not in attrs for tag, attrs, _ in page.elements)
    assert all(not any(name.startswith("on") or name == "style" for name in attrs) for _, attrs, _ in page.elements)
    policies = [
        attrs["content"] for attrs, _ in page.of("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1 and policies[0] is not None
    policy = dict(part.split(" ", 1) for part in policies[0].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
    assert "unsafe" not in policies[0] and "http" not in policies[0] and "*" not in policies[0]
    (script,) = [content for attrs, content in page.of("script") if attrs.get("type") != "application/json"]
    ((_, style),) = page.of("style")
    for name, content in (("script-src", script), ("style-src", style)):
        assert policy[name] == f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"
    start = text.index("<meta http-equiv")
    assert start < text.index("<style") and start < text.index("<script")
    assert [attrs.get("id") for attrs, _ in page.of("div")] == ["explorer"]


def test_tokens_and_names_that_look_like_markup_stay_text(tmp_path: Path) -> None:
    run = record(tmp_path / "<!--<script>alert(1)<script>&amp;\"'")
    assert run.path is not None
    write_html([run], tmp_path / "it.html")
    text = (tmp_path / "it.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.of("script")) == 2
    ((_, title),) = page.of("title")
    assert title == run.path.name
    assert "alert" not in Page(text).of("script")[1][1][-400:]


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_keys_are_those_that_the_front_end_asks_by(tmp_path: Path) -> None:
    params = {"site": "a b&c=d/é%_-.!~*'()<", "run": 0, "head": 12, "how": "max", "level": 3}
    code = f'import {{ written }} from "{STATIC / "source.js"}"; console.log(written("patch", {json.dumps(params)}));'
    command = [NODE, "--experimental-default-type=module", "--input-type=module", "--eval", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == key_of("patch", params), done.stderr


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_the_front_end_tells_of_a_file_what_the_server_would_answer(long: ap.Run, tmp_path: Path) -> None:
    """Rows, columns, boxes, strips and masses, of the bands and patches that the file holds."""
    write_html([long], tmp_path / "it.html", heads=[(1, 0), (1, 1)], max_size="200 MB")
    answers = Answers.of([long])
    place = {"run": 0, "sample": 0, "site": SITES[1], "head": 1}
    asked = [
        ("row", {**place, "query": 799}),
        ("row", {**place, "query": 81}),
        ("column", {**place, "key": 5}),
        ("weights", {**place, "top": 70, "bottom": 102, "left": 64, "right": 96}),
        ("weights", {**place, "top": 0, "bottom": 800, "left": 0, "right": 1}),
        *(
            ("strip", {**place, "level": level, "down": down, "how": "max", "skip": skip})
            for level, down in ((0, 0), (0, 3), (1, 1), (2, 0))
            for skip in (0, 1)
        ),
    ]
    box = {"run": 0, "sample": 0, "site": SITES[1], "top": 300, "bottom": 500, "left": 10, "right": 90}
    (tmp_path / "data.json").write_text(
        json.dumps({"held": {key: text for key, text in raw(tmp_path / "it.html").items()}, "asked": asked, "box": box})
    )
    (tmp_path / "ask.mjs").write_text(f"""
import {{ readFileSync }} from "node:fs";
import {{ completed }} from "{STATIC / "held.js"}";
import {{ fileSource }} from "{STATIC / "source.js"}";
const {{ held, asked, box }} = JSON.parse(readFileSync("{tmp_path / "data.json"}"));
const source = completed(fileSource(held));
const found = [];
for (const [name, params] of asked) {{
  const {{ head, values }} = await source.ask(name, params);
  found.push([head, Array.from(values, (one) => (Number.isNaN(one) ? null : one))]);
}}
const mass = (await source.ask("mass", box)).head;
const live = (await source.ask("live", {{ run: 0 }})).head;
const errors = [];
const absent = {{ ...asked[0][1], site: "{SITES[0]}", head: 0 }};
for (const [name, params] of [["row", absent], ["sample", {{ run: 0, sample: 5 }}]]) {{
  await source.ask(name, params).catch((error) => errors.push(error.message));
}}
console.log(JSON.stringify({{ found, mass, live, errors }}));
""")
    command = [NODE, "--experimental-default-type=module", str(tmp_path / "ask.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for (name, params), (head, values) in zip(asked, told["found"], strict=True):
        true, expected = unpack(answers.ask(name, params))
        assert expected is not None
        found = np.array([np.nan if one is None else one for one in values], np.float32)
        tolerance = 0 if name != "strip" else 2**-8  # of patches, whose numbers are rounded
        np.testing.assert_allclose(found, expected.reshape(-1), rtol=tolerance, atol=0, err_msg=f"{name} {params}")
        for what in ("start", "rows"):
            assert head.get(what) == true.get(what)
    true, _ = unpack(answers.ask("mass", box))
    assert told["mass"]["heads"] == true["heads"]
    np.testing.assert_allclose(told["mass"]["mass"], true["mass"], rtol=1e-6)
    assert (told["live"]["samples"], told["live"]["writing"]) == (1, False)
    assert len(told["errors"]) == 2 and all("does not hold" in one for one in told["errors"])


def raw(path: Path) -> dict[str, str]:
    page = Page(path.read_text(encoding="utf-8"))
    ((_, data),) = [one for one in page.of("script") if one[0].get("type") == "application/json"]
    found: dict[str, str] = json.loads(data)
    return found


def test_a_run_without_weights_has_its_measures(tmp_path: Path) -> None:
    measured = record(measures="entropy")
    size = write_html([measured], tmp_path / "it.html")
    frames = held(tmp_path / "it.html")
    assert not any(key.startswith(("patch?", "weights?")) for key in frames) and size.left == ()
    _, values = unpack(frames[key_of("stripes", {"run": 0, "sample": 0, "name": "entropy"})])
    np.testing.assert_array_equal(values[3], measured.measures["entropy"].values[1, 1])


@pytest.fixture
def command() -> Callable[..., Any]:
    """``attnprobe export``."""
    from attnprobe.cli.export import command

    return lambda *arguments: CliRunner().invoke(command, [str(one) for one in arguments])


def test_the_command_tells_the_size_first_and_refuses_what_is_too_large(
    run: ap.Run, tmp_path: Path, command: Callable[..., Any]
) -> None:
    file = tmp_path / "it.html"
    done = command(run.path, "1.0,L0H1", "--html", file, "--sample", "1", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["bytes"] == file.stat().st_size == sum(told["parts"].values())
    assert re.fullmatch(rf"{re.escape(str(file))} will be about [\d.]+ MB\n", done.stderr)
    assert sum(key.startswith("patch?") and "how=max" in key for key in held(file)) == 2
    file.unlink()
    refused = command(run.path, "--html", file, "--max-size", "10kB")
    assert (refused.exit_code, refused.stdout, file.exists()) == (4, "", False)
    assert "--yes" in refused.stderr
    assert command(run.path, "--html", file, "--max-size", "10kB", "--yes").exit_code == 0
    for wrong in (("9.0",), ("nine",), ("--sample", "other"), ("--max-size", "much"), ("--csv", tmp_path / "it.csv")):
        assert command(run.path, "--html", file, "--overwrite", *wrong).exit_code == 2
    before = file.read_bytes()
    assert command(run.path, "--html", file).exit_code == 2
    assert file.read_bytes() == before
    assert command(run.path, "--html", tmp_path / "no" / "it.html").exit_code == 2


def test_the_command_tells_an_estimate_in_a_line_and_the_account_once(
    long: ap.Run, tmp_path: Path, command: Callable[..., Any]
) -> None:
    file = tmp_path / "it.html"
    done = command(long.path, "1.0", "--html", file, "--max-size", "1.2MB")
    assert done.exit_code == 0, done.output
    estimate, lacking = done.stderr.splitlines()
    assert re.fullmatch(rf"{re.escape(str(file))} will be about [\d.]+ MB; finer: a higher --max-size", estimate)
    assert re.fullmatch(r"Lines, Table and exact numbers need about (\d+) MB: --max-size \1MB", lacking)
    path, account = done.stdout.splitlines()
    assert path == str(file) and "left out: " in account and "; exact weights" in account and "Lines" not in account
    whole = command(long.path, "--html", file, "--overwrite", "--max-size", "99MB")
    (estimate,) = whole.stderr.splitlines()
    assert "smaller: fewer heads" in estimate and "finer" not in estimate and "left out" not in whole.stdout
    told = json.loads(command(long.path, "1.0", "--html", file, "--overwrite", "--max-size", "1.2MB", "--json").stdout)
    assert told["exact"] > 1_200_000 and "exact weights" in told["left"]


class Long:
    """Answers for 144 heads of 32,768 tokens, of which there are 8 million questions."""

    def ask(self, name: str, params: Any) -> bytes:
        heads = list(range(12))
        sites = [{"key": f"h.{layer}", "heads": heads, "weights": heads} for layer in range(12)]
        sample = {"sequences": {"main": 32_768}, "measures": [], "sites": sites}
        return Answer(sample if name == "sample" else {"shape": (32_768, 32_768), "last": 10}).frame()


def test_questions_of_long_maps_are_made_when_they_are_wanted() -> None:
    tracemalloc.start()
    try:
        parts = {part.what: part.questions for part in Contents(Long(), [1]).parts()}
        assert tracemalloc.get_traced_memory()[1] < 100e6  # a list of all takes 3 GB
    finally:
        tracemalloc.stop()
    for what, each in (("maps in cells of 64 x 64", 2 * 2), ("maps of means of every weight", 128 * 128)):
        assert len(parts[what]) == 144 * each
    exact = parts["exact weights"]
    assert len(exact) == 144 * 16_384
    box = {"top": 10, "bottom": 12, "left": 0, "right": 32_768}
    assert exact[16_384 * 13 + 5] == ("weights", {"run": 0, "sample": 0, "site": "h.1", "head": 1, **box})
    asked = [params for _, params in parts["maps in cells of 64 x 64"]]
    places = [tuple(params[name] for name in ("site", "head", "down", "across")) for params in asked]
    grid = [(y, x) for y in range(2) for x in range(2)]
    assert places == [(f"h.{layer}", head, *at) for layer in range(12) for head in range(12) for at in grid]


def test_a_run_writes_itself(run: ap.Run, tmp_path: Path) -> None:
    size = run.to_html(tmp_path / "it.html", heads=[(1, 0)], samples=[1])
    assert size.total == (tmp_path / "it.html").stat().st_size
    write_html([run], tmp_path / "same.html", [(1, 0)], [1])
    write_html(run.path or "", tmp_path / "path.html", [(1, 0)], [1])
    assert (tmp_path / "it.html").read_bytes() == (tmp_path / "same.html").read_bytes()
    assert held(tmp_path / "it.html") == held(tmp_path / "path.html")
    with pytest.raises(ap.BudgetError, match="more than 1000 bytes"):
        run.to_html(tmp_path / "small.html", max_size=1000)
