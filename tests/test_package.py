"""The package as a whole: what importing it costs, which way imports point, what is public, what is shipped."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "attnprobe"

# Lowest first. A module imports from its own group and from those above it in this list, never from those below.
# "attnprobe" is the package's __init__, which may import anything.
LAYERS = (
    {"errors", "lazy", "shapes", "version", "precision", "scratch"},
    {"fields", "codes", "selection", "sizes", "kinds", "fidelity", "pyramid", "profiling"},
    {"measures"},
    {"marks", "routes", "sites", "call", "registry", "direct", "strings", "keep", "items"},
    {"engines", "cut", "topk", "compare"},
    {"store"},
    {"verifying"},
    {"show"},
    {"labels", "held", "spans", "labelled", "maps", "measured", "toprows", "summary", "aggregate"},
    {"arrays", "variables", "levels", "pictures"},
    {"head", "sample_run", "run", "plotting", "attentions", "dataset", "xarray_engine", "explorer"},
    {"samples", "caching", "lineage", "tracker", "streams", "generation", "arguments", "copies", "provenance", "seen"},
    {"watchers", "traced", "entries", "interface", "shadows", "hooks"},
    {"place", "told"},
    {"keepers", "planning"},
    {"checking", "committing", "counted", "starting"},
    {"observer", "compiled"},
    {"recorder", "api"},
    {"attnprobe"},
    {"workers"},
    {"corpus"},
    {"bench"},
    {"demo"},
    {"cli", "__main__"},
)
MAY_IMPORT_TRANSFORMERS = ("interface.py", "bench/subject.py", "demo/*", "cli*")
LONGEST_FILE = 330
SOURCE = {".py", ".js", ".css", ".html"}
NOT_AT_IMPORT = (
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "matplotlib",
    "click",
    "xarray",
    "ipywidgets",
    "anywidget",
    "starlette",
    "uvicorn",
)

GLOBAL_STATE = """
import signal, sys
import torch
import torch.nn.functional as F
from torch.nn.modules import module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

def state():
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "sdp": [getattr(cuda, f"{kind}_sdp_enabled")() for kind in ("flash", "mem_efficient", "math", "cudnn")],
        "precision": [torch.get_float32_matmul_precision(), cuda.matmul.allow_tf32, cudnn.allow_tf32],
        "cudnn": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic],
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "torch": [torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
                  torch.are_deterministic_algorithms_enabled()],
        "modes": [len(_get_current_function_mode_stack()), len(_get_current_dispatch_mode_stack())],
        "hooks": {name: len(value) for name, value in vars(module).items()
                  if name.startswith("_global_") and hasattr(value, "__len__")},
        "functions": [F.scaled_dot_product_attention, F.multi_head_attention_forward, F.softmax, torch.softmax,
                      torch.nn.Module.__call__, torch.nn.MultiheadAttention.forward],
        "attention": {name: ALL_ATTENTION_FUNCTIONS[name] for name in ALL_ATTENTION_FUNCTIONS.valid_keys()},
        "masks": {name: ALL_MASK_ATTENTION_FUNCTIONS[name] for name in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()},
        "interpreter": [sys.excepthook, sys.displayhook, sys.gettrace(), sys.getprofile(),
                        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)],
    }
"""


def python(*arguments: str, path: Path = ROOT) -> str:
    """Run a fresh interpreter that finds attnprobe in `path` first, away from the checkout; give what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert found, f"no module in {PACKAGE}"
    return found


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of all that a file imports: at the top, inside functions, and for types only."""
    package = ("attnprobe", *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*start, *filter(None, [node.module])))
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, a.value) for a in node.args if isinstance(a, ast.Constant))


def top(name: str) -> str:
    """The name in `LAYERS` of a dotted name inside attnprobe: ``attnprobe.store.memory`` is "store"."""
    second = name.split(".")[1] if "." in name else ""
    is_module = (PACKAGE / second).is_dir() or (PACKAGE / f"{second}.py").is_file()
    return second if second and is_module else "attnprobe"


def test_import_is_light() -> None:
    code = f"import sys, attnprobe; print(*sorted(set({NOT_AT_IMPORT!r}) & set(sys.modules)))"
    assert python("-c", code).split() == []


@pytest.mark.slow
def test_import_changes_nothing_global() -> None:
    code = """
before = state()
import attnprobe
after = state()
print(*(f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after[name]), sep="\\n")
"""
    assert python("-c", GLOBAL_STATE + code).strip() == ""


def test_import_needs_no_type_checker() -> None:
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jaxtyping", "beartype"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import attnprobe
for name in attnprobe.__all__:
    getattr(attnprobe, name)
assert not {"jaxtyping", "beartype"} & set(sys.modules)
"""
    python("-c", code)


def test_imports_point_one_way() -> None:
    level = {name: number for number, group in enumerate(LAYERS) for name in group}
    wrong = []
    for file in modules():
        relative = file.relative_to(PACKAGE)
        own = "attnprobe" if relative.name == "__init__.py" == str(relative) else relative.parts[0].removesuffix(".py")
        if own not in level:
            wrong.append(f"{relative}: {own} is in no group of LAYERS; add it where its imports allow")
            continue
        for line, name in imports(file):
            root = name.partition(".")[0]
            if root == "attnprobe" and own != "attnprobe" and level.get(top(name), -1) > level[own]:
                wrong.append(f"{relative}:{line}: {own} imports {name}, which is above it")
            if root == "transformers" and not any(fnmatch(relative.as_posix(), p) for p in MAY_IMPORT_TRANSFORMERS):
                wrong.append(f"{relative}:{line}: only {', '.join(MAY_IMPORT_TRANSFORMERS)} import transformers")
    assert not wrong, "\n".join(wrong)


def test_no_file_is_long() -> None:
    sources = [file for file in PACKAGE.rglob("*") if file.suffix in SOURCE]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in sources}
    too_long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not too_long, f"over {LONGEST_FILE} lines: {too_long}"


def test_public_names_are_documented() -> None:
    import attnprobe

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `([A-Za-z_]\w*)(?:\(.*\))?`[ \t]*$", page, re.MULTILINE)
    assert list(attnprobe.__all__) == sorted(attnprobe.__all__)
    assert sorted(headings) == list(attnprobe.__all__)
    assert not [name for name in attnprobe.__all__ if not hasattr(attnprobe, name)]


@pytest.mark.slow
def test_built_package_is_whole(tmp_path: Path) -> None:
    built, installed = tmp_path / "dist", tmp_path / "installed"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    python("-m", "build", "--no-isolation", "--outdir", str(built), str(ROOT))
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")

    in_wheel = zipfile.ZipFile(wheel).namelist()
    files = {str(file.relative_to(ROOT)) for file in PACKAGE.rglob("*") if file.is_file()}
    shipped = {name for name in files if "__pycache__" not in name and not name.endswith(".partial")}
    assert {name for name in in_wheel if name.startswith("attnprobe/")} == shipped
    assert "attnprobe/py.typed" in in_wheel
    for pattern in ("attnprobe/demo/*.safetensors", "attnprobe/demo/*tokenizer.json", "attnprobe/demo/*.txt"):
        assert any(fnmatch(name, pattern) for name in in_wheel), f"the wheel has no {pattern}"

    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/test_package.py", "docs/api.md", "pyproject.toml", "LICENSE", "Makefile"} <= in_sdist
    assert not [name for name in in_sdist if name.startswith((".venv", "runs", ".git/")) or "__pycache__" in name]

    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    code = "import attnprobe; print(attnprobe.__version__, attnprobe.__file__)"
    assert python("-c", code, path=installed).split() == [version, str(installed / "attnprobe" / "__init__.py")]
    assert "Usage" in python("-m", "attnprobe.cli", "--help", path=installed)
