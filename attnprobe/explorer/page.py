"""The front end's page as one HTML file, which asks nothing of any network."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import Any

from attnprobe.errors import AttnprobeError
from attnprobe.explorer.joined import join
from attnprobe.explorer.static import static

_ANSWERS = 'JSON.parse(document.getElementById("answers").text)'
_STYLE = '<link rel="stylesheet" href="style.css">'
_SCRIPT = '<script type="module" src="page.js"></script>'


@dataclass(frozen=True)
class Page:
    """The page without its answers.

    Attributes
    ----------
    title
        Of the page.
    style, script
        What stands in it.
    """

    title: str
    style: str
    script: str

    @classmethod
    def made(cls, title: str, state: Mapping[str, Any] | None = None) -> "Page":
        """The page of the front end as it is installed, which opens a state where its link has none."""
        start = (
            f'explorer.mountFile(document.getElementById("explorer"), {_ANSWERS}, {_json({"state": state or {}})});\n'
        )
        script = f'"use strict";\n{join(static(), "main.js", "explorer")}{start}'
        return cls(title, static()["style.css"], script)

    @property
    def size(self) -> int:
        """Bytes without answers, of which there will be some: the last is followed by no comma."""
        return len(self.text({}).encode()) - len(",")

    def text(self, held: Mapping[str, str]) -> str:
        """The page with its answers.

        Raises
        ------
        AttnprobeError
            If the front end has what would end its own element, or its page lacks what is replaced here.
        """
        policy = (
            f"default-src 'none'; script-src {_hash(self.script)}; style-src {_hash(self.style)}; "
            "img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
        )
        for what, text in (("script", self.script), ("style", self.style)):
            if f"</{what}" in text.lower() or "<!--" in text:
                raise AttnprobeError(f"the front end's {what} has </{what} or <!--, and cannot stand in a page")
        data = _json(dict(held))
        replaced = {
            '<meta charset="utf-8">': f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
            f'content="{policy}">\n<meta name="referrer" content="no-referrer">',
            "<title>attnprobe</title>": f"<title>{escape(self.title)}</title>",
            _STYLE: f"<style>{self.style}</style>",
            _SCRIPT: "",
            "</body>": f'<script type="application/json" id="answers">{data}</script>\n'
            f"<script>{self.script}</script>\n</body>",
        }
        page = static()["page.html"]
        for old, new in replaced.items():
            if page.count(old) != 1:
                raise AttnprobeError(f"the front end's page.html has {old} {page.count(old)} times, not once")
            before, _, after = page.partition(old)
            page = f"{before}{new}{after}"
        return page


def _json(value: Mapping[str, Any]) -> str:
    """JSON that ends no element, and that JavaScript reads as itself."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
