"""The tensors that count classes: which of them fit, and what they are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

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
    reasons = {n: reason for n in axes if (reason := _mismatch(pairs, n, axes[n], known))}
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


def _mismatch(pairs: TensorPairs, name: str, axes: Collection[int], channels: int | None) -> str:
    """Why a tensor cannot be made class by class; empty if it can."""
    reason = pairs.mismatch(name, axes, channels)
    count = f" with {channels} classes" if channels else ""
    return reason.replace(" in the checkpoint,", f" in the checkpoint{count},")
