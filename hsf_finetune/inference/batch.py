"""Segmenting many scans: which files, where to, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hsf_finetune.data.volumes import SUFFIXES, VolumeRef, is_hdf5, is_volume
from hsf_finetune.errors import DataError, OutputError, UserError
from hsf_finetune.inference.outputs import write_segmentation
from hsf_finetune.inference.predictor import Predictor


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
    """What became of a job: `written`, `skipped` (it was there already) or `failed`."""

    job: Job
    fate: Literal["written", "skipped", "failed"]
    error: UserError | None = None


def plan_jobs(scans: Sequence[str], output: Path, key: str | None) -> list[Job]:
    """The scans to segment and where to.

    A folder stands for every volume in it, and its structure is kept. The
    segmentation has the scan's file name.

    Args:
        scans: files or folders; the channels of one scan are joined by commas.
        output: folder to write into.
        key: HDF5 dataset inside the files.

    Raises:
        DataError: nothing is there, or no volume is in a folder.
        OutputError: two scans would get the same file, or a scan would be overwritten.
    """
    jobs = []
    for scan in scans:
        paths = [Path(part).expanduser() for part in scan.split(",")]
        missing = [p for p in paths if not p.exists()]
        if missing:
            raise DataError("no such file or folder", file=missing[0])
        if paths[0].is_dir():
            jobs += _folder_jobs(paths[0], output, key)
        else:
            refs = tuple(VolumeRef(p, key) for p in paths)
            jobs.append(Job(refs, output / paths[0].name))
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
                outcomes.append(Outcome(job, "written"))
        progress(done, len(jobs))
    return outcomes


def _folder_jobs(folder: Path, output: Path, key: str | None) -> list[Job]:
    written = output.resolve()
    found = sorted(
        p for p in folder.rglob("*") if is_volume(p) and written not in p.resolve().parents
    )
    if not found:
        raise DataError(
            "the folder holds no volume", file=folder, expected="files " + ", ".join(SUFFIXES)
        )
    return [
        Job((VolumeRef(path, key if is_hdf5(path) else None),), output / path.relative_to(folder))
        for path in found
    ]


def _check_outputs(jobs: Sequence[Job]) -> None:
    taken: dict[Path, Job] = {}
    for job in jobs:
        target = job.output.resolve()
        if target in {ref.path.resolve() for ref in job.channels}:
            raise OutputError(
                "the segmentation would replace its scan",
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
