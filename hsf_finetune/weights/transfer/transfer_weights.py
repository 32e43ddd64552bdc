"""Loads pretrained weights into a network: the trunk by name and shape, both ends by meaning."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.transfer.check_trunk import TrunkLimits, check_trunk
from hsf_finetune.weights.transfer.input_rules import InputRequest
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest, pair_tensors
from hsf_finetune.weights.transfer.plan_head import (
    ClassMix,
    HeadPlan,
    HeadRequest,
    mix_channels,
    plan_head,
)
from hsf_finetune.weights.transfer.plan_inputs import InputPlan, plan_inputs
from hsf_finetune.weights.transfer.receipt import Part, Receipt, TensorEntry, TensorStatus
from hsf_finetune.weights.transfer.tensor_pairs import Axes, TensorPairs


def transfer(
    anatomy: Anatomy,
    checkpoint: Checkpoint,
    head: HeadRequest,
    inputs: InputRequest | None = None,
    matching: MatchRequest | None = None,
    min_loaded: float = 1.0,
) -> Receipt:
    """Loads a checkpoint into a network in place; all of it or, on an error, nothing.

    Tensors that count neither classes nor input channels load where name and shape agree.
    Those that count classes are computed channel by channel, by the rules of
    `class_rules.make_class_rules`; biases that add to logits are shifted as these say. If
    any tensor with a class axis does not fit, none of them is touched; heads of deep
    supervision that the checkpoint lacks start fresh. Those that count input channels
    follow `input_rules.make_input_rules`.

    Args:
        anatomy: the network to load into.
        checkpoint: the weights.
        head: the classes, and which of the checkpoint's they come from.
        inputs: the input channels and what to do about them; without it, tensors of
            another input size are refused.
        matching: how tensors are paired, and which of them are loaded; all of them, by
            name, unless it says otherwise.
        min_loaded: smallest share of the trunk (of its tensors, and of its parameters), as
            far as it is to be loaded, that must load.

    Returns:
        What became of each tensor and channel.

    Raises:
        WeightsError: too little of the trunk fits, something of the checkpoint's trunk has
            no place in the network, or the recorded settings give another function; the
            tensors cannot be paired by order, or the head cannot be copied by position.
        ConfigError: a request names a class, a channel or a tensor that does not exist, or
            contradicts what the checkpoint says of its classes or channels.
    """
    inputs = inputs or InputRequest({})
    loose = {**inputs.axes, **head.axes}
    matching = matching or MatchRequest()
    if matching.load != "all":
        head = replace(head, policy="fresh", fresh_note=f"weights.load={matching.load}")
    pairs = pair_tensors(anatomy.network, checkpoint.tensors, matching, loose, head.axes.keys())
    head = replace(head, axes=_known_axes(head.axes, pairs))
    reading = {n: axes for n, axes in inputs.axes.items() if n not in head.axes}
    inputs = replace(inputs, axes=_known_axes(reading, pairs))
    head_plan = plan_head(pairs, head, checkpoint.classes, anatomy.coarser_heads())
    input_plan = plan_inputs(pairs, inputs, checkpoint.channel_names)
    receipt = _receipt(anatomy, checkpoint, pairs, _Plans(head_plan, input_plan, matching))
    limits = TrunkLimits(min_loaded, matching, pairs.hint)
    receipt = check_trunk(anatomy, receipt, checkpoint, limits)
    new = _new_values(anatomy, pairs, receipt, head_plan, input_plan)
    with torch.no_grad():
        for name, value in new.items():
            pairs.target[name].copy_(value)
    return receipt


# -------------------------------------------------------------------- internals
def _known_axes(axes: Axes, pairs: TensorPairs) -> Axes:
    return {name: own for name, own in axes.items() if name in pairs.target}


def _new_values(
    anatomy: Anatomy,
    pairs: TensorPairs,
    receipt: Receipt,
    head: HeadPlan,
    inputs: InputPlan,
) -> dict[str, torch.Tensor]:
    """What to write into each tensor that gets its values from the checkpoint."""
    mix = ClassMix(head.rules, anatomy.logit_biases(), anatomy.summed_axes())
    shares = torch.tensor([rule.shares for rule in inputs.rules])
    values: dict[str, torch.Tensor] = {}
    for entry in receipt.entries:
        if not entry.filled:
            continue
        value, target = pairs.source[entry.name], pairs.target[entry.name]
        if entry.name in head.axes:
            value = mix(entry.name, value, target, head.axes[entry.name])
        elif entry.status == "remapped":
            parts = shares
            if value.dim() == 1:
                # Norms of the image itself: means of the same channels, or of all for a new one.
                parts = shares + (shares.sum(1, keepdim=True) == 0)
                parts = parts / parts.sum(1, keepdim=True)
            value = mix_channels(value.to(target.dtype), inputs.axes[entry.name], parts)
        values[entry.name] = value
    return values


@dataclass(frozen=True)
class _Plans:
    head: HeadPlan
    inputs: InputPlan
    matching: MatchRequest


def _receipt(
    anatomy: Anatomy, checkpoint: Checkpoint, pairs: TensorPairs, plans: _Plans
) -> Receipt:
    owners, encoder = anatomy.tensor_block(), anatomy.encoder_names()
    entries = []
    for name in pairs.target:
        part: Part = "decoder"
        if owners[name] == anatomy.head.name:
            part = "head"
        elif name in encoder:
            part = "encoder"
        entries.append(_entry(name, pairs, owners[name], part, plans))
    wanted = {entry.name for entry in entries if entry.part != "head"}
    if plans.matching.load == "encoder":
        wanted &= encoder
    beyond = [n for n, place in pairs.places.items() if place.is_within(wanted)]
    refused = [n for n in beyond if not plans.matching.allows(n)]
    return Receipt(
        source=str(checkpoint.path.resolve()),
        digest=checkpoint.digest,
        entries=tuple(entries),
        unused=(*pairs.unused, *checkpoint.left_out),
        channels=plans.head.rules,
        dropped=plans.head.dropped,
        renamed=pairs.renamed,
        inputs=plans.inputs.rules,
        dropped_inputs=plans.inputs.dropped,
        origin=checkpoint.origin,
        load=plans.matching.load,
        beyond=tuple(refused),
        allowed=tuple(n for n in beyond if n not in refused),
    )


def _entry(name: str, pairs: TensorPairs, block: str, part: Part, plans: _Plans) -> TensorEntry:
    source, target = pairs.source.get(name), pairs.target[name]
    origin, load = pairs.origins.get(name, ""), plans.matching.load
    counts_classes = name in plans.head.axes
    skipped = (load == "encoder" and part != "encoder") or (load == "trunk" and counts_classes)
    mismatch = pairs.mismatch(name)
    status: TensorStatus = ("loaded", "")
    if skipped:
        status = "fresh", f"weights.load={load}"
    elif name in (planned := plans.inputs.statuses | plans.head.statuses):
        status = planned[name]
    elif mismatch:
        status = ("fresh" if source is None else "refused", mismatch)
    # Counters and indices follow from the settings.
    derived = source is None and not target.is_floating_point()
    allowed = status[0] in ("fresh", "refused") and plans.matching.allows(name, origin)
    return TensorEntry(
        name=name,
        block=block,
        status=status[0],
        source_shape=None if source is None else tuple(source.shape),
        target_shape=tuple(target.shape),
        reason=status[1],
        trunk=not counts_classes,
        parameter=isinstance(target, nn.Parameter),
        origin=origin,
        how=pairs.matched_by.get(name, "name"),
        part=part,
        counted=not (skipped or derived or allowed),
    )
