"""Corrected segmentations: whether they can be learnt from, and where they are kept."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.volumes.check_volumes import on_grid_of, to_whole_numbers
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_volume, read_volume
from hsf_finetune.describe.label_names import read_name_table
from hsf_finetune.inference.formats.output_formats import LABEL_TABLES, PROBABILITY_ENDS
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.scan_jobs import Job, plan_jobs
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.planning.run_cases import RunCases
from hsf_finetune.planning.unlabelled import choose_new_scans
from hsf_finetune.quality.next_scans import LIST
from hsf_finetune.system.atomic_files import write_csv, write_json
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError, DataError, SeveralErrors, UserError
from hsf_finetune.system.walk_folder import paths_below

TABLE = "cases.csv"
"""In the folder of corrections: scans, corrected segmentations and subjects."""
RECORD = "corrections.json"
"""Beside it: where they came from."""


@dataclass(frozen=True)
class Correction:
    """A corrected segmentation.

    Args:
        label: its file.
        images: the scan, one volume per channel.
        subject: the person.
        changed: voxels in which it differs from what the model finds.
    """

    label: Path
    images: tuple[VolumeRef, ...]
    subject: str
    changed: int


def find_corrections(
    model: ScanModel,
    folders: tuple[Path, Path | None],
    known: RunCases,
    progress: Callable[[int, int], None],
) -> list[Correction]:
    """The corrected segmentations of a folder, compared with what the model finds.

    Args:
        model: that is to learn from them.
        folders: of the corrections and of their scans; the latter may be None where `next`
            wrote the former.
        known: the cases of the model's run.
        progress: called with (scans done, all).

    Raises:
        ConfigError: it is not known where the scans are.
        UserError: a file belongs to no scan, to one that the run has or must not learn from,
            lies on another grid or has other labels, or the table beside them gives values
            another meaning; all problems at once.
    """
    labels, scans = _locate(*folders)
    card = model.card
    plan = plan_jobs([scans], labels, geometry=card.hdf5, channels=card.in_channels)
    jobs = {job.output: job for job in plan.jobs if job.outputs and job.output.exists()}
    problems: list[UserError] = [
        DataError(
            "a corrected segmentation belongs to no scan",
            file=path,
            expected=f"the name of a scan in {scans}, as predict and next write it",
            fix="save it as NIfTI under the scan's name; or give another folder: --scans SCANS",
        )
        for path in filter(is_volume, paths_below(labels))
        if path not in jobs and not path.name.endswith(PROBABILITY_ENDS)
    ]
    problems += find_other_tables(labels, card)
    label_of = {job.channels[0].path.resolve(): path for path, job in jobs.items()}
    kept, left_out = choose_new_scans([*jobs.values()], known)
    problems += [
        DataError(
            "a corrected scan cannot be learnt from",
            file=path,
            found=f"it is {why}",
            expected="a scan that is new to the run, of a person who does not validate or test",
            fix=f"move its segmentation to another folder: {label_of[path]}",
        )
        for path, why in left_out.items()
    ]
    found = []
    for number, scan in enumerate(kept, start=1):
        path = label_of[scan.channels[0].path]
        try:
            changed = _count_changed(model, jobs[path], path)
            found.append(Correction(path, scan.channels, scan.subject, changed))
        except UserError as error:
            problems.append(error)
        progress(number, len(kept))
    if problems:
        raise SeveralErrors("the corrections cannot be learnt from:", problems)
    return found


def find_other_tables(labels: Path, card: ModelCard) -> Iterator[DataError]:
    """The problems with tables beside corrections: values that mean other classes than the model's.

    Colours may differ, since they mean nothing.
    """
    expected = {row.value: _plain_name(row.name) for row in card.label_rows if row.value}
    for path in paths_below(labels):
        if path.name not in LABEL_TABLES:
            continue
        table = read_name_table(path)
        names = table.names if table else {}
        found = {value: _plain_name(name) for value, name in names.items() if value}
        if found != expected:
            yield DataError(
                "the table beside the corrections gives label values another meaning than the model",
                file=path,
                found=_list_values(found) or "no table of labels",
                expected=_list_values(expected),
                fix="correct what this model's predict or next wrote, or change the values to the "
                "expected ones; where they are right and the table is wrong, remove the table",
            )


def keep_corrections(
    folder: Path, corrections: Sequence[Correction], card: ModelCard, parent: Path
) -> DatasetSettings:
    """Copies corrections into a run's folder, with a record of where they came from.

    Args:
        folder: of the copies.
        corrections: to keep.
        card: of the model that is to learn from them, which gives their values a meaning.
        parent: folder of its run.

    Returns:
        The dataset of them.

    Raises:
        OutputError: a file cannot be written.
    """
    folder.mkdir(parents=True)
    record, rows = [], []
    for number, one in enumerate(corrections, start=1):
        copy = folder / f"{number:03d}_{one.label.name}"
        shutil.copyfile(one.label, copy)
        rows.append([*map(str, one.images), str(copy), f"/{one.subject}"])
        record.append(
            {
                "scan": [*map(str, one.images)],
                "from": str(one.label.resolve()),
                "label": copy.name,
                "checksum": str(Checksum.of_file(copy)),
                "changed_voxels": one.changed,
            }
        )
    channels = range(2, card.in_channels + 1)
    header = ["image", *(f"image{number}" for number in channels), "label", "subject"]
    write_csv(folder / TABLE, header, rows)
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(folder / RECORD, {"model": str(parent), "learnt": when, "corrections": record})
    values = _foreground_values(card)
    drawn = {value: value for value in values.values()}
    background = card.label_values[BACKGROUND]
    return DatasetSettings(
        path=str(folder),
        table=TABLE,
        labels=drawn | ({background: 0} if background else {}),
        labels_names={value: name for name, value in values.items()},
        spacing_mm=_as_list(card.hdf5.spacing_mm),
    )


# -------------------------------------------------------------------- internals
def _locate(corrections: Path, scans: Path | None) -> tuple[Path, Path]:
    """The folders of the corrected segmentations and of their scans."""
    if not corrections.is_dir():
        raise ConfigError("no such folder", file=corrections, expected="corrected segmentations")
    written = [place for place in (corrections, corrections.parent) if (place / LIST).exists()]
    if scans is not None:
        return (written[0] / "labels" if written[:1] == [corrections] else corrections), scans
    if not written:
        raise ConfigError(
            "it is not known which scans were corrected",
            file=corrections,
            expected=f"a folder that hsf-finetune next wrote, with {LIST}",
            fix="give the folder of the scans: --scans SCANS",
        )
    return written[0] / "labels", written[0] / "images"


def _plain_name(name: str) -> str:
    """The name as every table can hold it."""
    return "-".join(name.replace('"', "'").split())


def _list_values(names: Mapping[int, str]) -> str:
    return ", ".join(f"{value} {name}" for value, name in sorted(names.items()))


def _count_changed(model: ScanModel, job: Job, path: Path) -> int:
    """Voxels in which a correction differs from what the model finds.

    Raises:
        DataError: it cannot be read, lies on another grid, or has other labels.
    """
    volumes = model.read(job.channels)
    label = to_whole_numbers(on_grid_of(volumes[0], read_volume(VolumeRef(path))))
    meanings = model.card.label_values
    wrong = sorted({*np.unique(label).tolist()} - {*meanings.values()})
    if wrong:
        known = ", ".join(f"{value} {name}" for name, value in meanings.items())
        raise DataError(
            "the correction has labels that the model does not know",
            file=path,
            found=", ".join(map(str, wrong[:8])),
            expected=known,
            fix="correct it with the table of labels that predict and next write beside it",
        )
    return int((model.segment(volumes).labels != label).sum())


def _foreground_values(card: ModelCard) -> Mapping[str, int]:
    return {name: value for name, value in card.label_values.items() if name != BACKGROUND}


def _as_list(spacing_mm: Sequence[float] | None) -> list[float] | None:
    return None if spacing_mm is None else [*spacing_mm]
