"""Labels that a teacher gives to scans without any: sets of the classes that it holds for possible.

Where the teacher is sure, a voxel's label is one class; where it wavers between two, the label
is the set of both, and where between more, any class. Such labels are as those of a protocol that
merges classes, so that training needs no loss of their own: a student is not pulled towards
what its teacher does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.volumes.check_volumes import to_whole_numbers
from hsf_finetune.data.volumes.nibabel_formats import save_image
from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.inference.write_segmentation import nifti_like
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.planning.unlabelled import UnlabelledScan
from hsf_finetune.system.atomic_files import atomic_write, write_csv, write_json
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.read_json import read_json

RECORD = "labels.json"
"""File beside the labels: their checksums, once all are there."""
_RECORD_SHAPE = {"values": [int], "unsure": float, "files": {}, "left_out": {}}
_PREFIX = "pseudo_labels"
"""Beginning of the names of datasets, and of their tables, `pseudo_labels_of_NAME.csv`."""
_MOST_VALUES = 250
"""With more pairs of classes than label rows can tell apart, a pair is any class."""


class Teacher(Protocol):
    """What labels scans."""

    def read(self, scan: list[VolumeRef], /) -> list[Volume]:
        """The channels of a scan."""

    def mean_probabilities(self, volumes: Sequence[Volume], calibrated: bool, /) -> Tensor:
        """Probabilities of all classes, (classes, X, Y, Z)."""


@dataclass(frozen=True)
class SetValues:
    """The values in the label files of a teacher.

    Args:
        classes: of the model, background first.
        single: class -> value of the voxels that are this class.
    """

    classes: tuple[str, ...]
    single: Mapping[str, int]

    @property
    def pairs(self) -> dict[tuple[str, str], int]:
        """Two classes -> value of the voxels that may be either."""
        found = [*combinations(self.classes, 2)]
        first = max(self.single.values()) + 1
        fits = len(self.classes) + len(found) <= _MOST_VALUES
        return {pair: first + n for n, pair in enumerate(found)} if fits else {}

    @property
    def unknown(self) -> int:
        """The value of the voxels that may be any class."""
        return max(self.single.values()) + len(self.pairs) + 1

    def encode(self, probabilities: npt.NDArray[Any], plausible: float) -> npt.NDArray[Any]:
        """The value of each voxel, (X, Y, Z), from the probabilities of the classes.

        Args:
            probabilities: (classes, X, Y, Z).
            plausible: from which probability on a voxel may be a class; it may always be the
                most probable one.
        """
        best = probabilities.argmax(axis=0)
        possible = probabilities >= plausible
        np.put_along_axis(possible, best[None], True, axis=0)
        count = possible.sum(axis=0)
        single = np.array([self.single[name] for name in self.classes])
        values = np.where(count == 1, single[best], self.unknown)
        for (one, other), value in self.pairs.items():
            both = possible[self.classes.index(one)] & possible[self.classes.index(other)]
            values[both & (count == 2)] = value
        return values.astype(np.min_scalar_type(self.unknown))

    def describe(self, seen: Collection[int], path: str, table: Path) -> DatasetSettings:
        """The dataset of such labels, in which these values occur.

        Args:
            seen: the values.
            path: of the dataset.
            table: of its cases.
        """
        titles = {value: name for name, value in self.single.items() if name != BACKGROUND}
        pairs = {value: pair for pair, value in self.pairs.items() if value in seen}
        sets: dict[str, list[str] | str] = {f"{a} or {b}": [a, b] for a, b in pairs.values()}
        names = titles | dict(zip(pairs, sets, strict=True))
        return DatasetSettings(
            path=path,
            table=str(table),
            labels={value: value for value in names},
            labels_names=names,
            label_sets=sets,
            ignore=[self.unknown] if self.unknown in seen else [],
        )


def pseudo_values(classes: Sequence[str], label_values: Mapping[str, int]) -> SetValues:
    """Values for the labels of a teacher, where single classes have those of the labelled cases."""
    return SetValues(tuple(classes), {**label_values, BACKGROUND: 0})


@dataclass(frozen=True)
class PseudoLabels:
    """The labels that a teacher gave.

    Args:
        folder: where they are.
        values: in their files.
        count: of the labelled scans.
        seen: the values that occur.
        unsure: share of the foreground, as far as it is known, whose label is no single class.
        left_out: scan -> why it could not be labelled.
    """

    folder: Path
    values: SetValues
    count: int
    seen: frozenset[int]
    unsure: float
    left_out: Mapping[str, str]

    def datasets(self, labelled: Mapping[str, DatasetSettings]) -> dict[str, DatasetSettings]:
        """The labelled scans as datasets, by new names: one for each folder that they lie in.

        People in the folder of a dataset are those of this dataset, as for a split.

        Args:
            labelled: the datasets of true labels.
        """
        found = {}
        for table in sorted(self.folder.glob("*.csv")):
            name = table.stem.removeprefix(_PREFIX).removeprefix("_of_")
            like = labelled.get(name) or next(iter(labelled.values()))
            own = self.values.describe(
                self.seen, like.path if name in labelled else str(self.folder), table
            )
            title = table.stem
            while title in labelled:
                title += "_"
            geometry = {"spacing_mm": like.spacing_mm, "affine": like.affine}
            found[title] = own.model_copy(update=geometry)
        return found

    def line(self) -> str:
        """What came of it."""
        text = f"{count_of(self.count, 'scan')} labelled"
        if self.unsure:
            text += f"; {100 * self.unsure:.0f} % of what is not surely background may be several classes"
        for name, why in self.left_out.items():
            text += f"\n  left out: {name}, {why}"
        return text


def label_scans(
    folder: Path,
    scans: Sequence[UnlabelledScan],
    make_teacher: Callable[[], Teacher],
    values: SetValues,
    plausible: float,
    progress: Callable[[int, int], None] | None = None,
) -> PseudoLabels:
    """Labels scans and writes the labels and a table of the cases, or reads those of before.

    Each file is written whole or not at all, and those that are there are not made again. Once
    all are there their checksums are, and from then on the labels do not change.

    Args:
        folder: to write to.
        scans: without labels.
        make_teacher: called if there is something left to label.
        values: for the files.
        plausible: see `SetValues.encode`.
        progress: called with (scans done, scans in all).

    Raises:
        DataError: a label file is not what it was, or no scan can be labelled.
        OutputError: the folder cannot be written to.
    """
    if not (folder / RECORD).exists():
        _write_labels(folder, scans, make_teacher, values, plausible, progress)
    record = _read_record(folder)
    return PseudoLabels(
        folder,
        values,
        len(record["files"]),
        frozenset(record["values"]),
        record["unsure"],
        record["left_out"],
    )


# -------------------------------------------------------------------- internals
def _write_labels(
    folder: Path,
    scans: Sequence[UnlabelledScan],
    make_teacher: Callable[[], Teacher],
    values: SetValues,
    plausible: float,
    progress: Callable[[int, int], None] | None,
) -> None:
    teacher: Teacher | None = None
    left_out: dict[str, str] = {}
    counts: dict[int, int] = {}
    done: list[tuple[UnlabelledScan, Path]] = []
    for number, scan in enumerate(scans, start=1):
        path = folder / f"{scan.name}.nii.gz"
        if not path.exists():
            teacher = teacher or make_teacher()
            try:
                volumes = teacher.read([*scan.channels])
                probabilities = teacher.mean_probabilities(volumes, True)
            except DataError as error:
                left_out[scan.name] = str(error).splitlines()[0]
                continue
            _write(path, values.encode(probabilities.numpy(), plausible), volumes[0])
        labels = to_whole_numbers(read_volume(VolumeRef(path)))
        found, voxels = np.unique(labels, return_counts=True)
        for value, count in zip(found.tolist(), voxels.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
        done.append((scan, path))
        if progress:
            progress(number, len(scans))
    if not done:
        reasons = "\n".join(f"{name}: {why}" for name, why in [*left_out.items()][:6])
        raise DataError("no unlabelled scan can be segmented", found=reasons)
    channels = range(1, len(done[0][0].channels) + 1)
    header = [*(f"image{n if n > 1 else ''}" for n in channels), "label", "subject"]
    for dataset in dict.fromkeys(scan.dataset for scan, _ in done):
        rows = [
            [*map(str, scan.channels), path, f"/{scan.subject}"]
            for scan, path in done
            if scan.dataset == dataset
        ]
        name = f"{_PREFIX}_of_{dataset}" if dataset else _PREFIX
        write_csv(folder / f"{name}.csv", header, rows)
    single = {*values.single.values()}
    unsure = sum(count for value, count in counts.items() if value not in single)
    foreground = sum(count for value, count in counts.items() if value != 0)
    record = {
        "plausible": plausible,
        "values": sorted(counts),
        "unsure": unsure / max(foreground, 1),
        "files": {path.name: str(Checksum.of_file(path)) for _, path in done},
        "left_out": left_out,
    }
    write_json(folder / RECORD, record)


def _write(path: Path, labels: npt.NDArray[Any], scan: Volume) -> None:
    with atomic_write(path) as temporary:
        save_image(nifti_like(labels.reshape(scan.stored_shape), scan), temporary)


def _read_record(folder: Path) -> dict[str, Any]:
    record = read_json(folder / RECORD, _RECORD_SHAPE)
    for name, expected in record["files"].items():
        path = folder / name
        if not path.is_file() or str(Checksum.of_file(path)) != expected:
            raise DataError(
                "a label that the teacher gave is not what it was",
                file=path,
                found="another checksum" if path.is_file() else "no such file",
                expected=expected,
                fix=f"start a new run; or delete {folder} and all that came after it, and resume",
            )
    return record
