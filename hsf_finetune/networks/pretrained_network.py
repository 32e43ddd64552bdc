"""`models=pretrained`: the network is the one that the weights were made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hsf_finetune.config.settings import ModelSettings, NetworkSettings, PretrainedSettings
from hsf_finetune.system.errors import ConfigError, WeightsError

_SHARED = frozenset(ModelSettings.model_fields)
"""What says how a network is trained; all else says which network it is."""
_OF_THE_DATA = ("in_channels", "out_channels")


def resolve(
    models: NetworkSettings, recorded: Mapping[str, Any] | None, source: object
) -> NetworkSettings:
    """The settings to build with: `models`, or for `models=pretrained` the source's network.

    Learning rate, loss and the other settings that all networks share stay the user's;
    channels follow from the data.

    Args:
        models: what the user chose.
        recorded: the source's network as plain values; None if it does not tell.
        source: the weights' file or folder, for messages.

    Raises:
        ConfigError: `models=pretrained`, and the source does not tell its network.
        WeightsError: what the source tells is no network of this version.
    """
    if not isinstance(models, PretrainedSettings):
        return models
    if not recorded or "name" not in recorded:
        raise no_network_known(source)
    theirs = architecture(recorded)
    try:
        return validated(theirs | models.model_dump(exclude={"name"}))
    except ValidationError as error:
        raise WeightsError(
            "the network that the weights were made with cannot be built from what they say of it",
            file=source,
            found="\n".join(
                f"{'.'.join(map(str, d['loc'][1:]))}: {d['msg']}" for d in error.errors()
            ),
            fix="choose it by hand: models=..., with its widths",
        ) from error


def architecture(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What says which network it is: neither how it was trained nor on what channels."""
    kept = {key: value for key, value in recorded.items() if key not in _SHARED}
    if isinstance(given := kept.get("hparams"), Mapping):
        kept["hparams"] = {k: v for k, v in given.items() if k not in _OF_THE_DATA}
    return kept


def validated(models: Mapping[str, Any]) -> NetworkSettings:
    """The settings of a network that can be built.

    Raises:
        ValidationError: they are wrong, or leave the network open.
    """
    if models.get("name") == "pretrained":
        models = {**models, "name": None}
    settings: NetworkSettings = TypeAdapter(NetworkSettings).validate_python(models)
    return settings


def no_network_known(source: object = None) -> ConfigError:
    """The error to raise for `models=pretrained` where nothing says which network that is."""
    return ConfigError(
        "models=pretrained takes the network from the pretrained weights, "
        + ("which do not say what it is" if source else "and there are none"),
        file=source,
        fix="choose it by hand: models=unet, or another one of conf/models, with its widths",
    )
