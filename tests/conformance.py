"""Whether a model of the zoo is recorded exactly: every head and row of it against the model's own eager run."""

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import checks
import numpy as np
import torch
import zoo
from zoo_reference import LENGTH

import attnprobe as ap
from attnprobe.fields import Site
from attnprobe.sites import find_sites

TOLERANCE = 1e-5
PACKED = (range(6), range(6, LENGTH))


@dataclass
class Outcome:
    """What came out of recording one scenario of one type."""

    difference: float = 0.0
    compared: int = 0
    missing: list[str] = field(default_factory=list)
    """Modules that have weights on eager attention and were not recorded."""


def routes(case: Any) -> Counter[str]:
    """How many sites of a model take which route."""
    return Counter(site.route for site in find_sites(case.model).sites)


def check(case: Any, scenario: str) -> Outcome:
    """Record a scenario, and compare.

    Raises
    ------
    AssertionError
        If a weight is off, a site has nothing to be compared with, logits changed, or something was left behind.
    """
    # Some of the modules that return weights do so only where they are asked to.
    more = {"output_attentions": True} if "returned" in routes(case) else {}
    plain = zoo.run(case.model, case, scenario, **more)
    before = _state(case.model)
    with ap.record(case.model) as rec:
        logits = zoo.run(case.model, case, scenario, **more)
    assert _state(case.model) == before, "something was left behind"
    assert all(torch.equal(a, b) for a, b in zip(plain, logits, strict=True)), "recording changed the logits"
    found = zoo.reference(case, scenario)
    outcome = Outcome(missing=[])
    by_key: dict[str, list[Site]] = {}
    for site in rec.sites:
        by_key.setdefault(site.key.partition("@")[0], []).append(site)
    samples = [rec.run.sample(i) for i in range(len(rec.run.samples))]
    for name, calls in found.weights.items():
        sites = by_key.pop(_alike(name, by_key), None)
        if sites is None:
            outcome.missing.append(name)
            continue
        for turn, site in enumerate(sites):
            own = calls[turn :: len(sites)]
            for sample in samples:
                if site in sample.sites:
                    outcome.difference = max(outcome.difference, _apart(site, sample, own, found, scenario, case))
                    outcome.compared += site.heads
    recorded = {site.key.partition("@")[0] for sample in samples for site in sample.sites}
    assert not recorded & set(by_key), f"nothing to compare {sorted(recorded & set(by_key))} with"
    assert outcome.compared, "nothing was compared"
    assert outcome.difference <= TOLERANCE, f"weights differ by {outcome.difference:.1e}"
    return outcome


def _alike(name: str, keys: Any) -> str:
    """The recorded module of the same name, or the one that wraps nothing but it."""
    return name if name in keys else next((key for key in keys if name.startswith(f"{key}.")), name)


def _state(model: Any) -> Any:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return (
        hooks,
        [sorted(m.__dict__) for m in model.modules()],
        checks.registry(),
        copy.deepcopy(model.config.to_dict()),
    )


def _apart(site: Site, sample: Any, calls: list[Any], found: Any, scenario: str, case: Any) -> float:
    """The largest difference of one site's heads in one sample."""
    row = 0 if scenario == "packed" else _row(sample)
    own, its = (_slots(name, found, scenario, case, row, sample) for name in (site.queries, site.keys))
    have = sample[site.key, 0].shape
    want = np.zeros((site.heads, len(own), len(its)))
    first = 0
    for call in calls:
        weights = call[row if call.shape[0] > 1 else 0].double().numpy()
        count, keys = weights.shape[1:]
        last = first + count
        offset = max(0, last - keys) if site.queries == site.keys else 0
        rows = [(slot - first, i) for i, slot in enumerate(own) if first <= slot < last]
        columns = [(slot - offset, j) for j, slot in enumerate(its) if offset <= slot < offset + keys]
        if not rows or not columns:
            first = last
            continue
        a, i = map(list, zip(*rows, strict=True)) if rows else ([], [])
        b, j = map(list, zip(*columns, strict=True))
        want[:, np.array(i, int)[:, None], np.array(j)[None]] = weights[:, np.array(a, int)[:, None], np.array(b)[None]]
        first = last
    assert have == want.shape[1:], f"{site.label}: {have} recorded, {want.shape[1:]} wanted"
    got = np.stack([sample[site.key, head].numpy() for head in range(site.heads)])
    return float(np.abs(got - want).max())


def _row(sample: Any) -> int:
    """Row of the batch: all samples of a scenario come from one batch of two, in order, stream by stream."""
    return int(sample.sample.index) % 2


def _slots(name: str, found: Any, scenario: str, case: Any, row: int, sample: Any) -> list[int]:
    """The slots of a sequence that hold tokens."""
    length = sample.sample.sequences[name].length
    if scenario == "packed":
        return list(PACKED[sample.sample.index])
    padded = found.padding is not None and (name == "source") == case.model.config.is_encoder_decoder
    if not padded or length > found.padding.shape[1]:  # the audio beside a padded text is not padded
        return list(range(length))
    return np.flatnonzero(found.padding[row].numpy()).tolist()
