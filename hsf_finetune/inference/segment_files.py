"""Segmenting files and folders of scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.find_scans import find_scans
from hsf_finetune.inference.model_card import NO_GEOMETRY, Hdf5Geometry
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system import console
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import DataError, OutputError, UserError

_SHOWN = 5
"""Errors of one kind that are printed with their details."""


@dataclass(frozen=True)
class Job:
    """One scan to segment.

    Args:
        channels: its files.
        output: where the segmentation goes.
    """

    channels: tuple[VolumeRef, ...]
    output: Path


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Args:
        job: the job.
        status: `written`, `skipped` (the output existed before) or `failed`.
        error: why it failed.
        warnings: what is unusual about a scan that was segmented.
    """

    job: Job
    status: Literal["written", "skipped", "failed"]
    error: UserError | None = None
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class SegmentOptions:
    """How files are chosen and segmented.

    Args:
        key: HDF5 dataset inside the files; None if they hold just one scan.
        spacing_mm: voxel size of HDF5 files without one; None is that of the training data.
        pattern: glob of the files to take of a folder; None takes what is not named like a label.
        overwrite: segment scans again whose segmentation exists.
        strict: refuse a scan that there is a warning about.
    """

    key: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    pattern: str | None = None
    overwrite: bool = False
    strict: bool = False


@dataclass(frozen=True)
class JobPlan:
    """The scans to segment, and files of the folders that are no scans, with the reasons."""

    jobs: tuple[Job, ...]
    skipped: tuple[tuple[Path, str], ...] = ()


def segment_files(
    model: Predictor,
    scans: Sequence[str | Path],
    output: Path,
    options: SegmentOptions = SegmentOptions(),
) -> list[JobResult]:
    """Segments scans one after the other, and prints what became of them.

    A scan that cannot be segmented does not stop the others.

    Args:
        model: from `Predictor.load`.
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
    plan = plan_jobs(scans, output, options, geometry)
    results = []
    with console.progress("segmenting") as tick:
        for done, job in enumerate(plan.jobs, start=1):
            results.append(_run_job(model, job, options))
            tick(done, len(plan.jobs))
    for why in dict.fromkeys(why for _, why in plan.skipped):
        names = [path.name for path, reason in plan.skipped if reason == why]
        console.say(f"not segmented, {why}: {console.shorten_list(names)}")
    _show_errors("failed", [result.error for result in results if result.error])
    warnings = [w for r in results if r.status == "written" for w in r.warnings]
    _show_errors("segmented with a warning", [warning.error() for warning in warnings])
    count = Counter(result.status for result in results)
    console.say(
        f"{count['written']} written to {output}, {count['failed']} failed, "
        f"{count['skipped']} skipped"
        + (" because they exist (--overwrite segments them again)" if count["skipped"] else "")
    )
    return results


def plan_jobs(
    scans: Sequence[str | Path],
    output: Path,
    options: SegmentOptions = SegmentOptions(),
    geometry: Hdf5Geometry = NO_GEOMETRY,
) -> JobPlan:
    """The scans to segment, and the files to write.

    A folder means every scan in it (see `find_scans`), and its structure is kept. The
    segmentation has the name of the scan's first file.

    Args:
        scans: files or folders; the channels of a scan are joined by commas, as files or as
            folders whose files have the same names.
        output: folder to write into.
        options: which files are taken.
        geometry: of HDF5 files that do not give one.

    Raises:
        DataError: a file, a folder's scans or a channel is missing.
        OutputError: two scans would get the same file, or a scan would be overwritten.
    """
    if output.exists() and not output.is_dir():
        raise OutputError("-o is a file", file=output, fix="give a folder: -o SEGMENTATIONS")
    jobs: list[Job] = []
    skipped: list[tuple[Path, str]] = []
    for scan in scans:
        paths = split_channels(str(scan))
        missing = [p for p in paths if not p.exists()]
        if missing:
            raise DataError("no such file or folder", file=missing[0])
        if len({p.is_dir() for p in paths}) > 1:
            raise DataError("the channels of a scan are a file and a folder", found=scan)
        if paths[0].is_dir():
            found = find_scans(paths[0], options.pattern, options.key, output)
            jobs += _folder_jobs(paths, found.scans, output, geometry)
            skipped += found.skipped
        else:
            refs = tuple(geometry.describe(p, options.key) for p in paths)
            jobs.append(Job(refs, output / paths[0].name))
    _check_outputs(jobs)
    return JobPlan(tuple(jobs), tuple(skipped))


def _run_job(model: Predictor, job: Job, options: SegmentOptions) -> JobResult:
    if job.output.exists() and not options.overwrite:
        return JobResult(job, "skipped")
    try:
        found = model.predict(job.channels)
        if options.strict and found.warnings:
            raise _refusal(job, found.warnings)
    except DataError as error:
        return JobResult(job, "failed", error)
    found.save(job.output, overwrite=True)
    return JobResult(job, "written", warnings=found.warnings)


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


def split_channels(scan: str) -> list[Path]:
    """The files of a scan; a path may hold commas itself."""
    parts = [scan] if Path(scan).expanduser().exists() else scan.split(",")
    return [Path(part).expanduser() for part in parts]


def _folder_jobs(
    folders: Sequence[Path], scans: Sequence[VolumeRef], output: Path, geometry: Hdf5Geometry
) -> list[Job]:
    """A job for each scan of the first folder, its further channels from the others."""
    names = [(ref.path.relative_to(folders[0]), ref.key) for ref in scans]
    missing = [
        other / name for other in folders[1:] for name, _ in names if not (other / name).exists()
    ]
    if missing:
        raise DataError(
            "a scan lacks a channel",
            file=missing[0],
            found=f"{len(missing)} missing file(s)",
            expected=f"the same file names as in {folders[0]}",
        )
    return [
        Job(tuple(geometry.describe(one / name, key) for one in folders), output / name)
        for name, key in names
    ]


def _check_outputs(jobs: Sequence[Job]) -> None:
    scans = {ref.path.resolve() for job in jobs for ref in job.channels}
    taken: dict[Path, Job] = {}
    for job in jobs:
        target = job.output.resolve()
        if target in scans:
            raise OutputError(
                "the segmentation would replace a scan",
                file=job.output,
                fix="give another folder: -o SEGMENTATIONS",
            )
        if target in taken:
            raise OutputError(
                "two scans would be written to the same file",
                file=job.output,
                found=f"{taken[target].channels[0]} and {job.channels[0]}",
                fix="segment them in two calls with different -o folders, or give their common "
                "folder, whose structure is kept",
            )
        taken[target] = job
