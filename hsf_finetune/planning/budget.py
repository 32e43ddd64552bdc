"""A fixed budget: the schedule runs its whole length, and validation only measures.

One or two validation subjects cannot say which epoch is best: the epoch that suits them is
picked, and their scores then flatter the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.splits import fold_count
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.schedule.strategies import plan_schedule
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.training.trainer import one_device


def with_budget(settings: Settings, cases: Sequence[Case]) -> Settings:
    """The settings with `finetuning.budget: auto` decided.

    It is `fixed` where folds are made or where there are fewer subjects than
    `datasets.few_subjects`, and `validation` elsewhere.
    """
    tuning, data = settings.finetuning, settings.datasets
    if tuning.budget != "auto":
        return settings
    few = len({case.subject for case in cases}) < data.few_subjects
    fixed = few or fold_count(cases, data) is not None
    chosen = tuning.model_copy(update={"budget": "fixed" if fixed else "validation"})
    return settings.model_copy(update={"finetuning": chosen})


def settings_of_folds(settings: Settings, cases: Sequence[Case]) -> Settings:
    """The settings that all runs of several folds share: their budget decided, and one device.

    Raises:
        ConfigError: the settings want several devices.
    """
    settings = with_budget(settings, cases)
    instead = "start each fold by itself on a device of its own: datasets.fold=0 and so on"
    engine = one_device(settings.lightning, "several folds train", instead)
    return settings.model_copy(update={"lightning": engine})


def make_schedule(settings: Settings, anatomy: Anatomy) -> Schedule:
    """The schedule of a run, without anything that validation decides if the budget is fixed.

    Stages then have their greatest length, and each starts from the last weights of the one
    before.

    Args:
        settings: from `with_budget`.
        anatomy: the network.

    Raises:
        ConfigError: the network has no such blocks, there are too few epochs, or rates are to
            follow validation, which the budget leaves out.
    """
    tuning = settings.finetuning
    if tuning.budget == "fixed" and tuning.lr_schedule == "plateau":
        raise ConfigError(
            "finetuning.lr_schedule=plateau follows validation Dice, and with a fixed budget "
            "validation only measures",
            found="finetuning.budget=fixed, or auto with folds or fewer subjects than "
            "datasets.few_subjects",
            fix="finetuning.budget=validation, or lr_schedule=cosine, poly or step",
        )
    schedule = plan_schedule(anatomy.block_names, tuning, settings.models, settings.lightning)
    if tuning.budget != "fixed":
        return schedule
    waiting = [stage for stage in schedule.stages if stage.patience_epochs is not None]
    remark = "fixed budget: the last epoch is kept, and validation only measures"
    if waiting:
        remark += (
            f"; {len(waiting)} stage(s) that a plateau would end have their whole length "
            "(finetuning.budget=validation lets it)"
        )
    stages = [replace(s, patience_epochs=None, carries_best=False) for s in schedule.stages]
    return replace(schedule, stages=tuple(stages), remarks=(*schedule.remarks, remark))
