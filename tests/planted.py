"""A run whose maps are long, made up, and known: what a viewer has to show is planted in them.

Made by the library's own writer and no model, so that 16,384 tokens take seconds. Head 0 of layer 0 has all weights
below the diagonal: much on the first token, on the one before, on the one behind the token's earlier self (the second
half of the tokens repeats the first), noise that half precision partly loses, and needles. All other heads look back
through a window, which is quick to write.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from attnprobe.fields import STATISTICS, Block, Field, Sample, Site, TokenSequence
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter

NASTY = "</script><img onerror=alert(1) src=x>"
TEXT = "Maia is a cute little baby who likes to explore her world and the things that she finds in it"
FIRST, PREVIOUS, INDUCTION, OTHERS = 0.3, 0.2, 0.15, 0.35  # shares of a row
ROWS = 128  # of a block
NOISE = 1 << 21
UNITS = {"entropy": "nats", "max": "mass", "first_mass(1)": "mass", "previous": "mass"}


@dataclass(frozen=True)
class Needle:
    """One weight of head 0 of layer 0 that is much larger than those around it, as it is stored."""

    query: int
    key: int
    weight: float


@dataclass(frozen=True)
class Planted:
    """What was written.

    Attributes
    ----------
    path
        The run directory.
    needles
        Of head 0 of layer 0, by query.
    tokens, texts
        Of the main sequence; `nasty` is the position of the token that is called like markup.
    period
        After so many positions tokens come again.
    sites
        Keys of the sites, a layer each.
    """

    path: Path
    needles: tuple[Needle, ...]
    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    nasty: int
    period: int
    sites: tuple[str, ...]


def planted_run(
    path: Path, tokens: int = 16_384, needles: int = 40, heads: int = 2, layers: int = 2, seed: int = 0
) -> Planted:
    """Write the run.

    Parameters
    ----------
    path
        Where: it must not exist.
    tokens
        Length of the sample, at least 64.
    needles
        How many weights stand out.
    heads, layers
        Of the model.
    seed
        Of all that is random.
    """
    random = np.random.default_rng(seed)
    sites = [Site(f"h.{layer}.attn", "self", "decoder", layer, heads, heads) for layer in range(layers)]
    axes = [{"name": name, "unit": unit, "axes": ["query"]} for name, unit in UNITS.items()]
    keep = (
        {"what": "weights", "dtype": "float16", "pyramid": True, "layers": "all", "heads": "all", "keys": "all"},
        {"what": "measures", "measures": axes, "layers": "all", "heads": "all", "keys": "all"},
    )
    manifest = Manifest({"class": "Planted", "name": "planted"}, sites, keep, {}, "2025-01-01T00:00:00+00:00")
    period = tokens // 2
    queries = np.sort(random.choice(np.arange(tokens // 8, tokens), needles, replace=False))
    # Away from the first token, the one before, and the one behind the earlier self.
    keys = np.array([random.integers(2, min(query - 2, period - 2)) for query in queries.tolist()])
    keys[keys == queries - period + 1] += 1
    sizes = random.uniform(0.05, 0.5, needles)
    noise = np.exp(1.5 * random.standard_normal(NOISE, np.float32))

    writer = DirectoryWriter(path, manifest)
    found: list[Needle] = []
    for layer, site in enumerate(sites):
        field = Field(0, site, 0, tuple(range(heads)), "float16")
        figures = np.full((len(UNITS), heads, tokens), np.nan, np.float32)
        for first in range(0, tokens, ROWS):
            rows = range(first, min(tokens, first + ROWS))
            for head in range(heads):
                whole = layer == head == 0
                window = tokens if whole else max(16, (256 << (layer + head) % 3) * tokens // 16_384)
                start = max(0, rows.start - window + 1)
                values = _rows(rows, start, window, period, noise, random)
                if whole:
                    _plant(values, rows, queries, keys, sizes)
                stored = torch.from_numpy(values).half()
                if whole:
                    here = np.flatnonzero((queries >= rows.start) & (queries < rows.stop)).tolist()
                    found += [
                        Needle(int(queries[n]), int(keys[n]), float(stored[queries[n] - rows.start, keys[n]]))
                        for n in here
                    ]
                figures[:, head, rows.start : rows.stop] = _measures(values, rows, start)
                writer.write(field, Block((head,), rows, start, stored[None], causal=True, longest=tokens))
        _write_measures(writer, site, figures)
    words = TEXT.split()
    strings = [words[n] for n in random.integers(0, len(words), period)]
    nasty = period // 2
    strings[nasty] = NASTY
    strings = (strings * 3)[:tokens]
    names = {word: number for number, word in enumerate(dict.fromkeys(strings))}
    ids = np.array([names[word] for word in strings], np.int64)
    shown, texts = tuple(f"Ġ{word}" for word in strings), tuple(f" {word}" for word in strings)
    shown = tuple(NASTY if word == NASTY else one for word, one in zip(strings, shown, strict=True))
    writer.commit(Sample(0, "planted", {"main": TokenSequence(tokens, ids, shown, texts)}, tokens))
    writer.close()
    return Planted(path, tuple(found), shown, texts, nasty, period, tuple(site.key for site in sites))


def _rows(
    rows: range, start: int, window: int, period: int, noise: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Some rows of weights from a column on, float32: noise below the diagonal, and stripes."""
    width = rows.stop - start
    values = np.empty((len(rows), width), np.float32)
    for at in range(len(rows)):
        offset = int(random.integers(0, NOISE - 1))
        part = noise[offset : offset + width]
        values[at, : len(part)] = part
        values[at, len(part) :] = noise[: width - len(part)]
    query, key = np.arange(rows.start, rows.stop)[:, None], np.arange(start, rows.stop)
    values *= (key <= query) & (key > query - window)
    values *= OTHERS / values.sum(1, keepdims=True)
    at = np.arange(len(rows))
    for share, columns in ((FIRST, 0 * at), (PREVIOUS, rows.start + at - 1), (INDUCTION, rows.start + at - period + 1)):
        inside = (columns >= start) & (columns > rows.start + at - window) & (columns <= rows.start + at)
        values[at[inside], columns[inside] - start] += share
    values /= values.sum(1, keepdims=True)
    return values


def _plant(values: np.ndarray, rows: range, queries: np.ndarray, keys: np.ndarray, sizes: np.ndarray) -> None:
    """Give needles their share of their rows, of which these are from column 0 on."""
    for number in np.flatnonzero((queries >= rows.start) & (queries < rows.stop)).tolist():
        row = values[queries[number] - rows.start]
        row[keys[number]] = 0
        row *= (1 - sizes[number]) / row.sum()
        row[keys[number]] = sizes[number]


def _measures(values: np.ndarray, rows: range, start: int) -> np.ndarray:
    """Entropy, largest weight, mass on the first key and on the token before, of each row."""
    at, query = np.arange(len(rows)), np.arange(rows.start, rows.stop)
    logarithms = np.log(values, where=values > 0, out=np.zeros_like(values))
    there = query - 1 >= start
    before = np.where(there, values[at, np.maximum(query - 1 - start, 0)], np.nan if start == 0 else 0)
    first = values[:, 0] if start == 0 else np.zeros(len(rows))
    return np.stack([-np.einsum("ij,ij->i", values, logarithms), values.max(1), first, before])


def _write_measures(writer: DirectoryWriter, site: Site, figures: np.ndarray) -> None:
    heads = tuple(range(figures.shape[1]))
    for name, values in zip(UNITS, figures, strict=True):
        rows = Field(0, site, 1, heads, "float32", name, ("query",))
        writer.write(rows, Block(heads, range(values.shape[1]), 0, torch.from_numpy(values[..., None].copy())))
        table = np.stack([np.nanmean(values, 1), np.nanstd(values, 1), np.isfinite(values).sum(1)], 1)
        means = Field(0, site, 1, heads, "float32", f"{name}.mean", ("statistic",))
        block = torch.from_numpy(table.astype(np.float32)[..., None])
        writer.write(means, Block(heads, range(len(STATISTICS)), 0, block))
