"""Deep supervision: logits of several levels in training, and the weight of each level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def stack_levels(logits: Sequence[Tensor]) -> Tensor:
    """Logits (B, classes, ...) from the finest level to the coarsest, as one tensor.

    Returns:
        (B, levels, classes, X, Y, Z), the coarser levels brought to full size by repetition.
    """
    full = logits[0].shape[2:]
    return torch.stack([interpolate(level, full) for level in logits], dim=1)


def supervised_outputs(logits: Tensor) -> tuple[tuple[float, Tensor], ...]:
    """The logits of each level with their share in the loss; the shares sum to 1.

    A level counts half as much as the next finer one (Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z, supplement).

    Args:
        logits: (B, classes, X, Y, Z); or, of a network with deep supervision in
            training, (B, levels, classes, X, Y, Z) from the finest level to the coarsest.

    Returns:
        (share, logits of shape (B, classes, X, Y, Z)) for each level.
    """
    levels = logits.unbind(dim=1) if logits.dim() == 6 else (logits,)
    weights = [0.5**level for level in range(len(levels))]
    total = sum(weights)
    return tuple((w / total, level) for w, level in zip(weights, levels, strict=True))
