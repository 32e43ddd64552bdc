"""What the data and the pretrained weights are like, as far as advice depends on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hsf_finetune.check.check_report import CheckReport
from hsf_finetune.check.findings import findings_of_tier
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.data_summary import DataSummary
from hsf_finetune.data.splits import fold_count, validation_count
from hsf_finetune.evaluation.head_check import HeadCheck
from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.planning.advice import FAR, Advice, Diagnosis, give_advice
from hsf_finetune.planning.setup import Setup, prepare
from hsf_finetune.planning.source_model import check_new_head, few_cases
from hsf_finetune.planning.start import TransferResult, require_weights
from hsf_finetune.system import console
from hsf_finetune.system.errors import SeveralErrors
from hsf_finetune.weights.transfer.derive_classes import suggest_derivations

_PROFILE_SHIFT = 0.5
"""Change of a class's brightness, in standard deviations of the image, that is a new contrast."""
_SPACING_RATIO = 1.5
_NAMED = 3
"""Classes that are named one by one."""


def advise(settings: Settings, report: CheckReport) -> list[Advice]:
    """What to set for these data and these weights.

    Args:
        settings: as they are so far.
        report: of the check of the same settings.

    Raises:
        UserError: the data or the weights cannot be used as they are, or there are none.
    """
    wrong = findings_of_tier(report.findings, "refused")
    if wrong or report.cohort is None:
        raise SeveralErrors("the data cannot be used as they are:", [f.error() for f in wrong])
    setup = replace(prepare(settings, report.cohort, preview=True), report=report)
    if setup.transfer is None and settings.weights.pretrained != "none":
        require_weights(settings)
    return [*give_advice(diagnose(setup), setup.settings)]


def diagnose(setup: Setup) -> Diagnosis:
    """Compares the cases with what the weights know, and tries the untouched model on a few."""
    settings, cases = setup.settings, setup.cohort.cases
    data = settings.datasets
    subjects = len({case.subject for case in cases})
    batch = 2 if data.batch_size == "auto" else data.batch_size
    batches = math.ceil((data.k_sample or len(setup.split.train)) / batch)
    diagnosis = Diagnosis(
        subjects,
        validation_count(subjects, data.train_ratio) if subjects > 1 else 0,
        fold_count(cases, data),
        math.ceil(batches / settings.lightning.accumulate_grad_batches),
        setup.schedule.max_epochs,
        setup.transfer is not None,
    )
    if setup.transfer is None:
        return diagnosis
    checks = [*_check_head_on_cases(setup)]
    known = [row.before for one in checks for row in one.rows if not math.isnan(row.before)]
    dice = float(np.mean(known)) if known else math.nan
    protocol, receipt = _protocol(setup.transfer), setup.transfer.receipt
    return replace(
        diagnosis,
        contrast=_contrast(setup, protocol, dice),
        protocol=protocol,
        dice=dice,
        spacing_mm=_source_spacing(setup),
        splits=tuple(rule.target for rule in receipt.channels if rule.rule == "split"),
        derive_from=suggest_derivations(receipt.channels, receipt.dropped),
    )


def _check_head_on_cases(setup: Setup) -> Iterator[HeadCheck]:
    """The source model, by its own head, on a few cases of different subjects."""
    cases = few_cases(setup.split.train)
    with console.progress("trying the untouched model") as tick:
        for done, case in enumerate(cases, start=1):
            found = check_new_head(setup, case)
            tick(done, len(cases))
            if found is not None:
                yield found


def _protocol(transfer: TransferResult) -> str:
    """How the classes differ from those of the source model; empty if they do not."""
    rules = transfer.receipt.channels
    known = transfer.source.classes
    if known is None:
        return ""

    def made(*kinds: str) -> list[str]:
        return [r.target for r in rules if r.rule in kinds]

    used = {channel for rule in rules for channel in rule.channels}
    differences = {
        "drawn finer than the source model does": made("split"),
        "drawn coarser than the source model does": made("merged"),
        "unknown to the source model": [
            name for name in made("from background", "fresh") if name != BACKGROUND
        ],
        "known to the source model and not drawn in the data": [
            name for n, name in enumerate(known) if n and n not in used
        ],
    }
    return "; ".join(
        f"{_list(names)} {'is' if len(names) == 1 else 'are'} {what}"
        for what, names in differences.items()
        if names
    )


def _contrast(setup: Setup, protocol: str, dice: float) -> str:
    """What speaks for other images than the source model knows; empty if nothing does."""
    transfer, report = setup.transfer, setup.report
    assert transfer is not None
    theirs = transfer.source.checkpoint.channel_names
    ours = setup.settings.datasets.channel_names
    if theirs and ours and set(theirs) != set(ours):
        return f"the images are {', '.join(ours)}, and it was trained on {', '.join(theirs)}"
    if report is not None and report.target is not None and report.source is not None:
        return _brightness_shift(report.target, report.source, transfer)
    if dice < FAR:
        same = "" if protocol else " although the classes have the same names"
        return (
            f"its Dice is {dice:.2f} on what it knows{same}, and it does not say what its images "
            "looked like"
        )
    return ""


def _brightness_shift(target: DataSummary, source: DataSummary, transfer: TransferResult) -> str:
    """The class whose brightness differs most, if it differs by much."""
    # Of a class that the target draws in parts only their mean compares with the whole.
    parts: dict[str, list[str]] = {}
    for rule in transfer.receipt.channels:
        if len(rule.sources) == 1 and rule.target in target.profile:
            parts.setdefault(rule.sources[0], []).append(rule.target)
    shifts = [
        (float(np.mean([target.profile[n] for n in names])), source.profile[of], names)
        for of, names in parts.items()
        if of in source.profile and of != BACKGROUND
    ]
    now, then, names = max(shifts, key=lambda s: abs(s[0] - s[1]), default=(0.0, 0.0, []))
    if abs(now - then) < _PROFILE_SHIFT:
        return ""
    return (
        f"the brightness of {' and '.join(names)} is {now:+.2f} standard deviations from the mean "
        f"of the image, and was {then:+.2f} where it was trained"
    )


def _source_spacing(setup: Setup) -> tuple[float, ...]:
    """The source model's voxel size, where that of the data is far from it."""
    report = setup.report
    if report is None or report.target is None or report.source is None:
        return ()
    own = np.array(setup.card.preprocessing.spacing_mm or report.target.spacing_mm)
    ratio = own / np.array(report.source.spacing_mm)
    far = max(ratio.max(), (1 / ratio).max()) > _SPACING_RATIO
    return report.source.spacing_mm if far else ()


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
