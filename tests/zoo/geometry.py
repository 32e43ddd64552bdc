"""Defects of where voxels lie."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec

from tests.zoo.cohorts import Array, Cohort, Edit, affine_of, edit, move, patch_bytes, voxels, write
from tests.zoo.defect import Damage, Defect


def turned(degrees: float) -> Edit:
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    return lambda affine: from_matvec(turn) @ affine


def scaled(factor: float) -> Edit:
    return lambda affine: affine @ np.diag([factor, factor, factor, 1])


def sheared(affine: Array) -> Array:
    shear = np.eye(4)
    shear[0, 1] = 0.2
    return affine @ shear


def rolled(axis: int, by: int) -> Edit:
    """Moves the label inside its volume; what is drawn stays within."""

    def change(label: Array) -> Array:
        where = np.flatnonzero(label.any(axis=tuple(k for k in range(3) if k != axis)))
        room = label.shape[axis] - 1 - where[-1] if by > 0 else where[0]
        return np.roll(label, int(np.sign(by)) * min(abs(by), int(room)), axis=axis)

    return change


def label_edit(change: Edit) -> Damage:
    def damage(cohort: Cohort) -> Path:
        edit(cohort.label(), change)
        return cohort.label()

    return damage


def label_move(change: Edit) -> Damage:
    def damage(cohort: Cohort) -> Path:
        move(cohort.label(), change)
        return cohort.label()

    return damage


def both_move(change: Edit) -> Damage:
    def damage(cohort: Cohort) -> Path:
        for path in cohort.pair():
            move(path, change)
        return cohort.image()

    return damage


def both_edit(change: Edit) -> Damage:
    def damage(cohort: Cohort) -> Path:
        for path in cohort.pair():
            edit(path, change)
        return cohort.image()

    return damage


def mirrored(cohort: Cohort) -> Path:
    both_edit(lambda a: a[::-1])(cohort)
    return cohort.label()


def image_flipped(cohort: Cohort) -> Path:
    edit(cohort.image(), lambda a: a[::-1])
    return cohort.image()


def forms_disagree(cohort: Cohort) -> Path:
    image = nib.load(cohort.image())
    other = np.array(image.affine)
    other[0, 3] += 10
    image.set_qform(other, 1)
    nib.save(image, cohort.image())
    return cohort.image()


def no_codes(cohort: Cohort) -> Path:
    for path in cohort.pair():
        image = nib.Nifti1Image(np.array(voxels(path)), None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nib.save(image, path)
    return cohort.image()


def nan_affine(cohort: Cohort) -> Path:
    patch_bytes(cohort.image(), 280, struct.pack("<f", float("nan")))
    return cohort.image()


def flat_affine(cohort: Cohort) -> Path:
    move(cohort.image(), lambda affine: affine @ np.diag([1, 1, 0, 1]))
    return cohort.image()


def in_metres(cohort: Cohort) -> Path:
    patch_bytes(cohort.image(), 123, bytes([1]))
    return cohort.image()


def wrong_pixdim(cohort: Cohort) -> Path:
    move(cohort.image(), lambda affine: affine)
    patch_bytes(cohort.image(), 80, struct.pack("<3f", 3, 3, 3))
    return cohort.image()


def store_as_lps(path: Path) -> None:
    array, affine = np.array(voxels(path)), affine_of(path)
    turn = np.diag([-1.0, -1, 1, 1])
    turn[:2, 3] = array.shape[0] - 1, array.shape[1] - 1
    write(path, array[::-1, ::-1], affine @ turn)


def stored_otherwise(cohort: Cohort) -> Path:
    for path in cohort.pair():
        store_as_lps(path)
    return cohort.image()


def label_stored_otherwise(cohort: Cohort) -> Path:
    store_as_lps(cohort.label())
    return cohort.label()


def four_dimensional(cohort: Cohort) -> Path:
    edit(cohort.image(), lambda a: np.stack([a, a], axis=-1))
    return cohort.image()


def other_side_in_header(cohort: Cohort) -> Path:
    for path in cohort.pair():
        array, affine = np.array(voxels(path)), affine_of(path)
        flip = np.diag([-1.0, 1, 1, 1])
        write(path, array, flip @ affine)
    return cohort.image()


def padded(array: Array) -> Array:
    """Tissue all around the image, and nothing drawn in it."""
    mode = "reflect" if len(np.unique(array)) > 3 else "constant"
    return np.pad(array, [(n - 1, n - 1) for n in array.shape], mode=mode)


def noise(affine: Array) -> Array:
    affine[:3, 3] += 2e-4
    return affine


def shifted(affine: Array) -> Array:
    affine[1, 3] += 5
    return affine


DEFECTS = [
    Defect("label cropped", label_edit(lambda a: a[:, 1:]), "refused", ("differ in shape",)),
    Defect(
        "label transposed",
        label_edit(lambda a: a.transpose(1, 0, 2)),
        "refused",
        ("differ in shape", "resample"),
    ),
    Defect("label moved by 5 mm", label_move(shifted), "refused", ("different grids", " 5 mm off")),
    Defect(
        "label mirrored in its header",
        label_move(lambda a: np.diag([-1.0, 1, 1, 1]) @ a),
        "refused",
        ("different grids",),
    ),
    Defect("label of another voxel size", label_move(scaled(1.2)), "refused", ("different grids",)),
    Defect("float noise in the affine", label_move(noise), "repaired", ("rounding",)),
    Defect("sform against qform", forms_disagree, "refused", ("sform and qform", " 10 mm")),
    Defect("no sform and no qform", no_codes, "warned", ("how the volume is oriented", "guess")),
    Defect("NaN in the affine", nan_affine, "refused", ("affine holds NaN",)),
    Defect("an axis without length", flat_affine, "refused", ("affine",)),
    Defect("sheared grid", both_move(sheared), "warned", ("sheared", "right angles")),
    Defect("half-way oblique grid", both_move(turned(44)), "warned", ("half-way", "44 degrees")),
    Defect("grid turned by 25 degrees", both_move(turned(25)), "warned", ("rotated", "25 degrees")),
    Defect("twice the voxel size", both_move(scaled(2)), "warned", ("voxel size differs", "2 x")),
    Defect("affine in metres", both_move(scaled(0.001)), "warned", ("microscope",)),
    Defect("header says metres", in_metres, "warned", ("metres",)),
    Defect("pixdim against affine", wrong_pixdim, "warned", ("pixdim",)),
    Defect("stored as LPS", stored_otherwise, "repaired", ("other axes", "LPS")),
    Defect("label stored as LPS", label_stored_otherwise, "repaired", ("along the image's",)),
    Defect(
        "padded to three times the size",
        both_edit(padded),
        "warned",
        ("another extent",),
    ),
    Defect("label flipped left-right", label_edit(lambda a: a[::-1]), "warned", ("(left-right)",)),
    Defect(
        "label flipped front-back", label_edit(lambda a: a[:, ::-1]), "warned", ("(front-back)",)
    ),
    Defect("label flipped up-down", label_edit(lambda a: a[:, :, ::-1]), "warned", ("(up-down)",)),
    Defect("image flipped under its label", image_flipped, "warned", ("flipped", "image")),
    Defect("image and label mirrored", mirrored, "warned", ("mirrored (left-right)",)),
    Defect(
        "label shifted to the left", label_edit(rolled(0, 8)), "warned", ("shifted (left-right)",)
    ),
    Defect(
        "label shifted to the front", label_edit(rolled(1, 9)), "warned", ("shifted (front-back)",)
    ),
    Defect("four-dimensional image", four_dimensional, "refused", ("not three-dimensional",)),
    Defect("four slices", both_edit(lambda a: a[:, :, 12:16]), "warned", ("very few slices",)),
    Defect(
        "left named, right by its header",
        other_side_in_header,
        "warned",
        ("named after the left side",),
        "named_sides",
    ),
]
