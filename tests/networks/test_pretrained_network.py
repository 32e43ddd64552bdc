"""`models=pretrained`: the network of the source, trained as the user says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import (
    ARUNetHparams,
    ARUNetSettings,
    BasicUNetSettings,
    DynUNetSettings,
    MonaiUNetSettings,
    NetworkSettings,
    NnUNetSettings,
    PretrainedSettings,
    SegResNetSettings,
    SwinUNETRSettings,
    UNetSettings,
)
from hsf_finetune.networks.pretrained_network import architecture_settings, resolve_network
from hsf_finetune.system.errors import ConfigError, WeightsError

SOURCE = Path("source.ckpt")
OURS = PretrainedSettings(lr=0.02, weight_decay=0.5, loss="focal_tversky")


@pytest.mark.parametrize(
    "theirs",
    [
        UNetSettings(channels=[4, 8], strides=[2], lr=7.0),
        MonaiUNetSettings(strides=[2, [2, 2, 1], 2]),
        BasicUNetSettings(norm="batch"),
        DynUNetSettings(deep_supervision=True, in_channels=3),
        SegResNetSettings(dropout=0.5),
        SwinUNETRSettings(feature_size=48),
        ARUNetSettings(hparams=ARUNetHparams(f_maps=8)),
        NnUNetSettings(features_per_stage=[4, 8]),
    ],
    ids=lambda s: s.name,
)
def test_the_network_is_the_sources_and_the_training_the_users(theirs: NetworkSettings) -> None:
    found = resolve_network(OURS, theirs.model_dump(mode="json"), SOURCE)
    assert architecture_settings(found.model_dump()) == architecture_settings(theirs.model_dump())
    assert found.name == theirs.name
    shared = PretrainedSettings.model_fields.keys() - {"name"}
    assert all(getattr(found, key) == getattr(OURS, key) for key in shared)


def test_channels_follow_from_the_data_not_from_the_source() -> None:
    theirs = ARUNetSettings(hparams=ARUNetHparams(in_channels=2, out_channels=6))
    found = resolve_network(OURS, theirs.model_dump(mode="json"), SOURCE)
    assert isinstance(found, ARUNetSettings)
    assert (found.hparams.in_channels, found.hparams.out_channels) == (None, None)


def test_a_chosen_network_stays() -> None:
    chosen = UNetSettings(features=3)
    assert resolve_network(chosen, DynUNetSettings().model_dump(), SOURCE) is chosen


def test_the_configuration_has_no_widths_to_choose() -> None:
    assert isinstance(compose("finetune", ["models=pretrained"]).models, PretrainedSettings)
    with pytest.raises(ConfigError, match=r"models\.channels"):
        compose("finetune", ["models=pretrained", "+models.channels=[4,8]"])


@pytest.mark.parametrize("recorded", [None, {}, {"channels": [4, 8]}])
def test_a_source_that_does_not_tell_is_named(recorded: dict[str, Any] | None) -> None:
    with pytest.raises(ConfigError, match=r"(?s)do not say what it is.*source\.ckpt.*models=unet"):
        resolve_network(OURS, recorded, SOURCE)


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ({"name": "unet", "channels": [4, 8], "strides": [2, 2]}, "strides needs one entry fewer"),
        ({"name": "unet", "wings": 2}, "wings: Extra inputs"),
        ({"name": "pretrained"}, "tag"),
        ({"name": "tomorrow"}, "tag"),
    ],
)
def test_networks_of_other_versions_are_refused(recorded: dict[str, Any], found: str) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve_network(OURS, recorded, SOURCE)
    assert found in str(caught.value)
    assert "source.ckpt" in str(caught.value)
