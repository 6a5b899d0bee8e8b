"""Where a tile belongs: its rows and columns in each sample of the batch."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from attnprobe.call import AttentionCall, GivenWeights
from attnprobe.cut import as_runs, cut, index_of, refuse_stray
from attnprobe.direct import seen_columns, widened
from attnprobe.engines import Tile
from attnprobe.engines.fused import Measured, Place
from attnprobe.errors import UnsupportedCall
from attnprobe.fields import Field, Rows, Site
from attnprobe.lineage import Forward
from attnprobe.measures import SampleRows
from attnprobe.samples import MAIN, Growing
from attnprobe.scratch import Scratch
from attnprobe.selection import Selection
from attnprobe.shapes import Float, Int
from attnprobe.store.base import Writer


def align(call: AttentionCall | GivenWeights, site: Site, forward: Forward) -> AttentionCall | GivenWeights:
    """The call with its columns told by slots.

    Raises
    ------
    UnsupportedCall
        If its size is not that of the forward pass.
    """
    if isinstance(call, AttentionCall) and call.ragged and call.queries < forward.count:
        call = widened(call, forward.count)
    expected = forward.batch, forward.count
    if (call.batch, call.queries) != expected:
        raise UnsupportedCall(
            f"the call has batch {call.batch} and {call.queries} rows, and the forward pass has {expected[0]} and "
            f"{expected[1]}"
        )
    if call.heads != site.heads:
        raise UnsupportedCall(f"the call has {call.heads} heads, and the module says that it has {site.heads}")
    slots = forward.start + forward.count
    if site.queries == site.keys and not forward.start and call.keys < forward.count:
        raise UnsupportedCall(
            f"the call has {call.keys} columns for {forward.count} rows: it looks at another sequence, and its name "
            'does not say so; call the module something with "cross" in it'
        )
    if site.queries != site.keys:
        _know_source(call, site, forward)
    if site.queries == site.keys and call.keys < slots:  # a sliding cache has dropped the first ones
        return replace(call, key_offset=slots - call.keys)
    return call


def refuse_wider(call: AttentionCall | GivenWeights, forward: Forward) -> None:
    """Refuse a call of a sequence on itself that has columns of something else, where there is no cache.

    Raises
    ------
    UnsupportedCall
        If there are more columns than tokens.
    """
    if call.keys > forward.count:
        raise UnsupportedCall(
            f"the call has {call.keys} columns for {forward.count} tokens and no cache: keys that are no tokens (a "
            "memory, a prefix) have no place in a map; if it is cross-attention, call the module something with "
            '"cross" in it'
        )


def _know_source(call: AttentionCall | GivenWeights, site: Site, forward: Forward) -> None:
    """Where nobody told of the other sequence, it is what the call has, less the columns that no row sees."""
    unknown = [sample for sample in forward.lineage.samples if not len(sample.sequence(site.keys).place)]
    if unknown:
        seen = seen_columns(call) if isinstance(call, AttentionCall) else None
        valid = np.ones((1, call.keys), bool) if seen is None else seen.cpu().numpy()
        for sample in unknown:
            sample.sequence(site.keys).grow(valid[sample.row if len(valid) > 1 else 0])


def place(
    store: Writer,
    forward: Forward,
    selection: Selection,
    field: Field,
    heads: tuple[int, ...],
    rows: Rows,
    start: int,
    causal: bool,
    sink: bool,
    weights: Float[Tensor, "batch h r k"],
) -> None:
    """Write a tile's wanted rows, sample by sample.

    Parameters
    ----------
    store, forward, selection
        Where to, which forward pass made it, which rows and columns are wanted.
    field
        What it is part of, whatever the sample.
    heads, rows, start
        Heads and rows of the call, and the slot of the first column.
    causal, sink
        What is known of the tile, as of a `Block`.
    weights
        The tile, on the CPU.
    """
    at = np.asarray(rows)
    for sample in forward.lineage.samples:
        positions = forward.positions(sample)[at]
        columns = _columns(sample, field.site, start, weights.shape[3])
        wanted = sample.selected(selection, positions, forward.name)
        block = cut(weights[sample.row], heads, positions, wanted, columns, selection.keys, field.dtype)
        if block is not None:
            lengths = (sample.sequence(name).length for name in (field.site.queries, field.site.keys))
            longest = max(lengths) if forward.last else 0
            known = replace(block, causal=causal, sink=sink, longest=longest)
            store.write(replace(field, sample=sample.index), known)
            sample.kept += block.values.numel()


def sample_rows(
    forward: Forward, selection: Selection, field: Field, tile: Tile, start: int, scratch: Scratch, with_tokens: bool
) -> Iterator[tuple[Growing, SampleRows, Tensor | None]]:
    """A tile's wanted rows, sample by sample, on the tile's device.

    Yields
    ------
    sample, rows, stray
        What they are of; the weights; and the largest weight on a column that is not of the sample, which
        `check_stray` looks at once it is on the host.
    """
    at = np.asarray(tile.rows)
    first = field.heads.index(tile.heads[0])
    for sample in forward.lineage.samples:
        b, positions = sample.row, forward.positions(sample)[at]
        wanted = np.flatnonzero(sample.selected(selection, positions, forward.name) & (positions >= 0))
        if not len(wanted):
            continue
        columns = _columns(sample, field.site, start, tile.weights.shape[3])
        inside, outside = np.flatnonzero(columns >= 0), np.flatnonzero(columns < 0)
        pick = index_of(wanted)
        part = tile.weights[b][:, pick]
        stray = part[:, :, index_of(outside)].amax() if len(outside) else None
        own = field.site.queries == field.site.keys
        rows = SampleRows(
            weights=part[:, :, index_of(inside)] if len(outside) else part,
            rows=as_runs(positions[wanted]),
            start=int(columns[inside[0]]) if len(inside) else 0,
            at=slice(first, first + len(tile.heads)),
            query_length=sample.sequence(field.site.queries).length,
            key_length=sample.sequence(field.site.keys).length,
            prompt_length=sample.prompt_length or 0 if forward.name == MAIN else sample.sequence(forward.name).length,
            valid=None if tile.valid is None else tile.valid[b][:, pick],
            sink=None if tile.sink_mass is None else tile.sink_mass[b][:, pick],
            tokens=forward.tokens(sample) if own and with_tokens else None,
            scratch=scratch,
        )
        yield sample, rows, stray


class Places:
    """Where wanted rows are, found once for all sites of a forward pass that ask for the same.

    Parameters
    ----------
    selection, with_tokens
        Which rows are wanted; whether token ids are.
    """

    def __init__(self, selection: Selection, with_tokens: bool) -> None:
        self._selection, self._with_tokens = selection, with_tokens
        self._forward: Forward | None = None
        self._asked: tuple[Any, ...] = ()
        self._found: list[tuple[Growing, Rows, Place]] | None = None

    def find(
        self, forward: Forward, site: Site, call: AttentionCall, rows: Rows
    ) -> list[tuple[Growing, Rows, Place]] | None:
        """As `find_place`."""
        asked = site.queries, site.keys, call.key_offset, call.keys, rows
        if self._forward is not forward or self._asked != asked:  # the same pass, not one that is like it
            self._found = find_place(forward, self._selection, site, call, rows, self._with_tokens)
            self._forward, self._asked = forward, asked
        return self._found


def find_place(
    forward: Forward, selection: Selection, site: Site, call: AttentionCall, rows: Rows, with_tokens: bool
) -> list[tuple[Growing, Rows, Place]] | None:
    """The wanted rows of each sample as a call has them, and where they are in the sample.

    None where a sample's rows or columns are interrupted by padding.
    """
    found = []
    at = np.asarray(rows)
    for sample in forward.lineage.samples:
        positions = forward.positions(sample)[at]
        wanted = np.flatnonzero(sample.selected(selection, positions, forward.name) & (positions >= 0))
        if not len(wanted):
            continue
        length = sample.sequence(site.keys).length
        columns = _columns(sample, site, call.key_offset, call.keys)
        inside = np.flatnonzero(columns >= 0)
        shifts = positions[wanted] - at[wanted]
        whole = len(inside) > 0 and columns[inside[-1]] == length - 1 == columns[inside[0]] + len(inside) - 1
        begun = whole and inside[-1] - inside[0] + 1 == len(inside) and (columns[inside[0]] == 0 or inside[0] == 0)
        if not begun or (shifts != shifts[0]).any():
            return None
        place = Place(
            batch=sample.row,
            row_shift=int(shifts[0]),
            column_shift=int(columns[inside[0]] - inside[0]),
            query_length=sample.sequence(site.queries).length,
            key_length=length,
            prompt_length=sample.prompt_length or 0 if forward.name == MAIN else sample.sequence(forward.name).length,
            tokens=forward.tokens(sample) if site.queries == site.keys and with_tokens else None,
        )
        found.append((sample, as_runs(at[wanted]), place))
    return found


def fused_rows(field: Field, rows: Rows, place: Place, measured: Measured, scratch: Scratch) -> SampleRows:
    """What an engine measured, as measures are given rows."""
    first, some = field.heads.index(measured.heads[0]), len(measured.heads)
    return SampleRows(
        weights=measured.values["max"].new_zeros(some, len(rows), 0),
        rows=place.shifted(rows),
        start=0,
        at=slice(first, first + some),
        query_length=place.query_length,
        key_length=place.key_length,
        prompt_length=place.prompt_length,
        valid=measured.valid,
        sink=measured.sink,
        tokens=place.tokens,
        scratch=scratch,
        fused=measured.values,
    )


def check_stray(stray: Tensor | None) -> None:
    """Refuse weight on columns that are not of the sample.

    Raises
    ------
    UnsupportedCall
        If there is some.
    """
    if stray is not None:
        refuse_stray(float(stray))


def _columns(sample: Growing, site: Site, start: int, width: int) -> Int[np.ndarray, " k"]:
    """Position in the sample of each column, -1 where it is none."""
    columns = np.full(width, -1, np.int64)  # a static cache is wider than what it holds
    known = sample.sequence(site.keys).place[start : start + width]
    columns[: len(known)] = known
    return columns
