"""All groups together, and the rules over several of them: what a run refuses for any data."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from hsf_finetune.config.settings.augmentation_settings import AugmentationSettings
from hsf_finetune.config.settings.base_settings import Group, Text, as_switch
from hsf_finetune.config.settings.datasets_settings import DatasetsSettings
from hsf_finetune.config.settings.engine_settings import LightningSettings, LoggerSettings
from hsf_finetune.config.settings.finetuning_settings import FinetuningSettings
from hsf_finetune.config.settings.network_choice import NetworkSettings
from hsf_finetune.config.settings.preprocessing_settings import PreprocessingSettings
from hsf_finetune.config.settings.weights_settings import WeightsSettings, move_to_weights

WRONG_SETTING = "wrong_setting"
"""Type of the error of a rule; its context says which `path` it is about."""
_FEWEST_EPOCHS = {"gradual": 3, "lpft": 2}
"""Strategies of several phases -> the epochs that they need."""


class Settings(Group):
    """Everything a run needs to know."""

    task: Literal["finetune", "train"] = "finetune"
    name: Text | None = None
    """Part of the run folder's name; None is the names of the cohorts."""
    seed: Annotated[int, Field(ge=0)] = 0
    resume: str | None = None
    """`auto`, or the run folder or checkpoint of the run to continue."""
    reset: list[Literal["optimizer", "scheduler", "epoch"]] = []
    """What a resumed run resets; it continues with everything else."""
    run_dir: str | None = None
    """Folder of this run; None makes a new one below datasets.output_path."""
    check: Annotated[Literal["on", "strict", "off"], BeforeValidator(as_switch)] = "on"
    """Check the data before training: errors are refused, and under `strict` warnings too."""
    report: Annotated[Literal["on", "off"], BeforeValidator(as_switch)] = "on"
    """Write report.html when the run has ended."""
    calibration: Annotated[Literal["on", "off"], BeforeValidator(as_switch)] = "on"
    """Fit temperatures on validation cases, so that probabilities mean something."""
    postprocessing: Annotated[Literal["on", "off"], BeforeValidator(as_switch)] = "on"
    """Learn on validation cases which post-processing of labels helps."""
    quality: Annotated[Literal["on", "off"], BeforeValidator(as_switch)] = "off"
    """Learn on validation cases, and degraded copies of them, to foretell Dice of new scans."""
    datasets: DatasetsSettings
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    models: NetworkSettings
    weights: WeightsSettings = WeightsSettings()
    finetuning: FinetuningSettings
    augmentation: AugmentationSettings
    augmentations: dict[str, AugmentationSettings] = {}
    """Presets by name, for stages with an augmentation of their own."""
    lightning: LightningSettings
    logger: LoggerSettings

    @model_validator(mode="before")
    @classmethod
    def _weights_apart(cls, given: Any) -> Any:
        """Takes keys about weights out of `finetuning`, where version 0.1.0 has them."""
        return move_to_weights(given)

    @model_validator(mode="after")
    def _no_contradictions(self) -> Settings:
        for path, text in _broken_rules(self):
            raise PydanticCustomError(WRONG_SETTING, "{text}", {"text": text, "path": path})
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


# -------------------------------------------------------------------- internals
def _broken_rules(settings: Settings) -> Iterator[tuple[str, str]]:
    """What contradicts what: the path of a setting, and what is wrong with it."""
    yield from _broken_for_stages(settings)
    yield from _broken_for_epochs(settings)
    yield from _broken_for_folds(settings)
    spacing, old = settings.preprocessing.spacing, settings.datasets.target_spacing_mm
    if old and spacing and (spacing == "data" or [*spacing] != [*old]):
        yield (
            "datasets.target_spacing_mm",
            f"is the former name of preprocessing.spacing, and contradicts it ({spacing}); give "
            "one of them",
        )
    if settings.datasets.retention and settings.weights.pretrained == "none":
        yield (
            "datasets.retention",
            "scores what is forgotten of the source model's task, and pretrained=none has no "
            "source model",
        )
    if settings.finetuning.keep_old and settings.weights.pretrained == "none":
        yield "finetuning.keep_old", "needs a source model, and pretrained=none has none"
    learn = settings.finetuning.selftrain
    if settings.finetuning.keep_old == "everywhere" and learn and learn.start == "teacher":
        yield (
            "finetuning.keep_old",
            "everywhere contradicts finetuning.selftrain.start=teacher, which makes the teacher the "
            "source model of its student; give selftrain.start=source, or leave out keep_old",
        )
    if settings.reset and settings.resume is None:
        yield "reset", "only a run that is resumed can be reset; add resume=RUN, or leave it out"


def _broken_for_stages(settings: Settings) -> Iterator[tuple[str, str]]:
    tuning, presets = settings.finetuning, settings.augmentations
    if tuning.strategy != "staged":
        return
    if not tuning.stages:
        yield (
            "finetuning.stages",
            "strategy 'staged' needs at least one stage; finetuning=staged has some that can be "
            "changed",
        )
    for number, stage in enumerate(tuning.stages):
        path, name = f"finetuning.stages.{number}.augmentation", stage.augmentation
        if name is not None and name not in presets:
            close = difflib.get_close_matches(name, presets, n=1)
            yield (
                path,
                f"there is no preset '{name}'; "
                + (f"did you mean '{close[0]}'? " if close else f"known: {', '.join(presets)}; ")
                + f"+augmentation@augmentations.{name}={name} adds a file augmentation/{name}.yaml",
            )
        own = [settings.augmentation, *([presets[name]] if name is not None else [])]
        has_own = name is not None or stage.augmentation_strength != 1
        if has_own and any(one.pipeline == "torchio_hsf" for one in own):
            yield (
                path,
                "HSF's TorchIO pipeline works in the loader, and cannot change with the stage; "
                "use augmentation=mri, and stages with none, light or mri",
            )


def _broken_for_epochs(settings: Settings) -> Iterator[tuple[str, str]]:
    strategy, epochs = settings.finetuning.chosen_strategy, settings.lightning.max_epochs
    fewest = _FEWEST_EPOCHS.get(strategy, 1)
    if epochs is not None and epochs < fewest:
        yield (
            "lightning.max_epochs",
            f"finetuning={strategy} has {fewest} phases, and needs at least {fewest} epochs",
        )


def _broken_for_folds(settings: Settings) -> Iterator[tuple[str, str]]:
    data = settings.datasets
    given: Mapping[str, object] = {
        "split_file": data.split_file,
        "train_val_test_idx": data.train_val_test_idx,
        "train_on_all": data.train_on_all,
    }
    for name in (name for name, value in given.items() if value and data.fold == "all"):
        yield (
            "datasets.fold",
            f"'all' contradicts datasets.{name}, which chooses the validation cases; give one of "
            "them",
        )
    if isinstance(data.fold, int) and data.fold >= data.folds:
        yield "datasets.fold", f"should be 0 to {data.folds - 1}, as datasets.folds={data.folds}"
