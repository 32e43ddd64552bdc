"""Problems in the headers of one file, or of the files of one case: sizes, axes, affines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from hsf_finetune.check.findings import EXCLUDE, Finding, format_mm, warn_about
from hsf_finetune.data.preprocessing.orientation import orientation_name
from hsf_finetune.data.volumes.affines import (
    Affine,
    corner_shift_mm,
    format_affine,
    grid_noise_mm,
    voxel_size_mm,
)
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.system.console import format_size

_SHEAR_DEG = 0.5
_AMBIGUOUS_DEG = 40.0
_SMALLEST_MM, _LARGEST_MM = 0.02, 20.0
_MICROSCOPE_MM = 1e-7
"""Smallest voxel size of an electron microscope."""
_THINNEST_VOX = 8
_FLOAT_NOISE_MM = 1e-6
"""Below this even two ways of writing the same affine differ."""
_UNITS = {1: "metres", 3: "micrometres"}


def check_header(volume: Volume, case: str) -> Iterator[Finding]:
    """Problems of a volume's own geometry; messages name the case."""
    warn = warn_about(volume.ref, case)
    sizes = voxel_size_mm(volume.affine)
    if min(sizes) > _MICROSCOPE_MM and max(sizes) < _SMALLEST_MM:
        if volume.header is not None:  # HDF5 has no other unit than the one that was meant
            yield warn(
                "geometry/microscope",
                "the voxels are as small as a microscope's",
                found=format_mm(sizes),
                fix="nothing to do if a microscope made it; else the header's affine is not in mm",
            )
    elif min(sizes) < _SMALLEST_MM or max(sizes) > _LARGEST_MM:
        yield warn(
            "geometry/voxel size",
            "the voxel size is not one that a scanner makes",
            found=format_mm(sizes),
            expected=f"{_SMALLEST_MM} to {_LARGEST_MM:g} mm",
            fix="correct the header's affine; it must be in millimetres",
        )
    shear, tilt = shear_deg(volume.affine), tilt_deg(volume.affine)
    if shear > _SHEAR_DEG:
        yield warn(
            "geometry/shear",
            "the grid is sheared: its axes are not at right angles",
            found=f"{shear:.1f} degrees off\n{format_affine(volume.affine)}",
            expected="axes at right angles",
            fix="resample it to a grid with right angles; distances and voxel sizes are wrong on this one",
        )
    if tilt > _AMBIGUOUS_DEG:
        yield warn(
            "geometry/oblique",
            "the axes lie half-way between two directions, so a small rotation exchanges them",
            found=f"rotated by {tilt:.0f} degrees",
            expected="less than 40 degrees",
            fix="resample it along the scanner's axes, or along the structure's as in the other cases",
        )
    if min(volume.array.shape) < _THINNEST_VOX:
        yield warn(
            "geometry/thin",
            "the volume has very few slices",
            found=f"shape {volume.array.shape}",
            expected=f"{_THINNEST_VOX} voxels or more along each axis",
            fix=f"check that it is a 3D scan, or {EXCLUDE}",
        )
    if volume.header is not None:
        yield from _check_nifti(volume, warn)


def compare_affines(image: Volume, label: Volume, case: str) -> Iterator[Finding]:
    """Rounding differences of two volumes on the same grid (`check_same_grid`)."""
    shift = corner_shift_mm(image.affine, label.affine, image.array.shape)
    if shift > grid_noise_mm(image.affine, _FLOAT_NOISE_MM, 0.0):
        yield Finding(
            "repaired",
            "geometry/float noise",
            "the label's affine differs from its image's by rounding; the image's is used",
            str(label.ref),
            case,
            f"a corner is {format_size(shift, 2)} mm off",
        )


def compare_axes(label: Volume, turned: Volume, case: str) -> Iterator[Finding]:
    """Whether a label's axes were turned to those of its image (`on_grid_of`)."""
    if turned is not label:
        stored, image = (orientation_name(one.affine) for one in (label, turned))
        yield Finding(
            "repaired",
            "geometry/axis order",
            "the label's axes run otherwise than its image's; it is read along the image's",
            str(label.ref),
            case,
            f"{stored}, and {image} for the image",
        )


def shear_deg(affine: Affine) -> float:
    """Largest difference of the angles between the axes from 90 degrees."""
    axes = affine[:3, :3] / np.maximum(voxel_size_mm(affine), 1e-12)
    cosines = np.abs((axes.T @ axes)[np.triu_indices(3, 1)]).clip(0, 1)
    return float(np.degrees(np.arcsin(cosines)).max())


def tilt_deg(affine: Affine) -> float:
    """Largest angle between an axis of the grid and the nearest axis of the scanner."""
    axes = np.abs(affine[:3, :3]) / np.maximum(voxel_size_mm(affine), 1e-12)
    return float(np.degrees(np.arccos(axes.max(axis=0).clip(0, 1))).max())


def _check_nifti(volume: Volume, warn: partial[Finding]) -> Iterator[Finding]:
    header: Any = volume.header
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    if unit:
        yield warn(
            "geometry/units",
            f"the header says that its numbers are {unit}; they are read as millimetres",
            found=f"xyzt_units {int(header['xyzt_units'])}",
            expected="millimetres",
            fix="img.header.set_xyzt_units('mm'), after correcting the affine if it is not in mm",
        )
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        yield warn(
            "geometry/no orientation",
            "the header does not say how the volume is oriented: left and right are a guess",
            found="sform_code 0 and qform_code 0",
            expected="one of them set",
            fix="convert it again from DICOM; if you know it is right: img.set_sform(img.affine, 1)",
        )
        return
    zooms = np.asarray(header.get_zooms()[:3], dtype=np.float64)
    sizes = np.asarray(voxel_size_mm(volume.affine), dtype=np.float64)
    if not np.allclose(zooms, sizes, rtol=0.02, atol=grid_noise_mm(volume.affine, 1e-3, 0.0)):
        yield warn(
            "geometry/pixdim",
            "the header's voxel size (pixdim) contradicts its affine; the affine is used",
            found=f"pixdim {format_mm(zooms)}, affine {format_mm(sizes)}",
            expected="the same",
            fix="decide which is right; img.header.set_zooms(...) or img.set_sform(...), and save",
        )
