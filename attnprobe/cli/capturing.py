"""What commands that run a model share: its text, where a run goes, and how the model is called."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprobe.cli.models import Named
from attnprobe.errors import RunExists, SelectionError, StoreError

if TYPE_CHECKING:  # it needs torch, which takes seconds to import
    from attnprobe.recorder import Recorder


def check_target(run: Path, overwrite: bool = False, resume: bool | None = None) -> None:
    """Refuse a path that is taken or cannot be written.

    Parameters
    ----------
    run, overwrite
        Where a run goes, and whether it replaces one.
    resume
        Whether it goes on with one; None where no run of this kind is gone on with.

    Raises
    ------
    RunExists, StoreError
        If it is taken; if it cannot be written.
    """
    if resume:
        from attnprobe.store.target import refuse_foreign

        refuse_foreign(run)
    else:
        empty = run.is_dir() and not any(run.iterdir())
        if (run.exists() or run.is_symlink()) and not overwrite and not empty:
            ways = "or pass" if resume is None else "pass --resume to go on with it, or"
            raise RunExists(f"{run} exists already; choose another path, {ways} --overwrite to replace it")
    parent = next(p for p in (run.absolute(), *run.absolute().parents) if p.exists())
    if parent != run.absolute() and not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        reason = "is not writable" if parent.is_dir() else "is not a directory"
        raise StoreError(f"cannot write the run {run}: {parent} {reason}; choose another path")


def asked_of_model(recorder: "Recorder") -> dict[str, Any]:
    """Arguments of the model's forward: some of the modules that return their weights do so where they are asked to."""
    from attnprobe.routes import RETURNED

    return {"output_attentions": True} if any(site.route == RETURNED for site in recorder.sites) else {}


def read_text(source: tuple[str, ...], text: str | None, file: Path | None) -> str:
    """The text that is given once, one way or another.

    Raises
    ------
    SelectionError
        If it cannot be read, or is empty.
    """
    wrong = next((one for one in source if one != "-"), None)
    if wrong is not None:
        raise click.UsageError(
            f'{wrong!r} is not understood; give the text by --text, --file, or "-" for standard input'
        )
    if sum(given is not None for given in (*source, text, file)) != 1:
        raise click.UsageError('give the text once: by --text, by --file, or "-" for standard input')
    if text is None:
        try:
            if file is None or str(file) == "-":
                text = sys.stdin.buffer.read().decode("utf-8")
            else:
                text = file.read_bytes().decode("utf-8")
        except OSError as error:
            raise SelectionError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SelectionError(f"the text is not UTF-8: {error}") from error
    if not text:
        raise SelectionError("the text is empty: there is nothing to record")
    return text


def tokenize(named: Named, text: str, max_tokens: int | None, generate: int) -> list[int]:
    """The text's token ids, cut to `max_tokens`.

    Raises
    ------
    SelectionError
        If there are none, or more than the model takes.
    """
    whole: list[int] = named.tokenizer(text, verbose=False).input_ids
    ids = whole[:max_tokens]
    if not ids:
        raise SelectionError("the text has no tokens: there is nothing to record")
    window = named.window
    if window is None or len(ids) + generate <= window:
        return ids
    have = f"the text has {len(ids):,} tokens" if len(ids) == len(whole) else f"{len(ids):,} tokens are to be kept"
    if generate:
        have += f" and {generate:,} are to be generated"
    fix = "generate fewer" if generate >= window else f"cut the text with --max-tokens {window - generate}"
    raise SelectionError(f"{have}, but the context window of {named.name} has {window:,}; {fix}")
