"""Segmenting many scans: which files, where to, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hsf_finetune.check.check_case import scan_findings
from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.read_volume import SUFFIXES, VolumeRef, is_hdf5, is_volume
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.write_segmentation import write_segmentation
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
class Outcome:
    """What became of a job: `written`, `skipped` (it was there already) or `failed`.

    A scan that was segmented may be odd all the same, which `remarks` say.
    """

    job: Job
    fate: Literal["written", "skipped", "failed"]
    error: UserError | None = None
    remarks: tuple[Finding, ...] = ()


def plan_jobs(scans: Sequence[str], output: Path, key: str | None) -> list[Job]:
    """The scans to segment and where to.

    A folder stands for every volume in it, and its structure is kept. The
    segmentation has the name of the scan's first file.

    Args:
        scans: files or folders; the channels of one scan are joined by commas, be they
            files or folders whose files have the same names.
        output: folder to write into.
        key: HDF5 dataset inside the files.

    Raises:
        DataError: nothing is there, no volume is in a folder, or a channel is missing.
        OutputError: two scans would get the same file, or a scan would be overwritten.
    """
    if output.exists() and not output.is_dir():
        raise OutputError("-o is a file", file=output, fix="give a folder: -o SEGMENTATIONS")
    jobs = []
    for scan in scans:
        paths = [Path(part).expanduser() for part in _parts(scan)]
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


def run_jobs(
    predictor: Predictor,
    jobs: Sequence[Job],
    overwrite: bool,
    progress: Callable[[int, int], None],
) -> list[Outcome]:
    """Segments one scan after the other; one that fails does not stop the rest.

    Raises:
        OutputError: the disk is full, which would stop the rest too.
    """
    outcomes = []
    for done, job in enumerate(jobs, start=1):
        if job.output.exists() and not overwrite:
            outcomes.append(Outcome(job, "skipped"))
        else:
            try:
                labels, scan = predictor.predict(job.channels)
            except DataError as error:
                outcomes.append(Outcome(job, "failed", error))
            else:
                write_segmentation(job.output, labels, scan)
                remarks = tuple(scan_findings(scan))
                outcomes.append(Outcome(job, "written", remarks=remarks))
        progress(done, len(jobs))
    return outcomes


def _parts(scan: str) -> list[str]:
    """The channels of a scan; a path may hold commas itself."""
    return [scan] if Path(scan).expanduser().exists() else scan.split(",")


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
