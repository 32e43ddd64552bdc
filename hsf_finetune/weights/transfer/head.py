"""The tensors that count classes: which of them fit, and how they are put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.channels import (
    Derivations,
    HeadPolicy,
    channel_rules,
    fresh_rules,
)
from hsf_finetune.weights.transfer.names import Match
from hsf_finetune.weights.transfer.receipt import Status
from hsf_finetune.weights.transfer.remap import along, counted, mismatch
from hsf_finetune.weights.transfer.rules import ChannelRule


def plan_head(
    match: Match,
    axes: Mapping[str, tuple[int, ...]],
    source: Sequence[str] | None,
    target: Sequence[str],
    derive_from: Derivations,
    policy: HeadPolicy,
    coarser: Sequence[Collection[str]] = (),
) -> tuple[tuple[ChannelRule, ...], dict[str, tuple[Status, str]]]:
    """The rule of each class, and what becomes of each tensor that counts classes.

    Args:
        match: both sides.
        axes: network's name -> axes that count classes.
        source: classes of the checkpoint; None where it names none.
        target: classes of the network.
        derive_from: as in `channels.channel_rules`.
        policy: as in `channels.channel_rules`.
        coarser: names of the tensors of each head of deep supervision. One of which the
            checkpoint has nothing starts fresh by itself; all else goes or stays together.

    Raises:
        ConfigError: see `channels.channel_rules`.
        WeightsError: the head is to be copied by position, and does not fit.
    """
    channels = counted(match, axes)
    rules = channel_rules(target, source, channels, derive_from, policy)
    known = len(source) if source is not None else channels
    misfits = {n: reason for n, own in axes.items() if (reason := _misfit(n, own, match, known))}
    without = {n for head in coarser if not any(n in match.there for n in head) for n in head}
    wrong = [name for name in misfits if name not in without]
    if wrong and policy == "copy":
        name, reason = wrong[0], misfits[wrong[0]]
        raise WeightsError(
            "finetuning.head=copy: the checkpoint's head does not fit",
            found=f"{name}: {reason}",
            fix="finetuning.head=fresh",
        )
    if wrong and policy == "transfer":
        rules = fresh_rules(target, "the checkpoint's head does not fit")
    fresh = not any(rule.channels for rule in rules)
    same = known == len(target) and all(
        rule.channels == (place,) and rule.bias_shift == 0 for place, rule in enumerate(rules)
    )
    status: dict[str, tuple[Status, str]] = {}
    for name in axes:
        if fresh and policy == "fresh":
            status[name] = ("fresh", rules[0].note)
        elif name in misfits:
            status[name] = ("refused" if name in match.there else "fresh", misfits[name])
        elif fresh:
            status[name] = ("fresh", rules[0].note)
        else:
            status[name] = ("loaded", "") if same else ("remapped", "class by class")
    return rules, status


class ClassMix:
    """Puts tensors together class by class.

    What a layer gives for a class is made of what it gave for the classes it comes out
    of: their mean. Where a layer *reads* a value per class (in networks whose last block
    is as wide as there are classes), the weights of a class that was given to k others
    are divided among these, so that their sum is what it was.

    Args:
        rules: one per class of the network.
        logit_biases: names of the biases that add to logits.
        summed: name of a weight -> the axis over which its layer sums.
    """

    def __init__(
        self,
        rules: Sequence[ChannelRule],
        logit_biases: Collection[str],
        summed: Mapping[str, int],
    ) -> None:
        self._rules = rules
        self._logit_biases = logit_biases
        self._summed = summed
        self._fed = Counter(channel for rule in rules for channel in rule.channels)
        self._fresh = torch.tensor([not rule.channels for rule in rules])

    def __call__(
        self, name: str, there: torch.Tensor, here: torch.Tensor, axes: Sequence[int]
    ) -> torch.Tensor:
        """A tensor of the network's shape, made of the checkpoint's channels.

        Args:
            name: of the network.
            there: the checkpoint's tensor.
            here: the network's tensor, whose values fresh channels keep.
            axes: those that count classes.
        """
        value = there.to(device=here.device, dtype=here.dtype)
        keep = torch.zeros_like(here, dtype=torch.bool)
        for axis in axes:
            shares = self._shares(there.shape[axis], read=self._summed.get(name) == axis)
            value = along(value, (axis,), shares)
            keep |= self._fresh.to(here.device).view(
                [-1 if n == axis else 1 for n in range(here.dim())]
            )
        if name in self._logit_biases:
            value = value + value.new_tensor([rule.bias_shift for rule in self._rules])
        return torch.where(keep, here.detach(), value)

    def _shares(self, channels: int, read: bool) -> torch.Tensor:
        shares = torch.zeros(len(self._rules), channels, dtype=torch.float64)
        for row, rule in zip(shares, self._rules, strict=True):
            for channel in rule.channels:
                row[channel] = 1 / (self._fed[channel] if read else len(rule.channels))
        return shares


def _misfit(name: str, axes: tuple[int, ...], match: Match, channels: int | None) -> str:
    """Why a tensor cannot be put together class by class; empty if it can."""
    if name not in match.there:
        return "not in the checkpoint"
    reason = mismatch(name, match, axes, channels)
    count = f" with {channels} classes" if channels else ""
    return reason.replace(" in the checkpoint,", f" in the checkpoint{count},")
