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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsf_finetune.training.row_table import row_table

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

SMOOTH = 1e-5
"""Added to numerator and denominator of Dice and Tversky, as MONAI does it."""


@dataclass(frozen=True)
class Overlap:
    """Soft counts of each annotated set F in each case, (B, R) each.

    A voxel is inside F if its allowed set is part of F, outside if the two share no
    class, and otherwise does not count.

    Args:
        inside: probability of F on the voxels inside it (true positives).
        missed: probability of anything else on the voxels inside it (false negatives).
        outside: probability of F on the voxels outside it (false positives).
        share: what each set counts for in the mean; 0 for padding rows, sets without a
            statement (every class allowed) and, where they do not count, those that may
            be background.
    """

    inside: Tensor
    missed: Tensor
    outside: Tensor
    share: Tensor


def overlap(table: Tensor, allowed: Tensor, include_background: bool) -> Overlap:
    """Soft overlap of prediction and annotation, from `row_table`'s (B, R, C) table."""
    sets = allowed.to(table.dtype)
    members = sets.sum(dim=2)
    shared = sets @ sets.mT
    pairs = (members[:, :, None] > 0) & (members[:, None, :] > 0)
    # [b, f, l]: whether the set of label row l is part of that of row f, or apart from it
    part = pairs & (shared == members[:, None, :])
    apart = pairs & (shared == 0)
    mass, rest = sets @ table.mT, (1 - sets) @ table.mT
    counts = stated(allowed)
    if not include_background:
        counts = counts & ~allowed[:, :, 0]
    return Overlap(
        inside=(mass * part).sum(dim=2),
        missed=(rest * part).sum(dim=2),
        outside=(mass * apart).sum(dim=2),
        share=counts.to(table.dtype),
    )


def pooled(counts: Overlap, allowed: Tensor) -> Overlap:
    """The counts of equal sets summed over the batch, each set counting once."""
    sets = allowed.flatten(0, 1)
    same = (sets[:, None] == sets).all(dim=2).to(counts.inside.dtype)

    def over_batch(values: Tensor) -> Tensor:
        return (same @ values.flatten()).view_as(values)

    return Overlap(
        over_batch(counts.inside),
        over_batch(counts.missed),
        over_batch(counts.outside),
        counts.share / same.sum(dim=1).view_as(counts.share),
    )


def dice_loss(counts: Overlap, weights: Tensor | None = None) -> Tensor:
    """One minus the soft Dice coefficient, averaged over cases and annotated sets.

    Milletari et al., "V-Net" (3DV 2016), with sums instead of squares.

    Args:
        counts: from `overlap`.
        weights: of the sets, (B, R); they multiply, as MONAI's do.
    """
    wrong = counts.missed + counts.outside
    return _mean(wrong / (2 * counts.inside + wrong + SMOOTH), counts.share, weights)


def focal_tversky_loss(
    counts: Overlap,
    weights: Tensor | None = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
) -> Tensor:
    """Focal Tversky loss of Abraham and Khan (ISBI 2019), with HSF's constants.

    `alpha` weighs false positives, `beta` false negatives; with `gamma` 1 it is the
    Tversky loss of Salehi et al. (MLMI 2017). The power is shifted by a small constant,
    so that its gradient is finite where the loss is zero.
    """
    wrong = alpha * counts.outside + beta * counts.missed
    missing = wrong / (counts.inside + wrong + SMOOTH)
    if gamma != 1:
        shift = 1e-4
        missing = (missing + shift) ** gamma - shift**gamma
    return _mean(missing, counts.share, weights)


def set_cross_entropy(held: Tensor, weights: Tensor) -> Tensor:
    """Mean of -log of the probability that the allowed set holds.

    Args:
        held: its logarithm, (B, voxels).
        weights: of the voxels, (B, voxels), 0 where the label says nothing; the mean is
            over their sum, as in PyTorch's cross-entropy.
    """
    return -(held * weights).sum() / weights.sum().clamp_min(torch.finfo(held.dtype).tiny)


def set_focal(held: Tensor, weights: Tensor, counted: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss -(1 - q)^gamma log q of the probability q in the allowed set.

    Lin et al., "Focal loss for dense object detection" (ICCV 2017). Arguments as in
    `set_cross_entropy`; `counted` is what to divide by: voxels that say something times
    classes, as MONAI does it.
    """
    log_q = held.clamp(max=0)
    loss = -((-torch.expm1(log_q)) ** gamma) * log_q
    return (loss * weights).sum() / counted.clamp_min(1)


@dataclass(frozen=True)
class SetLoss:
    """A loss for batches whose cases are labelled in different protocols.

    Args:
        name: as in `build_loss`.
        class_weights: one per class, background first; None is 1 each.
        batch_dice: whether Dice and Tversky pool equal sets over the batch.
    """

    name: str
    class_weights: tuple[float, ...] | None = None
    batch_dice: bool = False

    def __call__(self, logits: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        with torch.autocast(logits.device.type, enabled=False):
            table, held = row_table(logits, rows, allowed)
            weights = self._set_weights(table, allowed)
            terms = {
                "dice": lambda: dice_loss(self._counts(table, allowed, False), weights),
                "ce": lambda: set_cross_entropy(held, _per_voxel(weights, rows, allowed, held)),
                "focal": lambda: set_focal(
                    held,
                    _per_voxel(weights, rows, allowed, held),
                    _per_voxel(None, rows, allowed, held).sum() * logits.shape[1],
                ),
                "tversky": lambda: focal_tversky_loss(
                    self._counts(table, allowed, True), weights, gamma=1
                ),
                "focal_tversky": lambda: focal_tversky_loss(
                    self._counts(table, allowed, True), weights
                ),
            }
            return torch.stack([terms[term]() for term in _TERMS[self.name]]).sum()

    def _counts(self, table: Tensor, allowed: Tensor, include_background: bool) -> Overlap:
        counts = overlap(table, allowed, include_background)
        return pooled(counts, allowed) if self.batch_dice else counts

    def _set_weights(self, table: Tensor, allowed: Tensor) -> Tensor | None:
        """The mean weight of each set's classes, (B, R)."""
        if self.class_weights is None:
            return None
        sets = allowed.to(table.dtype)
        return sets @ table.new_tensor(self.class_weights) / sets.sum(dim=2).clamp_min(1)


_TERMS = {
    "dice_ce": ("dice", "ce"),
    "dice_focal": ("dice", "focal"),
    "dice": ("dice",),
    "ce": ("ce",),
    "focal": ("focal",),
    "tversky": ("tversky",),
    "focal_tversky": ("focal_tversky",),
}


def build_loss(
    name: str, class_weights: Sequence[float] | None = None, batch_dice: bool = False
) -> Loss:
    """The loss of that name.

    `dice` leaves sets out that may be background, `tversky` and `focal_tversky` (HSF's)
    count them, as do `ce` and `focal`; `dice_ce` and `dice_focal` are sums.

    Args:
        name: one of the above.
        class_weights: one per class, background first; a set has its classes' mean.
        batch_dice: whether Dice and Tversky pool equal sets over the batch, instead of
            case by case.
    """
    return SetLoss(name, None if class_weights is None else tuple(class_weights), batch_dice)


def weights_in_order(
    named: Mapping[str, float] | None, classes: Sequence[str]
) -> tuple[float, ...] | None:
    """Weights by class name in the order of the classes; 1 for those not named."""
    return tuple(named.get(name, 1.0) for name in classes) if named else None


def stated(allowed: Tensor) -> Tensor:
    """Whether each label row says anything, (B, R) bool: neither padding nor every class."""
    return allowed.any(dim=2) & ~allowed.all(dim=2)


def _per_voxel(weights: Tensor | None, rows: Tensor, allowed: Tensor, like: Tensor) -> Tensor:
    """The weight of each voxel's set, (B, voxels); 0 where it says nothing."""
    per_row = stated(allowed).to(like.dtype)
    if weights is not None:
        per_row = per_row * weights
    return per_row.gather(1, rows.flatten(1).long())


def _mean(values: Tensor, share: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over what counts; 0 where nothing does."""
    total = values * share if weights is None else values * share * weights
    return total.sum() / share.sum().clamp_min(torch.finfo(values.dtype).tiny)
