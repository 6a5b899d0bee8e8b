"""The rows of files, or of a dataset on the hub, as Arrow tables, streamed by the ``datasets`` library."""

import glob
import tempfile
from collections.abc import Generator, Sequence
from typing import Any

from attnprobe.corpus.files import Files
from attnprobe.corpus.hub import Hub
from attnprobe.errors import SelectionError

AT_ONCE = 100  # rows of a table: some have megabytes


def is_lines(source: Files | Hub) -> bool:
    """Whether the tables have one column, ``"text"``, of lines of JSON each: rows may then have different columns."""
    return isinstance(source, Files) and source.format == "jsonl"


def read_tables(source: Files | Hub, columns: Sequence[str]) -> Generator[Any]:
    """Tables of up to `AT_ONCE` rows each, of these columns; of all there are where one is missing.

    Raises
    ------
    SelectionError
        If the library is missing. What it raises of its own passes.
    """
    try:
        import datasets
    except ImportError as error:
        raise SelectionError('a corpus is read by the datasets library: pip install "attnprobe[data]"') from error
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        stream = _open(datasets, source, columns).with_format("arrow")
    finally:
        if shown:
            datasets.enable_progress_bars()
    if isinstance(source, Hub) and set(columns) <= set(stream.column_names or ()):
        stream = stream.select_columns(list(columns))
    yield from stream.iter(batch_size=AT_ONCE)


def _open(library: Any, source: Files | Hub, columns: Sequence[str]) -> Any:
    if isinstance(source, Hub):
        return library.load_dataset(
            source.name, source.config, split=source.split, revision=source.revision, streaming=True
        )
    paths = [glob.escape(str(path.absolute())) for path in source.paths]
    # The library makes a directory and a lock whatever it reads, by default in the user's home.
    with tempfile.TemporaryDirectory(prefix="attnprobe-") as cache:
        common: dict[str, Any] = {"streaming": True, "cache_dir": cache}
        if source.format == "parquet":
            return library.Dataset.from_parquet(paths, columns=list(columns), batch_size=AT_ONCE, **common)
        if source.format == "csv":  # all of it strings: a number is a text too, and NA is no missing one
            features = library.Features({name: library.Value("string") for name in columns})
            return library.Dataset.from_csv(
                paths, features=features, usecols=list(columns), na_filter=False, encoding="utf-8-sig", **common
            )
        return library.Dataset.from_text(paths, sample_by=source.sample_by, encoding="utf-8-sig", **common)
