"""A reader of run directories that is made of docs/format.md alone: nothing here is attnprobe's."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open


def positions(runs: list[list[int]]) -> list[int]:
    return [position for run in runs for position in range(*run)]


def numbers(tensor: torch.Tensor, dtype: str) -> np.ndarray:
    if dtype != "log-uint8":
        return tensor.float().numpy() if dtype == "bfloat16" else tensor.numpy()
    codes = tensor.numpy().astype(np.float64)
    values = np.where(codes == 0, 0, 2 ** ((codes - 254) * 24 / 253))
    return np.where(codes == 255, np.nan, values).astype(np.float32)


def read_lines(path: Path) -> list[dict[str, Any]]:
    *lines, rest = path.read_bytes().split(b"\n")
    fitting = [line[:9] == b"%08x " % zlib.crc32(line[9:]) for line in lines]
    assert all(fitting[: len(lines) if rest else -1]), "a damaged line"
    return [json.loads(line[9:]) for line, fits in zip(lines, fitting, strict=True) if fits]


def read_tensor(run: Path, place: dict[str, Any]) -> torch.Tensor:
    with safe_open(run / "shards" / place["file"], "pt") as shard:
        return shard.get_tensor(place["tensor"])


def read_run(run: Path) -> dict[int, dict[str, Any]]:
    """All samples by number: the record, sequences, and fields by site, what and group as heads, rows and values."""
    assert json.loads((run / "manifest.json").read_text())["format"] <= 4
    journals = [(path.name, read_lines(path)) for path in (run / "journal").glob("*.jsonl")]
    journals.sort(
        key=lambda one: (next((line["writer"]["started"] for line in one[1] if "writer" in line), ""), one[0])
    )
    dropped = {name for _, lines in journals for line in lines for name in line.get("dropped", ())}
    taken: dict[int, dict[str, Any]] = {}
    names: dict[str, str] = {}
    later = []
    for journal, lines in journals:
        for record in (record for line in lines for record in line.get("samples", ())):
            blocks = [block for field in record["fields"] for block in field["blocks"]]
            parts = [part for one in record["sequences"].values() for part in one.values() if isinstance(part, dict)]
            if dropped & {place["file"] for place in blocks + parts}:
                continue
            if record.get("named") and names.setdefault(record["id"], journal) != journal:
                continue
            if record["index"] in taken:
                later.append(record)
            else:
                taken[record["index"]] = record
    for record in later:
        taken[max(taken) + 1] = record
    return {number: read_sample(run, record) for number, record in taken.items()}


def read_sample(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    sequences: dict[str, dict[str, Any]] = {}
    for name, one in record["sequences"].items():
        sequences[name] = {part: read_tensor(run, place) for part, place in one.items() if part != "length"}
        for part in {"tokens", "texts"} & one.keys():
            strings = sequences[name][part].numpy().tobytes().decode("utf-8", "surrogatepass")
            sequences[name][part] = json.loads(strings)
    fields = {}
    for field in record["fields"]:
        heads = positions(field["heads"])
        rows = sorted({row for block in field["blocks"] for row in positions(block["rows"])})
        width = max(block["start"] + block["shape"][2] for block in field["blocks"])
        values = np.zeros((len(heads), len(rows), width), np.int32 if field["dtype"] == "int32" else np.float32)
        for block in field["blocks"]:
            own, at = np.searchsorted(heads, positions(block["heads"])), np.searchsorted(rows, positions(block["rows"]))
            columns = range(block["start"], block["start"] + block["shape"][2])
            values[np.ix_(own, at, columns)] = numbers(read_tensor(run, block), field["dtype"])
        fields[field["site"], field["what"], field["group"]] = heads, rows, values
    return {"record": record, "sequences": sequences, "fields": fields}
