"""A run, verified: journals, records, every byte of every listed shard, and what its numbers may be."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attnprobe.errors import CorruptRun
from attnprobe.store.base import ROWS, Manifest, rows_of
from attnprobe.store.journal import host, is_live
from attnprobe.store.leftovers import SHARD
from attnprobe.store.listed import Journalled, Listed, all_shards, shards_of, unite
from attnprobe.store.read_directory import read_manifest
from attnprobe.store.validate import Records
from attnprobe.verifying.findings import Finding, Report
from attnprobe.verifying.journals import Journals, read_all
from attnprobe.verifying.shards import ShardCheck
from attnprobe.verifying.wanted import KNOWS_SINKS, Checks, tensors_of

THREADS = 4
NAMED = 3  # samples that a note names
Progress = Callable[[int, int], None]  # bytes that were read, and that there are


def check_run(path: Path, progress: Progress | None = None) -> tuple[Report, Journals]:
    """Check all of a run, and change nothing; it may be one that does not open.

    Raises
    ------
    StoreError
        If there is no run, or one of a format that this version does not read.
    """
    report = Report(str(path))
    journals = Journals()
    try:
        manifest = read_manifest(path)
    except CorruptRun as error:
        report.findings.append(Finding("manifest", "manifest.json", str(error)))
        report.left = report.findings
        return report, journals
    journals = read_all(path)
    report.findings += journals.findings
    listed = unite(journals.whole)
    samples = _check_records(path, manifest, listed, report, journals)
    shards = list(_find_shards(report, journals))
    checks = Checks(path, manifest, listed.records)
    total, done, lock = sum(one.shards[name] for one, name in shards), 0, threading.Lock()

    def read(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(done, total)

    def check(shard: tuple[Journalled, str]) -> ShardCheck:
        one, name = shard
        records = {index: listed.records[index][0].load() for index in samples.get(name, ())}
        wanted = [
            tensor for index, record in records.items() for file, tensor in tensors_of(index, record) if file == name
        ]
        return ShardCheck(path / "shards" / name, one.shards[name], one.hashes[name], wanted, checks, read).run()

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for part in pool.map(check, shards):
            report.counts.add(part.counts)
            report.findings += part.findings
    report.notes += [*journals.notes, *_note_twice(listed, journals), *_note_others(path, journals)]
    rows = rows_of(manifest, len(listed.records))
    if rows and manifest.data is not None and len(listed.records) < manifest.data[ROWS]:
        report.notes.append(f"{rows} rows of the corpus are listed")
    if manifest.format < KNOWS_SINKS:
        report.notes.append(
            f"format {manifest.format} does not tell which maps are causal and which models have a learned sink: rows "
            "are not checked for looking ahead, and their sums, where no sink_mass is kept, for being at most 1"
        )
    report.left = report.findings
    return report, journals


def _find_shards(report: Report, journals: Journals) -> Iterator[tuple[Journalled, str]]:
    """The shards that can be checked, each with the journal that lists it."""
    dropped = journals.dropped
    for one in journals.whole:
        for name in sorted(one.shards.keys() - dropped):
            try:
                one.hashes[name]
            except CorruptRun as error:
                report.findings.append(Finding("journal", f"journal/{one.path.name}", str(error)))
                journals.unhashed.add(name)
            else:
                yield one, name


def _check_records(
    path: Path, manifest: Manifest, listed: Listed, report: Report, journals: Journals
) -> dict[str, list[int]]:
    """Check what the journals say of each sample; gives the samples that lie in each shard."""
    sites = {site.key: site for site in manifest.sites}
    checkers = {one.path: Records(path, sites, one.shards) for one in listed.journals}
    samples: dict[str, list[int]] = {}
    for index, (record, journal) in sorted(listed.records.items()):
        report.counts.samples += 1
        try:
            checkers[journal.path].check(index, record.load())
        except CorruptRun as error:
            where = f"journal/{journal.path.name}"
            report.findings.append(Finding("record", where, str(error), sample=record.id))
            journals.records.append((record, journal))
            continue
        for shard in set(shards_of(record)):
            samples.setdefault(shard, []).append(index)
    return samples


def _note_twice(listed: Listed, journals: Journals) -> list[str]:
    """Named samples of which there are several."""
    named = Counter(record.id for one in journals.whole for record in one.samples if record.named)
    read = Counter(record.id for record, _ in listed.records.values() if record.named)
    notes = [f"{count} samples are named {name!r}" for name, count in read.items() if count > 1]
    if len(notes) > NAMED:
        notes[NAMED:] = [f"{len(notes) - NAMED:,} more names are those of several samples"]
    again = [name for name, count in named.items() if count > 1 and read[name] == 1]
    if len(again) == 1:
        notes.append(f"the sample {again[0]!r} was recorded {named[again[0]]} times, and one of them is read")
    elif again:
        first = ", ".join(map(repr, again[:NAMED])) + (f" and {len(again) - NAMED:,} more" * (len(again) > NAMED))
        notes.append(f"{len(again):,} samples were recorded more than once, and one of each is read: {first}")
    return notes


def _note_others(path: Path, journals: Journals) -> list[str]:
    """Files that no journal lists, or that were set aside."""
    listed, dropped = all_shards(journals.whole), journals.dropped
    bad, writers = {Path(name).stem for name in journals.bad}, {one.writer: one for one in journals.whole}
    kinds: Counter[str] = Counter()
    for name in os.listdir(path / "shards") if (path / "shards").is_dir() else ():
        match = SHARD.fullmatch(name)
        writer = None if match is None else match[1] or match[3]
        if name in dropped:
            kinds["taken off the list by a repair, and still in shards/ (--repair moves them)"] += 1
        elif name in listed:
            continue
        elif writer is None:
            kinds["in shards/ that are no shards"] += 1
        elif writer not in bad:
            kinds[_unlisted(writers.get(writer))] += 1
    if (path / "aside").is_dir():
        kinds["in aside/"] += len(os.listdir(path / "aside"))
    return [f"{count} file{'s' * (count != 1)} {what}" for what, count in sorted(kinds.items()) if count]


def _unlisted(writer: Journalled | None) -> str:
    """What a shard is that its writer does not list, or not yet."""
    if writer is None:
        return "of a writer whose journal is not there"
    if is_live(writer.path):
        return "of a writer that lives"
    if writer.host == host():
        return "that no journal lists (a resume removes them)"
    return "of a writer of another machine, unlisted (if it is gone, --repair --force removes them)"
