"""The report of a run, or of a run of several folds, from what it left behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case, discover
from hsf_finetune.data.splits import OF_SOURCE, split_cases
from hsf_finetune.evaluation.classes_alike import Alike, explain_alike, read_alike
from hsf_finetune.evaluation.finished_runs import (
    FINAL,
    FinishedRun,
    Side,
    read_run,
    read_scores_if_any,
)
from hsf_finetune.evaluation.fit_calibration import NOT_CALIBRATED
from hsf_finetune.evaluation.reliability import read_reliability
from hsf_finetune.evaluation.run_parts import RunParts, name_part
from hsf_finetune.evaluation.score_tables import (
    MEAN,
    ScoreRow,
    comparison_table,
    paired_differences,
    summarise,
)
from hsf_finetune.inference.calibration import IN_SAMPLE, Calibration
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.report import figures
from hsf_finetune.report.case_views import view_case
from hsf_finetune.report.methods import describe_methods, describe_selftrain, list_references
from hsf_finetune.report.page import Cases, Grid, Lines, Page, Part, Picture, Section
from hsf_finetune.report.run_facts import (
    list_data,
    list_settings,
    list_weights,
    read_environment_of,
    read_transfer,
    settings_used,
    train_in_words,
)
from hsf_finetune.report.score_sections import (
    list_worst,
    name_weakest,
    rank_cases,
    show_volumes,
    tables_of_classes,
)
from hsf_finetune.report.trained_cases import also_trained, explain_no_lessons
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import UserError
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import CALIBRATION, RESULT, SPLITS, read_split
from hsf_finetune.training.metrics_file import read_metrics

_FEW_SUBJECTS = 5


def report_run(folder: Path, cases: int = 4, device: str = "auto") -> Page:
    """The report of a run that has ended.

    The worst cases are segmented again; where their files are gone they are left out.

    Args:
        folder: of the run.
        cases: how many of the worst cases are shown.
        device: as for `Predictor.load`.

    Raises:
        ConfigError: it is no run, or one that has not ended.
        DataError: its files cannot be read.
        WeightsError: its checkpoint is damaged.
    """
    run = read_run(folder, folder.name)
    side: Side = "test" if run.after["test"] else "validation"
    split = read_split(folder)
    trained = also_trained(split, side)
    run_parts = RunParts(folder)
    folds, parts = run_parts.folds, run_parts.scored
    settings = read_settings_of(parts[0])
    model = Predictor.load(folder / FINAL if folds else folder, "best", device)
    result = read_json(folder / RESULT, {"budget": str})
    weights = read_transfer(parts[0], settings)
    started = read_environment_of(folder).get("started", "")
    alike = read_alike(folder)
    colours = figures.colours_of(run.classes(side), model.card)
    lacking = [] if split["held_out"] else [*explain_no_lessons(settings, model.card)]
    scored = count_of(len({row.case for row in run.after[side]}), f"{side} case") + trained
    return Page(
        title=f"Report of {folder.name}",
        about=" \u00b7 ".join(filter(None, [started[:10], model.card.models.name, scored])),
        answer=_answer(run, side, bool(folds), result, trained, alike),
        sections=[
            *_compare_sides(run, split, colours, alike),
            Section(
                f"Each class{trained and f': {side} cases{trained}'}",
                tables_of_classes(run.after[side]),
            ),
            Section("Worst cases", _worst_cases(run, side, parts, cases, device)),
            Section("Learning", [*_curves(parts, colours)]),
            Section("Volumes", show_volumes(run.after[side], colours)),
            Section("What was forgotten", forgotten_parts(folder, result)),
            Section("Calibration and post-processing", [*_lessons(parts, model.card, lacking)]),
            Section("Data and split", [*list_data(folder, run_parts)]),
            Section("Weights and model", [*list_weights(model.card, weights)]),
            Section("Methods", _methods(settings, model.card, split, run_parts, weights)),
            Section(
                "Settings and versions",
                [*list_settings(folder, settings_used(run_parts, settings))],
            ),
        ],
    )


def _methods(
    settings: Settings,
    card: ModelCard,
    split: dict[str, Any],
    run_parts: RunParts,
    weights: dict[str, Any] | None,
) -> list[Part]:
    """A paragraph for a paper, and its references."""
    training = train_in_words(run_parts, settings)
    told = describe_methods(settings, card, split, training, weights)
    return [
        Lines([*told, *describe_selftrain(run_parts.runs)]),
        Lines(list_references(settings, card, weights)),
    ]


def _answer(
    run: FinishedRun, side: Side, folds: bool, result: dict[str, Any], trained: str, alike: Alike
) -> list[str]:
    """What came of it, where it is weakest, and how sure that is: a sentence each."""
    before, after = run.before[side], run.after[side]
    mean = summarise(after)[-1].dice
    on = f"{count_of(mean.n, f'{side} case')} of {count_of(mean.subjects, 'subject')}{trained}"
    first = f"Mean Dice on {on}{trained and ','} "
    if not before:
        first = f"Mean Dice on {on}, after training from random weights, is {mean.mean:.3f}."
    elif not alike:
        first += _gain(before, after, trained)
    else:
        names = " and ".join(name for classes in alike.values() for name in classes)
        first += f"is {mean.mean:.3f}. The pretrained model cannot tell {names} apart"
        one_of = {*chain(*alike.values())}
        others = [row for row in after if row.score.class_name not in one_of]
        if others:
            known = [row for row in before if row.score.class_name not in one_of]
            first += f"; of the other classes, it {_gain(known, others, trained)}"
        else:
            first += ", so that what fine-tuning gained cannot be said."
    if trained:
        model = OF_SOURCE if trained.endswith(OF_SOURCE) else " the model"
        first += f" These figures are no measure of new scans:{model} has seen these cases."
    caveats = []
    if mean.subjects < _FEW_SUBJECTS:
        caveats.append(
            f"{count_of(mean.subjects, 'subject')} cannot tell a small change from chance"
        )
    if side == "validation" and not trained and result.get("budget") != "fixed":
        caveats.append("these cases chose the epoch that is kept, so the figures are a little high")
    if folds:
        caveats.append("each case is scored by the fold that did not train on it")
        caveats.append("the final model trained on all of them, so none is left to score it with")
    if (change := (result.get("retention") or {}).get("change", {}).get(MEAN)) is not None:
        caveats.append(f"Dice on the source's own task changed by {change['mean']:+.3f}")
    third = "; ".join(caveats)
    return [first, name_weakest(after), *([f"{third[0].upper()}{third[1:]}."] if third else [])]


def _gain(before: Sequence[ScoreRow], after: Sequence[ScoreRow], trained: str) -> str:
    """From which mean Dice to which, and whether that may be chance."""
    old, new = (summarise(rows)[-1].dice.mean for rows in (before, after))
    change = paired_differences(before, after)[MEAN]
    text = f"went from {old:.3f} to {new:.3f} ({change.mean:+.3f}"
    if trained:
        return f"{text})."
    if math.isnan(change.low):
        return f"{text}); one subject does not tell how sure that is."
    text += f", 95 % interval {change.low:+.3f} to {change.high:+.3f}): "
    if change.low <= 0 <= change.high:
        return f"{text}the difference may be chance."
    return f"{text}fine-tuning {'helped' if change.mean > 0 else 'harmed'}."


def _compare_sides(
    run: FinishedRun, split: Mapping[str, Any], colours: Mapping[str, str], alike: Alike
) -> Iterator[Section]:
    """Before against after, on each side of the split that was scored."""
    for side in ("test", "validation"):
        before, after = run.before[side], run.after[side]
        if after:
            text = "Dice of each class" + (" before and after, and its change" if before else "")
            parts: list[Part] = [Picture(figures.draw_change(before, after, colours), text)]
            if before:
                parts.append(Grid.from_rich(comparison_table(before, after)))
                parts += [Lines([*explain_alike(alike)])] if alike else []
            title = "Before and after" if before else "Scores"
            yield Section(f"{title}: {side} cases{also_trained(split, side)}", parts)


def _worst_cases(
    run: FinishedRun, side: Side, parts: Sequence[Path], count: int, device: str
) -> list[Part]:
    rows = run.after[side]
    listed = list_worst(rows)
    chosen = [case for case, _ in rank_cases(rows)[:count]]
    try:
        views = [
            view_case(model, case, [row for row in rows if row.case == case.name])
            for part in parts
            for model, case in _models_and_cases(part, chosen, device)
        ]
    except (UserError, OSError) as error:
        return [listed, Lines([f"The cases cannot be shown: {error}"])]
    views.sort(key=lambda view: chosen.index(view.name))
    return [listed, Cases(views)] if views else [listed]


def _models_and_cases(
    part: Path, names: Sequence[str], device: str
) -> Iterator[tuple[Predictor, Case]]:
    """Of a run or fold: its model, with each of those cases that it did not train on."""
    sides = read_split(part)
    if not {*sides["validation"], *sides["test"]} & {*names}:
        return
    settings = read_settings_of(part)
    datasets = settings.datasets.model_copy(update={"split_file": str(part / SPLITS)})
    split = split_cases(discover(datasets, settings.models).cases, datasets, settings.seed)
    model = Predictor.load(part, "best", device)
    for case in (*split.validation, *split.test):
        if case.name in names:
            yield model, case


def _curves(parts: Sequence[Path], colours: Mapping[str, str]) -> Iterator[Picture]:
    for part in parts:
        if (part / "metrics.csv").exists() and (metrics := read_metrics(part / "metrics.csv")):
            text = "validation Dice and losses over epochs, and the rate of each block below"
            note = name_part(part) if len(parts) > 1 else ""
            from_head = read_json(part / "schedule.json", {"blocks": [str]})["blocks"][::-1]
            yield Picture(figures.draw_learning(metrics, colours, from_head), text, note)


def forgotten_parts(folder: Path, result: dict[str, Any]) -> list[Part]:
    """The source's own task before and after, from the tables in a run's folder."""
    before, after = (
        read_scores_if_any(folder / f"retention_{when}.csv") for when in ("before", "after")
    )
    lost = (result.get("retention") or {}).get("without_counterpart")
    parts: list[Part] = []
    if before and after:
        table = comparison_table(before, after, ("before", "after"))
        parts.append(Lines(["The source's own task, before and after."]))
        parts.append(Grid.from_rich(table))
    if lost:
        parts.append(Lines([f"Without a counterpart in the new head: {', '.join(lost)}."]))
    return parts


def _lessons(parts: Sequence[Path], card: ModelCard, lacking: Sequence[str]) -> Iterator[Part]:
    """What validation cases taught about the model's probabilities and mistakes, or why not."""
    lines: list[str] = []
    if card.calibration:
        on = count_of(card.calibration.subjects, "validation subject")
        chose = "These subjects had chosen the epoch, too" if card.calibration.chose_epoch else ""
        lines.append(f"Probabilities: {card.calibration.line()}, on {on}.")
        lines.append(f"{chose or 'These subjects chose no epoch'}; labels are not changed.")
    elif any((part / CALIBRATION).exists() for part in parts):
        lines.append(f"Probabilities are not calibrated: {NOT_CALIBRATED}.")
    lines += [f"Post-processing: {line}." for line in card.postprocessing.lines()]
    lines += [f"{line[0].upper()}{line[1:]}." for line in lacking]
    if lines:
        yield Lines(lines)
    for part in parts:
        if (part / CALIBRATION).exists():
            text = "share of voxels that are right over the model's probability, before and after"
            note = "grey: share of the voxels; expected calibration error (Guo et al. 2017)"
            if own := read_json(part / RESULT, {}).get("calibration"):
                others = "each subject calibrated by the others"
                note += f", {others if Calibration.from_dict(own).held_out else IN_SAMPLE}"
            name = f"{name_part(part)}; " if len(parts) > 1 else ""
            drawn = figures.draw_reliability(read_reliability(part / CALIBRATION))
            yield Picture(drawn, text, name + note)
