"""Makes plans of a model and what is to be kept of it, and refuses what does not fit."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnprobe.errors import BudgetError, SelectionError
from attnprobe.keep import Item, Kept, Measures, TopK, Weights, resolve
from attnprobe.planning import free, operations
from attnprobe.planning.kept import kept_bytes
from attnprobe.planning.limit import Limit
from attnprobe.planning.load import Geometry, Load, Setting
from attnprobe.planning.near import alternatives, as_code, as_options
from attnprobe.planning.plan import Entry, Plan, Room, Suggestion
from attnprobe.planning.working import working
from attnprobe.sites import Anatomy
from attnprobe.sizes import format_bytes
from attnprobe.store.join import BLOCK
from attnprobe.store.shard import HEADER, SIZE

WAITING_IN_MEMORY = 64 * BLOCK  # what the memory store holds back at most
OF_A_TOKEN = 40  # bytes on disk of its id, its string and its text


class Planner:
    """Plans recordings of one model.

    Parameters
    ----------
    model, anatomy
        The model and its sites; nothing of it is run, and its numbers are not read.
    items
        What is kept.
    budget
        Bytes of working memory.
    to
        Run directory, or None for memory.
    device
        Where the model will run; None for where it is (for a model on the meta device, the CPU).
    stream
        The only sequence whose rows are planned; None for all of them.

    Raises
    ------
    SelectionError
        If an item selects what the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        items: Sequence[Item],
        budget: int,
        to: Path | None,
        device: torch.device | None = None,
        stream: str | None = None,
    ) -> None:
        self._model, self._anatomy, self._items, self._stream = model, anatomy, tuple(items), stream
        self._kept = tuple(self._resolve(item, group) for group, item in enumerate(items))
        self._shapes = tuple(map(Geometry.of, anatomy.sites, anatomy.modules))
        self._budget, self._to = budget, to
        own = next((p.device for p in anatomy.main.backbone.parameters()), torch.device("cpu"))
        at = own if device is None else device
        self._device = torch.device("cpu") if at.type == "meta" else at
        self._unloaded = sum(p.numel() * p.element_size() for p in model.parameters() if p.is_meta)
        self._limit = Limit(anatomy.sites, self._shapes, self._kept, budget, to is None, self._on_cpu)

    def _resolve(self, item: Item, group: int) -> Kept:
        """An item's heads, at sites of the stream."""
        kept, sites = resolve(item, group, self._anatomy.sites), self._anatomy.sites
        here = {n: heads for n, heads in kept.heads.items() if self._stream in (None, sites[n].queries)}
        return replace(kept, heads=here)

    @property
    def _named(self) -> set[str]:
        """Sequences that selected rows or columns are of."""
        sites = (self._anatomy.sites[number] for kept in self._kept for number in kept.heads)
        return {name for site in sites for name in (site.queries, site.keys)}

    @property
    def _on_cpu(self) -> bool:
        return self._device.type == "cpu"

    def _setting(self, load: Load) -> Setting:
        held = WAITING_IN_MEMORY if self._to is None else self._budget // 4
        sites = self._anatomy.sites
        return Setting(sites, self._shapes, self._kept, load, self._budget, self._on_cpu, held, self._to is not None)

    def _free(self) -> Room:
        """What is free, less what the model will take that is not loaded yet."""
        host, device = free.host(), free.accelerator(self._device)
        if self._unloaded and self._on_cpu and host is not None:
            host = max(0, host - self._unloaded)
        elif self._unloaded and device is not None:
            device = max(0, device - self._unloaded)
        return Room(host, device, None if self._to is None else free.disk(self._to.absolute()))

    # --- plans -------------------------------------------------------------------------------------------------------

    def plan(self, load: Load, generate: int = 0) -> Plan:
        """What recording this load takes; where it does not fit, with the nearest selections that do.

        Raises
        ------
        BudgetError
            If one row does not fit the budget.
        """
        plan = self._plan(load, generate, self._free())
        alone = [plan.need]
        if len(self._items) > 1:
            alone = [self._of([item])._plan(load, generate, plan.free).need for item in self._items]
        entries = tuple(replace(one, need=need) for one, need in zip(plan.entries, alone, strict=True))
        plan = replace(plan, entries=entries, notes=tuple(self._notes(plan, load, generate)))
        return plan if plan.fits else replace(plan, suggestions=self._suggest(load, generate))

    def _of(self, items: Sequence[Item], *where: Any) -> "Planner":
        """Other items on the same model; with another budget and directory, if they are given."""
        budget, to = where or (self._budget, self._to)
        return Planner(self._model, self._anatomy, items, budget, to, self._device, self._stream)

    def _plan(self, load: Load, generate: int, room: Room) -> Plan:
        setting = self._setting(load)
        kept, cost = kept_bytes(setting), operations.work(setting)
        entries = []
        for one, nbytes in zip(self._kept, kept.items, strict=True):
            run = [site for site in one.heads if setting.runs(site)]
            entries.append(
                Entry(
                    _words(one.item),
                    len(run),
                    sum(len(one.heads[site]) for site in run),
                    max((setting.load_of(site).kept_rows(one.selection) for site in run), default=0),
                    nbytes,
                    cost[one.group].operations,
                    cost[one.group].moved,
                )
            )
        own = operations.attention(self._shapes, load)
        return Plan(
            model=type(self._model).__name__,
            device=str(self._device),
            batch=load.batch,
            tokens=load.tokens,
            generate=generate,
            others=dict(load.others),
            uncounted=tuple(sorted(name for name in self._named if not load.length_of(name))),
            entries=tuple(entries),
            to=None if self._to is None else str(self._to),
            budget=self._budget,
            need=self._need(setting, sum(kept.items), kept.held),
            free=room,
            attention=own,
            forward=operations.forward(self._model, self._anatomy.streams, own, load),
        )

    def _need(self, setting: Setting, nbytes: int, held: int) -> Room:
        """What is taken at most, beside the model's own."""
        in_memory = self._to is None
        used = working(setting, in_memory)
        rows, ends = (nbytes - used.ends, used.ends) if in_memory else (held, 0)  # a state goes when its values come
        if self._on_cpu:
            host, device = rows + max(used.states, ends) + used.tiles, None
        else:
            host, device = rows + ends + used.flying, used.states + used.tiles
        disk = nbytes + HEADER * (1 + nbytes // SIZE) + OF_A_TOKEN * setting.load.batch * setting.load.total
        return Room(host, device, None if in_memory else disk)

    def _suggest(self, load: Load, generate: int) -> tuple[Suggestion, ...]:
        """Near selections that fit, those that keep most first."""

        def fitting(items: Sequence[Item], to: Path | None, budget: int) -> Plan | None:
            planner = self._of(items, budget, to)
            room = planner._free()
            if 0 in (room.host, room.device, room.disk):
                return None
            try:
                found = planner._plan(load, generate, room)
            except BudgetError:
                return None
            return found if found.fits else None

        sites = self._anatomy.sites
        pairs = {(sites[n].layer, head) for kept in self._kept for n, heads in kept.heads.items() for head in heads}
        found = []
        for choice, plan in alternatives(self._items, sorted(pairs), load, self._to, self._budget, fitting):
            items, to, budget = choice
            options = as_options(items, None if to == self._to else to, budget)
            found.append(Suggestion(as_code(*choice), options, plan.nbytes, items, plan.to, budget))
        return tuple(sorted(found, key=lambda one: -one.nbytes))

    def _notes(self, plan: Plan, load: Load, generate: int) -> Iterator[str]:
        """Measures that take more than the weights that they are of: short texts have pooled maps of single weights."""

        def nbytes(item: Item) -> int:
            return self._of([item])._plan(load, generate, plan.free).nbytes

        for item, entry in zip(self._items, plan.entries, strict=True):
            if not isinstance(item, Measures) or not entry.nbytes:
                continue
            rows = {one.name: getattr(item, one.name) for one in fields(item) if one.name != "names"}
            weights = nbytes(Weights(**rows, pyramid=False))
            if entry.nbytes <= weights:
                continue
            names = [str(one["name"]) for one in item.describe()["measures"]]
            others = [name for name in names if not name.startswith("pooled_")]
            fix = "name fewer"
            if len(others) < len(names) and others and not any(one.own for one in item.chosen):
                with suppress(SelectionError):  # of several kinds of sites, where a name of its own is too much for one
                    less = format_bytes(nbytes(replace(item, names=others)))
                    fix = f"without their pooled maps they take {less}: name the others, as in measures:means,entropy"
            yield (
                f"of {load.total:,} tokens, {entry.what} take {format_bytes(entry.nbytes)}, more than the weights "
                f"themselves ({format_bytes(weights)} in float32): keep these, or {fix}"
            )

    # --- the check of a recorder -------------------------------------------------------------------------------------

    def check(self, load: Load, resumed: bool = False) -> None:
        """Refuse what does not fit what is free now; quick where it fits by far.

        Of a run that is gone on with (`resumed`), no other selection is suggested.

        Raises
        ------
        BudgetError
            If it does not fit, or one row does not fit the budget.
        """
        room, most = self._free(), self._limit.of(load)
        pairs = (room.host, most.host), (room.device, most.device), (room.disk, most.disk)
        if any(there is not None and taken is not None and taken > there for there, taken in pairs):
            self.plan(load).check(resumed=resumed)


def _words(item: Item) -> str:
    """What is kept, in words."""
    if isinstance(item, Measures):
        count = len(item.chosen)
        return f"{count} {'measure' if count == 1 else 'measures'}"
    return f"top {item.k} {item.dtype}" if isinstance(item, TopK) else f"weights {item.dtype}"
