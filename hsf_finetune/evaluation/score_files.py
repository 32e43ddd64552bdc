"""Scoring segmentations that lie on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.volumes.checks import check_same_grid, whole_numbers
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_volume, read_volume, stem
from hsf_finetune.evaluation.metrics import score_case
from hsf_finetune.evaluation.score_tables import ScoreRow
from hsf_finetune.system.errors import ConfigError, DataError


def score_files(
    prediction: Path, label: Path, names: Mapping[str, int], tolerance_mm: float
) -> list[ScoreRow]:
    """Scores a segmentation against its label, or those of two folders by file name.

    Args:
        prediction: a volume, or a folder of volumes.
        label: a volume, or a folder that has a label for each prediction.
        names: class -> value; empty scores every value that occurs in any label or
            prediction, under its number.
        tolerance_mm: of the normalised surface Dice.

    Raises:
        DataError: a prediction without a label, or volumes on different grids.
    """
    pairs = _pairs(prediction, label)
    volumes = {}
    for case, (predicted, truth) in pairs.items():
        a, b = read_volume(VolumeRef(predicted)), read_volume(VolumeRef(truth))
        check_same_grid(b, a)
        volumes[case] = (whole_numbers(a), whole_numbers(b), b.spacing_mm)
    classes = dict(names) or _every_value(
        [array for a, b, _ in volumes.values() for array in (a, b)]
    )
    return [
        ScoreRow(case, case, score)
        for case, (predicted, truth, spacing) in volumes.items()
        for score in score_case(predicted, truth, classes, spacing, tolerance_mm)
    ]


def parse_names(text: str) -> dict[str, int]:
    """`1=DG,2=CA1` -> {DG: 1, CA1: 2}.

    Raises:
        ConfigError: the text is not of that form.
    """
    names: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        value, equals, name = part.partition("=")
        sound = equals and value.strip().isdecimal() and name.strip()
        if not sound or name.strip() in names:
            raise ConfigError("--labels cannot be read", found=text, expected="1=DG,2=CA1")
        names[name.strip()] = int(value)
    return names


def _pairs(prediction: Path, label: Path) -> dict[str, tuple[Path, Path]]:
    for path in (prediction, label):
        if not path.exists():
            raise DataError("no such file or folder", file=path)
    if prediction.is_file() and label.is_file():
        return {stem(prediction): (prediction, label)}
    if prediction.is_file() or label.is_file():
        raise DataError("one is a file and the other a folder", file=prediction, found=label)
    predictions, labels = _by_name(prediction), _by_name(label)
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


def _by_name(folder: Path) -> dict[str, Path]:
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


def _every_value(arrays: list[npt.NDArray[np.int64]]) -> dict[str, int]:
    values = sorted({int(v) for array in arrays for v in np.unique(array)} - {0})
    return {str(value): value for value in values}
