"""Rules over settings of several groups: what a run would refuse, whatever the data are."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from hsf_finetune.config.settings.all_settings import Settings

WRONG_SETTING = "wrong_setting"
"""Type of the error of a rule; its context says which `path` it is about."""
_FEWEST_EPOCHS = {"gradual": 3, "lpft": 2}
"""Strategies of several phases -> the epochs that they need."""


def check_rules(settings: Settings) -> None:
    """Refuses settings that contradict each other.

    Raises:
        PydanticCustomError: the first rule that is broken.
    """
    for rule in (_broken_for_stages, _broken_for_epochs, _broken_for_folds, _broken_for_weights):
        for path, message in rule(settings):
            raise PydanticCustomError(WRONG_SETTING, "{text}", {"text": message, "path": path})


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
    if settings.reset and settings.resume is None:
        yield "reset", "only a run that is resumed can be reset; add resume=RUN, or leave it out"


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


def _broken_for_weights(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.datasets.retention and settings.weights.pretrained == "none":
        yield (
            "datasets.retention",
            "scores what is forgotten of the source model's task, and pretrained=none has no "
            "source model",
        )
