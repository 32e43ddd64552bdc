"""Defects of what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from tests.zoo.cohorts import SIDED_OVERRIDES, Array, Cohort, Edit, edit
from tests.zoo.defect import Damage, Defect


def label_edit(change: Edit) -> Damage:
    def damage(cohort: Cohort) -> Path:
        edit(cohort.label(), change)
        return cohort.label()

    return damage


def stray(array: Array) -> Array:
    array[1:3, 1, 1] = 1
    array[-2, -2, -2] = 2
    return array


def some(value: int) -> Edit:
    def change(array: Array) -> Array:
        array = array.astype(np.int16)
        array[4, 4, 4:9] = value
        return array

    return change


def without(value: int) -> Edit:
    return lambda array: np.where(array == value, 0, array).astype(np.uint8)


def exchanged(array: Array) -> Array:
    return np.array([0, 2, 1], dtype=np.uint8)[array]


def grown(array: Array) -> Array:
    nearest = ndimage.distance_transform_edt(array == 0, return_indices=True)
    return np.where(nearest[0] <= 5, array[tuple(nearest[1])], 0).astype(np.uint8)


def shrunk(array: Array) -> Array:
    return np.where(ndimage.binary_erosion(array > 0, iterations=2), array, 0).astype(np.uint8)


def cut_off(cohort: Cohort) -> Path:
    for path in cohort.pair():
        edit(path, lambda a: a[:, :, : a.shape[2] // 2 - 2])
    return cohort.label()


def in_two_cases_only(cohort: Cohort) -> Path:
    for number in range(2, len(cohort)):
        edit(cohort.label(number), without(2))
    return cohort.label().parent


def all_exchanged(cohort: Cohort) -> Path:
    for number in range(len(cohort)):
        edit(cohort.label(number), exchanged)
    return cohort.label()


UNKNOWN = ("does not list", "labels:")

DEFECTS = [
    Defect("fractions", label_edit(lambda a: a * 0.7), "refused", ("not whole", "nearest")),
    Defect(
        "linear interpolation",
        label_edit(lambda a: ndimage.gaussian_filter(a.astype(np.float32), 1)),
        "refused",
        ("not whole numbers", "nearest-neighbour"),
    ),
    Defect(
        "stored as float",
        label_edit(lambda a: a.astype(np.float64)),
        "repaired",
        ("floating point",),
    ),
    Defect("unknown value", label_edit(some(3)), "refused", (*UNKNOWN, "3 (5 voxels)", "3: 0")),
    Defect("negative value", label_edit(some(-1)), "refused", (*UNKNOWN, "-1 (5 voxels)")),
    Defect("values 0 and 255", label_edit(lambda a: (a > 0) * np.uint8(255)), "refused", UNKNOWN),
    Defect(
        "NaN in a label", label_edit(lambda a: np.where(a == 1, np.nan, a)), "refused", ("whole",)
    ),
    Defect("empty label", label_edit(lambda a: a * 0), "warned", ("nothing is drawn",)),
    Defect("stray voxels", label_edit(stray), "warned", ("tiny islands", "2 of", "erase")),
    Defect(
        "class missing in a case", label_edit(without(2)), "warned", ("posterior is not drawn",)
    ),
    Defect("classes exchanged", label_edit(exchanged), "warned", ("seem exchanged", "posterior")),
    Defect("label too large", label_edit(grown), "warned", ("much larger",)),
    Defect("label too small", label_edit(shrunk), "warned", ("much smaller",)),
    Defect("structure cut off", cut_off, "warned", ("border of the volume", "margin")),
    Defect("everything labelled", label_edit(lambda a: a * 0 + 1), "warned", ("whole volume",)),
    Defect("class in two cases only", in_two_cases_only, "warned", ("few training cases",)),
    Defect(
        "left and right exchanged in a case",
        label_edit(exchanged),
        "refused",
        ("lies to the right of", "1 of 6 cases"),
        "both_sides",
        SIDED_OVERRIDES,
    ),
    Defect(
        "left and right exchanged in all cases",
        all_exchanged,
        "warned",
        ("lies to the right of", "in every case"),
        "both_sides",
        SIDED_OVERRIDES,
    ),
]
