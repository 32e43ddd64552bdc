"""Defects of the voxels of images, and of files."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.zoo.cohorts import Array, Cohort, Edit, affine_of, edit, voxels, write
from tests.zoo.defect import Damage, Defect


def image_edit(change: Edit) -> Damage:
    def damage(cohort: Cohort) -> Path:
        edit(cohort.image(), lambda a: change(a.astype(np.float32)))
        return cohort.image()

    return damage


def file_edit(change: object, of_label: bool = False) -> Damage:
    def damage(cohort: Cohort) -> Path:
        path = cohort.label() if of_label else cohort.image()
        path.write_bytes(change(path.read_bytes()))
        return path

    return damage


def one_byte_wrong(data: bytes) -> bytes:
    """A voxel that differs from what the checksum at the end of the archive says."""
    content = bytearray(gzip.decompress(data))
    content[-20] ^= 0xFF
    packed = bytearray(gzip.compress(bytes(content), 1))
    packed[-8] ^= 0xFF
    return bytes(packed)


def one_byte_wrong_uncompressed(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:-5000], 1)


def one(value: float) -> Edit:
    def change(array: Array) -> Array:
        array[3, 4, 5:7] = value
        return array

    return change


def clipped(array: Array) -> Array:
    return np.minimum(array, np.quantile(array, 0.6))


def empty_but_a_corner(array: Array) -> Array:
    keep = np.zeros_like(array)
    keep[10:16, 20:26, 10:14] = array[10:16, 20:26, 10:14]
    return keep


def lost_slices(array: Array) -> Array:
    array[:, :, 14:17] = 0
    return array


def repeated_slices(array: Array) -> Array:
    array[:, 21] = array[:, 20]
    return array


def copy_of_label(cohort: Cohort) -> Path:
    cohort.image().write_bytes(cohort.label().read_bytes())
    return cohort.image()


def in_colour(cohort: Cohort) -> Path:
    array = voxels(cohort.image())
    colour = np.zeros(array.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["R"] = array / array.max() * 255
    nib.save(nib.Nifti1Image(colour, affine_of(cohort.image())), cohort.image())
    return cohort.image()


def complex_values(cohort: Cohort) -> Path:
    write(cohort.image(), voxels(cohort.image()).astype(np.complex64), affine_of(cohort.image()))
    return cohort.image()


def scanner_scale(array: Array) -> Array:
    array[2:4, 2:4, 2:4] = array.max() * 500
    return array


def odd_padding(array: Array) -> Array:
    array[:1, :2, :3] = -1e6
    return array


DAMAGED = ("damaged or incomplete", "exclude:")

DEFECTS = [
    Defect("truncated image", file_edit(lambda b: b[: len(b) // 2]), "refused", DAMAGED),
    Defect("truncated label", file_edit(lambda b: b[:-100], True), "refused", DAMAGED),
    Defect("empty file", file_edit(lambda b: b""), "refused", DAMAGED),
    Defect("a web page", file_edit(lambda b: b"<html>not found</html>"), "refused", DAMAGED),
    Defect("wrong checksum", file_edit(one_byte_wrong), "refused", DAMAGED),
    Defect("fewer voxels", file_edit(one_byte_wrong_uncompressed), "refused", DAMAGED),
    Defect("NaN", image_edit(one(np.nan)), "refused", ("NaN or infinite", "2 of")),
    Defect("infinity", image_edit(one(np.inf)), "refused", ("NaN or infinite", "2 of")),
    Defect("constant image", image_edit(lambda a: a * 0 + 7), "refused", ("constant", "value 7")),
    Defect("bright outlier", image_edit(scanner_scale), "warned", ("far from the others", "clip")),
    Defect("dark outlier", image_edit(odd_padding), "warned", ("far from the others", "-1e+06")),
    Defect("clipped", image_edit(clipped), "warned", ("largest value", "cut off")),
    Defect("nearly empty", image_edit(empty_but_a_corner), "warned", ("nearly all voxels",)),
    Defect("lost slices", image_edit(lost_slices), "warned", ("single value", "3 along axis 2")),
    Defect("repeated slices", image_edit(repeated_slices), "warned", ("identical", "20 and 21")),
    Defect("image is its label", copy_of_label, "refused", ("copy of its label", "mri:")),
    Defect(
        "image is a mask", image_edit(lambda a: (a > np.median(a)) * 1.0), "warned", ("label file",)
    ),
    Defect(
        "other contrast",
        image_edit(lambda a: a.max() - a),
        "warned",
        ("bright and dark", "same kind of scan"),
    ),
    Defect("colour image", in_colour, "refused", ("not numbers",)),
    Defect("complex image", complex_values, "refused", ("not numbers",)),
]
