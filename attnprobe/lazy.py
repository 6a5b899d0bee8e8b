"""Names of a package that are loaded when they are asked for (PEP 562)."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def loading(package: str, places: Mapping[str, str], into: dict[str, Any]) -> Callable[[str], Any]:
    """The package's ``__getattr__``: a name's place is a module of the package, or ``module:name`` where it differs."""

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, there = places[name].partition(":")
        into[name] = value = getattr(import_module(f"{package}.{module}"), there or name)
        return value

    return get
