"""`models=pretrained`: the network is the one that the weights belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hsf_finetune.config.settings import ModelSettings, NetworkSettings, PretrainedSettings
from hsf_finetune.system.errors import ConfigError, WeightsError

_TRAINING_SETTINGS = frozenset(ModelSettings.model_fields)
"""Settings of how a network is trained; all others describe the network."""
_CHANNELS = ("in_channels", "out_channels")


def resolve_network(
    models: NetworkSettings, recorded: Mapping[str, Any] | None, source: object
) -> NetworkSettings:
    """The settings to build: `models`, or for `models=pretrained` those of the source's network.

    Learning rate, loss and the other settings that all networks share stay the user's;
    channels follow from the data.

    Args:
        models: what the user chose.
        recorded: settings of the source's network as plain values; None if unknown.
        source: the weights' file or folder, for messages.

    Raises:
        ConfigError: `models=pretrained`, and the source's network is unknown.
        WeightsError: the recorded settings are of no network of this version.
    """
    if not isinstance(models, PretrainedSettings):
        return models
    if not recorded or "name" not in recorded:
        raise unknown_network_error(source)
    try:
        return validate_network(
            architecture_settings(recorded) | models.model_dump(exclude={"name"})
        )
    except ValidationError as error:
        raise WeightsError(
            "the network of the weights cannot be built from the settings recorded with them",
            file=source,
            found="\n".join(
                f"{'.'.join(map(str, d['loc'][1:]))}: {d['msg']}" for d in error.errors()
            ),
            fix="choose the network by hand: models=..., with its widths",
        ) from error


def architecture_settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that describe a network, without those of its training and its channels."""
    kept = {key: value for key, value in recorded.items() if key not in _TRAINING_SETTINGS}
    if isinstance(given := kept.get("hparams"), Mapping):
        kept["hparams"] = {k: v for k, v in given.items() if k not in _CHANNELS}
    return kept


def validate_network(models: Mapping[str, Any]) -> NetworkSettings:
    """The validated settings of a network.

    Raises:
        ValidationError: they are wrong, or name no network.
    """
    if models.get("name") == "pretrained":
        models = {**models, "name": None}
    settings: NetworkSettings = TypeAdapter(NetworkSettings).validate_python(models)
    return settings


def unknown_network_error(source: object = None) -> ConfigError:
    """The error for `models=pretrained` where nothing says which network it is."""
    return ConfigError(
        "models=pretrained takes the network from the pretrained weights, "
        + ("which do not say what it is" if source else "and there are none"),
        file=source,
        fix="choose the network by hand: models=unet, or another one of conf/models, with its "
        "widths",
    )
