"""How much is computed beside the model: estimates, to compare selections by."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from attnprobe.fields import DTYPES
from attnprobe.keep import Kept, TopK, Weights, together
from attnprobe.planning.load import Geometry, Load, Setting, follows
from attnprobe.planning.metered import meter, present
from attnprobe.sites import Stream

SOFTMAX = 5  # operations a weight: largest, difference, exponential, sum, quotient
MADE = 3  # times that a weight is moved to be made: the product written, read and written by the softmax
ENCODED = 6  # operations a weight of "log-uint8": a logarithm, scaled, shifted, bounded on both sides, rounded
TOP = 3  # and to find the largest: taken, compared, summed


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes read and written."""

    operations: int
    moved: int


def work(setting: Setting) -> dict[int, Work]:
    """What each item costs, by group; tiles that several items share are counted with the first one.

    Raises
    ------
    BudgetError
        If one row does not fit the budget.
    """
    found = {kept.group: Work(0, 0) for kept in setting.kept}
    for group in together(setting.kept):
        for site in group[0].heads:
            if not setting.runs(site):
                continue
            count = setting.load.batch * _weights(setting, site, group[0])
            shape = setting.shapes[site]
            for kept in group:
                operations, moved = _of_a_weight(setting, site, kept)
                if kept is group[0]:
                    operations, moved = operations + 2 * shape.dim + SOFTMAX, moved + MADE * shape.itemsize
                before = found[kept.group]
                found[kept.group] = Work(before.operations + int(operations * count), before.moved + int(moved * count))
    return found


def _weights(setting: Setting, site: int, kept: Kept) -> int:
    """Weights that are made of a sample, the empty corners of tiles included."""
    load, shape, heads = setting.load_of(site), setting.shapes[site], len(kept.heads[site])
    total = sum(tiles.heads * tiles.weights for tiles in setting.tiles(site, kept))
    if not load.fed or not follows(kept):
        return total
    first, last = shape.columns(load, 1), shape.columns(load, load.fed)
    return total + heads * load.fed * (first + last) // 2


def _of_a_weight(setting: Setting, site: int, kept: Kept) -> tuple[float, float]:
    """Operations and bytes moved for one weight, once it is made."""
    if isinstance(kept.item, Weights):
        return float(ENCODED * (kept.item.dtype == "log-uint8")), float(4 + DTYPES[kept.item.dtype])
    if isinstance(kept.item, TopK):
        return float(TOP), 4.0 * TOP
    cut = setting.tiles(site, kept) or setting.tiles(site, kept, setting.load_of(site).fed)
    if not cut:
        return 0.0, 0.0
    where, cross, sink = setting.sites[site], setting.shapes[site].cross, setting.shapes[site].sink
    found = meter(present(kept.item, where, sink), cross, sink, cut[0].heads, cut[0].rows, cut[0].columns)
    return found.operations, found.moved


def attention(shapes: tuple[Geometry, ...], all_streams: Load) -> int:
    """Operations of the model's own attention kernels: both products and the softmax, of what a row can see."""
    total = 0
    for shape in shapes:
        load = all_streams.of(shape.queries)
        if shape.cross:
            pairs = (load.length - load.start) * load.length_of(shape.keys)
        elif shape.causal:
            pairs = (load.length * (load.length + 1) - load.start * (load.start + 1)) // 2
        else:
            pairs = (load.length - load.start) * load.length
        total += load.batch * shape.heads * pairs * (4 * shape.dim + SOFTMAX)
    return total


def forward(model: nn.Module, streams: Sequence[Stream], own: int, load: Load) -> int:
    """Operations of the model's forward passes: two a token for every number of its matrices, and attention's `own`."""
    runs: dict[int, int] = {}
    for key, module in model.named_modules():
        inside = [stream for stream in streams if stream.key and f"{key}.".startswith(f"{stream.key}.")]
        at = load.of(max(inside, key=lambda stream: len(stream.key)).name) if inside else load
        for parameter in module.parameters(recurse=False):
            if parameter.dim() > 1 and not isinstance(module, nn.Embedding):
                runs[id(parameter)] = parameter.numel() * (at.length - at.start)
    return 2 * int(sum(runs.values())) * load.batch + own
