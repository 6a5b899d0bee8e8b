"""What a run says of its origin: model, configuration, versions."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from attnprobe.fields import Site
from attnprobe.keep import Kept
from attnprobe.store.base import Manifest
from attnprobe.version import VERSION

AT_ONCE = 1 << 18  # numbers of a parameter that the fingerprint sums at once
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def describe_model(model: nn.Module, hashed: bool = True) -> dict[str, Any]:
    """Class, name, revision, and hashes of the configuration and, if wanted, of the parameters of a model."""
    config: Any = getattr(model, "config", None)
    parameter = next(model.parameters(), None)
    return {
        "class": type(model).__name__,
        "name": getattr(config, "_name_or_path", None) or None,
        "revision": getattr(config, "_commit_hash", None),
        "config_xxh3": xxhash.xxh3_64_hexdigest(_configuration(config).encode()),
        "parameters_xxh3": fingerprint(model) if hashed else None,
        "attention": getattr(config, "_attn_implementation", None),
        "dtype": None if parameter is None else str(parameter.dtype).removeprefix("torch."),
        "device": None if parameter is None else parameter.device.type,
    }


def _configuration(config: Any) -> str:
    """A configuration as text, the same wherever it was read from."""
    if not hasattr(config, "to_json_string"):
        return repr(config)

    def placeless(part: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in part.items() if key != "_name_or_path"}

    return json.dumps(json.loads(config.to_json_string(use_diff=False), object_hook=placeless))


def fingerprint(model: nn.Module) -> str | None:
    """A hash of every parameter: of the sums of its rows and of its columns, as bits. One pass, on their device.

    None where parameters are not at hand (on the meta device, offloaded, sharded).
    """
    parts: dict[str, list[Tensor]] = {}
    for parameter in model.parameters():
        if type(parameter) is not nn.Parameter or parameter.device.type == "meta":
            return None
        parts.setdefault(str(parameter.device), []).extend(_sums(parameter.detach()))
    digest = xxhash.xxh3_64()
    for own in parts.values():  # one copy a device
        digest.update(torch.cat(own).cpu().numpy().tobytes())
    return digest.hexdigest()


def _sums(parameter: Tensor) -> list[Tensor]:
    """Sums of rows and of columns of the bits of a parameter, in int64, which wraps around."""
    if parameter.is_complex():
        parameter = torch.view_as_real(parameter)
    numbers = parameter.flatten(1) if parameter.dim() > 1 else parameter.reshape(-1, 1)  # it may be empty
    rows = numbers.contiguous().view(_BITS[parameter.itemsize])
    if rows.device.type == "cpu":  # many small sums of torch would each wake its threads
        return [torch.from_numpy(rows.numpy().sum(axis, dtype=np.int64)) for axis in (1, 0)]
    height = max(1, AT_ONCE // max(1, rows.shape[1]))
    across, down = [], torch.zeros(rows.shape[1], dtype=torch.int64, device=rows.device)
    for part in torch.split(rows, height):
        wide = part.long()
        across.append(wide.sum(1))
        down += wide.sum(0)
    return [*across, down]


def make_manifest(
    model: dict[str, Any],
    sites: Sequence[Site],
    keep: Sequence[Kept],
    text: bool,
    data: Mapping[str, Any] | None = None,
) -> Manifest:
    """The manifest of a recording that starts now."""
    return Manifest(
        model=model,
        sites=tuple(sites),
        keep=tuple(kept.describe() for kept in keep),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        text=text,
        data=data,
    )


def versions() -> dict[str, str]:
    """Versions of what determines the numbers."""
    found = {"attnprobe": VERSION, "python": platform.python_version()}
    return found | {package: _version(package) for package in ("torch", "transformers")}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
