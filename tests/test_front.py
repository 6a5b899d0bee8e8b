"""The explorer's front end: its own tests, run by node's runner, and that its colours are those of Python."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

FRONT = Path(__file__).parent / "front"
STATIC = Path(__file__).parents[1] / "attnprobe/show/static"
NODE = shutil.which("node")
OLDEST = (18, 15)  # its runner has reporters


def _version() -> tuple[int, ...]:
    if NODE is None:
        return ()
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True, timeout=60).stdout
    return tuple(map(int, re.findall(r"\d+", said)))


pytestmark = pytest.mark.skipif(
    _version() < OLDEST, reason=f"the front end's tests need node {'.'.join(map(str, OLDEST))} or later"
)


@pytest.mark.parametrize("file", sorted(path.name for path in FRONT.glob("*.test.mjs")))
def test_node(file: str) -> None:
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", file], cwd=FRONT, capture_output=True, text=True, timeout=200
    )
    found = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found, done.stdout
    assert int(found[1]) > 0, "no test ran"


def test_a_failing_test_of_node_fails_here(tmp_path: Path) -> None:
    """The runner's exit status is what the tests above rest on."""
    (tmp_path / "bad.test.mjs").write_text(
        'import { test } from "node:test";\ntest("no", () => { throw new Error(); });\n'
    )
    done = subprocess.run([NODE, "--test", "bad.test.mjs"], cwd=tmp_path, capture_output=True, timeout=200)
    assert done.returncode != 0


def _colours(settings: dict[str, object], weights: np.ndarray, largest: np.ndarray | None = None) -> np.ndarray:
    question = {
        "settings": settings,
        "weights": weights.ravel().tolist(),
        "largest": None if largest is None else largest.tolist(),
    }
    done = subprocess.run(
        [NODE, "colours.mjs"], cwd=FRONT, input=json.dumps(question), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in json.loads(done.stdout)])


def _weights(count: int) -> np.ndarray:
    """Positive weights of all sizes, as bfloat16 keeps them."""
    drawn = np.exp(np.random.default_rng(0).uniform(np.log(1e-9), 0, count)).astype(np.float32)
    return torch.from_numpy(drawn).bfloat16().float().numpy()


def _table(name: str) -> np.ndarray:
    """A map of matplotlib as 256 colours of whole numbers."""
    from matplotlib import colormaps

    return np.rint(colormaps[name](np.arange(256))[:, :3] * 255).astype(int)


def _near(colours: np.ndarray, cmap: np.ndarray, places: np.ndarray) -> None:
    """Each colour is that of its place, or of the one before or after: numbers that are equal to a rounding."""
    index = np.clip(np.floor(places * 256), 0, 255).astype(int)
    around = np.clip(index[:, None] + [-1, 0, 1], 0, 255)
    assert (cmap[around] == colours[:, None]).all(axis=2).any(axis=1).all()
    assert (cmap[index] == colours).all(axis=1).mean() > 0.99


@pytest.mark.parametrize("name", ["magma", "viridis", "cividis"])
@pytest.mark.parametrize("scale", ["log", "linear", "sqrt"])
@pytest.mark.parametrize("dark", [True, False])
def test_colours_are_those_of_matplotlib(name: str, scale: str, dark: bool) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.colors import LogNorm, PowerNorm

    low, high = 1e-6, 0.4
    norm = (
        LogNorm(low, high, clip=True)
        if scale == "log"
        else PowerNorm(0.5 if scale == "sqrt" else 1, 0, high, clip=True)
    )
    cmap = _table(name if dark else f"{name}_r")
    weights = _weights(2000)
    places = np.asarray(norm(weights.astype(np.float64)))
    colours = _colours({"scale": scale, "low": low, "high": high, "map": name, "dark": dark}, weights)
    _near(colours, cmap, places)


def test_colours_by_row_are_those_of_each_row_on_its_own_logarithmic_scale() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.colors import LogNorm

    low, high = 1e-5, 0.1
    weights = _weights(2000).reshape(40, 50)
    largest = weights.max(axis=1)
    places = np.stack(
        [
            np.asarray(LogNorm(top * low / high, top, clip=True)(row.astype(np.float64)))
            for row, top in zip(weights, largest, strict=True)
        ]
    )
    cmap = _table("magma")
    colours = _colours({"scale": "row", "low": low, "high": high, "map": "magma", "dark": True}, weights, largest)
    index = np.clip(np.floor(places.ravel() * 256), 0, 255).astype(int)
    around = np.clip(index[:, None] + [-1, 0, 1], 0, 255)
    assert (cmap[around] == colours[:, None]).all(axis=2).any(axis=1).all()


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_modules_use_only_the_forms_that_are_joined(path: Path) -> None:
    """They are also put into one script, by text: attnprobe/show/static/README.md says which forms."""
    for line in path.read_text().splitlines():
        if line.startswith("import"):
            assert re.fullmatch(r'import \{ [\w, ]+ \} from "\./\w+\.js";', line), line
        if line.startswith("export"):
            assert re.match(r"export (function|async function|class|const) \w+", line), line
        assert not re.search(r"\bimport\(|\binnerHTML\b|\beval\(|\bimport\.meta\b", line), line
