"""The rows of a corpus, one after the other."""

import json
from collections.abc import Container, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from attnprobe.corpus.files import Files
from attnprobe.corpus.hub import Hub
from attnprobe.corpus.tables import is_lines, read_tables
from attnprobe.errors import AttnprobeError, SelectionError
from attnprobe.workers import Workers

DONE = "recorded already"
NO_TEXT, NOT_TEXT, NO_JSON = "without text", "whose text is no string of Unicode", "that are no JSON object"
NO_ID, ID_TWICE = "without an id", "with an earlier row's id"


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
        Column of the text; column of ids, or None for the rows' numbers. Ids that were read are held, some hundred
        bytes each, so that a second row of one id is found.
    limit
        Take only so many rows from the start.
    """

    def __init__(
        self, source: Files | Hub, column: str = "text", id_column: str | None = None, limit: int | None = None
    ):
        self.source, self.column, self.id_column, self.limit = source, column, id_column, limit
        self._columns = list(dict.fromkeys((column, column if id_column is None else id_column)))

    def describe(self) -> dict[str, Any]:
        """What the samples are of, as plain data. A run is gone on with the same; `limit` may be another."""
        return {**self.source.describe(), "column": self.column, "id_column": self.id_column}

    def whole(self) -> int | None:
        """Number of rows, those beyond `limit` too, where that is cheap to know, else None."""
        return self.source.count() if isinstance(self.source, Files) else None

    def count(self, workers: Workers | None = None) -> int | None:
        """Number of this worker's rows where that is cheap to know, else None."""
        found = self.whole()
        if found is None:
            return None
        return len((workers or Workers()).share(0, found if self.limit is None else min(found, self.limit)))

    # --- before anything runs ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Find out whether the columns are there and hold text, which takes the first rows at most.

        Raises
        ------
        SelectionError
            If not; it lists the columns. Also if there is no row, or the ``datasets`` library is missing.
        """
        if isinstance(self.source, Files) and self.source.format in ("csv", "parquet"):
            self._check_headers(self.source)
        with self._reading(), closing(read_tables(self.source, self._columns)) as tables:
            table = next(tables, None)
        if table is None:
            raise SelectionError(f"{self.source.label} has no rows; give others")
        if is_lines(self.source):
            self._have(_keys(table.column("text").to_pylist()), self.source.label)
        else:
            self._have(table.column_names, self.source.label)
            self._is_text(table.schema, self.source.label)

    def _check_headers(self, files: Files) -> None:
        """Each file's own columns: the library tells of a missing one only when it comes to it."""
        import pandas as pd
        from pyarrow import parquet

        for path in files.paths:
            with self._reading(path.name):
                if files.format == "csv":
                    self._have(list(pd.read_csv(path, nrows=0).columns), path.name)
                else:
                    schema = parquet.read_schema(path)
                    self._have(schema.names, path.name)
                    self._is_text(schema, path.name)

    def _have(self, columns: Sequence[Any], where: str) -> None:
        missing = [name for name in self._columns if name not in columns]
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
            raise SelectionError(
                f"the column {self.column!r} of {where} holds {kind}, not text (--column); columns of text: {good}"
            )

    # --- rows --------------------------------------------------------------------------------------------------------

    def rows(self, workers: Workers | None = None, done: Container[str] = frozenset()) -> Iterator[Row]:
        """Rows of one of the workers in order, those without text and those that are done with their `problem`.

        Raises
        ------
        AttnprobeError
            If the corpus cannot be read any further.
        """
        workers = workers or Workers()
        seen = set[str]()
        for first, table in self._numbered():
            mine = workers.share(first, first + table.num_rows)
            # Two rows of one id may be different workers', so all have to see all ids.
            read = mine if self.id_column is None else range(first, first + table.num_rows)
            values = self._values(table, first, read)
            for number in read:
                with self._reading(behind=first):
                    text, given, problem = next(values)
                name = str(number) if self.id_column is None else _name(given)
                if name in seen:
                    problem = problem or ID_TWICE
                elif self.id_column is not None and name:
                    seen.add(name)
                if number not in mine:
                    continue
                problem = problem or (DONE if name in done else _problem(text, name))
                yield Row(number, name, "" if problem else text, problem)

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        """Tables, and the number of the first row of each."""
        number = 0
        with closing(read_tables(self.source, self._columns)) as tables:
            while self.limit is None or number < self.limit:
                with self._reading(behind=number):
                    table = next(tables, None)
                if table is None:
                    return
                if self.limit is not None:
                    table = table.slice(0, self.limit - number)
                yield number, table
                number += table.num_rows

    def _values(self, table: Any, first: int, read: range) -> Iterator[tuple[Any, Any, str | None]]:
        """Text, id and problem of some rows of a table."""
        if is_lines(self.source):
            lines = table.column("text")
            for number in read:
                line = lines[number - first].as_py()
                record = _record(line)
                if record is None:
                    yield None, None, NO_JSON if line.strip() else NO_TEXT
                else:
                    yield record.get(self.column), record.get(self._columns[-1]), None
            return
        columns = [table.column(name) for name in self._columns]
        for number in read:
            yield columns[0][number - first].as_py(), columns[-1][number - first].as_py(), None

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
                raise AttnprobeError(f"{what} behind row {behind - 1:,}: {reason}; mend it, then --resume") from error
            raise SelectionError(f"{what}: {reason}; mend it, or give others") from error


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _keys(lines: list[str]) -> list[str]:
    """The columns that lines of JSON have."""
    records = (_record(line) for line in lines)
    return list(dict.fromkeys(key for record in records if record is not None for key in record))


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
    return None if isinstance(text, str) and _is_unicode(text) else NOT_TEXT


def _is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which JSON may hold and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
