"""The rows of a corpus, one after the other, through the ``datasets`` library."""

import glob
import json
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from attnprobe.corpus.files import Files
from attnprobe.corpus.hub import Hub
from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.workers import Workers

DONE = "recorded already"
NO_TEXT, NOT_TEXT, NO_ID, ID_TWICE = (
    "without text",
    "whose text is no string",
    "without an id",
    "of an earlier one's id",
)
NO_JSON = "that are no JSON object"
AT_ONCE = 1000  # rows that are read together
LOOKED_AT = 1000  # rows of a format without a schema that tell which columns there are


@dataclass(frozen=True)
class Row:
    """One row: its number in the corpus, id and text, or why it has none (`problem`)."""

    number: int
    id: str
    text: str = ""
    problem: str | None = None


class Corpus:
    """Rows of files or of a dataset on the hub, always streamed.

    Parameters
    ----------
    source
        What it is of.
    column, id_column
        Column of the text; column of ids, or None for the rows' numbers.
    limit
        Take only so many rows from the start.
    """

    def __init__(
        self, source: Files | Hub, column: str = "text", id_column: str | None = None, limit: int | None = None
    ):
        self.source, self.column, self.id_column, self.limit = source, column, id_column, limit
        self._lines = isinstance(source, Files) and source.format == "jsonl"
        self._wanted = [column] if id_column in (None, column) else [column, str(id_column)]

    def describe(self) -> dict[str, Any]:
        """What the samples are of, as plain data: another corpus is no continuation of the same run."""
        return {**self.source.describe(), "column": self.column, "id_column": self.id_column}

    def count(self) -> int | None:
        """Number of rows where that is cheap to know, else None."""
        found = self.source.count() if isinstance(self.source, Files) else None
        return found if self.limit is None or found is None else min(found, self.limit)

    def check(self) -> None:
        """Find out whether the columns are there and hold text, which takes the first rows at most.

        Raises
        ------
        SelectionError
            If not; it lists the columns. Also if there is no row, or the ``datasets`` library is missing.
        """
        if isinstance(self.source, Files) and self.source.format == "csv":
            import pandas as pd

            for path in self.source.paths:
                with self._reading(path.name):
                    self._have(list(pd.read_csv(path, sep=_separator(path.name), nrows=0).columns), path.name)
        elif isinstance(self.source, Files) and self.source.format == "parquet":
            from pyarrow import parquet

            for path in self.source.paths:
                with self._reading(path.name):
                    schema = parquet.read_schema(path)
                self._have(schema.names, path.name)
                self._is_text(schema, path.name)
        with self._reading():
            tables = self._tables(everything=True)
            table = next(tables, None)
            tables.close()
        if table is None:
            raise SelectionError(f"{self.source.label} has no rows")
        if self._lines:
            self._have(_keys(table.column("text").to_pylist()), self.source.label)
        else:
            self._have(table.column_names, self.source.label)
            self._is_text(table.schema, self.source.label)

    def rows(self, workers: Workers | None = None, done: Container[str] = frozenset()) -> Iterator[Row]:
        """This worker's rows in order, those without text and those that are done with their `problem`.

        Raises
        ------
        AttnprobeError
            If the corpus cannot be read any further.
        """
        workers = workers or Workers()
        number, seen = 0, set[str]()
        tables = self._tables()
        while True:
            with self._reading(behind=number):
                table = next(tables, None)
            if table is None or (self.limit is not None and number >= self.limit):
                return
            stop = number + table.num_rows if self.limit is None else min(number + table.num_rows, self.limit)
            mine = list(range((workers.rank - number) % workers.world, stop - number, workers.world))
            # Two rows of one id may be different workers', so all have to see all ids.
            read = mine if self.id_column is None else range(stop - number)
            values = self._values(table, read)
            own = set(mine)
            for at, (text, id, problem) in zip(read, values, strict=True):
                name = str(number + at) if self.id_column is None else _name(id)
                if self.id_column is not None and name:
                    problem = problem or (ID_TWICE if name in seen else None)
                    seen.add(name)
                if at not in own:
                    continue
                if name in done and problem != ID_TWICE:
                    yield Row(number + at, name, problem=DONE)
                elif problem := problem or _problem(text, name):
                    yield Row(number + at, name, problem=problem)
                else:
                    yield Row(number + at, name, text)
            number = stop

    def _values(self, table: Any, read: Any) -> Iterator[tuple[Any, Any, str | None]]:
        """Text, id and problem of some rows of a table."""
        if self._lines:
            lines = table.column("text")
            for at in read:
                line = lines[at].as_py()
                record = _record(line)
                if record is None:
                    yield None, None, NO_JSON if line.strip() else NO_TEXT
                else:
                    yield record.get(self.column), record.get(self.id_column), None
            return
        columns = [table.column(name) if name in table.column_names else None for name in self._wanted]
        for at in read:
            found = [None if column is None else column[at].as_py() for column in columns]
            yield found[0], found[-1], None

    def _tables(self, everything: bool = False) -> Iterator[Any]:
        """Arrow tables of some rows each; with `everything`, of all columns where there is no schema to read first."""
        with _quiet(_library()) as library:
            stream = self._stream(library).with_format("arrow")
        names = stream.column_names
        if names is not None and not everything and not self._lines:
            stream = stream.select_columns([name for name in self._wanted if name in names])
        yield from stream.iter(batch_size=LOOKED_AT if everything else AT_ONCE)

    def _stream(self, library: Any) -> Any:
        if isinstance(self.source, Hub):
            hub = self.source
            return library.load_dataset(hub.name, hub.config, split=hub.split, revision=hub.revision, streaming=True)
        paths = [glob.escape(str(path.absolute())) for path in self.source.paths]
        kind = self.source.format
        # The library makes a directory and a lock whatever it reads, by default in the user's home.
        with tempfile.TemporaryDirectory(prefix="attnprobe-") as cache:
            common: dict[str, Any] = {"streaming": True, "cache_dir": cache}
            if kind in ("text", "jsonl"):  # a line of JSON each: rows may have different columns
                by = self.source.sample_by
                return library.Dataset.from_text(paths, sample_by=by, encoding="utf-8-sig", **common)
            if kind == "csv":  # all of it strings: a number is a text too, and NA is no missing one
                features = library.Features({name: library.Value("string") for name in self._wanted})
                sep = _separator(self.source.paths[0].name)
                return library.Dataset.from_csv(
                    paths, features=features, usecols=self._wanted, na_filter=False, sep=sep, **common
                )
            if kind == "parquet":
                return library.Dataset.from_parquet(paths, columns=self._wanted, batch_size=AT_ONCE, **common)
            return library.Dataset.from_json(paths, **common)

    @contextmanager
    def _reading(self, name: str | None = None, behind: int = 0) -> Iterator[None]:
        """Say what cannot be read, whatever the library raises; an error `behind` so many rows is nobody's choice."""
        try:
            yield
        except AttnprobeError:
            raise
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            what = f"cannot read {name or self.source.label}"
            if behind:
                raise AttnprobeError(
                    f"{what} behind row {behind - 1:,}: {reason}; what was recorded is kept, and --resume goes on"
                ) from error
            raise SelectionError(f"{what}: {reason}; mend it, or give others") from error

    def _have(self, columns: list[str], where: str) -> None:
        missing = [name for name in self._wanted if name not in columns]
        if missing:
            option = "--column" if missing[0] == self.column else "--id-column"
            there = ", ".join(map(str, columns)) or "none"
            raise SelectionError(f"{where} has no column {missing[0]!r} ({option}); its columns are: {there}")

    def _is_text(self, schema: Any, where: str) -> None:
        from pyarrow import types

        def textual(kind: Any) -> bool:
            inner = kind.value_type if types.is_dictionary(kind) else kind
            return any(is_kind(inner) for is_kind in (types.is_string, types.is_large_string, types.is_string_view))

        kind = schema.field(self.column).type
        if not textual(kind) and not types.is_null(kind):
            good = ", ".join(field.name for field in schema if textual(field.type)) or "none"
            raise SelectionError(f"column {self.column!r} of {where} holds {kind}, not text; columns of text: {good}")


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SelectionError('a corpus is read by the datasets library: pip install "attnprobe[data]"') from error
    return datasets


@contextmanager
def _quiet(library: Any) -> Iterator[Any]:
    """Without the library's bars."""
    shown = not library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield library
    finally:
        if shown:
            library.enable_progress_bars()


def _separator(name: str) -> str:
    return "\t" if ".tsv" in name.lower() else ","


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _keys(lines: list[str]) -> list[str]:
    records = (_record(line) for line in islice(filter(str.strip, lines), LOOKED_AT))
    return list(dict.fromkeys(str(key) for record in records if record is not None for key in record))


def _name(value: Any) -> str:
    """An id as text; empty where there is none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _problem(text: Any, name: str) -> str | None:
    if not name:
        return NO_ID
    if text is None or text == "":
        return NO_TEXT
    return None if isinstance(text, str) else NOT_TEXT
