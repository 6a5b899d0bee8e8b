"""Verification: whether a run on disk is what its journals say, and means what a recording means; and its repair."""

from pathlib import Path

from attnprobe.verifying.check import Progress, check_run
from attnprobe.verifying.findings import RECORDED, Counts, Finding, Report
from attnprobe.verifying.repair import repair_run, still_wrong

ROUNDS = 4  # of a repair: a journal that is set aside may bring to light what it had dropped


def verify(path: str | Path, repair: bool = False, force: bool = False, progress: Progress | None = None) -> Report:
    """Check every byte of a run directory, and what its numbers may be. It need not be one that opens.

    Every listed shard has to be there with its size, and its header to say what the journal says; every tensor to have
    its checksum. Weights have to lie from 0 to 1 and rows to sum to 1, or 1 minus the mass of a learned sink, within
    what their dtype rounds; where the attention function was causal, nothing may lie ahead of a row. Memory is bounded
    whatever the run's size.

    Parameters
    ----------
    path
        The run directory.
    repair
        Move damaged shards and journals to the run's ``aside/``. What is left opens, and ``record(resume=True)`` redoes
        exactly the named samples that lay in them. Numbers that are wrong where the checksum fits were recorded so,
        and stay.
    force
        Repair although writers of other machines have not ended, because you know that they are gone; what they left
        unlisted is removed.
    progress
        Called with the bytes that were read and those that there are.

    Returns
    -------
    report
        `Report.ok` tells whether nothing is wrong (any more), `Report.findings` has all that was, with file, tensor and
        byte.

    Raises
    ------
    StoreError
        If there is no run, or one of a format that this version does not read; with `repair`, if somebody may still
        write it.
    """
    path = Path(path).absolute()
    report, journals = check_run(path, progress)
    if repair and not any(one.problem == "manifest" for one in report.findings):
        findings = report.findings
        for _ in range(ROUNDS):
            done = repair_run(path, journals, findings, force)
            report.aside += done
            journals, findings = still_wrong(path)
            if not findings or not done:
                break
        kept = [one for one in report.findings if one.problem in RECORDED and (path / one.file).exists()]
        report.left = [*findings, *kept]
    return report


__all__ = ["Counts", "Finding", "Progress", "Report", "verify"]
