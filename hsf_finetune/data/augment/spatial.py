"""Flips, affine and elastic deformation in one resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hsf_finetune.data.augment.batch_changes import BatchChanges
from hsf_finetune.data.augment.smooth_fields import make_smooth_field
from hsf_finetune.labels.classes import BACKGROUND_ROW

INJECTIVE = 2.48
"""Control points of a cubic B-spline that move less than their spacing over 2.48 cannot
fold space (Choi & Lee, Graphical Models 62, 2000)."""


def change_geometry(
    image: Tensor, label: Tensor, changes: BatchChanges, i: int, edges: Tensor
) -> tuple[Tensor, Tensor]:
    """Flips and deforms sample `i`, with one resampling at most.

    Args:
        image: (C, X, Y, Z) of the sample.
        label: (X, Y, Z) uint8 label rows.
        changes: of the batch.
        i: which sample of the batch this is.
        edges: (3,) voxel size along X, Y, Z.

    Returns:
        Image and label of the same shapes.
    """
    axes = [axis for axis, flipped in enumerate(changes.flip[i].tolist()) if flipped]
    if axes:
        image = image.flip([axis + 1 for axis in axes])
        label = label.flip(axes)
    if not (changes.affine[i] or changes.elastic[i]):
        return image, label
    positions = _input_positions(label, changes, i, edges)
    rows = _sample_nearest(label, positions)
    return _sample_trilinear_(image.float(), positions), rows


def _input_positions(label: Tensor, changes: BatchChanges, i: int, edges: Tensor) -> list[Tensor]:
    """Input voxel coordinates of each output voxel, one (X, Y, Z) tensor per axis."""
    shape = label.shape
    matrix, offset = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    if changes.affine[i]:
        matrix = _output_to_input_matrix(changes.rotation_rad[i], changes.zoom[i], edges)
        centre = (torch.tensor(shape, dtype=torch.float64) - 1) / 2
        offset = centre - matrix @ (centre + changes.translation_vox[i])
    x, y, z = (torch.arange(n, device=label.device, dtype=torch.float32) for n in shape)
    positions = [
        (a * x)[:, None, None] + ((b * y)[:, None] + (c * z + d))
        for (a, b, c), d in zip(matrix.tolist(), offset.tolist(), strict=True)
    ]
    if changes.elastic[i]:
        # Only the displacement goes through a matrix product: in TF32 the
        # coordinates themselves would lose tenths of a voxel.
        control = changes.control_vox[i]
        cells = control.shape[-1] - 3
        limit = (torch.tensor(shape) - 1) / cells / INJECTIVE
        control = control.clamp(-limit.view(3, 1, 1, 1), limit.view(3, 1, 1, 1))
        shifts = make_smooth_field(control.to(label.device), shape)
        for position, shift in zip(positions, shifts, strict=True):
            position += shift
    return positions


def _output_to_input_matrix(rotation_rad: Tensor, zoom: Tensor, edges: Tensor) -> Tensor:
    """(3, 3) float64 matrix from output to input voxels: the inverse of zoom and rotation."""
    x, y, z = rotation_rad.tolist()
    about_x = [[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]]
    about_y = [[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]]
    about_z = [[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]]
    rotations = torch.tensor([about_x, about_y, about_z], dtype=torch.float64)
    # The inverse of a rotation is its transpose; in voxels it acts between the edges.
    inverse = (rotations[2] @ rotations[1] @ rotations[0]).T * edges.double()
    return inverse / (edges * zoom).double()[:, None]


def _sample_trilinear_(volume: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Samples (C, X, Y, Z) at positions, border values outside; half grid_sample's time.

    The positions are overwritten, which keeps the working set near the cache's size.
    """
    shape = volume.shape[1:]
    inside = [p.clamp_(0, n - 1).view(-1) for p, n in zip(positions, shape, strict=True)]
    x, y, z = (position.int() for position in inside)
    base = x.mul_(shape[1]).add_(y).mul_(shape[2]).add_(z)
    dx, dy, dz = shape[1] * shape[2], shape[2], 1
    wx, wy, wz = (position.frac_() for position in inside)

    def along_z(flat: Tensor, start: int) -> Tensor:
        near = flat[start:].index_select(0, base)
        return near.lerp_(flat[start + dz :].index_select(0, base), wz)

    sampled = volume.new_empty(volume.shape)
    # On the far border the second neighbour has weight 0: any finite value will do, but
    # the last voxel needs one to read.
    readable = torch.cat([volume.flatten(1), volume.new_zeros(len(volume), dx + dy + dz)], 1)
    for flat, out in zip(readable, sampled, strict=True):
        front = along_z(flat, 0).lerp_(along_z(flat, dy), wy)
        back = along_z(flat, dx).lerp_(along_z(flat, dx + dy), wy)
        torch.lerp(front, back, wx, out=out.view(-1))
    return sampled


def _sample_nearest(label: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Samples (X, Y, Z) uint8 at positions; a rim of background stands for the outside."""
    rim = torch.nn.functional.pad(label, (1,) * 6, value=BACKGROUND_ROW)
    # Truncation rounds down here, since the rim makes every coordinate positive.
    x, y, z = (
        position.add(1.5).clamp_(0, n + 1.5).int()
        for position, n in zip(positions, label.shape, strict=True)
    )
    index = x.mul_(rim.shape[1]).add_(y).mul_(rim.shape[2]).add_(z)
    return rim.flatten().index_select(0, index.flatten()).view(label.shape)
