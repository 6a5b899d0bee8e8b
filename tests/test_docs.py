"""What README and docs show runs, and says what is true. The notebooks run when the site is built: ``make docs``."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from click import Command, Context, Group

from attnprobe.cli import main

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "docs" / "_build"
PAGES = sorted(
    page
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb"))
    if not page.is_relative_to(BUILT)
)
NOTEBOOKS = [page for page in PAGES if page.suffix == ".ipynb"]
NOT_RUN = ["eight-gpus.ipynb"]  # needs a machine that has them
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")


def cells(notebook: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in parsed(notebook)["cells"] if cell["cell_type"] == kind]


def parsed(notebook: Path) -> dict[str, Any]:
    book: dict[str, Any] = json.loads(notebook.read_text())
    return book


def prose(page: Path) -> str:
    """The text of a page; of a notebook, its markdown cells."""
    return "\n\n".join(cells(page, "markdown")) if page.suffix == ".ipynb" else page.read_text()


def pages_with_code() -> list[Path]:
    return [page for page in PAGES if page.suffix == ".md" and BLOCK.search(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_code(), ids=lambda p: p.name)
def test_code_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The blocks of a page run in one interpreter, in order; a text block behind one is what it prints."""
    script, wanted = [], []
    for i, (code, printed) in enumerate(BLOCK.findall(page.read_text())):
        script.append(f"print('<<{i}>>')\n{code}")
        wanted.append(printed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "COLUMNS": "100", "NO_COLOR": "1"}
    written = tmp_path_factory.mktemp("script")
    (written / "page.py").write_text("\n".join(script))
    if page.name == "README.md":  # what users read first: with no library imported before it
        command = [sys.executable, written / "page.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    else:
        done = warm.python([str(written / "page.py")], tmp_path, environment, written)
    assert done.returncode == 0, done.stderr
    parts = re.split(r"<<\d+>>\n", done.stdout)[1:]
    for i, text in enumerate(wanted):
        if text:
            assert parts[i].rstrip().splitlines() == text.rstrip().splitlines()


@pytest.mark.slow
def test_commands_of_the_readme_run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The lines that call attnprobe, in order, in one directory, each in a process; with two texts for the corpus."""
    pytest.importorskip("datasets", reason="the extra attnprobe[data] is not installed")
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    every = [line for block in blocks for line in block.splitlines() if line.startswith("attnprobe ")]
    commands = [line for line in every if line.split()[1] != "view"]  # which goes on until it is stopped
    assert {line.split()[1] for line in commands} >= {"plan", "capture", "sites", "info", "show", "stats", "verify"}
    (tmp_path / "texts").mkdir()
    for name in ("a", "b"):
        (tmp_path / "texts" / f"{name}.jsonl").write_text('{"text": "To be, or not to be"}\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    written, printed = tmp_path_factory.mktemp("written"), ""
    for line in commands:
        arguments = shlex.split(line, comments=True)[1:]
        done = warm.python(["-m", "attnprobe.cli", *arguments], tmp_path, environment, written)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    assert "nothing is wrong" in printed and "2 rows recorded" in printed
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["hamlet", "texts"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(prose(page)) if not (page.parent / target).exists()]
    assert broken == []


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target).resolve() for target in LINK.findall(prose(page))]
        todo += [target for target in targets if target.suffix in (".md", ".ipynb") and target.exists()]
    assert [page for page in PAGES if page.resolve() not in {p.resolve() for p in seen}] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_committed_small_and_without_outputs(notebook: Path) -> None:
    book = parsed(notebook)
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert code
    assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert notebook.stat().st_size < 20_000
    assert book["cells"][0]["source"][0].startswith("# ")
    assert set(book["metadata"]) <= {"kernelspec", "language_info", "mystnb"}


def test_notebooks_run_when_the_site_is_built_except_those_that_cannot() -> None:
    skipped = [book.name for book in NOTEBOOKS if parsed(book)["metadata"].get("mystnb", {}).get("execution_mode")]
    assert skipped == NOT_RUN
    tagged = [cell["id"] for book in NOTEBOOKS for cell in parsed(book)["cells"] if cell["metadata"].get("tags")]
    assert not [name for name in tagged if name.startswith("skip")]


def commands_shown(page: Path) -> Iterator[list[str]]:
    """The words behind ``attnprobe`` of each command in the shell blocks of a page."""
    for block in re.findall(r"^```sh\n(.*?)^```$", prose(page), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition("#")[0].partition("&&")[0].split()
            for program in ("attnprobe", "attnprobe.cli"):
                if program in words:
                    yield words[words.index(program) + 1 :]


@pytest.mark.parametrize("page", [p for p in PAGES if any(commands_shown(p))], ids=lambda p: p.name)
def test_commands_and_options_that_pages_show_exist(page: Path) -> None:
    wrong = []
    for words in commands_shown(page):
        command: Command | None = main
        rest = list(words)
        while isinstance(command, Group) and rest:
            command = command.get_command(Context(command), rest.pop(0))
        if command is None:
            wrong.append(" ".join(words))
            continue
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        wrong += [f"{' '.join(words[:2])}: {word}" for word in rest if word.startswith("-") and word not in known]
    assert wrong == []


def test_the_reference_has_every_public_name_once() -> None:
    import attnprobe

    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    listed = re.findall(r"^\.\. auto(?:class|function|exception):: attnprobe\.(\w+)$", pages, re.MULTILINE)
    assert sorted(listed) == sorted(attnprobe.__all__)


def test_the_readme_names_the_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def test_the_changelog_has_this_version() -> None:
    import attnprobe

    assert f"## {attnprobe.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_measure_has_a_row_on_the_page_of_its_family() -> None:
    from attnprobe.measures import GROUPS, MEASURES

    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "measures").glob("*.md"))
    listed = re.findall(r"^\| `(\w+)(?:\(\w\))?` \|", pages, re.MULTILINE)
    assert sorted(listed) == sorted(MEASURES)
    index = (ROOT / "docs" / "measures.md").read_text()
    assert not [name for name in (*MEASURES, *GROUPS) if f"`{name}" not in index and f'`"{name}"' not in index]
