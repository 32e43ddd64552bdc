"""Scores of one predicted label volume against a manual one, class by class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from scipy.ndimage import find_objects

from hsf_finetune.system.errors import DataError

Outcome = Literal["scored", "missed", "false_positive", "absent"]
Labels = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

# Voxel sizes out of a header's rotation carry float32 noise: a distance that equals the
# tolerance but for that must not fall outside.
_ROUND_OFF = 1e-5


@dataclass(frozen=True)
class ClassScore:
    """How well one class of one case was segmented.

    Args:
        class_name: the class.
        outcome: `scored` where prediction and truth both have it, `missed` where only
            the truth has it, `false_positive` where only the prediction has it,
            `absent` where neither has it.
        dice: Dice coefficient in [0, 1]; 0 if missed or false positive, NaN if absent.
        hd95_mm: 95th percentile Hausdorff distance; NaN unless scored.
        nsd: normalised surface Dice in [0, 1]; 0 if missed or false positive, NaN if
            absent.
        volume_truth_mm3: volume of the class in the truth.
        volume_predicted_mm3: volume of the class in the prediction.
        volume_error_percent: predicted minus true volume, in percent of the true one;
            NaN where the truth lacks the class.
    """

    class_name: str
    outcome: Outcome
    dice: float
    hd95_mm: float
    nsd: float
    volume_truth_mm3: float
    volume_predicted_mm3: float
    volume_error_percent: float


def score_case(
    prediction: Labels,
    truth: Labels,
    classes: Mapping[str, int | Sequence[int]],
    spacing_mm: Sequence[float],
    tolerance_mm: float | None = None,
) -> list[ClassScore]:
    """Scores every class of one case.

    - Dice: 2 |P and T| / (|P| + |T|) over voxels (Dice, Ecology 26:297-302, 1945;
      Zijdenbos et al., IEEE TMI 13:716-724, 1994).
    - HD95: the larger of the two directed 95th percentiles of the distances between
      surface voxels, those with a face neighbour outside the mask (after Huttenlocher
      et al., IEEE TPAMI 15:850-863, 1993), between voxel centres in mm.
    - NSD: the share of both surfaces, by area, that lies within the tolerance of the
      other one (Nikolov et al., JMIR 23:e26151, 2021); surfaces run between voxels, and
      a distance that equals the tolerance is within it.

    What lies beyond the volume's border counts as background.

    Args:
        prediction: raw label values, integers of shape (X, Y, Z).
        truth: raw label values on the same grid.
        classes: class name -> its raw value, or several values that are scored as one
            class. Values mean the same in both volumes.
        spacing_mm: voxel size along X, Y and Z.
        tolerance_mm: how far surfaces may lie apart for NSD; None is `default_tolerance_mm`.

    Returns:
        One score per class, in the order of `classes`.

    Raises:
        DataError: shapes differ or are not three-dimensional, values are not integers,
            or spacing or tolerance cannot be one.
    """
    if tolerance_mm is None:
        tolerance_mm = default_tolerance_mm(spacing_mm)
    _check(prediction, truth, spacing_mm, tolerance_mm)
    every = [value for values in classes.values() for value in np.atleast_1d(values)]
    box = _bounding_box(np.isin(prediction, every) | np.isin(truth, every))
    prediction, truth = prediction[box], truth[box]
    return [
        score_mask(name, np.isin(prediction, v), np.isin(truth, v), spacing_mm, tolerance_mm)
        for name, v in classes.items()
    ]


def default_tolerance_mm(spacing_mm: Sequence[float]) -> float:
    """Tolerance of the surface Dice: 1 mm, or one voxel's diagonal for data of another scale.

    Of another scale are voxels whose mean edge is below 0.1 or above 10 mm, as of microscopes.
    """
    is_scanner = 1e-3 <= math.prod(map(float, spacing_mm)) <= 1e3
    return 1.0 if is_scanner else math.hypot(*map(float, spacing_mm))


def score_mask(
    name: str,
    predicted: Mask,
    true: Mask,
    spacing_mm: Sequence[float],
    tolerance_mm: float | None = None,
) -> ClassScore:
    """The score of one class from its two masks, (X, Y, Z); measures as in `score_case`."""
    if tolerance_mm is None:
        tolerance_mm = default_tolerance_mm(spacing_mm)
    voxel_mm3 = math.prod(float(s) for s in spacing_mm)
    n_predicted, n_true = int(predicted.sum()), int(true.sum())
    outcome = _outcome(n_predicted, n_true)
    if outcome == "scored":
        dice = 2 * int((predicted & true).sum()) / (n_predicted + n_true)
        hd95_mm, nsd = _surface_scores(predicted, true, spacing_mm, tolerance_mm)
    else:
        dice = nsd = math.nan if outcome == "absent" else 0.0
        hd95_mm = math.nan
    return ClassScore(
        class_name=name,
        outcome=outcome,
        dice=dice,
        hd95_mm=hd95_mm,
        nsd=nsd,
        volume_truth_mm3=n_true * voxel_mm3,
        volume_predicted_mm3=n_predicted * voxel_mm3,
        volume_error_percent=100 * (n_predicted - n_true) / n_true if n_true else math.nan,
    )


def _outcome(n_predicted: int, n_true: int) -> Outcome:
    if n_true:
        return "scored" if n_predicted else "missed"
    return "false_positive" if n_predicted else "absent"


def _surface_scores(
    predicted: Mask, true: Mask, spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[float, float]:
    """HD95 in mm and NSD of two masks, neither of them empty."""
    box = _bounding_box(predicted | true)
    # The frame of background makes a mask that touches the border end there, whichever
    # way the installed MONAI crops.
    a, b = (torch.from_numpy(np.pad(mask[box], 1))[None, None] for mask in (predicted, true))
    spacing = [float(s) for s in spacing_mm]
    with warnings.catch_warnings():
        # MONAI warns of an argument that its own call passes.
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        hd95 = compute_hausdorff_distance(
            a, b, include_background=True, percentile=95, spacing=spacing
        )
        nsd = compute_surface_dice(
            a,
            b,
            class_thresholds=[tolerance_mm * (1 + _ROUND_OFF)],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
    # Areas are summed in float32, which may end a bit above 1.
    return float(hd95), min(1.0, float(nsd))


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask; an empty box without any voxel."""
    boxes: list[tuple[slice, ...]] = find_objects(mask.astype(np.uint8))
    return boxes[0] if boxes else (slice(0, 0),) * mask.ndim


def _check(
    prediction: Labels, truth: Labels, spacing_mm: Sequence[float], tolerance_mm: float
) -> None:
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise DataError(
            "prediction and label must be volumes on the same grid",
            found=f"prediction {prediction.shape}, label {truth.shape}",
            fix="predict on the image that the label was drawn on",
        )
    for title, volume in (("prediction", prediction), ("label", truth)):
        if volume.dtype.kind not in "iu":
            raise DataError(
                f"the {title} must hold integers", found=volume.dtype, expected="int or uint"
            )
    sizes = [float(s) for s in spacing_mm]
    if len(sizes) != 3 or not all(0 < s < math.inf for s in sizes):
        raise DataError("a volume needs three positive voxel sizes in mm", found=sizes)
    if not 0 <= tolerance_mm < math.inf:
        raise DataError("the surface tolerance must be a distance in mm", found=tolerance_mm)
