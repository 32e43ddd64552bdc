"""Tensors whose channels are weighted sums of the channels of another tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch

from hsf_finetune.weights.transfer.class_rules import ClassRule


def mix_channels(value: torch.Tensor, axes: Sequence[int], shares: torch.Tensor) -> torch.Tensor:
    """A tensor mixed along each of some axes: new[j] = sum over i of shares[j, i] old[i].

    Args:
        value: of extent N along the axes.
        axes: which.
        shares: (M, N).

    Returns:
        The tensor, of extent M along the axes.
    """
    shares = shares.to(device=value.device, dtype=value.dtype)
    for axis in axes:
        value = torch.tensordot(shares, value, dims=([1], [axis])).movedim(0, axis)
    return value


class ClassMix:
    """Computes the tensors of a new head, class by class.

    The weights of a class are the mean of those of the classes it is made of. Where a
    layer *reads* one value per class (in networks whose last block has as many channels
    as there are classes), the weights of a class that was given to k others are divided
    among these, so that their sum is unchanged.

    Args:
        rules: one per class of the network.
        logit_biases: names of the biases that add to logits.
        summed: name of a weight -> the axis over which its layer sums.
    """

    def __init__(
        self,
        rules: Sequence[ClassRule],
        logit_biases: Collection[str],
        summed: Mapping[str, int],
    ) -> None:
        self._rules = rules
        self._logit_biases = logit_biases
        self._summed = summed
        self._uses = Counter(channel for rule in rules for channel in rule.channels)
        self._fresh = torch.tensor([not rule.channels for rule in rules])

    def __call__(
        self, name: str, source: torch.Tensor, target: torch.Tensor, axes: Sequence[int]
    ) -> torch.Tensor:
        """A tensor of the network's shape, made of the checkpoint's channels.

        Args:
            name: of the network.
            source: the checkpoint's tensor.
            target: the network's tensor, whose values fresh channels keep.
            axes: those that count classes.
        """
        value = source.to(device=target.device, dtype=target.dtype)
        keep = torch.zeros_like(target, dtype=torch.bool)
        for axis in axes:
            shares = self._shares(source.shape[axis], read=self._summed.get(name) == axis)
            value = mix_channels(value, (axis,), shares)
            keep |= self._fresh.to(target.device).view(
                [-1 if n == axis else 1 for n in range(target.dim())]
            )
        if name in self._logit_biases:
            value = value + value.new_tensor([rule.bias_shift for rule in self._rules])
        return torch.where(keep, target.detach(), value)

    def _shares(self, channels: int, read: bool) -> torch.Tensor:
        shares = torch.zeros(len(self._rules), channels, dtype=torch.float64)
        for row, rule in zip(shares, self._rules, strict=True):
            for channel in rule.channels:
                row[channel] = 1 / (self._uses[channel] if read else len(rule.channels))
        return shares
