"""Segmenting files and folders of scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.inference.engine_choice import MOST_DIFFERING
from hsf_finetune.inference.formats.output_formats import check_outputs, write_outputs
from hsf_finetune.inference.localisation import LocatedSegmentation
from hsf_finetune.inference.model_card import Hdf5Geometry
from hsf_finetune.inference.prediction_tables import PredictionTables
from hsf_finetune.inference.scan_jobs import DEFAULTS, Job, JobResult, SegmentOptions, plan_jobs
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.inference.segmentation import Segmentation
from hsf_finetune.system import console
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import DataError, UserError
from hsf_finetune.system.freed_memory import FreedMemory

_SHOWN = 5
"""Errors of one kind that are printed with their details."""


def segment_files(
    model: ScanModel,
    scans: Sequence[str | Path],
    output: Path,
    options: SegmentOptions = DEFAULTS,
) -> list[JobResult]:
    """Segments scans one after the other, and prints what became of them.

    While the network works on a scan, the next one is read and the one before is written. A
    scan that cannot be segmented does not stop the others.

    Args:
        model: from `load_models`.
        scans: files or folders, as in `plan_jobs`.
        output: folder to write into.
        options: which files are taken, and what becomes of unusual ones.

    Returns:
        One result per scan.

    Raises:
        DataError: scans are missing, or lack a channel.
        OutputError: a scan would be overwritten, or the disk is full.
    """
    spacing_mm = options.spacing_mm
    geometry = Hdf5Geometry(spacing_mm) if spacing_mm else model.card.hdf5
    plan = plan_jobs(scans, output, options, geometry, model.card.in_channels)
    files = [one for job in plan.jobs for one in job.outputs]
    check_outputs(files, model.card, options.outputs, options.overwrite)
    tables = PredictionTables.of(model, output, options)
    scans_of_all = [job.channels[0] for job in plan.jobs]
    tables.collect(scans_of_all)
    jobs = plan.part(options.shard)
    whole = count_of(len(plan.jobs), "scan")
    if options.shard:
        console.say(f"part {options.shard}: {len(jobs):,} of {whole}")
    with console.progress("segmenting") as tick:
        results = _run_jobs(model, jobs, options, tables, tick)
    tables.collect(scans_of_all)
    for why in dict.fromkeys(why for _, why in plan.skipped):
        names = [path.name for path, reason in plan.skipped if reason == why]
        console.say(f"not segmented, {why}: {console.shorten_list(names)}")
    _show_errors("failed", [result.error for result in results if result.error])
    _show_errors("located", [result.located.error() for result in results if result.located])
    warnings = [w for r in results if r.status == "written" for w in r.warnings]
    _show_errors("segmented with a warning", [warning.error() for warning in warnings])
    count = Counter(result.status for result in results)
    console.say(
        f"{count['written']} written to {output}, {count['failed']} failed, "
        f"{count['skipped']} skipped"
        + (" because they exist (--overwrite segments them again)" if count["skipped"] else "")
    )
    if options.shard:  # so that parts that nobody started, or that failed, are seen
        done = sum(job.is_done for job in plan.jobs)
        console.say(f"all parts: {done:,} of {whole} segmented so far")
    tables.show(results, scans_of_all, options.review)
    return results


def _run_jobs(
    model: ScanModel,
    jobs: Sequence[Job],
    options: SegmentOptions,
    tables: PredictionTables,
    tick: Callable[[int, int], None],
) -> list[JobResult]:
    """What became of the jobs, in their order; at most three scans are in memory."""
    # Only files are read in the thread: numbers are computed in one thread, whose rounding is known.
    memory = FreedMemory()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        results: list[JobResult] = []
        writing: Future[JobResult] | None = None
        reading = [reader.submit(_read, model, job, options) for job in jobs[:1]]
        try:
            for number, job in enumerate(jobs):
                scan = reading.pop()
                reading = [
                    reader.submit(_read, model, one, options) for one in jobs[number + 1 :][:1]
                ]
                found = _segment(model, job, scan, options)
                memory.note_scan(found.labels.size if isinstance(found, Segmentation) else 0)
                if writing:
                    results.append(writing.result())
                writing = writer.submit(_write_and_note, job, found, options, tables)
                tick(number + 1, len(jobs))
            return [*results, writing.result()] if writing else []
        except BaseException:
            for waiting in (reader, writer):
                waiting.shutdown(wait=False, cancel_futures=True)
            raise


def _read(model: ScanModel, job: Job, options: SegmentOptions) -> list[Volume] | None:
    """The channels of a scan; None where its segmentation exists.

    Raises:
        DataError: the scan cannot be read, or not be written in one of the formats.
    """
    if job.refusal:
        raise job.refusal
    if job.is_done and not options.overwrite:
        return None
    return model.read(job.channels)


def _segment(
    model: ScanModel, job: Job, scan: Future[list[Volume] | None], options: SegmentOptions
) -> Segmentation | JobResult:
    """The segmentation of a scan, or why there is none."""
    try:
        channels = scan.result()
        if channels is None:
            return JobResult(job, "skipped")
        where = options.where
        found = where.segment(model, channels) if where else model.segment(channels)
        if options.outputs.probabilities:
            _ = found.probabilities  # computed in this thread, and kept
        return found
    except DataError as error:
        return JobResult(job, "failed", error)


def _write(
    job: Job, found: Segmentation | JobResult, options: SegmentOptions, tables: PredictionTables
) -> JobResult:
    """Writes what is not there yet, or everything again, behind the scan's rows in the tables.

    A process that is killed between the two leaves a scan that is segmented again.
    """
    if isinstance(found, JobResult):
        return found
    if options.strict and found.warnings:
        return JobResult(job, "failed", _refusal(job, found.warnings))
    wanted = [one for one in job.outputs if options.overwrite or not one.path.exists()]
    located = found.located if isinstance(found, LocatedSegmentation) else None
    foretold = () if located else found.foretold
    result = JobResult(job, "written", None, found.warnings, found.volumes_mm3, located, foretold)
    try:
        for kept in job.outputs:
            if kept not in wanted and kept.holds_labels:
                _check_is_same(kept.path, found)
        tables.note(result)
        write_outputs(found, wanted, options.outputs)
    except DataError as error:
        return JobResult(job, "failed", error)
    return result


def _check_is_same(path: Path, found: Segmentation) -> None:
    """Refuses to write beside a segmentation of the scan that is another one.

    Raises:
        DataError: naming the file.
    """
    labels = read_volume(VolumeRef(path)).array
    background = found.label_values[found.classes[0]]
    is_other = labels.shape != found.labels.shape
    differing = labels.size if is_other else np.count_nonzero(labels != found.labels)
    segmented = np.count_nonzero(labels != background)
    if differing > MOST_DIFFERING * segmented:
        raise DataError(
            "the folder holds another segmentation of this scan, beside which more was to be written",
            file=path,
            found=f"{differing:,} voxels differ, and {segmented:,} are segmented in the file",
            expected="what this model finds",
            fix="--overwrite writes all files of the scan again; or another folder: -o",
        )


def _write_and_note(
    job: Job,
    found: Segmentation | JobResult,
    options: SegmentOptions,
    tables: PredictionTables,
) -> JobResult:
    """What `_write` does, and the scan's rows in the tables."""
    result = _write(job, found, options, tables)
    if result.status == "failed":
        tables.note(result)
    return result


def _refusal(job: Job, warnings: Sequence[Finding]) -> DataError:
    return DataError(
        "the scan is unusual, and --strict refuses it",
        file=job.channels[0],
        found="\n".join(f"{w.what} ({w.found})" if w.found else w.what for w in warnings),
        fix="look at it; without --strict it is segmented with a warning",
    )


def _show_errors(title: str, errors: Sequence[UserError]) -> None:
    """Prints errors, those of one kind together, the first few of them with their details."""
    groups: dict[str, list[UserError]] = {}
    for error in errors:
        groups.setdefault(error.what, []).append(error)
    for what, group in groups.items():
        if len(group) == 1:
            console.say(f"{title}: {group[0]}")
            continue
        console.say(f"{title}: {count_of(len(group), 'scan')}: {what}")
        for error in group[:_SHOWN]:
            details = [f"found {error.found}"] if error.found is not None else []
            details += [f"expected {error.expected}"] if error.expected is not None else []
            console.say("    ".join([f"  {error.file}", *details]).replace("\n", " "))
        if len(group) > _SHOWN:
            console.say(f"  ... and {len(group) - _SHOWN} more")
        if group[0].fix:
            console.say(f"  fix: {group[0].fix}")
