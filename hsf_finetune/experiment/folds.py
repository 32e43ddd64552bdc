"""Every fold of a few cases, one run after the other, pooled into one table, and a final model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hsf_finetune.config.settings import DatasetsSettings, Settings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.splits import fold_count, split_cases
from hsf_finetune.evaluation.finished_runs import FINAL, fold_folders, write_result
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    comparison_table,
    paired_differences,
    read_scores,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.experiment.child_runs import Execute, make_run, one_device
from hsf_finetune.system import console
from hsf_finetune.system.errors import UserError
from hsf_finetune.system.files import write_json
from hsf_finetune.system.run_folder import RESULT, RunFolder, has_ended, open_run

_MOST_ROWS = 40
"""Cases that are listed one by one on the terminal."""


@dataclass(frozen=True)
class Pooled:
    """What the folds of a run came to together.

    Args:
        folder: of the run; the folds are in `fold_0` and so on, the final model in `final`.
        before: scores of the model they start from, of every case.
        after: scores of every case by the fold that did not train on it.
    """

    folder: Path
    before: tuple[ScoreRow, ...]
    after: tuple[ScoreRow, ...]


def run_folds(
    asked: Settings,
    settings: Settings,
    cases: Sequence[Case],
    count: int,
    earlier: RunFolder | None,
    execute: Execute,
) -> Pooled:
    """Makes one run per fold, pools their scores, and trains a final model on every case.

    The pooled scores are those of the recipe, on subjects that it did not see. The model to
    segment new scans with is one more run of the same recipe on all cases, for which none
    is left to score it with; it is a single network, and with few subjects one more of them
    is worth more than averaging networks that each lack some. Folds that have ended are
    left as they are when the run is resumed.

    Args:
        asked: settings of the run, as the user gave them.
        settings: the same from `with_budget`; every run has them but for its fold.
        cases: all of them.
        count: of the folds, from `fold_count`.
        earlier: the run to resume, from `find_run`.
        execute: makes one run.

    Raises:
        UserError: anything the user can mend; nothing is left behind where the first fold
            cannot start.
    """
    engine = one_device(
        settings.lightning,
        "several folds train",
        "start each fold by itself on a device of its own: datasets.fold=0 and so on",
    )
    settings = settings.model_copy(update={"lightning": engine})
    run = open_run(asked, earlier)
    runs = {f"fold_{k}": _fold(settings, k, count) for k in range(count)}
    _announce(run, cases, settings, count)
    runs[FINAL] = _final(settings)
    for number, (name, own) in enumerate(runs.items(), start=1):
        console.say(f"\n{name} ({number} of {len(runs)} runs)")
        try:
            make_run(own, run.file(name), execute, longer=_to_go_on(run.file(name), own))
        except UserError:
            if earlier is None and not any(run.file(other).exists() for other in runs):
                shutil.rmtree(run.path, ignore_errors=True)
            raise
        except (KeyboardInterrupt, SystemExit):
            console.say(f"folds that have ended are kept: resume={run.path} goes on from here")
            raise
    return _pool(settings, run, cases, count)


def first_fold(cases: Sequence[Case], settings: Settings) -> DatasetsSettings:
    """The `datasets` group of a run's first fold, or of its single split."""
    count = fold_count(cases, settings.datasets)
    return settings.datasets if count is None else _fold(settings, 0, count).datasets


# -------------------------------------------------------------------- internals
def _fold(settings: Settings, fold: int, count: int) -> Settings:
    # What is forgotten is of interest for the model that is used: the final one.
    update = {"fold": fold, "folds": count, "retention": {}}
    data = settings.datasets.model_copy(update=update)
    return settings.model_copy(update={"datasets": data})


def _final(settings: Settings) -> Settings:
    """The run on all cases, whose length no validation can decide."""
    data = settings.datasets.model_copy(update={"fold": None, "train_on_all": True})
    tuning = settings.finetuning.model_copy(update={"budget": "fixed"})
    return settings.model_copy(update={"datasets": data, "finetuning": tuning})


def _to_go_on(folder: Path, settings: Settings) -> bool:
    """Whether a run that has ended was shorter than it is to be."""
    try:
        before = json.loads((folder / "schedule.json").read_text())["max_epochs"]
    except (OSError, ValueError, KeyError):
        return False
    wanted = settings.lightning.max_epochs
    return has_ended(folder) and wanted is not None and wanted > before


def _announce(run: RunFolder, cases: Sequence[Case], settings: Settings, count: int) -> None:
    subjects = len({case.subject for case in cases})
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


def _pool(settings: Settings, run: RunFolder, cases: Sequence[Case], count: int) -> Pooled:
    """Brings the folds' scores together, writes them down and shows them."""
    folders = fold_folders(run.path)
    order = {case.name: number for number, case in enumerate(cases)}
    before, after = (
        sorted(
            (row for folder in folders for row in _scores(folder / name)),
            key=lambda row: order[row.case],
        )
        for name in ("pretrained_scores.csv", "validation_scores.csv")
    )
    write_scores(run.file("validation_scores.csv"), after)
    if before:
        write_scores(run.file("pretrained_scores.csv"), before)
    splits = [
        split_cases(cases, _fold(settings, k, count).datasets, settings.seed) for k in range(count)
    ]
    names = [case.name for case in cases]
    write_json(
        run.file("splits.json"),
        {
            "how": f"{count} folds, pooled: every case by the fold that did not train on it",
            "held_out": True,
            "train": names,
            "validation": names,
            "test": [],
            "folds": [split.to_dict() for split in splits],
        },
    )
    own = {folder.name: _result(folder)["best_epoch"] for folder in folders}
    final = _result(run.file(FINAL))
    # What the final model still knows of the source's task, where that was asked.
    kept = {"retention": final["retention"]} if "retention" in final else {}
    budget = settings.finetuning.budget
    write_result(run.path, before, after, budget, folds=own, final=FINAL, **kept)
    _conclude(settings, run, before, after, count)
    return Pooled(run.path, tuple(before), tuple(after))


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT).read_text())
    return found


def _scores(path: Path) -> list[ScoreRow]:
    return read_scores(path) if path.exists() else []


def _conclude(
    settings: Settings,
    run: RunFolder,
    before: Sequence[ScoreRow],
    after: Sequence[ScoreRow],
    count: int,
) -> None:
    cases = list(dict.fromkeys(row.case for row in after))
    subjects = len({row.subject for row in after})
    title = f"All {len(cases)} cases of {subjects} subjects, each by the fold that did not train"
    console.say("")
    if len(cases) <= _MOST_ROWS:
        console.console.print(_cases_table(run.path, before, after))
    if before:
        differences = paired_differences(before, after)
        console.console.print(comparison_table(summarise(before), summarise(after), differences))
    console.console.print(summary_table(summarise(after), title=f"{title} on it"))
    for line in (*_caveats(settings, subjects, count), f"\neverything is in {run.path}"):
        console.say(line)
    console.say(f"segment new scans: hsf-finetune predict {run.path} SCANS -o SEGMENTATIONS")


def _caveats(settings: Settings, subjects: int, count: int) -> list[str]:
    """What the pooled figures do not say."""
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
        for row in _scores(part / "validation_scores.csv")
    }
    table = console.TitledTable("Mean Dice of each case")
    table.add_column("case", overflow="fold")
    headings = ["fold", *(["pretrained"] if before else []), "trained"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for case, fold in fold_of.items():
        dice = [_mean(rows, case) for rows in ((before, after) if before else (after,))]
        table.add_row(Text(case), str(fold), *dice)
    return table


def _mean(rows: Sequence[ScoreRow], case: str) -> str:
    values = [row.score.dice for row in rows if row.case == case]
    known = [value for value in values if not math.isnan(value)]
    return f"{sum(known) / len(known):.3f}" if known else "-"
