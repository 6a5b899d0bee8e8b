"""The explorer as a notebook's widget: its state, the questions that it answers, and what a saved notebook keeps."""

import io
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import attnprobe as ap
import attnprobe.show
from attnprobe.explorer.answering import unpack, widened
from attnprobe.explorer.answers import Answers
from attnprobe.explorer.state import checked
from attnprobe.explorer.thumbnail import PIXELS, png, thumbnail
from attnprobe.explorer.values import allowed, fields
from attnprobe.show.colors import table
from attnprobe.store.memory import MemoryStore
from tests.models import cross_gpt2, ids

pytest.importorskip("anywidget", reason="the notebook extra is not installed")

STATIC = Path(attnprobe.show.__file__).parent / "static"
SITES = [f"transformer.h.{layer}.attn" for layer in range(2)]


def record(layers: int = 2, heads: int = 2, tokens: int = 9, samples: int = 1, **what: Any) -> ap.Run:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=8 * heads, n_layer=layers, n_head=heads, vocab_size=50, n_positions=tokens)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad(), ap.record(model, **what) as rec:
        for _ in range(samples):
            model(torch.randint(50, (1, tokens)))
    return rec.run


@pytest.fixture(scope="module")
def run() -> ap.Run:
    return record(samples=3)


@pytest.fixture
def no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Widgets without the front end, which these tests do not run."""
    monkeypatch.setattr("attnprobe.explorer.widget.script", lambda: "export default {};")


pytestmark = pytest.mark.usefixtures("no_script")


def asked(view: Any, message: Any) -> list[tuple[Any, list[bytes]]]:
    """What a widget sends back to a message of the front end, as it comes from the kernel's channel."""
    sent: list[tuple[Any, list[bytes]]] = []
    view.send = lambda content, buffers=None: sent.append((content, buffers))
    view._handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})
    return sent


def test_a_question_is_answered_with_its_number_and_one_frame(run: ap.Run) -> None:
    view = run.sample(1).view()
    place = {"run": 0, "sample": 1, "site": SITES[1], "head": 1}
    ((content, buffers),) = asked(view, {"id": "7-a", "name": "row", "params": {**place, "query": 4}})
    assert content == {"id": "7-a"}
    (frame,) = buffers
    head, values = unpack(frame)
    np.testing.assert_array_equal(values[: 9 - head["start"]], run.sample(1)[1, 1][4, head["start"] :])


def test_what_cannot_be_answered_is_answered_so(run: ap.Run) -> None:
    for name, params in (("nothing", {}), ("row", {"run": 0}), ("row", "text"), ("sample", {"run": 0, "sample": 99})):
        ((content, (frame,)),) = asked(run.view(), {"id": 1, "name": name, "params": params})
        assert content == {"id": 1} and unpack(frame)[0]["error"]


@pytest.mark.parametrize("message", [None, "text", {}, {"id": 1}, {"name": "runs"}, {"id": 1, "name": 5}])
def test_what_is_no_question_is_left_alone(run: ap.Run, message: Any) -> None:
    assert asked(run.view(), message) == []


def test_the_state_opens_what_was_asked_for(run: ap.Run) -> None:
    assert run.view().state == {}
    assert run.view(1).state == {"site": SITES[1]}
    assert run.view(1, 0, sample=2).state == {"view": "map", "sample": 2, "site": SITES[1], "head": 0}
    assert run.view(-1, -1, view="lines", query=3).state == {
        "view": "lines", "site": SITES[1], "head": 1, "query": 3
    }  # fmt: skip
    assert run.sample(2)[0, 1].view(scale="row").state == {
        "view": "map", "sample": 2, "site": SITES[0], "head": 1, "scale": "row"
    }  # fmt: skip
    assert run.sample(1).view(SITES[0], 1, 400).height == 400


def test_a_sample_is_found_by_its_place_where_numbers_have_gaps() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=9)).eval()
    with torch.no_grad(), ap.record(model) as rec:
        for _ in range(4):
            model(torch.randint(50, (1, 9)))
    store = rec.run.reader
    assert isinstance(store, MemoryStore)
    some = type(
        "Some",
        (),
        {"samples": [store.samples[0], store.samples[3]], "__getattr__": lambda _, name: getattr(store, name)},
    )()
    assert ap.Run(some).sample(1).view().state == {"sample": 1}


def test_what_is_not_there_is_refused(run: ap.Run) -> None:
    for ask, error, words in (
        (lambda: run.view(5), ap.NotKept, "layer 5"),
        (lambda: run.view(0, 9), ap.SelectionError, "head 9"),
        (lambda: run.view(0, sample=7), ap.NotKept, "no sample 7"),
        (lambda: run.view(head=1), ap.SelectionError, "which layer"),
        (lambda: run.view(colour="red"), ap.SelectionError, "'colour'.*view, run, sample"),
        (lambda: run.view(height=10), ap.SelectionError, "height=10"),
    ):
        with pytest.raises(error, match=words):
            ask()
    view = run.view()
    with pytest.raises(ap.SelectionError, match="'zoom'"):
        view.state = {"zoom": 3}
    view.state = {"head": 1}
    assert view.get_state("state") == {"state": {"head": 1}}


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_names_of_the_state_are_those_of_the_front_end() -> None:
    code = f'import {{ START }} from "{STATIC / "state.js"}"; console.log(JSON.stringify(Object.keys(START)));'
    command = ["node", "--experimental-default-type=module", "--input-type=module", "--eval", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == list(fields()), done.stderr


WRONG = [
    ("view", "foo", "one of heads, map, lines, table, measures, compare"),
    ("how", "least", "one of max, mean"),
    ("scale", None, "one of log, linear, sqrt, row"),
    ("map", "jet", "one of magma"),
    ("mode", "plus", "one of beside, minus"),
    ("toward", 3, "one of keys, queries"),
    ("order", "up", "one of position, -position"),
    ("query", "zzz", "a whole number from 0 on, or None"),
    ("key", -1, "a whole number"),
    ("sample", 1.5, "a whole number from 0 on"),
    ("run", None, "a whole number from 0 on"),
    ("row", float("inf"), "a number, or None"),
    ("span", 0, "a number above 0, or None"),
    ("low", "little", "a number above 0"),
    ("skip", 7, "True or False"),
    ("site", 3, "a text"),
    ("box", [0, 4, 3, 3], "top, bottom, left and right"),
    ("box", "0,4,1", "top, bottom, left and right"),
    ("other", {"run": 0}, "a dict with run, sample, site and head"),
]
FITTING: dict[str, list[Any]] = {
    "view": ["table"], "how": ["mean"], "scale": ["sqrt"], "map": ["cividis"], "mode": ["minus"], "toward": ["queries"],
    "order": ["-token"], "run": [0], "sample": [2, "2"], "head": [1], "query": [3, 3.0, None, ""], "key": [0, None],
    "row": [-2.5, 7, "0.5", None], "column": [4], "span": [0.5, None], "low": [1e-7], "high": [0.5, None],
    "skip": [True, "0"], "site": ["a,b", ""], "sort": ["entropy"], "color": [""], "curve": ["a"], "x": ["a"],
    "y": ["b"], "box": [[0, 1, 2, 3], (0, 1, 2, 3), "0,1,2,3", None],
    "other": [{"run": 0, "sample": 1, "head": 2, "site": "a"}, "0,1,2,a,b", None],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_value_that_the_explorer_would_leave_out_is_refused_with_what_may_be(
    run: ap.Run, name: str, value: Any, words: str
) -> None:
    with pytest.raises(ap.SelectionError, match=f"^{name}={re.escape(repr(value))}: give {re.escape(words)}"):
        run.view(**{name: value})
    view = run.view()
    with pytest.raises(ap.SelectionError, match=words):
        view.state = {name: value}
    assert view.state == {}


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_values_are_refused_and_taken_as_the_front_end_does() -> None:
    """Apart from three: JSON has no infinity, and JavaScript makes a number of null and a text of a number."""
    assert set(FITTING) == set(fields())
    every = [(name, value, True) for name, values in FITTING.items() for value in values]
    every += [
        (name, value, False)
        for name, value, _ in WRONG
        if (name, value) not in (("row", float("inf")), ("run", None), ("site", 3))
    ]
    code = f"""
import {{ START, changed }} from "{STATIC / "state.js"}";
const other = {{}};
for (const [name, value] of Object.entries(START)) other[name] = Symbol();
const taken = ([name, value]) => typeof changed(other, {{ [name]: value }})[name] !== "symbol";
console.log(JSON.stringify({json.dumps([one[:2] for one in every])}.map(taken)));
"""
    command = ["node", "--experimental-default-type=module", "--input-type=module", "--eval", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for (name, value, fits), taken in zip(every, json.loads(done.stdout), strict=True):
        assert (not allowed(fields()[name], value)) == fits == taken, (name, value)


def test_numbers_of_numpy_become_numbers_of_a_message(run: ap.Run) -> None:
    state = run.view(1, 0, query=np.int64(4), span=np.float32(2.5)).state
    assert json.loads(json.dumps(state)) == {"view": "map", "site": SITES[1], "head": 0, "query": 4, "span": 2.5}
    assert checked({"skip": True})["skip"] is True


def test_a_saved_notebook_holds_a_picture_a_line_and_no_weights(run: ap.Run) -> None:
    view = run.view(1, 0)
    data, _ = view._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert data["text/plain"] == f"<explorer of {run!r}; site {SITES[1]}, head 0>"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert len(json.dumps(data)) < 100_000
    asked(view, {"id": 1, "name": "patch", "params": {**view.state, "run": 0}})
    state = {name: value for name, value in view.get_state().items() if name not in ("_esm", "_css")}
    assert len(json.dumps(state)) < 2_000


def pixels(data: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    image.load()
    values: np.ndarray = np.asarray(image.convert("RGBA"))
    return values


def test_the_picture_of_a_head_is_its_map(run: ap.Run) -> None:
    found = pixels(thumbnail(Answers.of([run]), {"view": "map", "sample": 2, "site": SITES[1], "head": 1}) or b"")
    weights = run.sample(2)[1, 1].numpy()
    size = found.shape[0] // 9
    assert found.shape == (9 * size, 9 * size, 4) and 9 * size > 200
    cells = found[size // 2 :: size, size // 2 :: size, :3].astype(int).sum(2)  # brightness grows along the map
    rows, columns = np.tril_indices(9)
    order = np.argsort(weights[rows, columns], kind="stable")
    assert (np.diff(cells[rows, columns][order]) >= 0).all()
    assert (cells[np.triu_indices(9, 1)] == table()[0].astype(int).sum()).all()


def test_the_picture_of_a_run_has_a_row_of_heads_a_layer() -> None:
    one = record(layers=3, heads=4, tokens=70)
    found = pixels(thumbnail(Answers.of([one]), {}) or b"")
    side = (found.shape[0] + 1) // 3 - 1
    assert found.shape == (3 * (side + 1) - 1, 4 * (side + 1) - 1, 4) and side > 30
    assert (found[side::, :, 3] == 0).any() and (found[side, :, 3] == 0).all()  # between layers, nothing
    lower = np.tril_indices(side, -2)
    for layer in range(3):
        for head in range(4):
            top, left = layer * (side + 1), head * (side + 1)
            part = found[top : top + side, left : left + side]
            assert (part[..., 3] == 255).all()
            assert part[lower][:, :3].sum() > part.transpose(1, 0, 2)[lower][:, :3].sum()


def test_pictures_are_small_whatever_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is what deflate makes nothing of."""
    rng = np.random.default_rng(0)
    bits = np.frombuffer(np.float32(rng.random((600, 64, 64))).tobytes(), np.uint16)[1::2].reshape(600, 64, 64)

    class Noise:
        def ask(self, name: str, params: Any) -> bytes:
            heads = list(range(self.heads))
            head: dict[str, Any] = {"sites": [{"key": "a", "heads": heads, "weights": heads}], "shape": [9999, 9999]}
            values = {"thumbnails": bits[: self.heads], "patch": rng.permutation(bits[:16].reshape(256, 256))}.get(name)
            if values is not None:
                head |= {"dtype": "bfloat16", "shape": values.shape}
            text = json.dumps(head).encode()
            return len(text).to_bytes(4, "little") + text + (b"" if values is None else values.tobytes())

        heads = 1

    for heads, state in ((1, {}), (1, {"view": "map"}), (7, {}), (144, {}), (500, {}), (600, {})):
        Noise.heads = heads
        found = thumbnail(Noise(), state)
        assert found is not None and 2_000 < len(found) < PIXELS * 1.02
        assert len(found) * 4 / 3 < 100_000


def test_a_picture_has_the_colours_that_it_was_given_and_nothing_where_nothing_is() -> None:
    palette = np.array([[1, 2, 3], [40, 50, 60], [9, 9, 9]])
    found = pixels(png(np.array([[0, 1, 2], [1, 1, 0]], np.uint8), palette, 2))
    assert found[..., :3][0, :2].tolist() == [[1, 2, 3], [40, 50, 60]]
    assert found[..., 3].tolist() == [[255, 255, 0], [255, 255, 255]]


def test_a_run_without_weights_has_no_picture_but_a_line() -> None:
    measured = record(measures="entropy")
    data, _ = measured.view()._repr_mimebundle_()
    assert "image/png" not in data and data["text/plain"].startswith("<explorer of 1 sample")


def test_a_picture_is_made_once(run: ap.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    view = run.view(0, 0)
    first, _ = view._repr_mimebundle_()
    monkeypatch.setattr("attnprobe.explorer.widget.thumbnail", lambda *_: pytest.fail("made again"))
    assert view._repr_mimebundle_()[0]["image/png"] == first["image/png"]
    assert b64decode(first["image/png"]).startswith(b"\x89PNG")


def test_bits_of_bfloat16_are_numbers() -> None:
    values = np.array([0.0, 1.0, 0.5, 2.0**-100, np.nan], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(widened(bits), values)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "anywidget":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import attnprobe
try:
    import attnprobe.explorer.widget
except attnprobe.AttnprobeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert re.search(r"pip install attnprobe\[notebook\]", done.stdout), done.stderr


def called(view: Any, sample: int, sequence: str = "main") -> list[str]:
    """What tokens of a sample are called in what the widget answers."""
    place = {"run": 0, "sample": sample, "sequence": sequence, "start": 0, "stop": 9}
    ((_, (frame,)),) = asked(view, {"id": 1, "name": "tokens", "params": place})
    names: list[str] = unpack(frame)[0]["tokens"]
    return names


@pytest.mark.parametrize("text", [True, False])
def test_labels_of_your_own_are_shown_and_other_samples_keep_theirs(text: bool) -> None:
    run = record(samples=3, text=text)
    words = [f"word {n}" for n in range(8)] + ["</script>"]
    sample = run.sample(1).with_labels(words)
    for view in (sample.view(), sample[1, 0].view(), run.sample(1)[1, 0].with_labels(words).view()):
        assert view.state["sample"] == 1
        assert called(view, 1) == words
        assert called(view, 2) == called(run.view(), 2)
        (_, (frame,)) = asked(view, {"id": 2, "name": "samples", "params": {"run": 0, "start": 0, "stop": 9}})[0]
        assert [one["id"] for one in unpack(frame)[0]["samples"]] == [one.id for one in run.samples]
        head = {"run": 0, "sample": 1, "site": SITES[1], "head": 0, "query": 8}
        _, weights = unpack(asked(view, {"id": 3, "name": "row", "params": head})[0][1][0])
        np.testing.assert_array_equal(weights, run.sample(1)[1, 0][8])


def test_rows_and_columns_of_two_sequences_have_labels_of_their_own() -> None:
    with torch.no_grad(), ap.record(model := cross_gpt2()) as rec:
        model(ids(1, 4), encoder_hidden_states=torch.randn(1, 3, 64))
    (sample,) = rec.run
    (site,) = [site for site in sample.sites if (site.layer, site.kind) == (1, "cross")]
    view = sample[site.key, 0].with_labels(list("abcd"), list("xyz")).view()
    assert [called(view, 0, name) for name in (site.queries, site.keys)] == [list("abcd"), list("xyz")]
