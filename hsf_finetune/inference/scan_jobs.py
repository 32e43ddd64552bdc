"""Which scans to segment, which files to write, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.discovery.channel_numbers import split_channel
from hsf_finetune.data.volumes.read_volume import VolumeRef, stem
from hsf_finetune.inference.find_scans import find_scans
from hsf_finetune.inference.formats.output_formats import (
    ONLY_LABELS,
    OutputChoice,
    ScanOutput,
    output_files,
)
from hsf_finetune.inference.localisation import RegionFinder
from hsf_finetune.inference.model_card import NO_GEOMETRY, Hdf5Geometry
from hsf_finetune.inference.quality_model import Foretold
from hsf_finetune.inference.scan_shards import Shard
from hsf_finetune.system.errors import DataError, OutputError, UserError
from hsf_finetune.system.missing_paths import no_such_path


@dataclass(frozen=True)
class Job:
    """One scan to segment.

    Args:
        channels: its files.
        place: path of its first file below the output folder.
        outputs: the files to write, that of the segmentation first.
        refusal: why it cannot be written in one of the formats.
    """

    channels: tuple[VolumeRef, ...]
    place: Path
    outputs: tuple[ScanOutput, ...] = ()
    refusal: DataError | None = None

    @property
    def output(self) -> Path:
        """Where the segmentation goes, in the first format."""
        return self.outputs[0].path

    @property
    def is_done(self) -> bool:
        """Whether all of its files exist."""
        return all(one.path.exists() for one in self.outputs)


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Args:
        job: the job.
        status: `written`, `skipped` (the output existed before) or `failed`.
        error: why it failed.
        warnings: what is unusual about a scan that was segmented.
        volumes_mm3: class -> its volume in mm3, of a scan that was segmented.
        located: which parts of the scan were segmented; None is all of it.
        foretold: expected Dice, where the model can tell it.
    """

    job: Job
    status: Literal["written", "skipped", "failed"]
    error: UserError | None = None
    warnings: tuple[Finding, ...] = ()
    volumes_mm3: Mapping[str, float] = field(default_factory=dict)
    located: Finding | None = None
    foretold: tuple[Foretold, ...] = ()


@dataclass(frozen=True)
class SegmentOptions:
    """How files are chosen and segmented.

    Args:
        key: HDF5 dataset inside the files, or DICOM series in the folders; None if there is one.
        spacing_mm: voxel size of HDF5 files without one; None is that of the training data.
        pattern: glob of the files to take of a folder; None takes what is not named like a label.
        overwrite: segment scans again whose segmentation exists.
        strict: refuse a scan that there is a warning about.
        outputs: what is written of a scan.
        where: finds the parts of a scan that are segmented; None segments all of it.
        review: how many scans are listed for a person to look at.
        shard: the part of the scans that is segmented; None is all of them.
    """

    key: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    pattern: str | None = None
    overwrite: bool = False
    strict: bool = False
    outputs: OutputChoice = ONLY_LABELS
    where: RegionFinder | None = None
    review: int = 0
    shard: Shard | None = None


DEFAULTS = SegmentOptions()


@dataclass(frozen=True)
class JobPlan:
    """The scans to segment, and files of the folders that are no scans, with the reasons."""

    jobs: tuple[Job, ...]
    skipped: tuple[tuple[Path, str], ...] = ()

    def part(self, shard: Shard | None) -> tuple[Job, ...]:
        """The jobs of a part of the scans; None is all of them."""
        return tuple(job for job in self.jobs if shard is None or shard.holds(job.place))


def plan_jobs(
    scans: Sequence[str | Path],
    output: Path,
    options: SegmentOptions = DEFAULTS,
    geometry: Hdf5Geometry = NO_GEOMETRY,
    channels: int = 1,
) -> JobPlan:
    """The scans to segment, and the files to write.

    A folder means every scan in it (see `find_scans`), and its structure is kept. The
    segmentation has the name of the scan's first file. For several channels, files that
    are numbered as nnU-Net does, `case_0000` and `case_0001`, are one scan.

    Args:
        scans: files or folders; the channels of a scan are joined by commas, as files or as
            folders whose files have the same names.
        output: folder to write into.
        options: which files are taken.
        geometry: of HDF5 files that do not give one.
        channels: of the model.

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
            raise no_such_path(DataError, missing[0])
        if len({p.is_dir() for p in paths}) > 1:
            raise DataError("the channels of a scan are a file and a folder", found=scan)
        if paths[0].is_dir():
            found = find_scans(paths[0], options.pattern, options.key, output)
            jobs += _folder_jobs(paths, found.scans, geometry)
            skipped += found.skipped
        else:
            refs = tuple(geometry.describe(p, options.key) for p in paths)
            jobs.append(Job(refs, Path(paths[0].name)))
    if channels > 1:
        jobs = _join_numbered(jobs, channels)
    jobs = [_with_outputs(job, output, options.outputs) for job in jobs]
    _check_outputs(jobs)
    return JobPlan(tuple(jobs), tuple(skipped))


def split_channels(scan: str) -> list[Path]:
    """The files of a scan; a path may hold commas itself."""
    parts = [scan] if Path(scan).expanduser().exists() else scan.split(",")
    return [Path(part).expanduser() for part in parts]


def _folder_jobs(
    folders: Sequence[Path], scans: Sequence[VolumeRef], geometry: Hdf5Geometry
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
        # A folder of DICOM files is itself a scan, with its own name.
        Job(
            tuple(geometry.describe(one / name, key) for one in folders),
            name if name.name else Path(folders[0].resolve().name),
        )
        for name, key in names
    ]


def _join_numbered(jobs: Sequence[Job], channels: int) -> list[Job]:
    """The jobs, where files `case_0000`, `case_0001`, ... of one folder are one scan."""
    joined: list[Job] = []
    seen: set[Job] = set()
    for job in jobs:
        first = job.channels[0].path
        found = split_channel(stem(first))
        names = [
            f"{found[0]}_{number:04d}{first.name.removeprefix(stem(first))}" if found else ""
            for number in range(channels)
        ]
        files = [first.with_name(name) for name in names if name]
        if len(job.channels) > 1 or first not in files or not all(f.exists() for f in files):
            joined.append(job)
            continue
        refs = tuple(job.channels[0].moved_to(file) for file in files)
        if (whole := Job(refs, job.place.with_name(names[0]))) not in seen:
            joined.append(whole)
            seen.add(whole)
    return joined


def _with_outputs(job: Job, output: Path, choice: OutputChoice) -> Job:
    """The job with the files to write, or why one of them cannot be."""
    try:
        return replace(job, outputs=output_files(job.channels[0], job.place, output, choice))
    except DataError as error:
        return replace(job, refusal=error)


def _check_outputs(jobs: Sequence[Job]) -> None:
    real = _RealPaths()
    scans = {real.find(ref.path) for job in jobs for ref in job.channels}
    taken: dict[str, Job] = {}
    targets = [(job, one.path) for job in jobs for one in job.outputs]
    for job, path in targets:
        target = real.find(path)
        if target in scans:
            raise OutputError(
                "the segmentation would replace a scan",
                file=path,
                fix="give another folder: -o SEGMENTATIONS",
            )
        if target in taken:
            raise OutputError(
                "two scans would be written to the same file",
                file=path,
                found=f"{taken[target].channels[0]} and {job.channels[0]}",
                fix="segment them in two calls with different -o folders, or give their common "
                "folder, whose structure is kept, with --pattern where two files differ in their "
                "format only",
            )
        taken[target] = job


class _RealPaths:
    """Paths behind links, as `os.path.realpath` has them; each folder is looked up once."""

    def __init__(self) -> None:
        self._folder = lru_cache(maxsize=1024)(self.find)

    def find(self, path: Path) -> str:
        if path.name in ("", "..") or path.is_symlink():
            return os.path.realpath(path)
        return os.path.join(self._folder(path.parent), path.name)
