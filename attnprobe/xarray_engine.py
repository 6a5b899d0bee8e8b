"""A run as one lazy xarray dataset: ``xr.open_dataset(run, engine="attnprobe")`` (needs the ``xarray`` extra)."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing  # where its page on backends says that it is

from attnprobe.arrays import SampleArray
from attnprobe.errors import SelectionError
from attnprobe.run import Run, open_run
from attnprobe.shapes import Shaped
from attnprobe.variables import Contents, contents

EDGES = 48  # distances whose lower edges are told: all that a sample may have


class AttnprobeBackend(BackendEntrypoint):  # type: ignore[misc]
    """What xarray calls to open a run."""

    description = "Attention weights and measures that attnprobe recorded"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "variables")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this is a run, or looks like the directory of one; never raises."""
        if isinstance(filename_or_obj, Run):
            return True
        try:
            path = Path(os.fspath(filename_or_obj))
            return (path / "manifest.json").is_file() and (path / "journal").is_dir()
        except (OSError, TypeError, ValueError):
            return False

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        variables: str | Iterable[str] | None = None,
    ) -> Any:
        """Open a run; no value is read.

        Weights are ``[sample, layer, head, query, key]`` in float32, NaN where there is none: behind the end of a
        shorter sample, and where nothing was kept.

        Parameters
        ----------
        filename_or_obj
            The directory of a run, or a `Run`.
        drop_variables
            Names that are left out, there or not.
        variables
            Names of the only ones that are wanted. The axes of layers and heads have what these kept, so the fewer, the
            smaller; chunks of measures alone are larger than those beside weights.

        Raises
        ------
        SelectionError
            If `filename_or_obj` is neither, or there is no variable of a name.
        StoreError
            If there is no run, or one that this version does not read.
        """
        if isinstance(filename_or_obj, Run):
            run = filename_or_obj
        elif isinstance(filename_or_obj, str | os.PathLike):
            run = open_run(Path(os.fspath(filename_or_obj)))
        else:
            raise SelectionError(f"{type(filename_or_obj).__name__} is no run; give a Run, or the directory of one")
        only = None if variables is None else _names(variables)
        return _dataset(run, contents(run.reader, only, _names(drop_variables or ())))


class LazyArray(BackendArray):  # type: ignore[misc]
    """A variable that is read when it is indexed: picklable and safe from several threads as its reader is."""

    def __init__(self, array: SampleArray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: Any) -> Any:
        # xarray turns steps and lists of positions so that they ascend.
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Shaped[np.ndarray, "..."]:
        positions = [
            np.arange(*one.indices(length)) if isinstance(one, slice) else np.atleast_1d(np.asarray(one, np.int64))
            for one, length in zip(key, self.shape, strict=True)
        ]
        for one, length in zip(positions, self.shape, strict=True):  # behind the end is NaN, and no mistake, to arrays
            if len(one) and not 0 <= one.min() <= one.max() < length:
                raise IndexError(f"position {one.max()} is out of range: there are {length}")
        kept = [len(one) for of, one in zip(key, positions, strict=True) if isinstance(of, slice) or np.ndim(of)]
        return self.array.read(*positions).reshape(kept)


def _dataset(run: Run, found: Contents) -> Any:
    chunks = found.chunks
    data = {}
    for name, one in found.variables.items():
        lazy = indexing.LazilyIndexedArray(LazyArray(one.array))
        encoding = {"preferred_chunks": {dim: chunks[dim] for dim in one.dims}}
        data[name] = xarray.Variable(one.dims, lazy, dict(one.attrs), encoding)
    by_sample = {"preferred_chunks": {"sample": chunks["sample"]}}
    coords: dict[str, Any] = {
        "sample": ("sample", np.array(found.ids, object)),
        "layer": ("layer", np.array(found.layers, np.int64)),
        "head": ("head", np.array(found.heads, np.int64)),
        **{name: xarray.Variable("sample", own, {}, by_sample) for name, own in found.lengths.items()},
    }
    for one in found.variables.values():
        for dim, axis, size in zip(one.dims[3:], one.array.axes, one.array.shape[3:], strict=False):
            if axis == "distance" and size <= EDGES:
                coords[dim] = dim, np.array([0, *(1 << bit for bit in range(size - 1))][:size], np.int64)
    manifest = run.manifest
    attrs = {
        **{f"model_{name}": value for name, value in manifest.model.items() if isinstance(value, str)},
        **{f"version_{name}": version for name, version in manifest.versions.items()},
        "created": manifest.created,
    }
    return xarray.Dataset(data, coords, attrs)


def _names(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
