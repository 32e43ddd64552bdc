"""Segmenting files and folders of scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.read_volume import SUFFIXES, VolumeRef, is_hdf5, is_volume
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system import console
from hsf_finetune.system.errors import DataError, OutputError, UserError


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


def segment_files(
    model: Predictor,
    scans: Sequence[str | Path],
    output: Path,
    *,
    key: str | None = None,
    overwrite: bool = False,
) -> list[JobResult]:
    """Segments scans one after the other, and prints what became of them.

    A scan that cannot be segmented does not stop the others.

    Args:
        model: from `Predictor.load`.
        scans: files or folders, as in `plan_jobs`.
        output: folder to write into.
        key: HDF5 dataset inside the files; None if they hold just one.
        overwrite: segment scans again whose segmentation exists.

    Returns:
        One result per scan.

    Raises:
        DataError: scans are missing, or lack a channel.
        OutputError: a scan would be overwritten, or the disk is full.
    """
    jobs = plan_jobs(scans, output, key)
    results = []
    with console.progress("segmenting") as tick:
        for done, job in enumerate(jobs, start=1):
            results.append(_run_job(model, job, overwrite))
            tick(done, len(jobs))
    for result in results:
        if result.error is not None:
            console.say(f"failed: {result.error}")
        for warning in result.warnings:
            console.say(f"segmented with a warning: {warning.error()}")
    count = Counter(result.status for result in results)
    console.say(
        f"{count['written']} written to {output}, {count['failed']} failed, "
        f"{count['skipped']} skipped"
        + (" because they exist (--overwrite segments them again)" if count["skipped"] else "")
    )
    return results


def plan_jobs(scans: Sequence[str | Path], output: Path, key: str | None = None) -> list[Job]:
    """The scans to segment, and the files to write.

    A folder means every volume in it, and its structure is kept. The segmentation has the
    name of the scan's first file.

    Args:
        scans: files or folders; the channels of a scan are joined by commas, as files or as
            folders whose files have the same names.
        output: folder to write into.
        key: HDF5 dataset inside the files.

    Raises:
        DataError: a file, a folder's volumes or a channel is missing.
        OutputError: two scans would get the same file, or a scan would be overwritten.
    """
    if output.exists() and not output.is_dir():
        raise OutputError("-o is a file", file=output, fix="give a folder: -o SEGMENTATIONS")
    jobs = []
    for scan in scans:
        paths = _split_channels(str(scan))
        missing = [p for p in paths if not p.exists()]
        if missing:
            raise DataError("no such file or folder", file=missing[0])
        if len({p.is_dir() for p in paths}) > 1:
            raise DataError("the channels of a scan are a file and a folder", found=scan)
        if paths[0].is_dir():
            jobs += _folder_jobs(paths, output, key)
        else:
            jobs.append(Job(tuple(_ref(p, key) for p in paths), output / paths[0].name))
    _check_outputs(jobs)
    return jobs


def _run_job(model: Predictor, job: Job, overwrite: bool) -> JobResult:
    if job.output.exists() and not overwrite:
        return JobResult(job, "skipped")
    try:
        found = model.predict(job.channels)
    except DataError as error:
        return JobResult(job, "failed", error)
    found.save(job.output, overwrite=True)
    return JobResult(job, "written", warnings=found.warnings)


def _split_channels(scan: str) -> list[Path]:
    """The files of a scan; a path may hold commas itself."""
    parts = [scan] if Path(scan).expanduser().exists() else scan.split(",")
    return [Path(part).expanduser() for part in parts]


def _ref(path: Path, key: str | None) -> VolumeRef:
    return VolumeRef(path, key if is_hdf5(path) else None)


def _folder_jobs(folders: Sequence[Path], output: Path, key: str | None) -> list[Job]:
    """A job for each volume of the first folder, its further channels from the others."""
    folder, written = folders[0], output.resolve()
    inside = folder.resolve() in written.parents
    found = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if is_volume(path) and not (inside and written in path.resolve().parents)
    )
    if not found:
        raise DataError(
            "the folder holds no volume", file=folder, expected="files " + ", ".join(SUFFIXES)
        )
    missing = [
        other / name for other in folders[1:] for name in found if not (other / name).exists()
    ]
    if missing:
        raise DataError(
            "a scan lacks a channel",
            file=missing[0],
            found=f"{len(missing)} missing file(s)",
            expected=f"the same file names as in {folder}",
        )
    return [Job(tuple(_ref(one / name, key) for one in folders), output / name) for name in found]


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
