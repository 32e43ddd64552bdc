"""The label-set loss on raw label values, outside of any run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.training.losses import LabelSetLoss, weights_in_order


def label_set_loss(
    label_map: LabelMap,
    name: str = "dice_ce",
    *,
    class_weights: Mapping[str, float] | None = None,
    batch_dice: bool = False,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A loss for labels whose values stand for sets of classes (merged or partial labels).

    A prediction that is compatible with the label costs nothing: where a value stands for
    {CA2, CA3}, either is right. On labels that stand for one class each it is the plain loss.
    Marginal loss: Shi et al. (2021), https://doi.org/10.1016/j.media.2021.101979; label-set
    losses: Fidon et al. (2021), https://arxiv.org/abs/2107.03846.

    Args:
        label_map: label value -> classes it stands for.
        name: `ce`, `dice`, `dice_ce`, `tversky`, `focal_tversky`, `focal` or `dice_focal`.
        class_weights: class -> weight; 1 for those not named.
        batch_dice: whether Dice pools equal sets over the batch, instead of case by case.

    Returns:
        A function of logits (batch, classes, x, y, z) and raw label values (batch, x, y, z)
        that gives a scalar.

    Examples:
        >>> import torch
        >>> import hsf_finetune as hf
        >>> space = hf.ClassSpace(("background", "CA2", "CA3"))
        >>> merged = hf.LabelMap.from_sets(space, {7: ["CA2", "CA3"]})
        >>> loss = hf.label_set_loss(merged, "ce")
        >>> logits = torch.tensor([-50.0, 3.0, -1.0]).reshape(1, 3, 1, 1, 1)
        >>> round(loss(logits, torch.full((1, 1, 1, 1), 7)).item(), 6)
        0.0
    """
    weights = weights_in_order(class_weights, label_map.space.names)
    set_loss = LabelSetLoss(name, weights, batch_dice)
    matrix = torch.from_numpy(label_map.matrix)

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        rows = torch.from_numpy(label_map.rows(label.cpu().numpy())).to(logits.device)
        allowed = matrix.to(logits.device).expand(len(logits), -1, -1)
        return set_loss(logits, rows, allowed)

    return loss
