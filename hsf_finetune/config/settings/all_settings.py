"""All groups together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hsf_finetune.config.settings.augmentation_settings import AugmentationSettings
from hsf_finetune.config.settings.base_settings import Group, Text
from hsf_finetune.config.settings.datasets_settings import DatasetsSettings
from hsf_finetune.config.settings.engine_settings import LightningSettings, LoggerSettings
from hsf_finetune.config.settings.finetuning_settings import FinetuningSettings
from hsf_finetune.config.settings.network_choice import NetworkSettings
from hsf_finetune.config.settings.rules import check_rules
from hsf_finetune.config.settings.weights_settings import WeightsSettings, move_to_weights


def _switch(value: object) -> object:
    """YAML reads on and off as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Settings(Group):
    """Everything a run needs to know."""

    task: Literal["finetune", "train"] = "finetune"
    name: Text | None = None
    """Part of the run folder's name; None is the names of the cohorts."""
    seed: Annotated[int, Field(ge=0)] = 0
    resume: str | None = None
    """`auto`, a run folder or a checkpoint to go on from."""
    reset: list[Literal["optimizer", "scheduler", "epoch"]] = []
    """What a resumed run starts anew; the rest goes on."""
    run_dir: str | None = None
    """Folder of this run; None makes a new one below datasets.output_path."""
    check: Annotated[Literal["on", "strict", "off"], BeforeValidator(_switch)] = "on"
    """Look at the data before training: refuse what is wrong, or under `strict` what is odd."""
    datasets: DatasetsSettings
    models: NetworkSettings
    weights: WeightsSettings = WeightsSettings()
    finetuning: FinetuningSettings
    augmentation: AugmentationSettings
    augmentations: dict[str, AugmentationSettings] = {}
    """Presets by name, for stages that ask for another one."""
    lightning: LightningSettings
    logger: LoggerSettings

    @model_validator(mode="before")
    @classmethod
    def _weights_apart(cls, given: Any) -> Any:
        """Keys about weights may lie in `finetuning`, as in version 0.1.0."""
        return move_to_weights(given)

    @model_validator(mode="after")
    def _no_contradictions(self) -> Settings:
        check_rules(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain types, for checkpoints and YAML."""
        return self.model_dump(mode="json")


def dotted(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Plain settings as overrides name them: `finetuning.mode` -> its value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
