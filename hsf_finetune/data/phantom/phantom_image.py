"""Phantom scans: T1-like and T2-like images of a phantom's anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy

from hsf_finetune.data.phantom.phantom_shape import (
    RING_MM,
    SIDES,
    SUBFIELDS,
    Floats,
    HippocampusLayout,
    Side,
    make_layout,
    random_field,
)

Contrast = Literal["T1w", "T2w"]
# Streams of random numbers; 1 to 3 are the shape's.
_SURROUNDINGS, _PLACE, _SCAN = 4, 5, 6
_INTENSITY: dict[Contrast, dict[str, float]] = {
    "T1w": {
        "csf": 160, "grey": 510, "white": 850, "sulcus": 690, "DG": 480, "CA1": 540,
        "CA2": 590, "CA3": 520, "SUB": 610, "PRESUB": 680, "PARASUB": 560,
    },
    "T2w": {
        "csf": 1000, "grey": 560, "white": 340, "sulcus": 270, "DG": 650, "CA1": 570,
        "CA2": 500, "CA3": 590, "SUB": 490, "PRESUB": 420, "PARASUB": 540,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Phantom:
    """One volume and its true anatomy, on one grid in RAS+ orientation.

    Args:
        image: intensities of about 0 to 1200, shape (X, Y, Z).
        subfields: values of `SUBFIELDS`, 0 outside, shape (X, Y, Z).
        axis_position: position along the nearest part of the axis, from 0 (tail) to
            1 (head), shape (X, Y, Z); defined outside the hippocampus too.
        affine: voxel to RAS+ mm, shape (4, 4), its values exact in float32.
    """

    image: npt.NDArray[np.float32]
    subfields: npt.NDArray[np.uint8]
    axis_position: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]


def make_phantom(
    seed: int,
    subject: int,
    side: Side,
    contrast: Contrast,
    shape_vox: tuple[int, int, int] = (40, 56, 40),
    spacing_mm: float = 0.8,
) -> Phantom:
    """One hippocampus of one subject, seen in one contrast.

    The anatomy depends on (seed, subject, side) only, the image also on the contrast.

    Args:
        seed: seed of the cohort, not negative.
        subject: number of the subject, not negative.
        side: which hippocampus; the left one is mirrored and has its own asymmetry.
        contrast: T1-like or T2-like intensities.
        shape_vox: size of the grid, which is centred on the hippocampus.
        spacing_mm: voxel size along every axis.
    """
    x, y, z = (spacing_mm * (np.arange(n, dtype=np.float64) - (n - 1) / 2) for n in shape_vox)
    layout = make_layout(seed, subject, side, (x, y, z))
    rng = np.random.default_rng([seed, subject, _SURROUNDINGS, SIDES.index(side)])
    wobble, fold = (random_field(rng, (x, y, z), step_mm) for step_mm in (7.0, 5.0))
    stream = [seed, subject, _SCAN, SIDES.index(side), list(_INTENSITY).index(contrast)]
    rng = np.random.default_rng(stream)
    means = _INTENSITY[contrast]
    tissue = {name: means[name] * (1 + 0.03 * float(rng.standard_normal())) for name in means}
    canvas = _paint_surroundings(layout, tissue, wobble, fold)
    _paint_hippocampus(canvas, layout, tissue)
    canvas *= 1 + 0.025 * random_field(rng, (x, y, z), 3.0)  # texture of the tissue
    # T2-like scans have thick coronal slices, so they are blurred along y.
    blur_mm = (0.4, 0.4, 0.4) if contrast == "T1w" else (0.3, 0.75, 0.3)
    canvas = scipy.ndimage.gaussian_filter(canvas, [b / spacing_mm for b in blur_mm])
    canvas *= np.exp(0.08 * np.clip(random_field(rng, (x, y, z), 24.0), -2.5, 2.5))
    noise = rng.uniform(18, 32) * rng.standard_normal((2, *canvas.shape))
    image = np.hypot(canvas + noise[0], noise[1])  # a magnitude image, so Rician

    mirror = slice(None, None, -1 if side == "left" else 1)
    offset = np.random.default_rng([seed, subject, _PLACE]).integers(-8, 9, size=3) / 4
    centre = np.array([-27.0 if side == "left" else 27.0, -24.0, -14.0]) + offset
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = centre - spacing_mm * (np.array(shape_vox) - 1) / 2
    return Phantom(
        image=np.ascontiguousarray(image[mirror], dtype=np.float32),
        subfields=np.ascontiguousarray(layout.subfields[mirror]),
        axis_position=np.ascontiguousarray(layout.axis[mirror], dtype=np.float32),
        affine=affine.astype(np.float32).astype(np.float64),
    )


def _paint_surroundings(
    layout: HippocampusLayout, tissue: Mapping[str, float], wobble: Floats, fold: Floats
) -> Floats:
    """Intensities around the hippocampus, painted from far to near, (X, Y, Z)."""
    x, y, z = layout.position_mm
    angle, outside = layout.angle_deg, layout.outside_mm
    grey, csf, white = tissue["grey"], tissue["csf"], tissue["white"]
    canvas = np.full(x.shape, white)
    canvas[z + 3 * wobble > 9.5 - 0.3 * x] = grey  # deep grey matter above
    canvas[(y + 2 * wobble > 10) & (z + 2 * wobble > 4) & (x > -6)] = grey  # amygdala
    canvas[np.abs(z + 3 * wobble + 12.5 + 0.3 * x) < 1.8] = grey  # cortex below
    canvas[z + 3 * wobble < -14.3 - 0.3 * x] = csf  # tentorium
    canvas[(x + 0.25 * z + 3 * fold > 13) & (z + 4 * wobble > -9)] = grey  # lateral cortex
    canvas[x - 0.1 * y + 1.5 * fold < -8.5 - 0.25 * z] = csf  # ambient cistern
    canvas[x - 0.1 * y + 1.5 * fold < -11 - 0.25 * z] = 0.5 * (grey + white)  # brainstem
    fissure = (angle > 150) & (layout.ribbon_mm > 1.2) & (z + wobble < 4)
    canvas[fissure & (outside < 6) & (layout.ribbon_mm < 3.6 + wobble)] = csf  # choroid fissure
    horn = 0.9 + 0.9 * np.clip(1 + wobble, 0, 2)
    canvas[(outside > 0) & (outside < 0.9 + horn) & (angle > -20) & (angle < 125)] = csf
    canvas[(outside > 0) & (outside < 0.9) & (angle > -75) & (angle < 175)] = white  # alveus
    canvas[(np.abs(angle - 140) < 18) & (outside > 0) & (outside < 2.2)] = white  # fimbria
    return canvas


def _paint_hippocampus(
    canvas: Floats, layout: HippocampusLayout, tissue: Mapping[str, float]
) -> None:
    """Subfields and the sulcal line (SRLM) between them, over the surroundings in `canvas`."""
    for name, value in SUBFIELDS.items():
        canvas[layout.subfields == value] = tissue[name]
    line = np.exp(-0.5 * (layout.sulcus_mm / 0.45) ** 2) * (layout.subfields > 0)
    # Where the dentate gyrus ends, so does the sulcus around it.
    line *= (layout.axis > 0.06) & (layout.axis < 0.93) & (layout.radius < 2 * RING_MM)
    canvas += 0.85 * line * (tissue["sulcus"] - canvas)
