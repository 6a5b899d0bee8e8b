"""The files of the front end, read once from the package."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}


@cache
def static() -> Mapping[str, str]:
    """The text of each file by its name: the page, its style and its modules, in order of their names."""
    found = {
        file.name: file.read_text(encoding="utf-8")
        for file in files("attnprobe.show").joinpath("static").iterdir()
        if file.is_file() and suffix(file.name) in TYPES
    }
    return MappingProxyType(dict(sorted(found.items())))


def suffix(name: str) -> str:
    """What a file's name ends with, from its last dot."""
    return name[name.rfind(".") :] if "." in name else ""
