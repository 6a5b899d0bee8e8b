"""Targets for atheris, which looks for inputs that reach new code: ``python tests/fuzz_targets.py header``.

What follows the target is libFuzzer's: ``-max_total_time=60``, a directory to keep inputs in. It ends with an error,
and leaves the input in a file, where anything but attnprobe's own errors comes out, or where a header is taken that
safetensors refuses.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
with atheris.instrument_imports(include=["attnprobe"]):
    import fuzzing

DEPTHS = (50, 900, 990, 100_000)


def chooser(data: bytes) -> Callable[[int], int]:
    provider = atheris.FuzzedDataProvider(data)
    return lambda count: provider.ConsumeIntInRange(0, count - 1)


def spoilt(tree: Any, choose: Callable[[int], int]) -> Any:
    """A copy of a JSON value with some places changed."""
    tree = fuzzing.copy(tree)
    for _ in range(choose(3) + 1):
        fuzzing.spoil(tree, choose)
    return tree


def header(data: bytes) -> None:
    choose = chooser(data)
    text = fuzzing.dump(spoilt(fuzzing.HEADER, choose), DEPTHS[choose(len(DEPTHS))])
    fuzzing.check_header(fuzzing.with_header(text if choose(2) else fuzzing.spoil_bytes(text, choose)))
    fuzzing.check_header(fuzzing.with_header(b"{" + data))


class Run:
    """A run of which one file is spoilt anew for each input."""

    def __init__(self, directory: Path) -> None:
        self.path = fuzzing.write_run(directory / "run")
        (self.file,) = (self.path / "journal").iterdir()
        self.manifest = (self.path / "manifest.json").read_bytes()
        self.lines = fuzzing.load_journal(self.file)
        self.text = self.file.read_bytes()

    def journal(self, data: bytes) -> None:
        choose = chooser(data)
        if choose(4):
            self.file.write_bytes(fuzzing.dump_journal(spoilt(self.lines, choose), DEPTHS[choose(len(DEPTHS))]))
        else:
            self.file.write_bytes(fuzzing.spoil_bytes(self.text, choose))
        fuzzing.read_everything(self.path)

    def of_manifest(self, data: bytes) -> None:
        choose = chooser(data)
        if choose(4):
            text = fuzzing.dump(spoilt(json.loads(self.manifest), choose), DEPTHS[choose(len(DEPTHS))])
        else:
            text = fuzzing.spoil_bytes(self.manifest, choose)
        (self.path / "manifest.json").write_bytes(text)
        fuzzing.read_everything(self.path)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(Path(scratch))
        targets = {"header": header, "journal": run.journal, "manifest": run.of_manifest}
        if name not in targets:
            sys.exit(f"which target? {', '.join(targets)}")
        # Inputs are choices, of which there are many: not to begin with few.
        atheris.Setup([sys.argv[0], "-len_control=0", "-max_len=256", *sys.argv[1:]], targets[name])
        atheris.Fuzz()
