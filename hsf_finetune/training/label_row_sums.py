"""Probabilities summed over label rows and over allowed sets: all that the losses need.

An explicit backward pass makes losses of sets as cheap as those of single classes: two
tensors of the logits' size are kept for it, and either pass needs a third one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sum_label_rows(logits: Tensor, rows: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Sums softmax probabilities over label rows, and over each voxel's set of classes.

    Computed in float32, or in float64 where the logits are.

    Args:
        logits: (B, C, X, Y, Z).
        rows: label rows, (B, X, Y, Z) uint8.
        allowed: the label rows' sets of classes, (B, R, C) bool.

    Returns:
        sums: (B, R, C), the probability of each class summed over the voxels of each
            label row.
        log_q: (B, voxels), the logarithm of the probability of the voxel's allowed set.
    """
    sums, log_q = _LabelRowSums.apply(logits.flatten(2), rows.flatten(1), allowed)  # type: ignore[no-untyped-call]
    return sums, log_q


class _LabelRowSums(torch.autograd.Function):
    """The forward and backward pass of `sum_label_rows`.

    With p the softmax, S[l, c] the sum of p_c over the voxels of row l, q the probability of
    the allowed set A, and s the softmax over A alone:

        dS[l, c] / dz_k = sum over the voxels of row l of p_c ([c = k] - p_k)
        d log q / dz_k = s_k - p_k
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """`sum_label_rows` of (B, C, voxels) and (B, voxels)."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p = logits.log_softmax(dim=1, dtype=wide)
        excluded = log_p.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)
        within = _per_voxel(excluded, rows)
        largest = within.add_(log_p).amax(dim=1, keepdim=True)
        # exp(-87) is as good as 0; on a CPU the exponential of -inf takes three times as long.
        within.sub_(largest).clamp_(min=-87).exp_()
        total = within.sum(dim=1, keepdim=True)
        within /= total
        p = log_p.exp_()
        one_hot = torch.eye(allowed.shape[1], dtype=wide, device=rows.device)
        sums = _per_voxel(one_hot.expand(len(rows), -1, -1), rows) @ p.mT
        ctx.save_for_backward(p, within, rows)
        ctx.dtype = logits.dtype
        ctx.set_materialize_grads(False)
        return sums, total.log_().add_(largest)[:, 0]

    @staticmethod
    def backward(
        ctx: Any, d_sums: Tensor | None, d_log_q: Tensor | None
    ) -> tuple[Tensor, None, None]:
        """The gradient of the logits; the other inputs have none."""
        p, within, rows = ctx.saved_tensors
        gradient = torch.zeros_like(p) if d_sums is None else _per_voxel(d_sums, rows).mul_(p)
        shared = gradient.sum(dim=1, keepdim=True)
        if d_log_q is not None:
            gradient.addcmul_(within, d_log_q[:, None])
            shared += d_log_q[:, None]
        gradient.addcmul_(p, shared, value=-1)
        return gradient.to(ctx.dtype), None, None


def _per_voxel(table: Tensor, rows: Tensor) -> Tensor:
    """The entry of a (B, R, C) table for the label row of each voxel, (B, C, voxels)."""
    index = rows.long()[:, None].expand(-1, table.shape[2], -1)
    return table.mT.contiguous().gather(2, index)
