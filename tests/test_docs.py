"""What README and docs show runs, and says what is true."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")


def pages_with_code() -> list[Path]:
    return [page for page in PAGES if BLOCK.search(page.read_text())]


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
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("attnprobe ")]
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
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert broken == []


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = [(page.parent / target).resolve() for target in LINK.findall(page.read_text())]
        todo += [target for target in targets if target.suffix == ".md" and target.exists()]
    assert [page for page in PAGES if page.resolve() not in {p.resolve() for p in seen}] == []


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
