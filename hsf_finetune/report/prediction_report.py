"""The report of scans that were segmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume, stem
from hsf_finetune.inference.ensemble import describe_passes
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.quality_model import MEAN
from hsf_finetune.inference.scan_jobs import JobResult
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.report.case_views import view_segmentation
from hsf_finetune.report.page import Cases, CaseView, Grid, Lines, Page, Part, Section
from hsf_finetune.system.console import count_of, format_size
from hsf_finetune.system.errors import UserError

_LISTED = 400
"""Scans of the table."""


def report_predictions(results: Sequence[JobResult], model: ScanModel, cases: int = 4) -> Page:
    """The report of scans that were segmented, those to look at first before the others.

    Args:
        results: what became of each scan.
        model: what segmented them.
        cases: how many are shown.
    """
    card, order = model.card, sorted(results, key=_urgency)
    written = [result for result in order if result.status == "written"]
    unusual = [result for result in written if result.warnings]
    failed = [result for result in order if result.status == "failed"]
    foretold = any(result.foretold for result in written)
    answer = [
        f"{count_of(len(written), 'scan')} segmented into {', '.join(card.classes[1:])}; "
        f"{len(failed)} failed; {len(results) - len(written) - len(failed)} skipped.",
        _unlike(len(unusual), len(written)),
    ]
    if foretold:
        worst = written[0]
        answer.append(
            f"The least Dice is expected of {_name(worst)} ({_expected(worst):.3f}); what is "
            "expected was learned from held-out cases, and is no measurement."
        )
    return Page(
        title=f"Segmentation of {count_of(len(results), 'scan')}",
        about=f"{card.models.name} \u00b7 {', '.join(card.classes[1:])}",
        answer=answer,
        sections=[
            Section("Scans", [_table(order, card)]),
            Section(
                "Look at these first" if foretold or unusual else "The first segmentations",
                [*_views(written[:cases], card)],
            ),
            Section("Remarks", [*_remarks(order)]),
            Section("Weights and model", [*_model(model)]),
        ],
    )


def _unlike(unusual: int, written: int) -> str:
    """How many of the scans that were looked at are unlike the training data."""
    if not written:
        return "No scan was compared with the training data, since none was segmented now."
    if not unusual:
        return "None of them is unlike the training data."
    return (
        f"{count_of(unusual, 'scan')} of them are unlike the training data in some way: look at "
        "these first."
    )


def _table(order: Sequence[JobResult], card: ModelCard) -> Grid:
    """A row for each scan: expected Dice where it is known, volumes, kinds of remarks."""
    foretells = any(result.foretold for result in order)
    header = ["scan", *(["expected Dice", "at least"] if foretells else ())]
    header += [f"{name} mm3" for name in card.classes[1:]] + ["remarks"]
    rows = []
    for result in order[:_LISTED]:
        mean = next((one for one in result.foretold if one.class_name == MEAN), None)
        dice = [f"{mean.dice:.3f}", f"{mean.low:.3f}"] if mean else ["-", "-"]
        volumes = [result.volumes_mm3.get(name) for name in card.classes[1:]]
        kinds = ", ".join(dict.fromkeys(one.kind for one in result.warnings))
        status = f"failed: {result.error.what}" if result.error else result.status
        rows.append(
            [
                _name(result),
                *(dice if foretells else ()),
                *("-" if volume is None else format_size(volume) for volume in volumes),
                kinds if result.status == "written" else status,
            ]
        )
    left = len(order) - len(rows)
    return Grid(header, rows, note=f"and {count_of(left, 'scan')} more" if left else "")


def _views(results: Sequence[JobResult], card: ModelCard) -> Iterator[Part]:
    views: list[CaseView] = []
    for result in results:
        about = ", ".join(f"{one.class_name} {one.dice:.3f}" for one in result.foretold)
        known = [f"expected Dice: {about}" if about else "", *(w.what for w in result.warnings)]
        try:
            scan = read_volume(result.job.channels[0])
            labels = read_volume(VolumeRef(result.job.output))
        except UserError as error:
            yield Lines([f"{_name(result)} cannot be shown: {error.what}"])
            continue
        views.append(
            view_segmentation(_name(result), "; ".join(filter(None, known)), scan, labels, card)
        )
    if views:
        yield Cases(views)


def _remarks(order: Sequence[JobResult]) -> Iterator[Part]:
    """What is unusual, kind by kind."""
    found: dict[str, list[str]] = {}
    for result in order:
        for warning in result.warnings:
            detail = f" ({warning.found})" if warning.found else ""
            found.setdefault(warning.what, []).append(f"{_name(result)}{detail}")
        if result.error:
            found.setdefault(f"failed: {result.error.what}", []).append(_name(result))
    if found:
        rows = [[what, str(len(names)), "; ".join(names[:20])] for what, names in found.items()]
        yield Grid(["remark", "scans", "which"], rows)


def _model(model: ScanModel) -> Iterator[Part]:
    """Where its weights come from, and what is done to probabilities and labels."""
    card = model.card
    rows = [[key, value] for key, value in card.origin.items()]
    if passes := describe_passes(model):
        rows.append(["passes", passes])
    if card.calibration:
        rows.append(["probabilities", card.calibration.line()])
    rows += [["post-processing", line] for line in card.postprocessing.lines()]
    if rows:
        yield Grid(["what", "value"], rows)


def _urgency(result: JobResult) -> tuple[int, float]:
    """Failed ones first, then those of the least expected Dice, then those with remarks."""
    return (
        {"failed": 0, "written": 1, "skipped": 2}[result.status],
        _expected(result) - 0.05 * bool(result.warnings),
    )


def _expected(result: JobResult) -> float:
    return next((one.dice for one in result.foretold if one.class_name == MEAN), 1.0)


def _name(result: JobResult) -> str:
    place: Path = result.job.place
    return (place.parent / stem(place)).as_posix()
