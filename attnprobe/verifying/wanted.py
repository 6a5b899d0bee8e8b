"""What the records of samples say of each tensor: its dtype and shape, and what its values may be."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attnprobe.errors import CorruptRun
from attnprobe.fields import MAP, Site, decode_rows
from attnprobe.selection import Indices
from attnprobe.shapes import Float
from attnprobe.store.base import Manifest
from attnprobe.store.listed import Journalled
from attnprobe.store.records import Record
from attnprobe.store.shard_file import RAW, ShardFiles
from attnprobe.store.validate import PARTS, STORED
from attnprobe.verifying.findings import Counts
from attnprobe.verifying.tokens import IdsCheck, StringsCheck
from attnprobe.verifying.values import Check, FieldCheck, WeightsCheck

KNOWS_SINKS = 4  # the format from which on a block tells of a learned sink
KNOWS_ROUTES = 3  # and a site of its route
SINKS = 8  # arrays of sinks' masses that are held
Parsed = Mapping[str, Any]  # a record, or a part of one


@dataclass(frozen=True)
class Wanted:
    """One tensor of a sample: a part of a sequence, or a block of a field.

    Attributes
    ----------
    name, dtype, shape
        In safetensors' words; the shape is None where the values tell.
    index, record
        The sample's number in the run, and its record.
    part
        Of a sequence, its record and what of it: ``"ids"``.
    field, block
        Else the records of the field and of its block.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    index: int
    record: Parsed
    part: tuple[Parsed, str] | None = None
    field: Parsed | None = None
    block: Parsed | None = None

    @property
    def site(self) -> str | None:
        """The module's name."""
        return None if self.field is None else str(self.field["site"])


def tensors_of(index: int, record: Parsed) -> Iterator[tuple[str, Wanted]]:
    """The tensors of a sample whose record was checked, and the shards that they should be in."""
    for sequence in record["sequences"].values():
        for part in PARTS:
            if part in sequence:
                shape = (sequence["length"],) if PARTS[part] == "I64" else None
                place = sequence[part]
                yield (
                    place["file"],
                    Wanted(place["tensor"], PARTS[part], shape, index, record, part=(sequence, part)),
                )
    for field in record["fields"]:
        dtype = STORED[field["dtype"]]
        for block in field["blocks"]:
            shape = tuple(block["shape"])
            yield block["file"], Wanted(block["tensor"], dtype, shape, index, record, field=field, block=block)


class Checks:
    """Makes the check of each tensor.

    Parameters
    ----------
    path, manifest
        The run.
    records
        Its samples by number, with the journal that each comes from.
    """

    def __init__(self, path: Path, manifest: Manifest, records: Mapping[int, tuple[Record, Journalled]]) -> None:
        self._manifest, self._records = manifest, records
        self._sites = {site.key: site for site in manifest.sites}
        self._files = ShardFiles(path / "shards")
        self._lock = threading.Lock()
        self._sinks: OrderedDict[tuple[int, str], Float[np.ndarray, "head query"] | None] = OrderedDict()

    def make(self, wanted: Wanted, counts: Counts) -> Check:
        """The check of a tensor."""
        if wanted.part is not None:
            sequence, part = wanted.part
            return IdsCheck(part) if PARTS[part] == "I64" else StringsCheck(sequence["length"])
        assert wanted.field is not None and wanted.block is not None
        field, block, raw = wanted.field, wanted.block, RAW[wanted.dtype]
        site = self._sites[field["site"]]
        if field["what"] != "weights":
            keys = wanted.record["sequences"][site.keys]["length"]
            return FieldCheck(field["what"], field["dtype"], raw, keys, self._is_free(field))
        told = self._manifest.format >= KNOWS_SINKS
        return WeightsCheck(
            dict(block),
            field["dtype"],
            raw,
            whole=self._is_whole(field["group"]),
            sink=partial(self._sink, wanted.index, site),
            has_sink=True if block.get("sink") is True else False if told else None,
            causal=block.get("causal") is True and site.queries == site.keys,
            given=site.route == "returned" or self._manifest.format < KNOWS_ROUTES,
            counts=counts,
        )

    def _is_whole(self, group: int) -> bool:
        """Whether a group keeps all keys of its rows."""
        keep = self._manifest.keep
        return group < len(keep) and Indices.parse(keep[group].get("keys", "all"), "keys").everything

    def _is_free(self, field: Parsed) -> bool:
        """Whether a field is a measure of the user's own, whose values may be any."""
        keep, group = self._manifest.keep, field["group"]
        measures = keep[group].get("measures", ()) if group < len(keep) else ()
        name = str(field["what"]).removesuffix(".mean")
        return any(one.get("own") is True and str(one["name"]).removesuffix(".mean") == name for one in measures)

    def _sink(self, index: int, site: Site) -> Float[np.ndarray, "head query"] | None:
        """The mass of a learned sink where it was kept as a measure, whatever group it is in."""
        with self._lock:
            key = index, site.key
            if key not in self._sinks:
                self._sinks[key] = self._read_sink(index, site)
                if len(self._sinks) > SINKS:
                    self._sinks.popitem(last=False)
            return self._sinks[key]

    def _read_sink(self, index: int, site: Site) -> Float[np.ndarray, "head query"] | None:
        stored, journal = self._records[index]
        record = stored.load()
        length = record["sequences"][site.queries]["length"]
        found: np.ndarray | None = None
        for field in record["fields"]:
            if field["site"] != site.key or field["what"] != "sink_mass" or field.get("axes", list(MAP)) != ["query"]:
                continue
            found = np.full((site.heads, length), np.nan, np.float32) if found is None else found
            for block in field["blocks"]:
                try:
                    file = self._files.get(block["file"], journal.shards[block["file"]])
                    values = file.whole(file.entry(block["tensor"], STORED[field["dtype"]], tuple(block["shape"])))
                except CorruptRun:
                    continue  # that shard's own check says so
                found[np.ix_(list(decode_rows(block["heads"])), list(decode_rows(block["rows"])))] = values[..., 0]
        return found
