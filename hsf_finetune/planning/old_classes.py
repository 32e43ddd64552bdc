"""The classes of the source that its model is to teach, `finetuning.keep_old`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.evaluation.head_check import ClassGroup, HeadCheck, group_classes
from hsf_finetune.planning.advice import KNOWN
from hsf_finetune.planning.start import TransferResult
from hsf_finetune.system.errors import ConfigError

_NOT_FOUND = 0.5
"""A lower Dice of the source is not that of another outline."""


def find_old_groups(
    settings: Settings, cohort: Cohort, transfer: TransferResult | None
) -> tuple[tuple[int, ...], ...]:
    """Channels of the new head that mean one class of the source together, background first.

    Args:
        settings: of the run.
        cohort: its cases.
        transfer: the source's weights; None in a run that is resumed, which kept the groups.

    Returns:
        The groups; none without `finetuning.keep_old`.

    Raises:
        ConfigError: the source model cannot teach its classes to this network, or labels that are
            to leave them open do not.
    """
    if settings.finetuning.keep_old is None or transfer is None:
        return ()
    groups = group_classes(transfer.receipt.channels, transfer.source_classes)
    _check_counterparts(cohort, transfer.source_classes, groups)
    is_open = _check_labels(cohort, groups)
    if not is_open and settings.finetuning.keep_old == "distil":
        raise ConfigError(
            "finetuning.keep_old: the labels tell every class of the source everywhere, so that "
            "it has nothing to teach",
            found=f"datasets that draw {', '.join(cohort.classes.foreground)}",
            fix="list what a dataset does not draw under its unannotated; or, with few cases that "
            "are drawn as the source's were: finetuning.keep_old=everywhere",
        )
    return tuple(group.target for group in groups)


def outline_warnings(settings: Settings, checks: Sequence[HeadCheck]) -> list[str]:
    """What speaks against `finetuning.keep_old=everywhere`: a source that draws its classes badly.

    Args:
        settings: of the run.
        checks: of the source on a few cases.

    Raises:
        ConfigError: the source hardly finds them, so that the model would unlearn them.
    """
    if settings.finetuning.keep_old != "everywhere":
        return []
    where = ", ".join(check.case for check in checks)
    dice = _mean_dice(checks)
    lost = [f"{name} {value:.3f}" for name, value in dice.items() if value < _NOT_FOUND]
    if lost:
        raise ConfigError(
            "finetuning.keep_old=everywhere: the source model does not find its classes in these scans",
            found=f"mean Dice on {where}: {', '.join(lost)}",
            expected=f"{KNOWN} or more; a model that is held to less than {_NOT_FOUND} unlearns them",
            fix="leave keep_old out: the scans are of another contrast or voxel size, or prepared otherwise",
        )
    return [
        f"keep_old=everywhere holds the model to the source's outline of {name}, whose mean Dice is "
        f"{value:.3f} on {where}, less than {KNOWN}: if the labels draw it elsewhere on purpose, "
        "leave the setting out"
        for name, value in dice.items()
        if value < KNOWN
    ]


# -------------------------------------------------------------------- internals
def _mean_dice(checks: Sequence[HeadCheck]) -> dict[str, float]:
    """Class of the source -> mean Dice of its own head, over the cases that have it."""
    found: dict[str, list[float]] = {}
    for row in (row for check in checks for row in check.rows):
        found.setdefault(row.name, []).extend([] if math.isnan(row.before) else [row.before])
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _check_counterparts(
    cohort: Cohort, source: Sequence[str], groups: Sequence[ClassGroup]
) -> None:
    """Refuses a head that lacks a class of the source, or has one that does not come from it."""
    fresh = [cohort.classes.names[channel] for g in groups if not g.source for channel in g.target]
    if fresh:
        raise ConfigError(
            "finetuning.keep_old: classes of the new head come from no class of the source, so "
            "that it cannot teach",
            found=", ".join(fresh),
            fix="finetuning.head=transfer, with finetuning.source_classes=[background, ...] for "
            "weights that do not name their classes",
        )
    lost = [source[channel] for group in groups if not group.target for channel in group.source]
    if lost:
        names = ", ".join(dict.fromkeys([*source[1:], *cohort.classes.foreground]))
        datasets = dict.fromkeys(case.dataset for case in cohort.cases)
        raise ConfigError(
            "finetuning.keep_old: the new head has no class for some of the source's",
            found=f"no {', '.join(lost)}",
            fix=f"'models.labels_names=[{names}]' models.use_forgiving_loss=true; and where they "
            "are not drawn: "
            + " ".join(
                f"'++datasets.datasets.{name}.unannotated=[{', '.join(lost)}]'" for name in datasets
            )
            + "\nor, if one got another name: finetuning.derive_from={NEW: OLD}",
        )


def _check_labels(cohort: Cohort, groups: Sequence[ClassGroup]) -> bool:
    """Whether labels leave a class open; refuses those that take a class for background."""
    names, is_open = cohort.classes.names, False
    for dataset, case in {case.dataset: case for case in cohort.cases}.items():
        matrix = case.protocol.matrix
        hidden = [
            names[channel]
            for group in groups[1:]
            for channel in group.target
            if not matrix[:, [*group.target]].any()
        ]
        if hidden:
            raise ConfigError(
                f"finetuning.keep_old: dataset '{dataset}' takes classes of the source for "
                "background",
                found=f"it neither draws {', '.join(hidden)} nor says that they are not drawn",
                fix=f"'++datasets.datasets.{dataset}.unannotated=[{', '.join(hidden)}]'",
            )
        touched = np.stack([matrix[:, [*group.target]].any(axis=1) for group in groups])
        is_open |= bool((touched.sum(axis=0) > 1).any())
    return is_open
