"""Pretrained weights into a network: the trunk by name and shape, the head by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.weights.channels import (
    Derivations,
    channel_rules,
    fresh_rules,
    source_names,
)
from hsf_finetune.weights.misfit import too_little
from hsf_finetune.weights.names import Match, match_tensors
from hsf_finetune.weights.receipt import ChannelRule, Receipt, Status, TensorEntry
from hsf_finetune.weights.sources import Checkpoint


def transfer(
    anatomy: Anatomy,
    checkpoint: Checkpoint,
    classes: Sequence[str],
    derive_from: Derivations | None = None,
    min_loaded: float = 0.9,
    class_axes: Mapping[str, tuple[int, ...]] | None = None,
    source_classes: Sequence[str] | None = None,
) -> Receipt:
    """Loads a checkpoint into a network in place; all of it or, on an error, nothing.

    Tensors without a class axis (the trunk) load where name and shape agree. Tensors
    with one are put together channel by channel, by the rules of
    `channels.channel_rules`; biases of the head's convolutions are shifted as these
    say. If any tensor with a class axis does not fit, none of them is touched.

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

    Returns:
        What became of each tensor and class.

    Raises:
        WeightsError: too little of the trunk fits.
        ConfigError: `derive_from` names classes that are not there, or `source_classes`
            contradicts the checkpoint.
    """
    match = match_tensors(anatomy.network, checkpoint.tensors)
    axes = {name: own for name, own in (class_axes or {}).items() if name in match.here}
    trunk = {name: _trunk_status(name, match) for name in match.here if name not in axes}
    channels = _head_channels(match, axes)
    source = source_names(checkpoint.classes, source_classes, channels)
    rules, head = _head(match, axes, source, channels, classes, derive_from or {})
    owners = anatomy.tensor_block()
    receipt = Receipt(
        source=str(checkpoint.path.resolve()),
        digest=checkpoint.digest,
        entries=tuple(
            _entry(name, owners[name], match, *(trunk | head)[name], trunk=name in trunk)
            for name in match.here
        ),
        unused=match.unused,
        channels=rules,
        dropped=_dropped(source, rules),
        renamed=match.renamed,
    )
    if receipt.share_loaded < min_loaded:
        raise too_little(receipt, checkpoint, min_loaded)
    shifted = _logit_biases(anatomy)
    new = {n: match.there[n] for n, (status, _) in trunk.items() if status == "loaded"}
    new |= {
        name: _by_class(match.there[name], match.here[name], axes[name], rules, name in shifted)
        for name, (status, _) in head.items()
        if status in ("loaded", "remapped")
    }
    with torch.no_grad():
        for name, value in new.items():
            match.here[name].copy_(value)
    return receipt


def _trunk_status(name: str, match: Match) -> tuple[Status, str]:
    if name not in match.there:
        return "fresh", "not in the checkpoint"
    there, here = match.there[name].shape, match.here[name].shape
    if there != here:
        return "refused", f"{tuple(there)} in the checkpoint, {tuple(here)} here"
    return "loaded", ""


def _head_channels(match: Match, axes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Output channels of the checkpoint; None where its tensors do not agree on them."""
    counts = {
        match.there[name].shape[axis]
        for name, own in axes.items()
        for axis in own
        if name in match.there and match.there[name].dim() > axis
    }
    return counts.pop() if len(counts) == 1 else None


def _head(
    match: Match,
    axes: Mapping[str, tuple[int, ...]],
    source: Sequence[str] | None,
    channels: int | None,
    target: Sequence[str],
    derive_from: Derivations,
) -> tuple[tuple[ChannelRule, ...], dict[str, tuple[Status, str]]]:
    rules = channel_rules(target, source, channels, derive_from)
    known = len(source) if source is not None else channels
    misfits = {
        name: reason for name, own in axes.items() if (reason := _misfit(name, own, match, known))
    }
    if misfits:
        rules = fresh_rules(target, "the checkpoint's head does not fit")
    kept = not any(rule.channels for rule in rules)
    same = all(r.channels == (i,) and r.bias_shift == 0 for i, r in enumerate(rules))
    same = same and known == len(target)
    status: dict[str, tuple[Status, str]] = {}
    for name in axes:
        if name in misfits:
            status[name] = ("refused" if name in match.there else "fresh", misfits[name])
        elif kept:
            status[name] = ("fresh", rules[0].note)
        else:
            status[name] = ("loaded", "") if same else ("remapped", "class by class")
    return rules, status


def _misfit(name: str, axes: tuple[int, ...], match: Match, channels: int | None) -> str:
    """Why a tensor cannot be put together class by class; empty if it can."""
    if name not in match.there:
        return "not in the checkpoint"
    there, here = match.there[name].shape, match.here[name].shape
    fits = len(there) == len(here) and all(
        a == channels if axis in axes else a == b
        for axis, (a, b) in enumerate(zip(there, here, strict=True))
    )
    if fits:
        return ""
    count = f" with {channels} classes" if channels else ""
    return f"{tuple(there)} in the checkpoint{count}, {tuple(here)} here"


def _by_class(
    there: torch.Tensor,
    here: torch.Tensor,
    axes: tuple[int, ...],
    rules: Sequence[ChannelRule],
    shifted: bool,
) -> torch.Tensor:
    """A tensor of the network's shape, made of the checkpoint's channels."""
    value = there.to(device=here.device, dtype=here.dtype)
    keep = torch.zeros_like(here, dtype=torch.bool)
    for axis in axes:
        rows = [list(rule.channels) or [0] for rule in rules]
        value = torch.stack([value[_at(axis, row)].mean(dim=axis) for row in rows], dim=axis)
        keep[_at(axis, [i for i, rule in enumerate(rules) if not rule.channels])] = True
    if shifted:
        value = value + value.new_tensor([rule.bias_shift for rule in rules])
    return torch.where(keep, here.detach(), value)


def _at(axis: int, index: list[int]) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, index)


def _logit_biases(anatomy: Anatomy) -> set[str]:
    """Names of the biases that are added to logits: those of the head's convolutions."""
    own = {
        id(layer.bias)
        for module in anatomy.head.modules
        for layer in module.modules()
        if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)) and layer.bias is not None
    }
    return {name for name, p in anatomy.network.named_parameters() if id(p) in own}


def _entry(
    name: str, block: str, match: Match, status: Status, reason: str, *, trunk: bool
) -> TensorEntry:
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
    )


def _dropped(source: Sequence[str] | None, rules: Sequence[ChannelRule]) -> tuple[str, ...]:
    used = {name for rule in rules for name in rule.sources}
    return tuple(name for name in source or () if name not in used)
