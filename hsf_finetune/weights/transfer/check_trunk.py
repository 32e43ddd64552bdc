"""Whether a checkpoint's trunk is that of a network, and the error that says what is not."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from hsf_finetune.config.settings import ModelSettings, NetworkSettings
from hsf_finetune.config.settings.base_settings import Group
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build_shapes
from hsf_finetune.networks.pretrained_network import (
    architecture_settings,
    override_line,
    validate_network,
)
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import UserError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.infer_network import compare_networks
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from hsf_finetune.weights.transfer.receipt import Receipt, group_names, list_first, mismatch_lines

_SHOWN = 12
_NO_EFFECT = frozenset({
    "dropout", "dropout_op", "dropout_op_kwargs", "attention_dropout", "drop_path",
    "use_checkpoint", "deep_supervision", "deep_supr_num",
})  # fmt: skip
"""Settings that change how a network trains, and not what its trunk computes."""


@dataclass(frozen=True)
class TrunkLimits:
    """What of a trunk has to fit."""

    min_loaded: float
    matching: MatchRequest
    hint: str = ""


def check_trunk(
    anatomy: Anatomy, receipt: Receipt, checkpoint: Checkpoint, limits: TrunkLimits
) -> Receipt:
    """Refuses a checkpoint that does not make the network compute what it computed.

    Returns:
        The receipt, with the settings that are allowed to differ.

    Raises:
        WeightsError: too little of the trunk would be loaded, tensors of the checkpoint's
            trunk have no place in the network, or the settings recorded with it give
            another function. It names the tensors, and the settings that explain them.
    """
    too_little = receipt.share_loaded < limits.min_loaded
    silent = _silent_differences(anatomy, receipt, checkpoint)
    allowed = [key for key in silent if limits.matching.allows(f"models.{key}")]
    refused = {key: pair for key, pair in silent.items() if key not in allowed}
    if not (too_little or receipt.beyond or refused):
        return replace(receipt, allowed=(*receipt.allowed, *(f"models.{key}" for key in allowed)))
    raise WeightsError(
        "the checkpoint does not fit this network",
        file=checkpoint.path,
        found="\n".join(_found(receipt, refused)),
        expected=f"at least {limits.min_loaded:.0%} of the trunk (finetuning.min_loaded), nothing "
        "left of the checkpoint's, and the same layers",
        fix="\n".join(_fixes(anatomy, receipt, checkpoint, limits)),
    )


def differing_settings(
    anatomy: Anatomy, recorded: dict[str, Any], load: str = "all", shapes_only: bool = False
) -> dict[str, tuple[Any, Any]]:
    """The settings that make a network other than the one that was recorded.

    Settings are compared by what they make: the layers as they print themselves, and the
    shapes of their tensors.

    Args:
        anatomy: the network.
        recorded: settings of the checkpoint's network as plain values.
        load: what is taken of it.
        shapes_only: compare tensors only, where the other settings are guessed.

    Returns:
        Setting -> the recorded value and the network's; empty for another kind of network.
    """
    settings = anatomy.settings
    if settings is None or recorded.get("name") != settings.name:
        return {}
    ours = validate_network(architecture_settings(settings.model_dump()))
    try:
        theirs = validate_network(architecture_settings(recorded))
    except ValidationError:
        return {}
    described = type(ours).model_fields.keys() - ModelSettings.model_fields.keys() - _NO_EFFECT
    values = {key: (getattr(theirs, key), getattr(ours, key)) for key in described}
    changed = {key: pair for key, pair in sorted(values.items()) if pair[0] != pair[1]}
    if not changed:
        return {}
    own = _signature(ours, load, shapes_only)

    def is_other(*keys: str) -> bool:
        changes = {key: changed[key][0] for key in keys}
        return _signature(ours.model_copy(update=changes), load, shapes_only) != own

    if not is_other(*changed):
        return {}
    found: dict[str, tuple[Any, Any]] = {}
    for key in filter(is_other, changed):
        a, b = changed[key]
        if isinstance(a, Group):
            inner = [name for name in type(a).model_fields if getattr(a, name) != getattr(b, name)]
            found |= {f"{key}.{name}": (getattr(a, name), getattr(b, name)) for name in inner}
        else:
            found[key] = a, b
    return found


# -------------------------------------------------------------------- internals
def _silent_differences(
    anatomy: Anatomy, receipt: Receipt, checkpoint: Checkpoint
) -> dict[str, tuple[Any, Any]]:
    """The recorded settings that give another function of the same tensors."""
    if "inferred" in checkpoint.origin or not checkpoint.models:
        return {}
    found = differing_settings(anatomy, checkpoint.models, receipt.load)
    told = differing_settings(anatomy, checkpoint.models, receipt.load, True) if found else {}
    return {key: pair for key, pair in found.items() if key not in told}


def _signature(settings: NetworkSettings, load: str, shapes_only: bool) -> object:
    """What a network computes, as far as its layers and tensors show it; None for none."""
    shown = _layers(settings.model_dump_json(), load)
    return shown[0] if shown and shapes_only else shown


@lru_cache(maxsize=16)
def _layers(settings_json: str, load: str) -> tuple[object, ...] | None:
    """The shapes of a network's tensors, its layers as they print themselves, and its axes."""
    try:
        settings = validate_network(json.loads(settings_json))
        anatomy = build_shapes(settings, 1, 2)
    except (UserError, AssertionError, RuntimeError, ValueError, IndexError):
        return None
    names, modules = anatomy.encoder_names(), [anatomy.network]
    if load == "encoder":
        blocks = (*anatomy.encoders, anatomy.bottleneck)
        inner = [module for block in blocks for module in block.modules]
        modules = [anatomy.backbone] if anatomy.backbone else inner
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in anatomy.network.state_dict().items()
        if load != "encoder" or name in names
    }
    return shapes, [str(module) for module in modules], getattr(settings, "orientation", None)


def _found(receipt: Receipt, differing: dict[str, tuple[Any, Any]]) -> list[str]:
    lines = []
    missing = receipt.mismatches
    if missing:
        lines = [
            f"{receipt.share_tensors:.0%} of the trunk's tensors and "
            f"{receipt.share_parameters:.0%} of its parameters fit; {len(missing)} do not:",
            *mismatch_lines(missing, _SHOWN),
        ]
    if receipt.beyond:
        count = count_of(len(receipt.beyond), "tensor")
        lines.append(f"{count} of the checkpoint's trunk that the network lacks:")
        lines += list_first(receipt.beyond, _SHOWN)
    others = [name for name in receipt.unused if name not in receipt.beyond]
    if missing and others:
        groups = ", ".join(group_names(others))
        lines.append(f"{count_of(len(others), 'other tensor')} of the checkpoint unused: {groups}")
    lines += [
        f"models.{key}: {theirs} in the weights, {ours} in this network"
        for key, (theirs, ours) in differing.items()
    ]
    return lines


def _fixes(
    anatomy: Anatomy, receipt: Receipt, checkpoint: Checkpoint, limits: TrunkLimits
) -> list[str]:
    """What to write: the way in which the weights fit, else what to leave out."""
    fixes = [limits.hint] if limits.hint else _network(anatomy, receipt, checkpoint)
    found, known = receipt.count("encoder")
    beside = any(entry.source_shape for entry in receipt.entries if entry.part == "decoder")
    if receipt.load == "all" and found == known and not beside:
        fixes = [f"weights.load=encoder: its {known} tensors are there, and nothing else is"]
    if 0.5 <= receipt.share_loaded < limits.min_loaded:
        enough = math.floor(receipt.share_loaded * 100) / 100
        fixes.append(f"or load what fits: finetuning.min_loaded={enough}")
    if receipt.beyond:
        parts = [group.partition(" ")[0] for group in group_names(receipt.beyond, 4)]
        patterns = ", ".join(parts) if len(parts) <= 4 else "*"
        fixes.append(f"or leave them out: 'weights.allow_mismatch=[{patterns}]'")
    return fixes


def _network(anatomy: Anatomy, receipt: Receipt, checkpoint: Checkpoint) -> list[str]:
    """What of the settings explains the mismatch, and the network that the weights belong to."""
    models, guessed = checkpoint.models, "inferred" in checkpoint.origin
    if not models or "name" not in models:
        matches = [match for match in compare_networks(checkpoint.tensors) if match.share > 0.5]
        models = max(matches, key=lambda match: match.share).models if matches else None
        guessed = True
    if not models:
        return ["use the network it was trained with: models=..., its channels, models.in_channels"]
    differing = differing_settings(anatomy, models, receipt.load, shapes_only=guessed)
    lines = [f"models.{key}: {a} in the weights, {b} here" for key, (a, b) in differing.items()]
    lines += [
        "take the network from the checkpoint: models=pretrained; or write it out:",
        override_line(models),
    ]
    if checkpoint.in_channels:
        lines.append(f"the checkpoint's input channels: {checkpoint.in_channels}")
    return lines
