"""What the journals of a run list, read without the package's own reader."""

import json
from collections import Counter
from pathlib import Path
from typing import Any


def journals(run: Path) -> list[list[dict[str, Any]]]:
    """The whole lines of each writer."""
    return [
        [json.loads(line[9:]) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        for path in sorted((run / "journal").glob("*.jsonl"))
    ]


def ids(lines: list[dict[str, Any]]) -> list[str]:
    """The ids of the samples that a writer lists."""
    return [sample["id"] for line in lines for sample in line.get("samples", ())]


def listed(run: Path) -> Counter[str]:
    """How often each id is listed, by all writers together."""
    return Counter(id for lines in journals(run) for id in ids(lines))
