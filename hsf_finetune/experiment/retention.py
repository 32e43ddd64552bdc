"""The source's own task, scored before and after: what fine-tuning made the model forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hsf_finetune.evaluation.head_check import group_classes
from hsf_finetune.evaluation.score_model import score_groups
from hsf_finetune.evaluation.score_tables import (
    MEAN,
    ScoreRow,
    comparison_table,
    paired_differences,
    read_scores,
    summarise,
    write_scores,
)
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.setup import Setup
from hsf_finetune.planning.source_model import (
    CLASS_GROUPS,
    read_class_groups,
    source_predictor,
)
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.console import count_of
from hsf_finetune.system.run_folder import RunFolder

_BEFORE, _AFTER = "retention_before.csv", "retention_after.csv"


def score_source_before(setup: Setup, run: RunFolder) -> None:
    """Scores the source model, by its own head, on its own task, and writes down the scores."""
    task, transfer = setup.source_task, setup.transfer
    assert task is not None
    assert transfer is not None
    groups = group_classes(transfer.receipt.channels, task.classes)
    write_json(run.file(CLASS_GROUPS), {"classes": task.classes, "groups": groups})
    predictor = source_predictor(setup)
    with console.progress("scoring the source model on its own task") as tick:
        rows = score_groups(predictor, task.cases, groups, "source", progress=tick)
    write_scores(run.file(_BEFORE), rows)


def score_source_after(setup: Setup, run: RunFolder) -> dict[str, Any]:
    """Scores the trained model on the source's task, and prints what it forgot.

    Returns:
        Summaries before and after and their paired differences, for result.json.
    """
    task = setup.source_task
    assert task is not None
    _, groups = read_class_groups(run.file(CLASS_GROUPS))
    predictor = Predictor.load(run.path, "best", str(setup.device))
    with console.progress("scoring the model on the source's task") as tick:
        after = score_groups(predictor, task.cases, groups, "target", progress=tick)
    write_scores(run.file(_AFTER), after)
    before = read_scores(run.file(_BEFORE))
    lost = [group.name for group in groups[1:] if group.source and not group.target]
    _show(before, after, lost)
    return {
        "before": summarise(before),
        "after": summarise(after),
        "change": paired_differences(before, after),
        "without_counterpart": lost,
    }


def _show(before: Sequence[ScoreRow], after: Sequence[ScoreRow], lost: Sequence[str]) -> None:
    cases = len({row.case for row in after})
    console.say(f"\nThe source's own task ({count_of(cases, 'case')} of datasets.retention)")
    if after:
        console.console.print(comparison_table(before, after, ("before", "after")))
        points = -100 * paired_differences(before, after)[MEAN].mean
        word = "forgot" if points > 0 else "gained"
        console.say(f"it {word} {abs(points):.1f} Dice points of what it knew")
    if lost:
        names = ", ".join(lost)
        console.say(f"without a counterpart in the new head, and so not compared: {names}")
