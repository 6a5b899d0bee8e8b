"""One head: what was kept of it, and what a few of its rows tell, such as where a scale of colours has to begin."""

import math
from typing import Any

import numpy as np

from attnprobe.codes import LEAST, as_float32
from attnprobe.explorer.asked import Asked
from attnprobe.explorer.frames import Answer
from attnprobe.fidelity import SiteFidelity
from attnprobe.fields import WEIGHT_DTYPES, Site
from attnprobe.head import Head
from attnprobe.pyramid import HOWS, LAST
from attnprobe.shapes import Float, Int

SAMPLED = 64  # rows
OF_ROW = 1 << 14  # weights of a row that quantiles are of
# Quantiles of the weights above zero, and the least and the most that lies between them: half of the weights are as
# dark as can be told apart from none, for what a picture has to show is what stands out.
LOW, HIGH = 0.5, 0.9995
NARROWEST, WIDEST = 10, 1e5
# The smallest number that a dtype has in full precision.
SMALLEST = {"float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126, "log-uint8": LEAST}


def head(asked: Asked) -> Answer:
    """What there is of one head; of one without weights, that there are none."""
    return Answer(asked.once(lambda: _head(asked), "head", asked.head.number))


def _head(asked: Asked) -> dict[str, Any]:
    one, fidelity = asked.head, asked.view.run.fidelity
    about = {"title": title_of(one.site, one.number), "shape": one.shape, "dtype": one.dtype, "last": LAST}
    found = fidelity.get(one.site.key) if fidelity is not None else None
    about["fidelity"] = None if found is None else words_of(found)
    if not one.has_weights:
        nothing = {"low": None, "high": None, "max": None}
        about |= {"rows": [], "columns": (0, 0), "levels": {how: () for how in HOWS}}
        return {**about, "limits": nothing, "underflow": None, "sampled": 0, "row_sum_error": None}
    kept = one.kept_keys
    about |= {
        "rows": runs_of(one.kept),
        "columns": (kept.start, kept.stop),
        "levels": {how: one.levels.kept_of(how) for how in HOWS},
    }
    return {**about, **sampled(one)}


def title_of(site: Site, number: int) -> str:
    """What a head is called: ``layer 5, head 1``, and of which attention where it is not a decoder's own."""
    more = ", ".join([*([site.part] if site.part != "decoder" else []), *([site.kind] if site.kind != "self" else [])])
    return f"layer {site.layer}, head {number}" + (f" ({more})" if more else "")


def words_of(found: SiteFidelity) -> str:
    """What was found of a site's weights while they were recorded."""
    if found.difference is None:
        text = f"not compared with the kernel ({found.reason or 'not applicable'})"
    else:
        text = f"weights times values within {found.difference:.1e} of what the kernel returned"
    text += f", row sums within {found.row_sum:.1e} of 1"
    return text if found.fine else f"{text}: more than rounding explains"


def runs_of(positions: tuple[int, ...]) -> list[tuple[int, int]]:
    """Runs of ascending positions, as start and stop."""
    there = np.asarray(positions, np.int64)
    cuts = np.flatnonzero(np.diff(there) != 1) + 1
    starts, stops = np.concatenate([there[:1], there[cuts]]), np.concatenate([there[cuts - 1], there[-1:]]) + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def spread(count: int) -> Int[np.ndarray, " row"]:
    """The numbers of at most `SAMPLED` things of `count`, the first and the last, and others evenly between."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, SAMPLED))).astype(np.int64))


def limits_of(positive: Float[np.ndarray, " weight"]) -> tuple[float, float]:
    """The weights at which a scale of colours begins and ends."""
    low, high = np.quantile(positive.astype(np.float64), [LOW, HIGH]).tolist()
    return min(max(low, high / WIDEST), high / NARROWEST), high


def sampled(one: Head) -> dict[str, Any]:
    """What at most 64 kept rows tell, spread evenly; always the same ones.

    ``limits`` are quantiles of the weights above zero (50 % and 99.95 %, ten to 100,000 times apart), and the largest,
    which is that of the whole map where the run keeps levels. ``underflow`` counts, of each row, from its first weight
    that is not zero to its last one, those that are zero or below the smallest number that their dtype has in full
    precision. So what a causal rule or a window leaves out is not counted, nor what a row lost at its ends.
    ``row_sum_error`` is the largest distance of a row's sum from 1, a learned sink's mass included where it was kept;
    None where not all of the keys were kept, or just the mean of a sink's mass.
    """
    rows = np.asarray(one.kept, np.int64)[spread(len(one.kept))] if len(one.kept) else np.zeros(0, np.int64)
    smallest = SMALLEST[min(one.dtype.split(", "), key=WEIGHT_DTYPES.index)]
    parts, sums, largest, possible, lost = [], [], 0.0, 0, 0
    for row in rows.tolist():
        weights = read_row(one, row)
        sums.append(float(weights.sum(dtype=np.float64)))
        there = np.flatnonzero(weights)
        if not len(there):
            continue
        inner = weights[there[0] : there[-1] + 1]
        possible += int((inner == inner).sum())
        lost += int((inner < smallest).sum())
        above = weights[weights > 0]
        largest = max(largest, float(above.max(initial=0.0)))
        parts.append(above[:: -(-len(above) // OF_ROW) or 1])
    every = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    low, high = limits_of(every) if len(every) else (None, None)
    return {
        "limits": {"low": low, "high": high, "max": max(largest, _largest(one)) or None},
        "underflow": lost / possible if possible else None,
        "sampled": len(rows),
        "row_sum_error": _sum_error(one, rows, np.array(sums)),
    }


def read_row(one: Head, row: int) -> Float[np.ndarray, " key"]:
    """One row over the kept columns, as float32."""
    kept = one.kept_keys
    whole = len(kept) == one.shape[1]  # which a head reads by a shorter way
    values: np.ndarray = one[row] if whole else one[row, kept.start : kept.stop]
    return as_float32(values)


def _largest(one: Head) -> float:
    """The largest weight of the coarsest level that the run keeps; 0 where it keeps none."""
    levels = one.levels.kept_of("max")
    if not levels:
        return 0.0
    found = float(np.fmax.reduce(one.levels.read(levels[-1]), axis=None, initial=0.0))
    return found if math.isfinite(found) else 0.0


def _sum_error(one: Head, rows: Int[np.ndarray, " row"], sums: Float[np.ndarray, " row"]) -> float | None:
    names = one.measures.names
    if len(one.kept_keys) < one.shape[1] or ("sink_mass.mean" in names and "sink_mass" not in names):
        return None
    if "sink_mass" in names:
        sink = one.measures["sink_mass"]
        mass = dict(zip(sink.coords["query"], sink.values.tolist(), strict=True))
        sums = sums + np.array([mass.get(row, math.nan) for row in rows.tolist()])
    sums = sums[sums != 0]  # a row without any key
    return float(np.abs(sums - 1).max()) if len(sums) else None
