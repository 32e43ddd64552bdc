"""What the data and the pretrained weights are like, as far as advice depends on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from hsf_finetune.check.check_report import Report
from hsf_finetune.check.findings import of_tier
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.data.splits import fold_count, split_cases, validation_count
from hsf_finetune.evaluation.head_check import Smoke
from hsf_finetune.experiment.folds import first_fold
from hsf_finetune.inference.predictor import pick_device
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.advice import FAR, Advice, Situation, advice_on
from hsf_finetune.planning.budget import planned, with_budget
from hsf_finetune.planning.start import (
    Source,
    Start,
    build_network,
    model_card,
    smoke_test,
    start_from,
    with_network,
)
from hsf_finetune.system import console
from hsf_finetune.system.errors import SeveralErrors

_TRIED = 4
"""Cases on which the untouched model is tried."""
_PROFILE_SHIFT = 0.5
"""Change of a class's brightness, in standard deviations of the image, that is a new contrast."""
_SPACING_RATIO = 1.5
_NAMED = 3
"""Classes that are named one by one."""


def advise(settings: Settings, report: Report, source: Source | None) -> list[Advice]:
    """What to set for these data and these weights.

    Args:
        settings: as they are so far.
        report: of the check of the same settings.
        source: the pretrained weights, if any.

    Raises:
        UserError: the data or the weights cannot be used as they are.
    """
    return [*advice_on(*look_at(settings, report, source))]


def look_at(
    settings: Settings, report: Report, source: Source | None
) -> tuple[Situation, Settings]:
    """Looks at cases and weights, and tries the untouched model on a few cases.

    Returns:
        What was seen, and the settings with the network that is built.

    Raises:
        UserError: the data or the weights cannot be used as they are.
    """
    wrong = of_tier(report.findings, "refused")
    if wrong or report.cohort is None:
        raise SeveralErrors("the data cannot be used as they are:", [f.error() for f in wrong])
    cohort = report.cohort
    settings = with_budget(settings, cohort.cases)
    settings = with_network(settings, source.checkpoint if source else None)
    anatomy = build_network(settings, cohort)
    schedule = planned(settings, anatomy)
    data = settings.datasets
    training = split_cases(cohort.cases, first_fold(cohort.cases, settings), settings.seed).train
    subjects = len({case.subject for case in cohort.cases})
    batch = 2 if data.batch_size == "auto" else data.batch_size
    batches = math.ceil((data.k_sample or len(training)) / batch)
    contrast, protocol, dice = "", "", math.nan
    spacing: tuple[float, ...] = ()
    if source is not None:
        start = start_from(settings, anatomy, cohort, source)
        tried = [*_tried(settings, cohort, anatomy, start, training)]
        known = [row.before for one in tried for row in one.rows if not math.isnan(row.before)]
        dice = float(np.mean(known)) if known else math.nan
        protocol = _protocol(start)
        contrast = _contrast(settings, start, report, protocol, dice)
        spacing = _spacing(settings, report)
    here = Situation(
        subjects,
        validation_count(subjects, data.train_ratio) if subjects > 1 else 0,
        fold_count(cohort.cases, data),
        math.ceil(batches / settings.lightning.accumulate_grad_batches),
        schedule.max_epochs,
        source is not None,
        contrast,
        protocol,
        dice,
        spacing,
    )
    return here, settings


# -------------------------------------------------------------------- internals
def _tried(
    settings: Settings,
    cohort: Cohort,
    anatomy: Anatomy,
    start: Start,
    training: Sequence[Case],
) -> Iterator[Smoke]:
    """The source model, by its own head, on a few cases of different subjects."""
    card = model_card(settings, cohort, anatomy)
    device = pick_device("cpu" if settings.lightning.accelerator == "cpu" else "auto")
    cases = list({case.subject: case for case in training}.values())[:_TRIED]
    with console.progress("trying the untouched model") as tick:
        for done, case in enumerate(cases, start=1):
            found = smoke_test(settings, cohort, anatomy, start, card, case, device)
            tick(done, len(cases))
            if found is not None:
                yield found


def _protocol(start: Start) -> str:
    """How the classes differ from those of the source model; empty if they do not."""
    rules = start.receipt.channels
    known = start.source.classes
    if known is None:
        return ""
    parts = []
    split = [r.target for r in rules if r.rule == "split"]
    merged = [r.target for r in rules if r.rule == "merged"]
    new = [
        r.target for r in rules if r.rule in ("from background", "fresh") and r.target != BACKGROUND
    ]
    used = {channel for rule in rules for channel in rule.channels}
    gone = [name for n, name in enumerate(known) if n and n not in used]
    for names, what in (
        (split, "drawn finer than the source model does"),
        (merged, "drawn coarser than the source model does"),
        (new, "unknown to the source model"),
        (gone, "known to the source model and not drawn here"),
    ):
        if names:
            parts.append(f"{_list(names)} {'is' if len(names) == 1 else 'are'} {what}")
    return "; ".join(parts)


def _contrast(settings: Settings, start: Start, report: Report, protocol: str, dice: float) -> str:
    """What speaks for other images than the source model knows; empty if nothing does."""
    theirs, ours = start.source.checkpoint.channel_names, settings.datasets.channel_names
    if theirs and ours and set(theirs) != set(ours):
        return f"the images are {', '.join(ours)}, and it was trained on {', '.join(theirs)}"
    if report.here is not None and report.source is not None:
        return _shift(report.here, report.source, start)
    if dice < FAR:
        same = "" if protocol else " although the classes have the same names"
        return (
            f"its Dice is {dice:.2f} on what it knows{same}, and it does not say what its images "
            "looked like"
        )
    return ""


def _shift(here: DataSummary, source: DataSummary, start: Start) -> str:
    """The class whose brightness differs most, if it differs by much."""
    # Of a class that is drawn in parts here only their mean compares with the whole.
    parts: dict[str, list[str]] = {}
    for rule in start.receipt.channels:
        if len(rule.sources) == 1 and rule.target in here.profile:
            parts.setdefault(rule.sources[0], []).append(rule.target)
    shifts = {
        " and ".join(names): (float(np.mean([here.profile[n] for n in names])), source.profile[of])
        for of, names in parts.items()
        if of in source.profile and of != BACKGROUND
    }
    if not shifts:
        return ""
    worst = max(shifts, key=lambda name: abs(shifts[name][0] - shifts[name][1]))
    now, then = shifts[worst]
    if abs(now - then) < _PROFILE_SHIFT:
        return ""
    return (
        f"the brightness of {worst} is {now:+.2f} standard deviations from the mean of the image, "
        f"and was {then:+.2f} where it was trained"
    )


def _spacing(settings: Settings, report: Report) -> tuple[float, ...]:
    """The source model's voxel size, where that of the data is far from it."""
    if report.here is None or report.source is None:
        return ()
    own = np.array(settings.datasets.target_spacing_mm or report.here.spacing_mm)
    ratio = own / np.array(report.source.spacing_mm)
    far = max(ratio.max(), (1 / ratio).max()) > _SPACING_RATIO
    return report.source.spacing_mm if far else ()


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
