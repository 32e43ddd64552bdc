"""What a prediction gives to the label rows of each case: all that the losses need to know.

One custom gradient keeps the cost of set losses at that of plain ones: two tensors of the
logits' size are kept for the backward pass, and a third one is made in either pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def row_table(logits: Tensor, rows: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Sums softmax probabilities over label rows, and over each voxel's set of classes.

    Computed in float32, or in float64 where the logits are.

    Args:
        logits: (B, C, X, Y, Z).
        rows: label rows, (B, X, Y, Z) uint8.
        allowed: the label rows' sets of classes, (B, R, C) bool.

    Returns:
        table: (B, R, C), the probability of each class summed over the voxels of each
            label row.
        held: (B, voxels), the log of the probability that the voxel's set holds.
    """
    table, held = _RowTable.apply(logits.flatten(2), rows.flatten(1), allowed)  # type: ignore[no-untyped-call]
    return table, held


class _RowTable(torch.autograd.Function):
    """The forward and backward pass of `row_table`.

    With p the softmax, T[l, c] the sum of p_c over the voxels of row l, h the log of the
    probability in the allowed set A, and s the softmax over A alone:

        dT[l, c] / dz_k = sum over the voxels of row l of p_c ([c = k] - p_k)
        dh / dz_k = s_k - p_k
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """`row_table` of (B, C, voxels) and (B, voxels)."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p = logits.log_softmax(dim=1, dtype=wide)
        within = _spread(log_p.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf), rows)
        largest = within.add_(log_p).amax(dim=1, keepdim=True)
        # exp(-87) is as good as 0; on a CPU the exponential of -inf takes three times as long.
        within.sub_(largest).clamp_(min=-87).exp_()
        total = within.sum(dim=1, keepdim=True)
        within /= total
        p = log_p.exp_()
        each = torch.eye(allowed.shape[1], dtype=wide, device=rows.device)
        of_row = _spread(each.expand(len(rows), -1, -1), rows)
        table = of_row @ p.mT
        ctx.save_for_backward(p, within, rows)
        ctx.dtype = logits.dtype
        ctx.set_materialize_grads(False)
        return table, total.log_().add_(largest)[:, 0]

    @staticmethod
    def backward(
        ctx: Any, d_table: Tensor | None, d_held: Tensor | None
    ) -> tuple[Tensor, None, None]:
        """The gradient of the logits; the rest has none."""
        p, within, rows = ctx.saved_tensors
        gradient = torch.zeros_like(p) if d_table is None else _spread(d_table, rows).mul_(p)
        shared = gradient.sum(dim=1, keepdim=True)
        if d_held is not None:
            gradient.addcmul_(within, d_held[:, None])
            shared += d_held[:, None]
        gradient.addcmul_(p, shared, value=-1)
        return gradient.to(ctx.dtype), None, None


def _spread(of_row: Tensor, rows: Tensor) -> Tensor:
    """Each voxel's entry of a (B, R, C) table, (B, C, voxels)."""
    index = rows.long()[:, None].expand(-1, of_row.shape[2], -1)
    return of_row.mT.contiguous().gather(2, index)
