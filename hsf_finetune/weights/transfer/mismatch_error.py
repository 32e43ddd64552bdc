"""The error for a checkpoint that does not fit a network, with the network that it does fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hsf_finetune.networks.pretrained_network import architecture_settings
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.transfer.receipt import Receipt, mismatch_lines

_SHOWN = 12


def mismatch_error(
    receipt: Receipt, checkpoint: Checkpoint, min_loaded: float, hint: str = ""
) -> WeightsError:
    """The error to raise for a checkpoint that does not fit the network.

    Args:
        receipt: what would have been loaded.
        checkpoint: the weights.
        min_loaded: smallest share of the trunk that should have been.
        hint: another way in which the tensors would fit; empty if there is none.
    """
    missing = receipt.mismatches
    shares = (
        f"{receipt.share_tensors:.0%} of the trunk's tensors and "
        f"{receipt.share_parameters:.0%} of its parameters fit; {len(missing)} do not:"
    )
    fixes = [hint] if hint else _architecture(checkpoint)
    if receipt.share_loaded >= 0.5:
        enough = math.floor(receipt.share_loaded * 100) / 100
        fixes.append(f"or load what fits: finetuning.min_loaded={enough}")
    return WeightsError(
        "the checkpoint does not fit this network",
        file=checkpoint.path,
        found="\n".join([shares, *mismatch_lines(missing, _SHOWN)]),
        expected=f"at least {min_loaded:.0%} of both (finetuning.min_loaded)",
        fix="\n".join(fixes),
    )


def _architecture(checkpoint: Checkpoint) -> list[str]:
    """The overrides that rebuild the checkpoint's network, as far as it records them."""
    models = checkpoint.models
    if not isinstance(models, dict) or "name" not in models:
        return ["use the network it was trained with: models=..., its channels, models.in_channels"]
    # Groups inside a group (`models.hparams`) are overridden key by key.
    flat = dict(_flat(architecture_settings(models)))
    settings = [
        f"models.{key}={_as_override(value)}" for key, value in flat.items() if key != "name"
    ]
    lines = [
        "take the network from the checkpoint: models=pretrained; or write it out:",
        " ".join([f"models={models['name']}", *settings]),
    ]
    if checkpoint.in_channels:
        lines.append(f"the checkpoint's input channels: {checkpoint.in_channels}")
    return lines


def _as_override(value: object) -> str:
    """A value as it is written in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(" ", "")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
