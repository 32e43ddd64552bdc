"""Pretrained weights into a network: the trunk by name and shape, both ends by what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.transfer.channels import Derivations, HeadPolicy, source_names
from hsf_finetune.weights.transfer.head import ClassMix, plan_head
from hsf_finetune.weights.transfer.inputs import Inputs, dropped_inputs, input_rules
from hsf_finetune.weights.transfer.matching import Matching, Pairing, pair
from hsf_finetune.weights.transfer.misfit import too_little
from hsf_finetune.weights.transfer.names import Match
from hsf_finetune.weights.transfer.order import Axes
from hsf_finetune.weights.transfer.receipt import Receipt, Status, TensorEntry
from hsf_finetune.weights.transfer.remap import along, counted, mismatch
from hsf_finetune.weights.transfer.rules import ChannelRule, InputRule

Fates = dict[str, tuple[Status, str]]
"""State dict name -> what becomes of the tensor, and why."""


def transfer(
    anatomy: Anatomy,
    checkpoint: Checkpoint,
    classes: Sequence[str],
    derive_from: Derivations | None = None,
    min_loaded: float = 0.9,
    class_axes: Axes | None = None,
    source_classes: Sequence[str] | None = None,
    *,
    head: HeadPolicy = "transfer",
    matching: Matching | None = None,
    inputs: Inputs | None = None,
) -> Receipt:
    """Loads a checkpoint into a network in place; all of it or, on an error, nothing.

    Tensors that count neither classes nor input channels load where name and shape agree.
    Those that count classes are put together channel by channel, by the rules of
    `channels.channel_rules`; biases that add to logits are shifted as these say. If any
    tensor with a class axis does not fit, none of them is touched; heads of deep
    supervision that the checkpoint lacks start fresh. Those that count input channels follow `inputs.input_rules`.

    Args:
        anatomy: the network to load into.
        checkpoint: the weights.
        classes: class of each output channel of the network.
        derive_from: new class -> class or classes of the checkpoint it comes out of.
        min_loaded: smallest share of the trunk (of its tensors, and of its parameters)
            that must load.
        class_axes: state dict name -> axes that count classes, from
            `networks.build.class_axes`.
        source_classes: class of each output channel of a checkpoint that does not say.
        head: whether its channels go by class name, by position, or start fresh.
        matching: how tensors are paired; by name unless it says otherwise.
        inputs: the input channels and what to do about them; without it, tensors of
            another input size are refused.

    Returns:
        What became of each tensor and channel.

    Raises:
        WeightsError: too little of the trunk fits, the tensors cannot be paired by order,
            or the head cannot be copied by position.
        ConfigError: a name in `derive_from`, `inputs` or the map is not there, or what is
            said of classes or channels contradicts the checkpoint.
    """
    inputs = inputs or Inputs({})
    by_class = dict(class_axes or {})
    pairing = pair(
        anatomy.network,
        checkpoint.tensors,
        matching or Matching(),
        {**inputs.axes, **by_class},
        by_class.keys(),
    )
    match = pairing.match
    by_class = {name: axes for name, axes in by_class.items() if name in match.here}
    reading = {n: a for n, a in inputs.axes.items() if n in match.here and n not in by_class}
    recorded = source_names(checkpoint.classes, source_classes, counted(match, by_class))
    rules, head_fates = plan_head(
        match, by_class, recorded, classes, derive_from or {}, head, anatomy.coarser_heads()
    )
    channels, read_fates, dropped = _plan_inputs(match, reading, inputs, checkpoint)
    fates = {name: _fate(name, match) for name in match.here} | read_fates | head_fates
    receipt = _receipt(
        anatomy, checkpoint, pairing, fates, by_class, recorded, rules, channels, dropped
    )
    if receipt.share_loaded < min_loaded:
        raise too_little(receipt, checkpoint, min_loaded, pairing.offer)
    new = _values(anatomy, match, fates, by_class, reading, rules, channels)
    with torch.no_grad():
        for name, value in new.items():
            match.here[name].copy_(value)
    return receipt


def _values(
    anatomy: Anatomy,
    match: Match,
    fates: Fates,
    by_class: Axes,
    reading: Axes,
    rules: tuple[ChannelRule, ...],
    channels: tuple[InputRule, ...],
) -> dict[str, torch.Tensor]:
    """What to write into each tensor that gets anything of the checkpoint."""
    mix = ClassMix(rules, anatomy.logit_biases(), anatomy.summed_axes())
    shares = torch.tensor([rule.shares for rule in channels])
    new: dict[str, torch.Tensor] = {}
    for name, (status, _) in fates.items():
        if status not in ("loaded", "remapped"):
            continue
        value, here = match.there[name], match.here[name]
        if name in by_class:
            value = mix(name, value, here, by_class[name])
        elif status == "remapped":
            value = along(value.to(here.dtype), reading[name], shares)
        new[name] = value
    return new


def _fate(name: str, match: Match) -> tuple[Status, str]:
    if name not in match.there:
        return "fresh", "not in the checkpoint"
    reason = mismatch(name, match, (), None)
    return ("refused", reason) if reason else ("loaded", "")


def _plan_inputs(
    match: Match,
    axes: Axes,
    inputs: Inputs,
    checkpoint: Checkpoint,
) -> tuple[tuple[InputRule, ...], Fates, tuple[str, ...]]:
    """The rules of the input channels, the fates of the tensors that read them, what is unused."""
    there = counted(match, axes)
    fitting = [n for n in axes if n in match.there and not mismatch(n, match, axes[n], there)]
    if there is None or not fitting:
        return (), {}, ()
    name = fitting[0]
    here = match.here[name].shape[axes[name][0]]
    recorded, given = checkpoint.channel_names, inputs.source_names
    if recorded and given is not None and list(recorded) != list(given):
        raise ConfigError(
            "finetuning.source_channels contradicts the checkpoint, which names its channels itself",
            found="[" + ", ".join(given) + "]",
            expected="[" + ", ".join(recorded) + "]",
            fix="leave it out; finetuning.input_channels says which channel comes from which",
        )
    inputs = replace(inputs, source_names=recorded or given)
    rules = input_rules(inputs, here, there)
    kept = here == there and all(rule.keeps_weights(place) for place, rule in enumerate(rules))
    fate: tuple[Status, str] = ("loaded", "") if kept else ("remapped", "input channels")
    names = inputs.source_names or [str(n) for n in range(there)]
    dropped = tuple(names[n] for n in dropped_inputs(rules))
    return rules, dict.fromkeys(fitting, fate), dropped


def _receipt(
    anatomy: Anatomy,
    checkpoint: Checkpoint,
    pairing: Pairing,
    fates: Fates,
    by_class: Axes,
    recorded: Sequence[str] | None,
    rules: tuple[ChannelRule, ...],
    channels: tuple[InputRule, ...],
    dropped: tuple[str, ...],
) -> Receipt:
    match, owners = pairing.match, anatomy.tensor_block()
    used = {name for rule in rules for name in rule.sources}
    return Receipt(
        source=str(checkpoint.path.resolve()),
        digest=checkpoint.digest,
        entries=tuple(
            _entry(name, owners[name], pairing, *fates[name], trunk=name not in by_class)
            for name in match.here
        ),
        unused=(*match.unused, *checkpoint.left_out),
        channels=rules,
        dropped=tuple(name for name in recorded or () if name not in used),
        renamed=match.renamed,
        inputs=channels,
        dropped_inputs=dropped,
        origin=checkpoint.origin,
    )


def _entry(
    name: str, block: str, pairing: Pairing, status: Status, reason: str, *, trunk: bool
) -> TensorEntry:
    match = pairing.match
    here, there = match.here[name], match.there.get(name)
    return TensorEntry(
        name=name,
        block=block,
        status=status,
        there=None if there is None else tuple(there.shape),
        here=tuple(here.shape),
        reason=reason,
        trunk=trunk,
        parameter=isinstance(here, nn.Parameter),
        origin=match.origins.get(name, ""),
        how=pairing.how.get(name, "name"),
    )
