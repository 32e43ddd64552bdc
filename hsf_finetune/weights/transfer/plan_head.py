"""The tensors that count classes: which of them fit, what they are made of, and their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.class_rules import (
    ClassRule,
    Derivations,
    HeadPolicy,
    fresh_rules,
    make_class_rules,
    source_class_names,
)
from hsf_finetune.weights.transfer.receipt import TensorStatus
from hsf_finetune.weights.transfer.tensor_pairs import Axes, TensorPairs


@dataclass(frozen=True)
class HeadRequest:
    """The classes of a network, and where they come from in a transfer.

    Args:
        classes: class of each output channel of the network.
        axes: state dict name -> axes that count classes, from `networks.build.class_axes`.
        source_classes: class of each output channel of a checkpoint that does not say.
        derive_from: new class -> class or classes of the checkpoint that it comes out of.
        policy: whether channels go by class name (`transfer`), by position (`copy`), or
            start fresh (`fresh`).
        fresh_note: why they start fresh, if the policy is not `finetuning.head`'s.
    """

    classes: Sequence[str]
    axes: Axes = field(default_factory=dict)
    source_classes: Sequence[str] | None = None
    derive_from: Derivations = field(default_factory=dict)
    policy: HeadPolicy = "transfer"
    fresh_note: str = ""


@dataclass(frozen=True)
class HeadPlan:
    """What becomes of the classes.

    Args:
        rules: one per class of the network.
        statuses: name of a tensor that counts classes -> what becomes of it.
        axes: name of such a tensor -> its axes that count classes.
        dropped: classes of the checkpoint that nothing comes from.
    """

    rules: tuple[ClassRule, ...]
    statuses: dict[str, TensorStatus]
    axes: Axes
    dropped: tuple[str, ...]


def plan_head(
    pairs: TensorPairs,
    request: HeadRequest,
    recorded: Sequence[str] | None,
    coarser: Sequence[Collection[str]] = (),
) -> HeadPlan:
    """The rule of each class, and what becomes of each tensor that counts classes.

    Args:
        pairs: the tensors of both sides.
        request: of the network; axes of tensors in `pairs` only.
        recorded: the checkpoint's own class names; None where it has none.
        coarser: names of the tensors of each head of deep supervision. One of which the
            checkpoint has nothing starts fresh by itself; all other tensors that count
            classes are taken together or not at all.

    Raises:
        ConfigError: see `class_rules`.
        WeightsError: the head is to be copied by position, and does not fit.
    """
    axes, target, policy = request.axes, request.classes, request.policy
    channels = pairs.source_extent(axes)
    source = source_class_names(recorded, request.source_classes, channels)
    rules = make_class_rules(target, source, channels, request.derive_from, policy)
    if policy == "fresh" and request.fresh_note:
        rules = fresh_rules(target, request.fresh_note)
    known = channels if source is None else len(source)
    count = f" in the checkpoint with {known} classes," if known else " in the checkpoint,"
    mismatches = {name: pairs.mismatch(name, axes[name], known) for name in axes}
    reasons = {n: m.replace(" in the checkpoint,", count) for n, m in mismatches.items() if m}
    absent = {n for head in coarser if not any(n in pairs.source for n in head) for n in head}
    wrong = [name for name in reasons if name not in absent]
    if wrong and policy == "copy":
        raise WeightsError(
            "finetuning.head=copy: the checkpoint's head does not fit",
            found=f"{wrong[0]}: {reasons[wrong[0]]}",
            fix="finetuning.head=fresh",
        )
    if wrong and policy == "transfer":
        rules = fresh_rules(target, "the checkpoint's head does not fit")
    fresh = not any(rule.channels for rule in rules)
    same = known == len(target) and all(
        rule.channels == (n,) and rule.bias_shift == 0 for n, rule in enumerate(rules)
    )
    statuses: dict[str, TensorStatus] = {}
    for name in axes:
        if name in reasons and not (fresh and policy == "fresh"):
            statuses[name] = "refused" if name in pairs.source else "fresh", reasons[name]
        elif fresh:
            statuses[name] = "fresh", rules[0].note
        else:
            statuses[name] = ("loaded", "") if same else ("remapped", "class by class")
    used = {name for rule in rules for name in rule.sources}
    return HeadPlan(rules, statuses, axes, tuple(n for n in source or () if n not in used))


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
        """A tensor of the network's shape, made of the checkpoint's channels."""
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
