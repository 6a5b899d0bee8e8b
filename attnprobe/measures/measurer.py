"""What one `Measures` item has of one sample at one site so far."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from attnprobe.errors import SelectionError, UnsupportedCall
from attnprobe.fields import STATISTICS, Block, Field
from attnprobe.measures import Chosen, RowMeasure
from attnprobe.measures.base import IDS, PROMPT, SINK, Absorbing
from attnprobe.measures.moments import Moments
from attnprobe.measures.rows import SampleRows
from attnprobe.shapes import Float


@dataclass(frozen=True, eq=False)
class RowValues:
    """Row measures of some rows, to be written once they are on the host: ``values`` is ``[measure, head, query]``."""

    chosen: tuple[Chosen, ...]
    heads: tuple[int, ...]
    rows: range | tuple[int, ...]
    values: Float[Tensor, "measure head query"]

    def blocks(self, field: Field, values: Iterable[Float[Tensor, "head query"]]) -> Iterator[tuple[Field, Block]]:
        """A block a measure, of the values on the host."""
        for one, part in zip(self.chosen, values, strict=True):
            of = replace(field, what=one.name, axes=one.measure.axes, dtype=one.measure.dtype)
            if of.dtype == "int32":
                part = part.nan_to_num(-1.0)
            yield of, Block(self.heads, self.rows, 0, part.to(getattr(torch, of.dtype))[..., None])


class Measurer:
    """Folds a sample's rows, in whatever order and however many at a time they come.

    Parameters
    ----------
    chosen
        The measures; those that have no meaning here and were not asked for by name are left out.
    field
        Sample, site, group and heads of what comes out.
    """

    def __init__(self, chosen: Sequence[Chosen], field: Field) -> None:
        self._all = [one for one in chosen if one.fits(field.site)]
        self._field = field
        self._rows: list[Chosen] | None = None
        self._folds: list[Chosen] = []
        self._states: dict[str, Any] = {}
        self._moments: Moments | None = None
        self._lengths = (0, 0)

    def update(self, rows: SampleRows, prompt_open: bool = False) -> RowValues | None:
        """Take some whole rows; what is to be written of them now, if anything.

        Raises
        ------
        UnsupportedCall
            If a measure that was asked for by name lacks what it needs.
        SelectionError
            If a measure gives another shape than it promises.
        """
        if self._rows is None:
            there = [one for one in self._all if self._has_needs(one, rows, prompt_open)]
            self._rows = [one for one in there if isinstance(one.measure, RowMeasure)]
            self._folds = [one for one in there if not isinstance(one.measure, RowMeasure)]
        else:  # what a later pass lacks: a fold may still be left out, rows that were written may not
            self._folds = [one for one in self._folds if self._has_needs(one, rows, prompt_open)]
            lost = next((one for one in self._rows if not self._has_needs(one, rows, prompt_open)), None)
            if lost is not None:
                self._lacks(replace(lost, asked=True), "lacks in this pass what it had before")
        self._lengths = max(self._lengths[0], rows.query_length), max(self._lengths[1], rows.key_length)
        for one in self._folds:
            self._fold(one, rows)
        if not self._rows:
            return None
        values = torch.stack([self._compute(one, rows) for one in self._rows])
        if rows.valid is not None:
            values.masked_fill_(~rows.valid, torch.nan)
        self._count(values, rows)
        kept = [i for i, one in enumerate(self._rows) if one.rows]
        if not kept:
            return None
        if len(kept) < len(self._rows):
            # Not by an index of numbers, whose copy to the device would be waited for.
            values = values[: len(kept)] if kept[-1] == len(kept) - 1 else torch.stack([values[i] for i in kept])
        heads = self._field.heads[rows.at]
        return RowValues(tuple(self._rows[i] for i in kept), heads, rows.rows, values)

    def _has_needs(self, one: Chosen, rows: SampleRows, prompt_open: bool) -> bool:
        needs = one.measure.needs
        if IDS in needs and rows.tokens is None:
            return self._lacks(
                one, "needs all token ids so far, and some are unknown (inputs_embeds, an older cache); pass input_ids"
            )
        if SINK in needs and rows.sink is None:
            return one.asked
        if PROMPT in needs and prompt_open:
            return self._lacks(
                one,
                "needs the prompt's end, and the prompt came in several passes; tell its length: with "
                "rec.sample(prompt_length=...)",
            )
        return True

    def _lacks(self, one: Chosen, what: str) -> bool:
        if one.asked or one.own:
            raise UnsupportedCall(f"the measure {one.name} {what}, or leave the measure out")
        return False

    def _compute(self, one: Chosen, rows: SampleRows) -> Float[Tensor, "head query"]:
        measure = one.measure
        assert isinstance(measure, RowMeasure)
        if rows.fused:
            found: Tensor = rows.fused[one.name]
            return found
        values = self._watched(one, rows, lambda: measure.compute(rows))
        wanted = tuple(rows.weights.shape[:2])
        if not isinstance(values, Tensor) or tuple(values.shape) != wanted:
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise SelectionError(f"the measure {one.name} gave {got}, and should give [head, query] {list(wanted)}")
        return values.float()

    def _watched(self, one: Chosen, rows: SampleRows, work: Callable[[], Any]) -> Any:
        """What a measure gives; the user's own may not write into the weights, which others keep."""
        before = rows.weights._version
        try:
            result = work()
        except Exception as error:
            if one.own:
                ids = "" if IDS in one.measure.needs else '; for token ids, say needs=("ids",)'
                error.add_note(f"in the measure {one.name}, at {self._field.site.label}{ids}")
            raise
        if one.own and rows.weights._version != before:
            raise SelectionError(
                f"the measure {one.name} writes into rows.weights; write into rows.buffer(), or a copy"
            )
        return result

    def _fold(self, one: Chosen, rows: SampleRows) -> None:
        measure = one.measure
        assert not isinstance(measure, RowMeasure)
        if one.name not in self._states:
            self._states[one.name] = measure.init(len(self._field.heads), rows)
        if rows.fused:
            absorbing = cast(Absorbing, measure)
            self._states[one.name] = absorbing.absorb(self._states[one.name], rows.fused[one.name], rows)
            return
        self._states[one.name] = self._watched(one, rows, lambda: measure.update(self._states[one.name], rows))

    def _count(self, values: Float[Tensor, "measure head query"], rows: SampleRows) -> None:
        part = Moments.of(values)
        # A NaN is a row without a value; where the weights themselves are NaN, rows count and have no mean.
        broken = rows.peak.isnan().any(-1)
        part.mean.masked_fill_(broken, torch.nan)
        part.count.masked_fill_(broken, len(rows.rows))
        if self._moments is None and part.count.shape[1] == len(self._field.heads):
            self._moments = part
            return
        if self._moments is None:
            zeros = values.new_zeros(3, len(values), len(self._field.heads))
            self._moments = Moments(*zeros)
        held = self._moments
        both = Moments(held.count[:, rows.at], held.mean[:, rows.at], held.m2[:, rows.at]).merge(part)
        for whole, new in ((held.count, both.count), (held.mean, both.mean), (held.m2, both.m2)):
            whole[:, rows.at] = new

    def finish(self, query_length: int, key_length: int) -> Iterator[tuple[Field, Block]]:
        """What is written when the sample ends, on its device still: means of row measures, and folds."""
        heads = self._field.heads
        if self._moments is not None and self._rows is not None:
            for one, values in zip(self._rows, self._moments.finalize().float(), strict=True):
                if one.measure.dtype == "float32":  # a mean of positions says nothing
                    of = replace(self._field, what=f"{one.name}.mean", axes=("statistic",), dtype="float32")
                    yield of, Block(heads, range(len(STATISTICS)), 0, values[..., None])
        for one in self._folds:
            assert not isinstance(one.measure, RowMeasure)
            found = one.measure.finalize(self._states[one.name], query_length, key_length)
            axes = one.measure.axes
            lengths = {"query": query_length, "key": key_length}
            wanted = [len(heads), *(lengths.get(axis, axis) for axis in axes)]  # a number, or the name of any
            shape = list(found.shape) if isinstance(found, Tensor) else []
            if len(shape) != len(wanted) or any(
                isinstance(w, int) and n != w for n, w in zip(shape, wanted, strict=True)
            ):
                got = shape or type(found).__name__
                asked = f"[head, {', '.join(axes)}] [{', '.join(map(str, wanted))}]"
                raise SelectionError(f"the measure {one.name} gave {got}, and should give {asked}")
            if not found.numel():  # a source without a token: there is nothing to keep
                continue
            of = replace(self._field, what=one.name, axes=tuple(axes), dtype=one.measure.dtype)
            values = found.to(getattr(torch, of.dtype), copy=True).contiguous()
            values = values[..., None] if len(axes) == 1 else values
            yield of, Block(heads, range(values.shape[1]), 0, values)
        self._states.clear()
