"""Modules joined into one script: the same behaviour under node, and what is not joined is named with its line."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from attnprobe.errors import AttnprobeError
from attnprobe.explorer.joined import join
from attnprobe.explorer.static import static

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node")

MODULES = {
    "main.js": """\
/** A comment that names import and export, in the middle of a line. */
import { Counter, twice } from "./tools.js";
import { START, own } from "./base.js";

const own2 = own(1); // the name `local` is every module's own
const local = "main";

export const result = { start: START, own2, local, twice: twice(4), important: 1 };
export async function later(value) {
  return (await Promise.resolve(value)) + START;
}
export function* numbers() {
  yield* [1, 2, 3];
}
export class Two extends Counter {
  get both() {
    return [this.next(), this.next()];
  }
}
export function whatThis() {
  return this === undefined;
}
export const text = `a template
  with lines that start as they like`;
export const early = () => hoisted();
function hoisted() {
  return "hoisted";
}
""",
    "tools.js": """\
import { START, calls } from "./base.js";
const local = "tools";
export function twice(value) { return local === "tools" ? 2 * value : NaN; }
export class Counter { constructor() { this.at = START; calls.push("made"); } next() { return ++this.at; } }
""",
    "base.js": """\
const local = "base";
export const calls = [];
calls.push("loaded");
export const START = 10;
export function own(value) {
  return `${local} ${value} ${calls.length}`;
}
""",
    "unused.js": "export default 1;\n",
}
USE = """
const two = new it.Two();
const found = { result: it.result, both: two.both, this_: (0, it.whatThis)(), text: it.text, early: it.early(),
  numbers: [...it.numbers()], names: Object.keys(it).sort() };
found.later = await it.later(5);
console.log(JSON.stringify(found));
"""


def node(file: Path) -> str:
    assert NODE is not None
    done = subprocess.run([NODE, file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_node
def test_the_script_does_what_the_modules_do(tmp_path: Path) -> None:
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "apart.mjs").write_text('import * as it from "./main.js";' + USE)
    (tmp_path / "joined.mjs").write_text(join(MODULES, "main.js", "it") + USE)
    apart, joined = (json.loads(node(tmp_path / name)) for name in ("apart.mjs", "joined.mjs"))
    assert joined == apart
    assert joined["result"] == {"start": 10, "own2": "base 1 1", "local": "main", "twice": 8, "important": 1}
    assert (joined["both"], joined["later"], joined["this_"]) == ([11, 12], 15, True)


@needs_node
def test_a_module_is_loaded_once_and_before_those_that_need_it(tmp_path: Path) -> None:
    said = {
        "d.js": 'console.log("d");\nexport const d = 1;\n',
        "b.js": 'import { d } from "./d.js";\nconsole.log("b", d);\nexport const b = 2;\n',
        "c.js": 'import { d } from "./d.js";\nconsole.log("c", d);\nexport const c = 3;\n',
        "a.js": 'import { b } from "./b.js";\nimport { c } from "./c.js";\n'
        'console.log("a", b, c);\nexport const a = 4;',
    }
    script = join(said, "a.js", "it") + "console.log(it.a);\n"
    (tmp_path / "joined.js").write_text(script)  # no module: a plain script
    assert node(tmp_path / "joined.js").split("\n") == ["d", "b 1", "c 1", "a 2 3", "4", ""]


def test_only_what_is_needed_is_taken_along() -> None:
    assert "unused" not in join(MODULES, "main.js", "it")


@pytest.mark.parametrize(
    "line",
    [
        "export default 1;",
        "export { a };",
        "export let a = 1;",
        "export var a = 1;",
        "export const { a } = b;",
        'export * from "./base.js";',
        'export { a } from "./base.js";',
        'import "./base.js";',
        'import base from "./base.js";',
        'import * as base from "./base.js";',
        'import { START as start } from "./base.js";',
        'import { START } from "../base.js";',
        'import { START } from "https://elsewhere.example/base.js";',
        'import { START } from "base.js";',
        "import {",
        '  import { START } from "./base.js";',
        'const base = await import("./base.js");',
        'const lazy = () => import("./base.js");',
        "const here = import.meta.url;",
        "await ready;",
        "const it = await ready;",
    ],
)
def test_what_is_not_joined_is_named_with_its_line(line: str) -> None:
    with pytest.raises(AttnprobeError, match=r"^a\.js:3: "):
        join({"a.js": f"// a\n\n{line}\n", "base.js": MODULES["base.js"]}, "a.js", "it")


def test_what_is_not_there_is_named_with_the_line_that_wants_it() -> None:
    wants = {"a.js": 'import { b, c } from "./b.js";\n', "b.js": "export const b = 1;\n"}
    with pytest.raises(AttnprobeError, match=r"a\.js:1: b\.js does not export c"):
        join(wants, "a.js", "it")
    with pytest.raises(AttnprobeError, match=r"a\.js:1: there is no module b\.js"):
        join({"a.js": wants["a.js"]}, "a.js", "it")


def test_a_circle_is_named() -> None:
    circle = {
        "a.js": 'import { b } from "./b.js";\nexport const a = 1;\n',
        "b.js": '// b\nimport { a } from "./a.js";\nexport const b = 1;\n',
    }
    with pytest.raises(AttnprobeError, match=r"b\.js:2: .*a\.js -> b\.js -> a\.js"):
        join(circle, "a.js", "it")


@needs_node
@pytest.mark.parametrize("entry", ["source.js", "state.js", "dom.js"])
def test_modules_of_the_front_end_are_joined(entry: str, tmp_path: Path) -> None:
    names = "console.log(JSON.stringify(Object.keys(it).sort()));\n"
    (tmp_path / "joined.js").write_text(join(static(), entry, "it") + names)
    (tmp_path / "apart.mjs").write_text(f'import * as it from "./apart/{entry}";\n{names}')
    apart = tmp_path / "apart"
    apart.mkdir()
    (apart / "package.json").write_text('{"type": "module"}')
    for name, text in static().items():
        (apart / name).write_text(text)
    assert json.loads(node(tmp_path / "joined.js")) == json.loads(node(tmp_path / "apart.mjs"))


@needs_node
def test_answers_are_unpacked_by_the_joined_script_too(tmp_path: Path) -> None:
    use = """
const head = new TextEncoder().encode('{"dtype": "float32"}   ');
const frame = new Uint8Array(4 + head.length + 8);
new DataView(frame.buffer).setUint32(0, head.length, true);
frame.set(head, 4);
new DataView(frame.buffer).setFloat32(4 + head.length + 4, 0.25, true);
console.log(JSON.stringify([it.written("row", { b: 1, a: "x/y" }), [...it.unpack(frame.buffer).values]]));
"""
    (tmp_path / "joined.js").write_text(join(static(), "source.js", "it") + use)
    assert json.loads(node(tmp_path / "joined.js")) == ["row?a=x%2Fy&b=1", [0, 0.25]]
