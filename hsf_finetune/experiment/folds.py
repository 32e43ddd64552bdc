"""Every fold of a few cases, one run after the other, pooled into one table, and a final model."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.data.splits import SOURCE_TRAINED, fold_settings, split_cases
from hsf_finetune.evaluation.classes_alike import explain_alike, read_alike
from hsf_finetune.evaluation.finished_runs import (
    FINAL,
    read_scores_if_any,
    write_result,
)
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    comparison_table,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.experiment.child_runs import RunExperiment, make_run
from hsf_finetune.experiment.quality_lessons import describe_quality, share_quality
from hsf_finetune.experiment.resume import open_folder
from hsf_finetune.experiment.run_length import has_become_longer
from hsf_finetune.experiment.run_result import RunResult, mean_dice, write_report_of
from hsf_finetune.experiment.validation_lessons import (
    describe_lessons,
    lessons_to_dict,
    share_lessons,
)
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.rewrite_card import rewrite_card
from hsf_finetune.planning.budget import settings_of_folds
from hsf_finetune.report.trained_cases import also_trained
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.errors import UserError
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import (
    RESULT,
    SPLITS,
    RunFolder,
    fold_folders,
    gather_in_split,
    named_when_interrupted,
    read_split,
)
from hsf_finetune.weights.sources.read_source import find_checkpoint

_MOST_ROWS = 40
"""Cases that are listed one by one on the terminal."""


def run_folds(
    settings: Settings,
    cohort: Cohort,
    count: int,
    resumed: RunFolder | None,
    run_experiment: RunExperiment,
) -> RunResult:
    """Makes one run per fold, pools their scores, and trains a final model on every case.

    The pooled scores are those of the recipe, on subjects that it did not see. The model to
    segment new scans with is one more run of the same recipe on all cases, for which none
    is left to score it with; it is a single network, and with few subjects one more of them
    is worth more than averaging networks that each lack some. Folds that have ended are
    left as they are when the run is resumed.

    Args:
        settings: of the run; every fold has them but for its split.
        cohort: the cases.
        count: of the folds, from `fold_count`.
        resumed: the run to resume, from `find_run`.
        run_experiment: makes one run.

    Returns:
        The scores of every case by the fold that did not train on it, and before that by
        the model that all folds start from.

    Raises:
        UserError: anything the user can mend; nothing is left behind where the first fold
            cannot start.
    """
    plan = FoldPlan(settings_of_folds(settings, cohort.cases), cohort.cases, count)
    run = open_folder(settings, resumed)
    if not run.file(SPLITS).exists():
        write_json(run.file(SPLITS), plan.to_dict())
    _announce(run, plan)
    runs = {f"fold_{k}": plan.fold(k) for k in range(count)} | {FINAL: plan.final()}
    for number, (name, own) in enumerate(runs.items(), start=1):
        console.say(f"\n{name} ({number} of {len(runs)} runs)")
        try:
            longer = has_become_longer(run.file(name), own)
            with named_when_interrupted(run):
                make_run(own, run.file(name), run_experiment, longer=longer)
            if number == 1 and (ended := _prune(run, plan)) is not None:
                return ended
        except UserError:
            if resumed is None and not any(run.file(other).exists() for other in runs):
                shutil.rmtree(run.path, ignore_errors=True)
            raise
        except (KeyboardInterrupt, SystemExit):
            console.say("folds that have ended are kept")
            raise
    return _pool(run, plan)


@dataclass(frozen=True)
class FoldPlan:
    """The runs that a run of several folds consists of.

    Args:
        settings: that all of them share.
        cases: all of them.
        count: of the folds.
    """

    settings: Settings
    cases: Sequence[Case]
    count: int

    def fold(self, number: int) -> Settings:
        """The settings of one fold."""
        data = fold_settings(self.settings.datasets, number, self.count)
        return self.settings.model_copy(update={"datasets": data})

    def to_dict(self) -> dict[str, Any]:
        """The splits of all folds, for `splits.json`."""
        names = [case.name for case in self.cases]
        splits = [
            split_cases(self.cases, self.fold(k).datasets, self.settings.seed)
            for k in range(self.count)
        ]
        return {
            "how": f"{self.count} folds, pooled: every case by the fold that did not train on it",
            "held_out": True,
            "train": names,
            "validation": names,
            "test": [],
            "folds": [split.to_dict() for split in splits],
        }

    def final(self) -> Settings:
        """The settings of the run on all cases, whose length no validation can decide."""
        whole = {"fold": None, "train_on_all": True, "prune_below": None}
        data = self.settings.datasets.model_copy(update=whole)
        tuning = self.settings.finetuning.model_copy(update={"budget": "fixed"})
        return self.settings.model_copy(update={"datasets": data, "finetuning": tuning})


def _prune(run: RunFolder, plan: FoldPlan) -> RunResult | None:
    """Ends a run whose first fold is worse than `datasets.prune_below`; None lets it go on."""
    folder, below = run.file("fold_0"), plan.settings.datasets.prune_below
    before, after = (
        read_scores_if_any(folder / name)
        for name in ("pretrained_scores.csv", "validation_scores.csv")
    )
    found = mean_dice(after)
    if below is None or not found < below:
        return None
    console.say(
        f"\npruned: the first fold's mean Dice is {found:.3f}, and datasets.prune_below is "
        f"{below:.3f}, so that {console.count_of(plan.count - 1, 'further fold')} and the final model are not "
        f"trained; resume={run.path} datasets.prune_below=null trains them"
    )
    pruned = {"first_fold": found, "prune_below": below}
    folds = {folder.name: _result(folder)["best_epoch"]}
    write_result(
        run.path, before, after, plan.settings.finetuning.budget, folds=folds, pruned=pruned
    )
    return RunResult(run.path, before, after, found, pruned=True)


def _announce(run: RunFolder, plan: FoldPlan) -> None:
    settings, count = plan.settings, plan.count
    subjects = len({case.subject for case in plan.cases})
    console.say(f"{'resuming' if run.resumed else 'new'} run of {count} folds: {run.path}")
    if settings.datasets.fold == "auto":
        console.say(
            f"  {subjects} subjects are few (datasets.few_subjects="
            f"{settings.datasets.few_subjects}): a single split would validate on one or two of "
            "them, which says little. So every subject validates once, in "
            + ("a fold of its own" if count == subjects else f"one of {count} folds")
            + "; datasets.fold=null makes a single split instead"
        )
    console.say(
        f"  {count + 1} runs one after the other: {count} folds, and a final model on all "
        f"{subjects} subjects to segment new scans with"
    )


def _pool(run: RunFolder, plan: FoldPlan) -> RunResult:
    """Brings the folds' scores together, writes them down and shows them."""
    settings, cases = plan.settings, plan.cases
    folders = fold_folders(run.path)
    order = {case.name: number for number, case in enumerate(cases)}
    before, after = (
        sorted(
            (row for folder in folders for row in read_scores_if_any(folder / name)),
            key=lambda row: order[row.case],
        )
        for name in ("pretrained_scores.csv", "validation_scores.csv")
    )
    gather_in_split(run.path, folders, SOURCE_TRAINED)
    write_scores(run.file("validation_scores.csv"), after)
    if before:
        write_scores(run.file("pretrained_scores.csv"), before)
    own = {folder.name: _result(folder)["best_epoch"] for folder in folders}
    final = _result(run.file(FINAL))
    # What the final model still knows of the source's task, where `datasets.retention` has cases.
    kept = {"retention": final["retention"]} if "retention" in final else {}
    learned = _share_lessons(run, folders)
    budget = settings.finetuning.budget
    write_result(run.path, before, after, budget, folds=own, final=FINAL, **kept, **learned)
    _show_scores(run, plan, before, after)
    write_report_of(run.path, settings)
    first = mean_dice(read_scores_if_any(folders[0] / "validation_scores.csv"))
    return RunResult(run.path, tuple(before), tuple(after), first)


def _share_lessons(run: RunFolder, folders: Sequence[Path]) -> dict[str, Any]:
    """Gives the final model the calibration and post-processing of the folds."""
    cards = [Predictor.load(folder, device="cpu").card for folder in folders]
    best = find_checkpoint(run.file(FINAL))
    card = Predictor.load(best, device="cpu").card
    learned = share_quality(folders, share_lessons(cards, card))
    quality = [describe_quality(learned)] if learned.quality else []
    for line in (*describe_lessons(learned), *quality):
        console.say(f"final model, by its folds: {line}")
    if learned != card:
        rewrite_card(best, learned)
    return lessons_to_dict(learned)


def _result(folder: Path) -> dict[str, Any]:
    return read_json(folder / RESULT, {"best_epoch": [{"dice": {}}]})


def _show_scores(
    run: RunFolder, plan: FoldPlan, before: Sequence[ScoreRow], after: Sequence[ScoreRow]
) -> None:
    cases = list(dict.fromkeys(row.case for row in after))
    subjects = len({row.subject for row in after})
    title = f"All {len(cases)} cases of {subjects} subjects, each by the fold that did not train"
    title += f" on it{also_trained(read_split(run.path), 'validation')}"
    console.say("")
    if len(cases) <= _MOST_ROWS:
        console.console.print(_cases_table(run.path, before, after))
    if before:
        console.console.print(comparison_table(before, after))
        for line in explain_alike(read_alike(run.path)):
            console.say(line)
    console.console.print(summary_table(summarise(after), title=title))
    for line in (*_caveats(plan, subjects), f"\neverything is in {run.path}"):
        console.say(line)
    console.say(f"segment new scans: hsf-finetune predict {run.path} SCANS -o SEGMENTATIONS")


def _caveats(plan: FoldPlan, subjects: int) -> list[str]:
    """What the pooled figures do not say."""
    settings, count = plan.settings, plan.count
    chose = "no validation chose its epochs"
    if settings.finetuning.budget != "fixed":
        chose = "validation cases chose each fold's best epoch, so that they are a little high"
    lines = [
        f"the figures are of {count} models, each without the subjects it is scored on; {chose}",
        f"the final model trained on all {subjects} subjects, so no case is left to score it with: "
        "the figures are its best estimate",
        "the folds share training cases, so that the intervals are rather too narrow than too wide",
    ]
    if subjects < 5:
        lines.append(
            f"{subjects} subjects show whether it works at all; they cannot tell a small change "
            "from chance"
        )
    return lines


def _cases_table(folder: Path, before: Sequence[ScoreRow], after: Sequence[ScoreRow]) -> Table:
    """One row per case: which fold scored it, and its mean Dice before and after."""
    fold_of = {
        row.case: number
        for number, part in enumerate(fold_folders(folder))
        for row in read_scores_if_any(part / "validation_scores.csv")
    }
    table = console.TitledTable("Mean Dice of each case")
    table.add_column("case", overflow="fold")
    for heading in ("fold", *(["pretrained"] if before else []), "trained"):
        table.add_column(heading, justify="right")
    for case, fold in fold_of.items():
        dice = [_mean(rows, case) for rows in ((before, after) if before else (after,))]
        table.add_row(Text(case), str(fold), *dice)
    return table


def _mean(rows: Sequence[ScoreRow], case: str) -> str:
    values = [row.score.dice for row in rows if row.case == case]
    known = [value for value in values if not math.isnan(value)]
    return f"{sum(known) / len(known):.3f}" if known else "-"
