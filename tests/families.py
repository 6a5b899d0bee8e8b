"""What recording does on each type of model; as a program, the page about it.

``python tests/families.py`` builds a tiny random model of every type, records it, and writes docs/families.md.
"""

import json
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import conformance
import torch
import transformers
import zoo

from attnprobe.errors import AttnprobeError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"
TITLES = {
    "causal": "Causal language models",
    "masked": "Masked language models",
    "seq2seq": "Sequence to sequence",
    "image": "Image classification",
}
HEAD = """# Families

Made by `python tests/families.py`; do not edit by hand. Every type of model that transformers {version} maps to one of
four tasks was built from its configuration, tiny and with random weights whose rows are peaked, and recorded. Each head
and row of every site was compared with the model's own eager run: without padding (`plain`), with padding on the left
or right, over four generated tokens with a dynamic and a static cache, with a chunk of several tokens on a filled
cache, and with packed sequences; those of these that the model itself runs, and in which its own eager and SDPA runs
agree. Logits were bit-identical with and without recording.

The route says how a module is seen: `registry` (transformers' attention functions), `sdpa` (it calls
`F.scaled_dot_product_attention` itself), `multihead` (`nn.MultiheadAttention`), `returned` (it builds its weights; some
need `output_attentions=True`). `attnprobe sites MODEL` tells them of a model.
"""


@dataclass
class Row:
    """One type: its routes, the scenarios that passed, the largest difference, and what does not work."""

    kind: str
    model_type: str
    implementation: str = ""
    routes: dict[str, int] = field(default_factory=dict)
    passed: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    reason: str = ""
    """Why there is nothing to record, or to compare with."""


def examine(case: Any) -> Row:
    """Record a model in every scenario that is one for it."""
    row = Row(case.kind, case.model_type, case.implementation)
    try:
        row.routes = dict(conformance.routes(case))
    except AttnprobeError as error:
        row.reason = str(error)
        return row
    for scenario in zoo.SCENARIOS:
        if zoo.applicable(case, scenario) is not None:
            continue
        try:
            outcome = conformance.check(case, scenario)
        except Exception as error:
            row.failed[scenario] = f"{type(error).__name__}: {error}"
        else:
            row.passed[scenario] = outcome.difference
            row.missing = outcome.missing
    if not row.passed and not row.failed:
        row.reason = "there is no scenario in which it agrees with itself"
    return row


def survey(kind: str, model_type: str) -> Row:
    """Build a type and examine it."""
    try:
        case = zoo.build(kind, model_type)
    except zoo.CannotBuild as error:
        return Row(kind, model_type, reason=str(error))
    return examine(case)


def page(rows: list[Row]) -> str:
    """The page, as Markdown."""
    lines = [HEAD.format(version=transformers.__version__)]
    for kind, title in TITLES.items():
        own = [row for row in rows if row.kind == kind]
        recorded = [row for row in own if row.passed]
        lines.append(f"## {title}\n")
        whole = [row for row in recorded if not row.missing]
        partly = f", {len(recorded) - len(whole)} more but for some of their modules" if whole != recorded else ""
        lines.append(f"{len(whole)} of {len(own)} types recorded exactly in at least one scenario{partly}.\n")
        lines.append("| type | route | largest difference | recorded | not recorded |\n| --- | --- | --- | --- | --- |")
        lines += [_line(row) for row in own]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row) -> str:
    routes = ", ".join(row.routes)
    worst = f"{max(row.passed.values()):.0e}" if row.passed else ""
    lost = [f"{', '.join(names)}: {why}" for why, names in _by_reason(row.failed).items()]
    if row.missing:
        lost.append(f"{len(row.missing)} modules, first `{row.missing[0]}`")
    lost += [row.reason] if row.reason else []
    text = "; ".join(" ".join(one.split()).replace("|", "/") for one in lost)
    return f"| `{row.model_type}` | {routes} | {worst} | {', '.join(row.passed)} | {text[:300]} |"


def _by_reason(failed: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for scenario, why in failed.items():
        found.setdefault(why.partition("\n")[0], []).append(scenario)
    return found


def main() -> None:
    """Examine all types, or those of the kinds that are named, and write the page."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    rows = []
    for kind in sys.argv[1:] or zoo.KINDS:
        for model_type in zoo.types(kind):
            rows.append(survey(kind, model_type))
            print(json.dumps(asdict(rows[-1])), flush=True)
    if not sys.argv[1:]:
        PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
