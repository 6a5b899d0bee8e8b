"""The front end's modules as one script, for a notebook's cell and for an HTML file, which load no others.

Modules keep to a few forms (`attnprobe/show/static/README.md`), so that joining them takes no JavaScript: each becomes
a function of its own, called once, behind those that it imports.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attnprobe.errors import AttnprobeError

_IMPORT = re.compile(r'import \{ (?P<names>[\w$]+(?:, [\w$]+)*) \} from "\./(?P<file>[\w.-]+\.js)";')
_EXPORT = re.compile(r"export (?P<rest>(?:const|class|(?:async )?function\*?) (?P<name>[\w$]+)\b.*)")
# What else a module can say that one function cannot: other imports and exports, and to wait outside of a function.
_OTHER = re.compile(r"\s*(?:import|export)\b(?!\s*[:=])|.*\bimport\s*[(.]|(?:(?:const|let|var)\b[^(]*=\s*)?await\b")


@dataclass(frozen=True)
class _Module:
    """One file: what it exports, its lines without `import` and `export`, and what it imports on which line."""

    file: str
    exports: tuple[str, ...]
    lines: tuple[str, ...]
    imports: Mapping[int, tuple[str, tuple[str, ...]]]


def join(modules: Mapping[str, str], entry: str, name: str) -> str:
    """One script that makes a constant, which has what a module exports.

    Parameters
    ----------
    modules
        The text of each module by its file's name.
    entry
        The module; those that it needs are taken along, and no others.
    name
        The constant's.

    Raises
    ------
    AttnprobeError
        If a module uses a form that is not known here, imports what is not there, or imports itself in a circle. The
        file and the line are named.
    """
    ordered: dict[str, _Module] = {}
    _visit(modules, entry, "", (), ordered)
    places = {file: f"module{number}" for number, file in enumerate(ordered)}
    parts = [_function(module, places) for module in ordered.values()]
    return "\n".join([f"const {name} = (() => {{", '"use strict";', *parts, f"return {places[entry]};", "})();", ""])


def _visit(
    modules: Mapping[str, str], file: str, by: str, above: tuple[str, ...], ordered: dict[str, _Module]
) -> _Module:
    """Order a module behind those that it imports."""
    if file in above:
        raise AttnprobeError(f"{by}: the modules import each other in a circle: {' -> '.join((*above, file))}")
    if file not in modules:
        raise AttnprobeError(f"{by or file}: there is no module {file}")
    if file not in ordered:
        module = _parse(file, modules[file])
        for line, (other, names) in module.imports.items():
            here = f"{file}:{line}"
            found = _visit(modules, other, here, (*above, file), ordered)
            missing = [name for name in names if name not in found.exports]
            if missing:
                raise AttnprobeError(f"{here}: {other} does not export {', '.join(missing)}")
        ordered[file] = module
    return ordered[file]


def _parse(file: str, text: str) -> _Module:
    exports: list[str] = []
    lines: list[str] = []
    imports: dict[int, tuple[str, tuple[str, ...]]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if match := _IMPORT.fullmatch(line):
            imports[number] = match["file"], tuple(match["names"].split(", "))
        elif match := _EXPORT.fullmatch(line):
            exports.append(match["name"])
            lines.append(match["rest"])
        elif _OTHER.match(line):
            raise AttnprobeError(f"{file}:{number}: modules are not joined where one says {line.strip()[:80]!r}")
        else:
            lines.append(line)
    return _Module(file, tuple(exports), tuple(lines), imports)


def _function(module: _Module, places: Mapping[str, str]) -> str:
    """A module as a function that is called once and gives what it exports."""
    taken = [f"const {{ {', '.join(names)} }} = {places[other]};" for other, names in module.imports.values()]
    start = f"const {places[module.file]} = (function () {{ // {module.file}"
    return "\n".join([start, *taken, *module.lines, f"return {{ {', '.join(module.exports)} }};", "})();"])
