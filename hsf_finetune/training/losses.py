"""Losses for labels that are sets of classes.

Each voxel has an allowed set L of classes. Where every set holds one class these
are the plain losses; a prediction that agrees with the labels costs nothing,
however it divides probability inside a set. Formulas: marginal cross-entropy and
Dice of Shi et al., "Marginal loss and exclusion loss for partially supervised
multi-organ segmentation" (Medical Image Analysis, 2021) and the label-set losses
of Fidon et al., "Label-set loss functions for partial supervision" (MICCAI 2021).

All losses take logits (B, C, X, Y, Z), label rows (B, X, Y, Z) uint8 and the
allowed sets (B, R, C) bool, and return a scalar computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Overlap:
    """Soft counts of each annotated set in each case, (B, R) each.

    Args:
        inside: probability mass of the set on voxels whose label lies in it.
        outside: probability mass of the set on voxels whose label excludes it.
        size: number of voxels whose label lies in the set.
        annotated: False for padding rows, the background's row if it does not
            count, and sets without a statement (every class allowed).
    """

    inside: Tensor
    outside: Tensor
    size: Tensor
    annotated: Tensor


def set_cross_entropy(logits: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
    """Mean over voxels of -log of the probability that the allowed set holds."""
    wide = logits.float()
    permitted = _per_voxel(allowed, rows)
    compatible = wide.masked_fill(~permitted, -torch.inf).logsumexp(dim=1)
    return (wide.logsumexp(dim=1) - compatible).mean()


def overlap(logits: Tensor, rows: Tensor, allowed: Tensor, include_background: bool) -> Overlap:
    """Soft overlap of prediction and annotation for each annotated set.

    A voxel is inside a set F if its allowed set is part of F, outside if the two
    share no class, and otherwise does not count.
    """
    probabilities = logits.float().softmax(dim=1).flatten(2)
    sets = allowed.float()
    mass = torch.bmm(sets, probabilities)
    shared = torch.bmm(sets, sets.transpose(1, 2))
    members = sets.sum(dim=2)
    is_row = members > 0
    # [b, f, l]: whether label row l lies inside, or outside, the set of row f
    row_inside = (shared == members[:, None, :]) & is_row[:, None, :] & is_row[:, :, None]
    row_outside = (shared == 0) & is_row[:, None, :] & is_row[:, :, None]
    here = _one_hot(rows, allowed.shape[1])
    mass_per_row = torch.bmm(mass, here.transpose(1, 2))
    voxels_per_row = here.sum(dim=2)[:, None, :]
    annotated = is_row & (members < allowed.shape[2])
    if not include_background:
        annotated = annotated & ~(allowed[:, :, 0] & (members == 1))
    return Overlap(
        inside=(mass_per_row * row_inside).sum(dim=2),
        outside=(mass_per_row * row_outside).sum(dim=2),
        size=(voxels_per_row * row_inside).sum(dim=2),
        annotated=annotated,
    )


def dice_loss(counts: Overlap, smooth: float = 1e-5) -> Tensor:
    """One minus the soft Dice coefficient, averaged over cases and annotated sets.

    Milletari et al., "V-Net" (3DV 2016), with sums instead of squares.
    """
    dice = (2 * counts.inside + smooth) / (counts.inside + counts.outside + counts.size + smooth)
    return _mean(1 - dice, counts.annotated)


def focal_tversky_loss(
    counts: Overlap,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
    smooth: float = 1e-5,
) -> Tensor:
    """Focal Tversky loss of Abraham and Khan (ISBI 2019), with HSF's constants.

    `alpha` weighs false positives, `beta` false negatives. The power is shifted
    by a small constant, so that its gradient is finite where the loss is zero.
    """
    missed = counts.size - counts.inside
    tversky = (counts.inside + smooth) / (
        counts.inside + alpha * counts.outside + beta * missed + smooth
    )
    shift = 1e-4
    focal = (1 - tversky + shift) ** gamma - shift**gamma
    return _mean(focal, counts.annotated)


def build_loss(name: str) -> Loss:
    """The loss of that name: `dice_ce` or `focal_tversky`."""
    if name == "dice_ce":
        return _dice_ce
    return _focal_tversky


def _dice_ce(logits: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
    counts = overlap(logits, rows, allowed, include_background=False)
    return dice_loss(counts) + set_cross_entropy(logits, rows, allowed)


def _focal_tversky(logits: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
    return focal_tversky_loss(overlap(logits, rows, allowed, include_background=True))


def _per_voxel(allowed: Tensor, rows: Tensor) -> Tensor:
    """The allowed set at each voxel, (B, C, X, Y, Z)."""
    flat = rows.flatten(1).long()
    index = flat[:, None, :].expand(-1, allowed.shape[2], -1)
    per_voxel = allowed.transpose(1, 2).gather(2, index)
    return per_voxel.view(rows.shape[0], allowed.shape[2], *rows.shape[1:])


def _one_hot(rows: Tensor, count: int) -> Tensor:
    """Label rows as (B, R, voxels) float32."""
    numbers = torch.arange(count, device=rows.device, dtype=rows.dtype)
    return (rows.flatten(1)[:, None, :] == numbers[None, :, None]).float()


def _mean(values: Tensor, annotated: Tensor) -> Tensor:
    """Mean over what is annotated; 0 where nothing is."""
    weights = annotated.float()
    return (values * weights).sum() / weights.sum().clamp_min(1.0)
