"""Scores of segmentations on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hsf_finetune.data.volumes.check_volumes import check_same_grid, to_whole_numbers
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_volume, read_volume, stem
from hsf_finetune.evaluation.metrics import Labels, score_case
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.system.errors import DataError


def score_files(
    prediction: Path, label: Path, names: Mapping[int, str], tolerance_mm: float
) -> list[ScoreRow]:
    """Scores a segmentation against its label, or those of two folders by file name.

    Args:
        prediction: a volume, or a folder of volumes.
        label: a volume, or a folder that has a label for each prediction.
        names: label value -> class; values of one class are scored as one. Empty scores each
            value that occurs in a label or prediction, under its number.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        DataError: a prediction without a label, or volumes on different grids.
    """
    volumes = {}
    for case, (predicted, truth) in _pair_files(prediction, label).items():
        a, b = read_volume(VolumeRef(predicted)), read_volume(VolumeRef(truth))
        check_same_grid(b, a)
        volumes[case] = (to_whole_numbers(a), to_whole_numbers(b), b.spacing_mm)
    classes: dict[str, list[int]] = {}
    for value, name in (names or _name_values(volumes.values())).items():
        classes.setdefault(name, []).append(value)
    return [
        ScoreRow(case, case, score)
        for case, (predicted, truth, spacing) in volumes.items()
        for score in score_case(predicted, truth, classes, spacing, tolerance_mm)
    ]


def _pair_files(prediction: Path, label: Path) -> dict[str, tuple[Path, Path]]:
    for path in (prediction, label):
        if not path.exists():
            raise DataError("no such file or folder", file=path)
    if prediction.is_file() and label.is_file():
        return {stem(prediction): (prediction, label)}
    if prediction.is_file() or label.is_file():
        raise DataError("one is a file and the other a folder", file=prediction, found=label)
    predictions, labels = _volumes_by_name(prediction), _volumes_by_name(label)
    missing = sorted(predictions.keys() - labels.keys())
    unpredicted = sorted(labels.keys() - predictions.keys())
    if missing or unpredicted or not predictions:
        raise DataError(
            "predictions and labels do not pair by file name",
            file=prediction,
            found="\n".join(
                [
                    f"{len(predictions)} predictions, {len(labels)} labels",
                    f"without a label: {', '.join(missing[:6]) or 'none'}",
                    f"without a prediction: {', '.join(unpredicted[:6]) or 'none'}",
                ]
            ),
            fix="leave the same files in both folders; a case without a prediction is not "
            "dropped from the mean silently",
        )
    return {name: (predictions[name], labels[name]) for name in sorted(predictions)}


def _volumes_by_name(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by their path in it, without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if is_volume(p)):
        name = (path.parent.relative_to(folder) / stem(path)).as_posix()
        if name in found:
            raise DataError(
                "two files differ in their suffix only",
                file=path,
                found=found[name].name,
                fix="leave one of them",
            )
        found[name] = path
    return found


def _name_values(volumes: Iterable[tuple[Labels, Labels, object]]) -> dict[int, str]:
    """Every value that occurs, but that of the background, by its number."""
    values = {int(v) for pair in volumes for array in pair[:2] for v in np.unique(array)}
    return {value: str(value) for value in sorted(values - {0})}
