"""What both ways of ``capture`` share: where a run goes, and how the model is called."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprobe.errors import RunExists, StoreError

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
