"""What a run shows: tables before training, progress during it, a comparison after it."""

from __future__ import annotations

from collections.abc import Sequence

from hsf_finetune.data.augment.flips import Flips
from hsf_finetune.data.census import Census, census_table, census_warnings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.loading.draws import DrawWeights
from hsf_finetune.data.splits import Split
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    comparison_table,
    paired_differences,
    protocol_table,
    summarise,
    summary_table,
)
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.schedule.display.schedule_table import schedule_table
from hsf_finetune.schedule.display.text_picture import (
    ASCII_GLYPHS,
    BLOCK_GLYPHS,
    MIN_WIDTH,
    text_picture,
)
from hsf_finetune.schedule.stages import Schedule
from hsf_finetune.system.console import console, say
from hsf_finetune.system.run_folder import RunFolder
from hsf_finetune.training.parameter_groups import block_sizes
from hsf_finetune.weights.transfer.receipt import Receipt


def announce(
    run: RunFolder,
    cohort: Cohort,
    split: Split,
    kept_in: str,
    reset: Sequence[str],
) -> None:
    """Which run this is, on what data, split how."""
    say(f"{'resuming' if run.resumed else 'new'} run: {run.path}")
    if run.resumed:
        say(f"  from {run.last}" if run.last else "  from the start: no epoch had ended yet")
        if run.longer:
            before, now = run.longer
            say(f"  for {now} epochs, not {before}: the epochs to come follow the schedule below")
        if reset:
            say(f"  starting anew: {', '.join(reset)}")
    fates = [entry.fate for entry in cohort.ledger]
    say(
        f"cases: {len(cohort.cases)} of {len({c.subject for c in cohort.cases})} subjects, "
        f"{cohort.channels} channel(s), kept in {kept_in if kept_in != 'off' else 'no cache'}; "
        f"files excluded {fates.count('excluded')}, unused {fates.count('unused')} (ledger.csv)"
    )
    say(f"classes: {', '.join(cohort.classes.names)}")
    say(f"split: {split.how} (splits.json)")
    if not split.held_out:
        say("  validation cases train too: their scores are no measure of new scans")


def show_labels(census: Census, flips: Flips, draws: DrawWeights) -> None:
    """What supervises each class, what is doubtful about it, how it is drawn and flipped."""
    console.print(census_table(census))
    for line in (*census_warnings(census), *filter(None, [flips.remark, draws.remark])):
        say(f"  {line}")


def show_plan(anatomy: Anatomy, schedule: Schedule, receipt: Receipt | None) -> None:
    """The transfer receipt and the schedule, as a table and, where it fits, as a picture."""
    if receipt is not None:
        console.print(receipt.table())
    console.print(schedule_table(schedule, block_sizes(anatomy)))
    if console.width >= MIN_WIDTH:
        glyphs = ASCII_GLYPHS if console.options.ascii_only else BLOCK_GLYPHS
        console.print("", text_picture(schedule, console.width, glyphs), sep="\n")


def conclude(
    run: RunFolder, before: Sequence[ScoreRow], after: Sequence[ScoreRow], split: Split
) -> None:
    """The scores after training, beside those before it, and what to do next."""
    subjects = len({case.subject for case in split.validation})
    where = f"{len(split.validation)} validation cases of {subjects} subjects"
    if not split.held_out:
        where += ", which also trained"
    if before:
        differences = paired_differences(before, after)
        console.print(comparison_table(summarise(before), summarise(after), differences))
    console.print(summary_table(summarise(after), title=f"Best epoch on {where}"))
    by_protocol = protocol_table(after)
    if by_protocol is not None:
        console.print(by_protocol)
    say(f"\neverything is in {run.path}")
    say(f"segment new scans: hsf-finetune predict {run.path} SCANS -o SEGMENTATIONS")
    say(f"look at the curves: tensorboard --logdir {run.path}")
