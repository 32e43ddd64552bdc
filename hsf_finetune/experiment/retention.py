"""The source's own task, scored before and after: what fine-tuning made the model forget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case, Cohort, discover
from hsf_finetune.evaluation.head_check import Group, comparable
from hsf_finetune.evaluation.score_retention import score_groups
from hsf_finetune.evaluation.score_tables import (
    MEAN,
    ScoreRow,
    comparison_table,
    paired_differences,
    read_scores,
    summarise,
    write_scores,
)
from hsf_finetune.inference.predictor import ModelCard, Predictor
from hsf_finetune.planning.start import Source, Start, source_network
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.files import write_json
from hsf_finetune.system.run_folder import RunFolder

_GROUPS, _BEFORE, _AFTER = "retention.json", "retention_before.csv", "retention_after.csv"


@dataclass(frozen=True)
class OldTask:
    """What a run is to remember.

    Args:
        cases: annotated in the source's classes.
        classes: of the source, background first.
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...]


def old_task(
    settings: Settings, cohort: Cohort, source_classes: Sequence[str] | None
) -> OldTask | None:
    """The cases of `datasets.retention`; None where none are given.

    Args:
        settings: of the run.
        cohort: the cases that train, for their channels.
        source_classes: of the source, background first; None if it does not say.

    Raises:
        ConfigError: there is no source model, or none whose classes are known, or the cases
            have another number of channels.
        UserError: the files do not fit their description.
    """
    given = settings.datasets.retention
    if not given:
        return None
    if source_classes is None:
        raise ConfigError(
            "datasets.retention needs a source model whose classes are known",
            found=f"finetuning.pretrained={settings.finetuning.pretrained}",
            fix="name them: 'finetuning.source_classes=[background, ...]', or leave out "
            "datasets.retention",
        )
    classes = {"labels_names": list(source_classes[1:]), "use_forgiving_loss": True}
    found = discover(
        settings.datasets.model_copy(update={"datasets": given}),
        settings.models.model_copy(update=classes),
    )
    if found.channels != cohort.channels:
        raise ConfigError(
            "the cases of datasets.retention have another number of input channels",
            found=found.channels,
            expected=cohort.channels,
        )
    return OldTask(found.cases, tuple(source_classes))


def classes_of(source: Source | None, run: RunFolder | None) -> tuple[str, ...] | None:
    """The source's classes: from the weights, or from what a resumed run wrote down."""
    if source is not None:
        return source.classes
    if run is not None and run.file(_GROUPS).exists():
        return tuple(json.loads(run.file(_GROUPS).read_text())["classes"])
    return None


def remember(
    task: OldTask,
    settings: Settings,
    run: RunFolder,
    cohort: Cohort,
    start: Start,
    card: ModelCard,
    device: torch.device,
) -> None:
    """Scores the source model, by its own head, and writes down what can be compared later."""
    groups = comparable(start.receipt.channels, task.classes)
    write_json(
        run.file(_GROUPS), {"classes": task.classes, "groups": [asdict(group) for group in groups]}
    )
    values = {name: number for number, name in enumerate(task.classes)}
    own = replace(card, classes=task.classes, label_values=values)
    predictor = Predictor(source_network(settings, cohort, start), own, device)
    with console.progress("scoring the source model on its own task") as tick:
        rows = score_groups(predictor, task.cases, groups, "there", progress=tick)
    write_scores(run.file(_BEFORE), rows)


def recall(task: OldTask, run: RunFolder, device: torch.device) -> dict[str, Any]:
    """Scores the trained model on the source's task, says and returns what it forgot.

    Returns:
        Summaries before and after and their paired differences, for result.json.
    """
    written = json.loads(run.file(_GROUPS).read_text())["groups"]
    groups = [Group(g["name"], tuple(g["there"]), tuple(g["here"])) for g in written]
    predictor = Predictor.load(run.path, "best", str(device))
    with console.progress("scoring the model on the source's task") as tick:
        after = score_groups(predictor, task.cases, groups, "here", progress=tick)
    write_scores(run.file(_AFTER), after)
    before = read_scores(run.file(_BEFORE))
    lost = [group.name for group in groups[1:] if group.there and not group.here]
    _say(before, after, lost)
    return {
        "before": [asdict(s) for s in summarise(before)],
        "after": [asdict(s) for s in summarise(after)],
        "change": {name: asdict(d) for name, d in paired_differences(before, after).items()},
        "without_counterpart": lost,
    }


# -------------------------------------------------------------------- internals
def _say(before: Sequence[ScoreRow], after: Sequence[ScoreRow], lost: Sequence[str]) -> None:
    cases = len({row.case for row in after})
    console.say(f"\nThe source's own task ({cases} cases of datasets.retention)")
    if after:
        differences = paired_differences(before, after)
        titles = ("before", "after")
        table = comparison_table(summarise(before), summarise(after), differences, titles)
        console.console.print(table)
        points = -100 * differences[MEAN].mean
        word = "forgot" if points > 0 else "gained"
        console.say(f"it {word} {abs(points):.1f} Dice points of what it knew")
    if lost:
        console.say(
            f"without a counterpart in the new head, and so not compared: {', '.join(lost)}"
        )
