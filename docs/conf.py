"""The site: ``make docs`` builds it, warnings are errors, and nothing in it comes from another host."""

import hashlib
import os
import re
import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # a checkout that is not installed, too
os.environ["HF_HUB_OFFLINE"] = "1"  # notebooks run with the bundled model
os.environ.pop("MPLBACKEND", None)  # pictures go into the page

from attnprobe.version import VERSION  # noqa: E402

project, author, copyright = "attnprobe", "the attnprobe authors", "the attnprobe authors"
version = release = VERSION
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["_build"]
highlight_language = "none"  # a fence without a language is no Python

# Pages are read on GitHub too: nothing but links, tables and fences, and headings that can be linked to.
myst_heading_anchors = 3
myst_enable_extensions: list[str] = []

# Pages link to files beside docs/ (README, examples); on the site these are downloads.
html_theme = "furo"
html_title = f"attnprobe {VERSION}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#31688e", "color-brand-content": "#31688e"},
    "dark_css_variables": {"color-brand-primary": "#5ec5b5", "color-brand-content": "#5ec5b5"},
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

# Single backticks in docstrings name things, most of them with a place in the reference.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # long, and said in words
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
python_maximum_signature_line_length = 88


def _state() -> str:
    """A name for what notebooks depend on beside themselves: the package's code, and torch."""
    digest = hashlib.sha256(installed("torch").encode())
    for file in sorted((HERE.parent / "attnprobe").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# Run once, and again when a notebook or the package has changed.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks" / _state())
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # widgets' scripts would come from another host
# So the picture that stands in a widget's place goes first; a widget without one is not shown.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", 55)]

# What a user makes. All other classes are given, and how they are made is no part of the reference.
MADE = {"Measures", "SampleDataset", "TopK", "Weights"}


def _hide(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None) -> Any:
    """Leave out how a class is made that nobody makes."""
    hidden = signature is not None and what == "class" and obj.__name__ not in MADE
    return ("", None) if hidden else None


def _refuse_other_hosts(app: Sphinx, error: Exception | None) -> None:
    """Fail a build whose pages would load a script, style, font or picture from somewhere else."""
    if error is not None or app.builder.format != "html":
        return
    loads = re.compile(
        r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//"""
        r"""|(?:@import\s+|url\()["']?(?:https?:)?//""",
        re.IGNORECASE,
    )
    found = [
        f"{file.relative_to(app.outdir)}: {match[0][:120]}"
        for file in sorted(Path(app.outdir).rglob("*"))
        if file.suffix in {".html", ".css", ".svg"}
        for match in loads.finditer(file.read_text(encoding="utf-8"))
    ]
    if found:
        raise ExtensionError("the site loads from other hosts:\n" + "\n".join(found))


def setup(app: Sphinx) -> None:
    """Connect the two functions above."""
    app.connect("autodoc-process-signature", _hide)
    app.connect("build-finished", _refuse_other_hosts)
