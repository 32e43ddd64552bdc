"""Losses for labels that are sets of classes.

Each voxel has an allowed set of classes. Where every set holds one class these are the
plain losses. The loss of a prediction that agrees with the labels is 0, however it
divides probability inside a set. Formulas: marginal cross-entropy and Dice of Shi et al.,
"Marginal loss and exclusion loss for partially supervised multi-organ segmentation" (Medical
Image Analysis, 2021) and the label-set losses of Fidon et al., "Label-set loss functions for
partial supervision" (MICCAI 2021).

All losses take logits (B, C, X, Y, Z), label rows (B, X, Y, Z) uint8 and the
allowed sets (B, R, C) bool, and return a scalar computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from hsf_finetune.training.label_row_sums import sum_label_rows

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

Quotient = tuple[Tensor, Tensor]
"""A sum, and what it is divided by to be a mean; both are 0 where nothing counts."""

SMOOTH = 1e-5
"""Added to numerator and denominator of Dice and Tversky, as in MONAI."""


@dataclass(frozen=True)
class OverlapCounts:
    """Soft counts of voxels for each annotated set F in each case, (B, R) each.

    A voxel is inside F if its allowed set is part of F, outside F if the two share no
    class, and otherwise does not count.

    Args:
        inside: probability of F on the voxels inside it (true positives).
        missed: probability of anything else on the voxels inside it (false negatives).
        outside: probability of F on the voxels outside it (false positives).
        weight: of each set in the mean; 0 for padding rows, sets of every class and, with
            `include_background` off, those that may be background.
    """

    inside: Tensor
    missed: Tensor
    outside: Tensor
    weight: Tensor


def count_overlap(sums: Tensor, allowed: Tensor, include_background: bool) -> OverlapCounts:
    """Soft overlap of prediction and annotation, from the (B, R, C) sums of `sum_label_rows`."""
    sets = allowed.to(sums.dtype)
    members = sets.sum(dim=2)
    shared = sets @ sets.mT
    pairs = (members[:, :, None] > 0) & (members[:, None, :] > 0)
    # [b, f, l]: whether the set of label row l is part of that of row f, or disjoint from it
    is_part = pairs & (shared == members[:, None, :])
    is_disjoint = pairs & (shared == 0)
    inside_f, outside_f = sets @ sums.mT, (1 - sets) @ sums.mT
    counts = informative_rows(allowed)
    if not include_background:
        counts = counts & ~allowed[:, :, 0]
    return OverlapCounts(
        inside=(inside_f * is_part).sum(dim=2),
        missed=(outside_f * is_part).sum(dim=2),
        outside=(inside_f * is_disjoint).sum(dim=2),
        weight=counts.to(sums.dtype),
    )


def pool_equal_sets(counts: OverlapCounts, allowed: Tensor) -> OverlapCounts:
    """The counts of equal sets summed over the batch; each set counts once in the mean."""
    sets = allowed.flatten(0, 1)
    same = (sets[:, None] == sets).all(dim=2).to(counts.inside.dtype)

    def pool(values: Tensor) -> Tensor:
        return (same @ values.flatten()).view_as(values)

    return OverlapCounts(
        pool(counts.inside),
        pool(counts.missed),
        pool(counts.outside),
        counts.weight / same.sum(dim=1).view_as(counts.weight),
    )


def dice_loss(counts: OverlapCounts, weights: Tensor | None) -> Quotient:
    """One minus the soft Dice coefficient, averaged over cases and annotated sets.

    Milletari et al., "V-Net" (3DV 2016), with sums instead of squares. The `weights` of the
    sets, (B, R), multiply, as in MONAI.
    """
    wrong = counts.missed + counts.outside
    return _weigh(wrong / (2 * counts.inside + wrong + SMOOTH), counts.weight, weights)


def focal_tversky_loss(
    counts: OverlapCounts, weights: Tensor | None = None, gamma: float = 0.75
) -> Quotient:
    """Focal Tversky loss of Abraham and Khan (ISBI 2019), with HSF's constants.

    With `gamma` 1 it is the Tversky loss of Salehi et al. (MLMI 2017). The power is shifted by
    a small constant, so that its gradient is finite where the loss is zero.
    """
    wrong = 0.3 * counts.outside + 0.7 * counts.missed
    missing = wrong / (counts.inside + wrong + SMOOTH)
    if gamma != 1:
        shift = 1e-4
        missing = (missing + shift) ** gamma - shift**gamma
    return _weigh(missing, counts.weight, weights)


def set_cross_entropy(log_q: Tensor, weights: Tensor) -> Quotient:
    """Mean of -log q of the probability q of the allowed set.

    Args:
        log_q: its logarithm, (B, voxels).
        weights: of the voxels, (B, voxels), 0 where every class is allowed; the sum is
            divided by theirs, as in PyTorch's cross-entropy.
    """
    return -(log_q * weights).sum(), weights.sum()


def log_outside(logits: Tensor, rows: Tensor, allowed: Tensor, weights: Tensor) -> Tensor:
    """The sum of -log p_c over all voxels and the classes c that are not in their sets.

    Args:
        logits: as for the losses.
        rows: as for the losses.
        allowed: as for the losses.
        weights: of the classes, (C,).
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = logits.flatten(2).log_softmax(dim=1, dtype=wide)
    one_hot = torch.eye(allowed.shape[1], dtype=wide, device=rows.device)[rows.flatten(1).long()]
    sums = one_hot.mT @ log_p.mT  # (B, R, C)
    return -(sums * ~allowed * weights).sum()


def set_focal(log_q: Tensor, weights: Tensor, divisor: Tensor) -> Quotient:
    """Mean focal loss -(1 - q)^2 log q of the probability q of the allowed set.

    Lin et al., "Focal loss for dense object detection" (ICCV 2017). Arguments as in
    `set_cross_entropy`; `divisor` is the number of voxels that count times that of
    classes, as in MONAI.
    """
    log_q = log_q.clamp(max=0)
    loss = -((-torch.expm1(log_q)) ** 2.0) * log_q
    return (loss * weights).sum(), divisor


@dataclass(frozen=True)
class LabelSetLoss:
    """A loss for batches of cases with different labelling protocols.

    `dice` ignores sets that may be background; `tversky` and `focal_tversky` (HSF's)
    count them, as do `ce` and `focal`; `dice_ce` and `dice_focal` are sums.

    Args:
        name: one of the above.
        class_weights: one per class, background first; that of a set is the mean of its
            classes' weights. None is 1 each.
        batch_dice: whether Dice and Tversky pool equal sets over the batch, instead of
            case by case.
        over_processes: whether means are over the batches of all processes, which then have
            to compute the loss together. The mean of each process's mean would be another
            one where they have different numbers of sets or of voxels that count.
        label_smoothing: share s of the cross-entropy's target that is spread evenly over the
            C classes (Szegedy et al., CVPR 2016). What falls on the allowed set L stays with it,
            however it is divided: (1 - s + s |L| / C) (-log q), and s / C of -log p_c for each
            class outside L. On single classes this is PyTorch's.
    """

    name: str
    class_weights: Sequence[float] | None = None
    batch_dice: bool = False
    over_processes: bool = False
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        with torch.autocast(logits.device.type, enabled=False):
            sums, log_q = sum_label_rows(logits, rows, allowed)
            weights = self._set_weights(sums, allowed)
            counts = count_overlap(sums, allowed, include_background="tversky" in self.name)
            if self.batch_dice:
                counts = pool_equal_sets(counts, allowed)

            def per_voxel(weights: Tensor | None) -> Tensor:
                """The weight of each voxel's set, (B, voxels); 0 where every class is allowed."""
                per_row = informative_rows(allowed).to(log_q.dtype)
                per_row = per_row if weights is None else per_row * weights
                return per_row.gather(1, rows.flatten(1).long())

            def cross_entropy(voxels: Tensor) -> Quotient:
                """Of the voxels' weights, (B, voxels)."""
                if not self.label_smoothing:
                    return set_cross_entropy(log_q, voxels)
                share = self.label_smoothing / logits.shape[1]
                kept = 1 - self.label_smoothing + share * allowed.sum(dim=2)
                total, _ = set_cross_entropy(log_q, voxels * per_voxel(kept))
                of_class = sums.new_tensor(self.class_weights or [1.0] * logits.shape[1])
                return total + share * log_outside(logits, rows, allowed, of_class), voxels.sum()

            terms = {
                "dice": lambda: dice_loss(counts, weights),
                "ce": lambda: cross_entropy(per_voxel(weights)),
                "focal": lambda: set_focal(
                    log_q, per_voxel(weights), per_voxel(None).sum() * logits.shape[1]
                ),
                "tversky": lambda: focal_tversky_loss(counts, weights, gamma=1),
                "focal_tversky": lambda: focal_tversky_loss(counts, weights),
            }
            quotients = [terms[term]() for term in _SUMS.get(self.name, (self.name,))]
            totals, counted = map(torch.stack, zip(*quotients, strict=True))
            if self.over_processes and logits.requires_grad:
                # Gradients are averaged over the processes, and so is what sums are divided by.
                distributed.all_reduce(counted)
                counted /= distributed.get_world_size()
            return (totals / counted.clamp_min(torch.finfo(totals.dtype).tiny)).sum()

    def _set_weights(self, sums: Tensor, allowed: Tensor) -> Tensor | None:
        """The mean weight of each set's classes, (B, R)."""
        if self.class_weights is None:
            return None
        sets = allowed.to(sums.dtype)
        return sets @ sums.new_tensor(self.class_weights) / sets.sum(dim=2).clamp_min(1)


_SUMS = {"dice_ce": ("dice", "ce"), "dice_focal": ("dice", "focal")}


def weights_in_order(
    named: Mapping[str, float] | None, classes: Sequence[str]
) -> tuple[float, ...] | None:
    """Weights by class name in the order of the classes; 1 for those not named."""
    return tuple(named.get(name, 1.0) for name in classes) if named else None


def informative_rows(allowed: Tensor) -> Tensor:
    """Whether each label row is neither padding nor the set of every class, (B, R) bool."""
    return allowed.any(dim=2) & ~allowed.all(dim=2)


def _weigh(values: Tensor, counted: Tensor, weights: Tensor | None) -> Quotient:
    """The quotient whose value is the mean over the sets that count."""
    total = values * counted if weights is None else values * counted * weights
    return total.sum(), counted.sum()
