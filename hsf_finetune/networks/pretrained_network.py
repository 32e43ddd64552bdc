"""`models=pretrained`: the network is the one that the weights belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def override_line(models: Mapping[str, Any]) -> str:
    """The overrides that build a network: `models=NAME models.KEY=VALUE ...`."""
    # Groups inside a group (`models.hparams`) are overridden key by key.
    flat = dict(_flat(architecture_settings(models)))
    settings = [
        f"models.{key}={_as_override(value)}" for key, value in flat.items() if key != "name"
    ]
    return " ".join([f"models={models['name']}", *settings])


def unknown_network_error(
    source: object = None, found: str | None = None, fix: str = ""
) -> ConfigError:
    """The error for `models=pretrained` where nothing says which network it is.

    Args:
        source: the weights' file or folder; None if there are none.
        found: what the weights hold instead.
        fix: what the network resembles, in words.
    """
    by_hand = (
        "choose the network by hand: models=unet, or another one of conf/models, with its widths"
    )
    return ConfigError(
        "models=pretrained takes the network from the pretrained weights, "
        + ("which do not say what it is" if source else "and there are none"),
        file=source,
        found=found,
        fix=f"{by_hand}\n{fix}" if fix else by_hand,
    )


# -------------------------------------------------------------------- internals
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
