"""A small recording whose every number is known, and what must hold of its run whatever happened to it."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import safe_open
from store_contract import MANIFEST, block, field, sample, whole_map

from attnprobe.errors import StoreError
from attnprobe.fields import Sample
from attnprobe.store import directory, listing, shard
from attnprobe.store.base import Manifest
from attnprobe.store.directory import DirectoryWriter
from attnprobe.store.read_directory import DirectoryReader
from attnprobe.store.ring import Ring

GROUPS = ((0,), (1, 2, 3), (4,))  # samples that are flushed together; those of the second lie in two shards
ALL = tuple(index for group in GROUPS for index in group)
ROOM = 2048  # of a header

Promise = Callable[[Iterable[str]], None]


def make_small(change: Callable[[object, str, Any], None], in_turn: bool = True) -> None:
    """Small shards in small writes; `in_turn` one after the other, so that they come in one order always."""
    for module, name in ((shard, "HEADER"), (directory, "HEADER"), (directory, "LARGEST_HEADER")):
        change(module, name, ROOM)
    change(shard, "SIZE", ROOM + 2000)
    change(directory, "Ring", functools.partial(Ring, buffers=4, size=1000, threads=1 if in_turn else 2))
    if in_turn:
        put = listing.Listing.put
        change(listing.Listing, "put", lambda self, *group: (put(self, *group), self.wait())[0])


def name_of(index: int) -> str:
    return f"n{index}"


def record(
    run: Path,
    groups: Sequence[Sequence[int]] = GROUPS,
    promise: Promise = lambda names: None,
    manifest: Manifest = MANIFEST,
    workers: tuple[int, int] = (0, 1),
) -> None:
    """Record what the run lacks; `promise` is told what is durable."""
    writer = DirectoryWriter(run, manifest, resume=True, held=0, workers=workers)
    promise(writer.done)
    try:
        for group in groups:
            for index in group:
                if name_of(index) not in writer.done:
                    put(writer, index)
            writer.flush()
            promise(map(name_of, group))
    finally:
        writer.close()


def put(writer: DirectoryWriter, index: int) -> None:
    """Record a sample."""
    writer.write(field(index), block(range(8), 8, seed=index))
    parts = sample(index, ids=np.arange(8) + index)
    writer.commit(Sample(index, name_of(index), parts.sequences, parts.prompt_length, named=True))


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, as safetensors reads them."""
    with safe_open(path, "numpy") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)


def is_right(name: str, values: np.ndarray) -> bool:
    """Whether a tensor holds what `put` gave."""
    index, _, rest = name.partition("/")
    ids = np.arange(8) + int(index)
    expected = ids if rest == "sequences/main/ids" else block(range(8), 8, seed=int(index)).values.numpy()
    return values.dtype == expected.dtype and np.array_equal(values, expected)


def problems(run: Path, promised: Iterable[str] = ()) -> Iterator[str]:
    """What is wrong with a run; nothing is where there is none, and nothing was promised."""
    promised = set(promised)
    try:
        reader = DirectoryReader(run)
    except StoreError as error:
        if promised or "there is no run" not in str(error):
            yield f"does not open: {error}"
        return
    names = [one.id for one in reader.samples]
    if not promised <= set(names):
        yield f"promised and not listed: {promised - set(names)}"
    if len(set(names)) < len(names):
        yield f"listed twice: {names}"
    for one in reader.samples:
        try:
            values = whole_map(reader, (0, 1, 3), range(8), index=one.index)
            ids = one.sequences["main"].ids
        except StoreError as error:
            yield f"listed and broken: {one.id}: {error}"
        else:
            right = name_of(one.index) == one.id and is_right(f"{one.index}/", values)
            if not (right and is_right(f"{one.index}/sequences/main/ids", ids)):
                yield f"listed and wrong: {one.id}"
    for journal in reader.journals:
        for name, hashes in journal.hashes.items():
            try:
                found = tensors(run / "shards" / name)
            except Exception as error:
                yield f"listed and broken: {name}: {error}"
            else:
                if {key: xxhash.xxh3_64_hexdigest(data.tobytes()) for key, data in found.items()} != hashes:
                    yield f"listed with other checksums: {name}"
    for path in (run / "shards").iterdir():  # what nobody lists, too: no file opens that is not whole
        try:
            found = tensors(path)
        except FileNotFoundError:
            pass  # renamed meanwhile
        except Exception:
            if path.suffix == ".safetensors":
                yield f"finished and does not open: {path.name}"
        else:
            if not all(is_right(name, values) for name, values in found.items()):
                yield f"opens with wrong values: {path.name}"


def incomplete(run: Path, samples: Sequence[int] = ALL) -> Iterator[str]:
    """What is wrong with a run that should be complete, its writers gone."""
    yield from problems(run, map(name_of, samples))
    listed = {name for journal in DirectoryReader(run).journals for name in journal.shards}
    left = {path.name for path in (run / "shards").iterdir()} - listed
    left |= {path.name for path in run.iterdir()} - {"journal", "manifest.json", "shards"}
    if left:
        yield f"left behind: {left}"
