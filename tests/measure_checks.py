"""Feeds calls and whole models to the measures, and compares all that comes out with `measure_reference`."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import checks
import measure_reference as reference
import numpy as np
import torch

import attnprobe as ap
from attnprobe.call import AttentionCall
from attnprobe.cut import as_runs
from attnprobe.engines import ENGINES
from attnprobe.fields import Block, Field, Site
from attnprobe.measures import FoldMeasure, SampleRows, Tokens, choose
from attnprobe.measures.measurer import Measurer
from attnprobe.scratch import Scratch
from attnprobe.store.reading import kept_rows, read_rows

# What is asked for: everything, and arguments that matter in short samples.
NAMES = "all,first_mass(4),local_mass(3),received_last(5),received_last_max(5)"
WITH_SINK = f"{NAMES},entropy_with_sink,sink_mass"
ANYWHERE = {"entropy", "max", "first_mass(1)", "first_mass(4)"}
OF_POSITIONS = {"self", "previous", "local_mass(3)", "local_mass(64)", "distance"}
OF_IDS = {"duplicate", "induction"}
OF_SINK = {"entropy_with_sink", "sink_mass"}
FOLDS = {"received", "received_max", "pooled_max", "pooled_mean"}
LAST = {f"received_last{most}({n})" for most in ("", "_max") for n in (5, 64)}


def with_means(rows: set[str]) -> set[str]:
    """Fields of row measures."""
    return rows | {f"{name}.mean" for name in rows}


SELF = with_means(ANYWHERE | OF_POSITIONS | OF_IDS) | FOLDS | LAST | {"argmax", "distances"}
CROSS = with_means(ANYWHERE) | FOLDS | LAST | {"argmax"}


# --- calls -----------------------------------------------------------------------------------------------------------


@dataclass
class Fed:
    """Rows of one sample as they come, and the whole maps of its heads."""

    field: Field
    rows: list[SampleRows]
    maps: list[reference.Map]

    @property
    def lengths(self) -> tuple[int, int]:
        """Of the sample's two sequences."""
        queries, keys = self.maps[0].weights.shape
        return queries, keys


def feed(
    call: AttentionCall,
    heads: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    budget: int = 1 << 24,
    order: int | None = None,
    grow: bool = False,
) -> Iterator[Fed]:
    """A call's tiles, for each row of the batch.

    With an `order`, they come shuffled by this seed. If they `grow`, the sample is no longer than what was seen of it.
    """
    heads = tuple(range(call.heads)) if heads is None else tuple(heads)
    rows = range(call.queries) if rows is None else tuple(rows)
    weights, mass, _ = checks.formula(call)
    tiles = list(ENGINES["torch"](call, heads, rows, budget))
    if order is not None:
        random.Random(order).shuffle(tiles)
    one = call.causal == "upper-left" or call.keys >= call.queries  # else rows are no positions among the columns
    first = call.keys - call.queries if one and call.causal != "upper-left" else 0
    length = first + call.queries
    prompt = max(length - 2, 1)
    ids = torch.randint(0, 6, (call.keys,), generator=torch.Generator().manual_seed(call.keys))
    field = Field(0, Site("it", "self", "", 0, call.heads, 1, keys="main" if one else "source"), 0, heads)
    scratch = Scratch()
    for b in range(call.batch):
        fed = Fed(field, [], [])
        seen = (0, 0) if grow else (length, call.keys)
        for tile in tiles:
            own, at = as_runs(np.array(tile.rows) + first), heads.index(tile.heads[0])
            stop = tile.start + tile.weights.shape[3]
            seen = max(seen[0], own[-1] + 1), min(max(seen[1], stop, own[-1] + 1 if one else 0), call.keys)
            fed.rows.append(
                SampleRows(
                    weights=tile.weights[b],
                    rows=own,
                    start=tile.start,
                    at=slice(at, at + len(tile.heads)),
                    query_length=seen[0],
                    key_length=seen[1],
                    prompt_length=prompt,
                    valid=None if tile.valid is None else tile.valid[b],
                    sink=None if tile.sink_mass is None else tile.sink_mass[b],
                    tokens=Tokens(ids.numpy()) if one else None,
                    scratch=scratch,
                )
            )
        into = first + np.array(rows)
        for head in heads:
            dense, sink = np.zeros((length, call.keys)), np.zeros(length)
            dense[into], sink[into] = weights[b, head, list(rows)].numpy(), mass[b, head, list(rows)].numpy()
            fed.maps.append(reference.Map(dense, dense.any(-1), ids.numpy(), prompt, sink))
        yield fed


def measure(fed: Fed, names: Any = WITH_SINK) -> dict[str, np.ndarray]:
    """All that a measurer gives of a sample, ``[head, *axes]``; rows that were not fed are NaN, or -1."""
    measurer, found = Measurer(choose(names), fed.field), {}

    def take(of: Field, block: Block) -> None:
        values = block.values.numpy()
        assert str(values.dtype) == of.dtype
        if of.axes == ("query",):
            absent = -1 if of.dtype == "int32" else np.nan
            empty = np.full((len(fed.maps), fed.lengths[0]), absent, values.dtype)
            into = found.setdefault(of.what, empty)
            into[np.ix_([of.heads.index(head) for head in block.heads], list(block.rows))] = values[..., 0]
        else:
            found[of.what] = values if len(of.axes) == 2 else values[..., 0]

    for rows in fed.rows:
        values = measurer.update(rows)
        if values is not None:
            for of, block in values.blocks(fed.field, values.values):
                take(of, block)
    for of, block in measurer.finish(*fed.lengths):
        take(of, block)
    return found


def check_fed(fed: Fed) -> None:
    """Everything, whatever is asked for."""
    found = measure(fed)
    own = fed.field.site.queries == fed.field.site.keys
    assert found.keys() == (SELF if own else CROSS) | with_means(OF_SINK)
    for name, array in found.items():
        for got, whole in zip(array, fed.maps, strict=True):
            reference.check(name, got, whole)


def check_merged(fed: Fed, parts: int) -> None:
    """What rows are folded into, in several states that are then merged."""
    groups = [group for n in range(parts) if (group := fed.rows[n::parts])]
    for one in choose(WITH_SINK):
        fold: Any = one.measure
        if not isinstance(fold, FoldMeasure) or not one.fits(fed.field.site):
            continue
        states = []
        for group in groups:
            state = fold.init(len(fed.maps), group[0])
            for rows in group:
                state = fold.update(state, rows)
            states.append(state)
        while len(states) > 1:
            states.append(fold.merge(states.pop(0), states.pop(0)))
        for got, whole in zip(fold.finalize(states[0], *fed.lengths).numpy(), fed.maps, strict=True):
            reference.check(one.name, got, whole)


def check_call(call: AttentionCall, **how: Any) -> None:
    """Measure a call as `feed` has it."""
    for fed in feed(call, **how):
        check_fed(fed)


def check_measures() -> None:
    """Every made-up call, whole and in part, in large and in small tiles."""
    for call in checks.calls().values():
        check_call(call)
        check_call(call, heads=(1, 2), rows=range(0, call.queries, 2), budget=1 << 13)
    causal = torch.ones(301, 301, dtype=torch.bool).tril()[None, None]  # as a mask, with which the reference is quick
    wide = checks.random_call(batch=1, heads=2, kv_heads=1, rows=301, columns=301, mask=causal)
    check_call(wide, budget=1 << 20)  # several columns a pooled cell


# --- whole models ----------------------------------------------------------------------------------------------------


def check_run(run: ap.Run, own: set[str] = SELF, cross: set[str] = CROSS) -> None:
    """Measures of a run that kept the weights of the same rows beside them; these names, and no other."""
    assert len(run.samples)
    for sample in run.samples:
        fields = run.reader.fields(sample.index)
        lengths = {name: sequence.length for name, sequence in sample.sequences.items()}
        sites = {field.site: (field, pieces) for field, pieces in fields.items() if field.what == "weights"}
        found: dict[Site, set[str]] = {site: set() for site in sites}
        maps = {site: maps_of(run, sample, *held) for site, held in sites.items()}
        for field, pieces in fields.items():
            if field.what == "weights":
                continue
            found[field.site].add(field.what)
            rows = kept_rows(pieces)
            width = max(piece.start + piece.shape[2] for piece in pieces)
            values = read_rows(run.reader, field, pieces, field.heads, rows, range(width))
            if field.axes == ("query",):
                held = kept_rows(sites[field.site][1])
                assert rows == held, (field.what, rows, held)
                whole = np.full(
                    (len(field.heads), lengths["main"]), -1 if field.dtype == "int32" else np.nan, values.dtype
                )
                whole[:, rows] = values[..., 0]
                values = whole
            elif len(field.axes) == 1:
                values = values[..., 0]
            for got, head in zip(values, field.heads, strict=True):
                reference.check(field.what, got, maps[field.site][head])
        for site, names in found.items():
            assert names == (own if site.kind == "self" else cross), (
                site.key,
                names ^ (own if site.kind == "self" else cross),
            )


def check_largest(run: ap.Run, k: int) -> None:
    """The largest weights of each row of a run that kept the weights of the same rows beside them."""
    assert len(run.samples)
    for sample in run.samples:
        for site in {field.site for field in run.reader.fields(sample.index)}:
            for number in range(site.heads):
                head = run.sample(sample.index)[site.key, number]
                rows = list(head.kept)
                weights = head.numpy()[rows].astype(np.float64)
                values, keys, rest = head.topk.numpy()
                assert list(head.topk.kept) == rows and values.shape == keys.shape == (len(rows), k)
                wanted = np.zeros((len(rows), k))
                largest = np.sort(weights, axis=1)[:, ::-1][:, :k]
                wanted[:, : largest.shape[1]] = largest
                close = {"rtol": 1e-5, "atol": 1e-6}
                np.testing.assert_allclose(values, wanted, **close)
                there = keys >= 0
                np.testing.assert_array_equal(there, values > 0)
                row, rank = np.nonzero(there)
                np.testing.assert_allclose(weights[row, keys[row, rank]], values[row, rank], **close)
                assert all(len(set(one[one >= 0])) == (one >= 0).sum() for one in keys)  # no key twice
                np.testing.assert_allclose(rest, weights.sum(1) - wanted.sum(1), rtol=1e-4, atol=1e-5)


def maps_of(run: ap.Run, sample: Any, field: Field, pieces: Any) -> dict[int, reference.Map]:
    """The kept weights of each head, as a whole map."""
    lengths = sample.sequences["main"].length, sample.sequences[field.site.keys].length
    rows = kept_rows(pieces)
    weights = read_rows(run.reader, field, pieces, field.heads, rows, range(lengths[1])).astype(np.float64)
    maps = {}
    for head, values in zip(field.heads, weights, strict=True):
        dense = np.zeros(lengths)
        dense[rows] = values
        maps[head] = reference.Map(dense, dense.any(-1), sample.sequences["main"].ids, sample.prompt_length)
    return maps
