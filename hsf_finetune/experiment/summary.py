"""What a run prints: the data before training, the scores after it."""

from __future__ import annotations

from collections.abc import Sequence

from hsf_finetune.data.augment.flips import FlipPlan
from hsf_finetune.data.census import Census, census_table, census_warnings
from hsf_finetune.data.loading.epoch_sampler import DrawWeights
from hsf_finetune.evaluation.classes_alike import explain_alike, read_alike
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    comparison_table,
    protocol_table,
    summarise,
    summary_table,
)
from hsf_finetune.labels.similar_names import warn_similar_names
from hsf_finetune.planning.setup import Setup
from hsf_finetune.report.trained_cases import also_trained
from hsf_finetune.system.console import console, count_of, say
from hsf_finetune.system.run_folder import RunFolder


def announce_run(run: RunFolder, setup: Setup, kept_in: str) -> None:
    """Prints which run this is, on what data, split how; `kept_in` says where cases are cached."""
    cohort, split, settings = setup.cohort, setup.split, setup.settings
    say(f"{'resuming' if run.resumed else 'new'} run: {run.path}")
    if run.resumed:
        say(f"  from {run.last}" if run.last else "  from the start: no epoch had ended yet")
        if run.longer:
            before, now = run.longer
            say(f"  for {now} epochs, not {before}: the epochs to come follow the schedule below")
        else:
            say("  labels, preprocessing and schedule as it began (census.csv, schedule.json)")
        if settings.reset:
            say(f"  reset: {', '.join(settings.reset)}")
    statuses = [entry.status for entry in cohort.others]
    subjects = len({case.subject for case in cohort.cases})
    say(
        f"{count_of(len(cohort.cases), 'case')} of {count_of(subjects, 'subject')}, "
        f"{count_of(cohort.channels, 'channel')}, "
        f"kept in {kept_in if kept_in != 'off' else 'no cache'}; files excluded "
        f"{statuses.count('excluded')}, unused {statuses.count('unused')} (ledger.csv)"
    )
    if settings.datasets.unlabelled:
        say("  datasets.unlabelled is not used: finetuning=selftrain learns from such scans")
    say(f"classes: {', '.join(cohort.classes.names)}")
    for line in warn_similar_names(settings.datasets.datasets, settings.models, cohort.classes):
        say(f"  names: {line}")
    say(f"split: {split.how} (splits.json)")
    if not split.held_out:
        say("  validation cases train too: their scores are no measure of new scans")


def show_labels(census: Census, flips: FlipPlan, draws: DrawWeights) -> None:
    """Prints what supervises each class, what is doubtful about it, how it is drawn and flipped."""
    console.print(census_table(census))
    for line in (*census_warnings(census), *filter(None, [flips.remark, draws.remark])):
        say(f"  {line}")


def show_scores(
    run: RunFolder, setup: Setup, before: Sequence[ScoreRow], after: Sequence[ScoreRow]
) -> None:
    """Prints the scores after training, beside those before it, and what to do next."""
    validation = setup.split.validation
    cases = count_of(len(validation), "validation case")
    where = f"{cases} of {count_of(len({case.subject for case in validation}), 'subject')}"
    where += also_trained(setup.split.to_dict(), "validation")
    kept = "Last" if setup.settings.finetuning.budget == "fixed" else "Best"
    if before:
        console.print(comparison_table(before, after))
        for line in explain_alike(read_alike(run.path)):
            say(line)
    console.print(summary_table(summarise(after), title=f"{kept} epoch on {where}"))
    by_protocol = protocol_table(after)
    if by_protocol is not None:
        console.print(by_protocol)
    say(f"\neverything is in {run.path}")
    say(f"segment new scans: hsf-finetune predict {run.path} SCANS -o SEGMENTATIONS")
    say(f"look at the curves: tensorboard --logdir {run.path}")
