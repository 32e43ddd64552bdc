"""The anatomy of a phantom: a hippocampus-like curved tube and its subfields.

A centreline runs from the tail (posterior) to the head (anterior). In the plane
across it the subfields lie as in a coronal section: the dentate gyrus is the core,
CA3, CA2 and CA1 are an open ring around it from superior-medial over lateral to
inferior, and the subicular fields go on medially from the ring's lower end.

Everything is computed in a canonical frame, in mm from the centre of the grid: x
lateral, y anterior, z superior. The left side is the mirror image of that frame, so
anatomy depends on neither the voxel size nor the size of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

Side = Literal["left", "right"]
Floats = npt.NDArray[np.float64]

SIDES: tuple[Side, ...] = ("left", "right")
SUBFIELDS: dict[str, int] = {
    "DG": 1, "CA1": 2, "CA2": 3, "CA3": 4, "SUB": 5, "PRESUB": 6, "PARASUB": 7,
}  # fmt: skip
"""Value of each subfield in `HippocampusLayout.subfields`; 0 is outside the hippocampus."""

RING_MM = 3.5
"""Radius of the ring's middle in a body section of unit scale."""
_CENTRELINE_MM = np.array(
    [[-3, -17.5, 5], [0.8, -13, 4], [3.6, -6, 0.8], [4.2, 1, -1.8], [3.6, 8, -3.2],
     [1.2, 13, -3.4], [-2.4, 15, -2.2]], dtype=float,
)  # fmt: skip
_SCALE_KNOTS = ([0, 0.15, 0.35, 0.6, 0.8, 1], [0.72, 0.82, 0.98, 1.05, 1.28, 1.2])
_SPREAD: dict[str, tuple[float, float]] = {
    "length": (1, 0.05), "thickness": (1, 0.05), "head": (1, 0.06), "bend": (1, 0.18),
    "curl": (1, 0.2), "ring": (1.25, 0.06), "width": (1.18, 0.05),
    "roll_deg": (0, 5), "twist_deg": (0, 5), "pitch_deg": (0, 4), "yaw_deg": (0, 4),
    "shift_x": (0, 0.9), "shift_y": (0, 0.9), "shift_z": (0, 0.9),
    "ca3_start_deg": (165, 5), "ca2_start_deg": (114, 4), "ca1_start_deg": (72, 4),
    "sub_start_deg": (-66, 4), "presub_mm": (2.4, 0.2), "presub_width": (2.9, 0.15),
    "parasub_width": (2.9, 0.15), "lift": (0.03, 0.008),
}  # fmt: skip
"""Mean and standard deviation of each parameter; new ones go last, since draws are in order."""

# Independent streams of random numbers.
_PERSON, _SIDE, _WARP = 1, 2, 3


@dataclass(frozen=True)
class HippocampusLayout:
    """Where each voxel of one hippocampus is, in terms of the anatomy.

    All arrays have the shape of the grid (X, Y, Z), in the canonical frame.
    """

    subfields: npt.NDArray[np.uint8]
    """Values of `SUBFIELDS`, 0 outside."""
    axis: Floats
    """Position along the centreline, from 0 (end of the tail) to 1 (front of the head)."""
    angle_deg: Floats
    """Angle in the section, from -90 (inferior) over 0 (lateral) and 90 (superior) to 270."""
    radius: Floats
    """Distance from the centreline in the section, in units of its scale (mm in the body)."""
    outside_mm: Floats
    """Distance outwards from the ring's outer surface; negative inside."""
    sulcus_mm: Floats
    """Distance from the layer between the dentate gyrus and the CA ring and subiculum."""
    ribbon_mm: Floats
    """Height above the middle of the subicular sheet."""
    position_mm: Floats
    """Position after the individual warp, shape (3, X, Y, Z): x lateral, y, z."""


class _Section(NamedTuple):
    """Where each voxel, (X, Y, Z), is in the plane across the centreline, in units of `scale`."""

    across: Floats  # lateral distance from the centreline
    above: Floats  # superior distance from the centreline
    angle_deg: Floats  # as in `HippocampusLayout`, and so are `radius` and `axis`
    radius: Floats
    ribbon: Floats  # height above the middle of the subicular sheet
    axis: Floats
    scale: Floats  # size of the section, in mm per unit


def random_field(
    rng: np.random.Generator, axes_mm: tuple[Floats, Floats, Floats], step_mm: float
) -> Floats:
    """A smooth random field of about unit variance: a cubic B-spline of normal draws.

    The control points cover +-48 mm whatever the grid, so that a grid of another
    voxel size samples the same field.

    Args:
        rng: source of the control points' values.
        axes_mm: coordinates of the grid along its three axes, x, y and z.
        step_mm: distance between control points.

    Returns:
        The field, shape (len(x), len(y), len(z)).
    """
    centres = np.arange(-np.ceil(48 / step_mm), np.ceil(48 / step_mm) + 1) * step_mm
    field = rng.standard_normal((centres.size,) * 3)
    for axis_mm in axes_mm:
        away = np.abs(axis_mm[:, None] - centres[None, :]) / step_mm
        basis = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.maximum(2 - away, 0) ** 3 / 6)
        # Contracting the first axis each time leaves the axes in their order after three.
        field = np.tensordot(field, basis, axes=(0, 1))
    # A cubic B-spline of unit normal values has variance 151/315 per axis on average.
    return np.asarray(field * (315 / 151) ** 1.5)


def _draw_parameters(seed: int, subject: int, side: Side) -> dict[str, float]:
    """The shape parameters of one hippocampus; they depend on no other subject.

    Both sides share the subject's draw; a third of the spread is the side's own.
    """
    person = np.random.default_rng([seed, subject, _PERSON]).standard_normal(len(_SPREAD))
    of_side = np.random.default_rng([seed, subject, _SIDE, SIDES.index(side)])
    drawn = 0.94 * person + 0.34 * of_side.standard_normal(len(_SPREAD))
    limited = zip(_SPREAD.items(), np.clip(drawn, -2, 2).tolist(), strict=True)
    return {name: mean + sd * z for (name, (mean, sd)), z in limited}


def make_layout(
    seed: int, subject: int, side: Side, axes_mm: tuple[Floats, Floats, Floats]
) -> HippocampusLayout:
    """The anatomy of one hippocampus, on a grid with the coordinates `axes_mm`.

    Seed, subject and side, as for `make_phantom`, decide on the draw, not on the frame.
    """
    shape = _draw_parameters(seed, subject, side)
    rng = np.random.default_rng([seed, subject, _WARP, SIDES.index(side)])
    position = np.stack(np.meshgrid(*axes_mm, indexing="ij"))
    position += np.stack([0.45 * random_field(rng, axes_mm, 8.0) for _ in range(3)])
    section = _locate_in_section(shape, position)
    # The sulcus turns from the ring's inner face into the sheet's upper one.
    sheet = (section.across < 0) & (section.above < 0)
    inner = RING_MM - shape["ring"]
    sulcus = np.where(sheet, section.ribbon - shape["ring"], section.radius - inner)
    reach = section.angle_deg <= shape["ca3_start_deg"] - 20
    reach |= sheet & (section.across > -shape["presub_mm"] - 1)
    return HippocampusLayout(
        subfields=_label_subfields(shape, section),
        axis=section.axis,
        angle_deg=section.angle_deg,
        radius=section.radius,
        outside_mm=(section.radius - RING_MM - shape["ring"]) * section.scale,
        sulcus_mm=np.where(reach, np.abs(sulcus) * section.scale, np.inf),
        ribbon_mm=section.ribbon * section.scale,
        position_mm=position,
    )


def _centreline(shape: dict[str, float], samples: int = 240) -> tuple[Floats, Floats]:
    """Points (samples, 3), equally spaced from tail to head, and their step in mm."""
    knots = _CENTRELINE_MM.copy()
    knots[:, 1] *= shape["length"]
    knots[:, 0] = 4 + (knots[:, 0] - 4) * shape["bend"]
    knots[-2:, 0] -= 1.5 * (shape["curl"] - 1) * np.array([0.5, 2])
    pitch, yaw = np.radians([shape["pitch_deg"], shape["yaw_deg"]])
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    about_z = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
    knots = knots @ np.array(about_x).T @ np.array(about_z).T
    knots += [shape[f"shift_{axis}"] for axis in "xyz"]
    fine = scipy.interpolate.CubicSpline(np.arange(len(knots)), knots)(
        np.linspace(0, len(knots) - 1, 2000)
    )
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    even = np.linspace(0, length[-1], samples)
    points = np.stack([np.interp(even, length, fine[:, k]) for k in range(3)], axis=1)
    return points, np.asarray(even[1])


def _locate_in_section(shape: dict[str, float], position: Floats) -> _Section:
    """The section's coordinates of positions, (3, X, Y, Z) in mm."""
    points, step = _centreline(shape)
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.array([0, 0, 1]) - tangent * tangent[:, 2:]
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    lateral = np.cross(tangent, up)

    grid = position.shape[1:]
    flat = position.reshape(3, -1).T
    nearest = scipy.spatial.cKDTree(points).query(flat)[1]
    away = flat - points[nearest]
    along = np.einsum("ij,ij->i", away, tangent[nearest])
    index = np.clip(nearest + along / step, 0, len(points) - 1)
    across = np.einsum("ij,ij->i", away, lateral[nearest])
    above = np.einsum("ij,ij->i", away, up[nearest])
    # Past an end the axial distance counts as radius, which closes the tube.
    beyond = along - (index - nearest) * step
    rho = np.maximum(np.hypot(across, above), 1e-6)
    stretch = np.hypot(rho, beyond) / rho

    axis = index / (len(points) - 1)
    roll = np.radians(shape["roll_deg"] + shape["twist_deg"] * (2 * axis - 1))
    across, above = (
        stretch * (across * np.cos(roll) + above * np.sin(roll)) / shape["width"],
        stretch * (above * np.cos(roll) - across * np.sin(roll)),
    )
    scale = _scale(shape, axis, float(step) * (len(points) - 1))
    across, above, axis, scale = (
        values.reshape(grid) for values in (across / scale, above / scale, axis, scale)
    )
    angle = np.degrees(np.arctan2(above, across))
    angle = np.where(angle < -90, angle + 360, angle)
    ribbon = above + RING_MM - shape["lift"] * across**2
    return _Section(across, above, angle, np.hypot(across, above), ribbon, axis, scale)


def _scale(shape: dict[str, float], axis: Floats, length_mm: float) -> Floats:
    """Size of the section along the axis, rounded off over the last 3.5 mm of both ends."""
    knots, sizes = _SCALE_KNOTS
    size = shape["thickness"] * scipy.interpolate.CubicSpline(knots, sizes, bc_type="natural")(axis)
    size *= 1 + (shape["head"] - 1) * np.clip((axis - 0.6) / 0.2, 0, 1)
    depth = np.clip(np.minimum(axis, 1 - axis) * length_mm / 3.5, 0, 1)
    return np.asarray(size * np.maximum(np.sqrt(1 - (1 - depth) ** 2), 0.05))


def _label_subfields(shape: dict[str, float], section: _Section) -> npt.NDArray[np.uint8]:
    """Values of `SUBFIELDS`, (X, Y, Z)."""
    across, above, angle = section.across, section.above, section.angle_deg
    radius, ribbon, axis = section.radius, section.ribbon, section.axis
    label = np.zeros(across.shape, dtype=np.uint8)
    inner = RING_MM - shape["ring"]
    # The ends of the tube are CA1 all through, as the dentate gyrus reaches neither.
    inside = (axis > 0.05) & (axis < 0.94)
    label[radius < inner] = SUBFIELDS["CA1"]
    label[(radius < inner) & inside] = SUBFIELDS["DG"]
    # The corner between the round core and the flat sheet belongs to the core.
    corner = (across < 0) & (across > -1.8) & (above < -0.6) & (ribbon > 0)
    label[corner & inside] = SUBFIELDS["DG"]
    ring = np.abs(radius - RING_MM) <= shape["ring"]
    fields = ("CA3", "CA2", "CA1", "SUB")
    angles = [*(shape[f"{name.lower()}_start_deg"] for name in fields), -91.0]
    for name, (start, end) in zip(fields, pairwise(angles), strict=True):
        label[ring & (angle <= start) & (angle > end)] = SUBFIELDS[name]
    sheet = (across < 0) & (above < 0.5) & (np.abs(ribbon) <= shape["ring"])
    widths = [shape[name] for name in ("presub_mm", "presub_width", "parasub_width")]
    edges = pairwise(accumulate(widths, initial=0.0))
    for name, (near, far) in zip(("SUB", "PRESUB", "PARASUB"), edges, strict=True):
        label[sheet & (-across > near) & (-across <= far)] = SUBFIELDS[name]
    return label
