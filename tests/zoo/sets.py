"""Defects that only several files together show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tests.zoo.cohorts import Cohort, edit
from tests.zoo.defect import Defect

_DATASET = "datasets.datasets.msd_hippocampus"


def same_scan(cohort: Cohort) -> Path:
    for source, target in zip(cohort.pair(0), cohort.pair(), strict=True):
        shutil.copyfile(source, target)
    return cohort.image()


def processed_copy(cohort: Cohort) -> Path:
    rng = np.random.default_rng(0)
    for source, target in zip(cohort.pair(0), cohort.pair(), strict=True):
        shutil.copyfile(source, target)
    edit(cohort.image(), lambda a: 2.0 * a + rng.normal(0, 0.1 * a.std(), a.shape))
    edit(cohort.label(), lambda a: np.where(np.roll(a, 1, axis=0) > 0, a, 0).astype(np.uint8))
    return cohort.image()


def same_label(cohort: Cohort) -> Path:
    image, label = cohort.pair(0)
    shutil.copyfile(label, cohort.label())
    rng = np.random.default_rng(0)
    shutil.copyfile(image, cohort.image())
    edit(cohort.image(), lambda a: a[::-1].copy() + rng.normal(0, a.std(), a.shape))
    return cohort.label()


def no_label(cohort: Cohort) -> Path:
    cohort.label().unlink()
    return cohort.image()


def one_case(cohort: Cohort) -> Path:
    for number in range(len(cohort) - 1, 0, -1):
        for path in cohort.pair(number):
            path.unlink()
    return cohort.root


def same_person_on_both_sides(cohort: Cohort) -> Path:
    names = [cohort.image(n).name.split(".")[0] for n in range(len(cohort))]
    split = {
        "train": [f"msd_hippocampus__imagesTr__{name}" for name in names[:6]],
        "validation": [f"msd_hippocampus__imagesTr__{name}" for name in names[5:]],
    }
    (cohort.root / "splits.json").write_text(json.dumps(split))
    return cohort.root


def nothing(cohort: Cohort) -> Path:
    return cohort.root


DEFECTS = [
    Defect("the same scan twice", same_scan, "refused", ("two subjects", "same voxels")),
    Defect("a processed copy", processed_copy, "warned", ("nearly the same", "correlation")),
    Defect("the same label twice", same_label, "refused", ("same label", "voxel by voxel")),
    Defect("no label", no_label, "refused", ("no label", "exclude:")),
    Defect(
        "a subject on both sides",
        same_person_on_both_sides,
        "refused",
        ("is both in train and in validation",),
        overrides=("datasets.split_file={root}/splits.json",),
    ),
    Defect("one case", one_case, "refused", ("one subject",)),
    Defect(
        "a class that nobody drew",
        nothing,
        "refused",
        ("no label of a training case shows ghost", "allow_unsupervised=[ghost]"),
        overrides=(f"+{_DATASET}.labels_names.3=ghost",),
    ),
    Defect(
        "a subject rule that misses",
        lambda cohort: Path("imagesTr") / cohort.image(0).name,
        "refused",
        ("regular expression for the subject", "subject:"),
        overrides=(f"+{_DATASET}.subject='sub-(\\d+)'",),
    ),
    Defect(
        "an exclude that matches nothing",
        nothing,
        "refused",
        ("no file matches exclude:",),
        overrides=(f"+{_DATASET}.exclude=['sub-07/**']",),
    ),
    Defect(
        "patterns that match nothing",
        nothing,
        "refused",
        ("no image matches", "correct mri:"),
        overrides=(f"{_DATASET}.patterns.volumes.mri='*_T2w.nii.gz'",),
    ),
]
