"""What every command shares: the options, where output goes, and how errors become one line and an exit code."""

import functools
import json
import math
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from attnprobe.errors import AttnprobeError, BudgetError, NotKept, RunExists, SelectionError, out_of_memory
from attnprobe.show.prepare import printable

FAILED, USAGE, VERIFICATION, WILL_NOT_FIT = 1, 2, 3, 4


class Output:
    """Data to stdout, everything else to stderr.

    Attributes
    ----------
    as_json
        Data as one JSON document.
    quiet, verbose
        Nothing but data and errors; more, and tracebacks.
    stdout, stderr
        Consoles. They show colour on a terminal, and not if ``NO_COLOR`` is set.
    """

    def __init__(self, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show Ġ shows \u0120
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        self.stdout = _console(stderr=False)
        self.stderr = _console(stderr=True)

    @property
    def width(self) -> int:
        """Columns of stdout."""
        return self.stdout.width

    def data(self, record: Any, *lines: str | Text) -> None:
        """Print data: the record with ``--json``, else the lines.

        A plain string is one line. Nothing controls the terminal: a `Text` that would is printed without its styles.
        """
        if self.as_json:
            click.echo(json.dumps(_finite(record), indent=1, allow_nan=False))
            return
        for line in lines:
            self.stdout.print(printable(line) if isinstance(line, str) else _harmless(line), soft_wrap=True)

    def note(self, message: str) -> None:
        """Say what goes on."""
        if not self.quiet:
            click.echo(printable(message), err=True)

    def detail(self, message: str) -> None:
        """Say what only ``--verbose`` tells."""
        if self.verbose:
            self.note(message)


def _harmless(text: Text) -> Text:
    """The same where all of it prints, line feeds apart."""
    lines = text.plain.split("\n")
    return text if all(line.isprintable() for line in lines) else Text("\n".join(map(printable, lines)))


def _finite(record: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(record, dict):
        return {key: _finite(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [_finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def _console(stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--json``, ``--quiet`` and ``--verbose``, and its errors an exit code.

    The function is called with an `Output` before its own parameters.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print data as JSON.")
    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but data and errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more; errors with their traceback.")
    @functools.wraps(function)
    def run(as_json: bool, quiet: bool, verbose: bool, **parameters: Any) -> None:
        out = Output(as_json, quiet, verbose)
        try:
            function(out, **parameters)
        except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if verbose:
                click.echo("\n".join(map(printable, traceback.format_exc().split("\n"))), err=True)
            click.echo(f"error: {one_line(error)}", err=True)
            sys.exit(exit_code(error))

    return run


def one_line(error: Exception) -> str:
    """An error as one line; errors that attnprobe did not raise on purpose come with their type."""
    text = " ".join(str(error).split())
    if isinstance(error, AttnprobeError):
        return printable(text)
    if out_of_memory(error):
        reason = f" ({text.partition('. ')[0]})" if text else ""
        return printable(f"out of memory{reason}; take fewer tokens (--max-tokens), or another --device or model")
    return printable(f"{type(error).__name__}: {text} (-v shows where)")


def exit_code(error: Exception) -> int:
    """The exit code of an error."""
    if isinstance(error, BudgetError) or out_of_memory(error):
        return WILL_NOT_FIT
    return USAGE if isinstance(error, SelectionError | NotKept | RunExists) else FAILED
