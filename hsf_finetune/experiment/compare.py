"""Fine-tuning strategies on the same split, seed and number of epochs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hsf_finetune.evaluation.compare_runs import (
    Comparison,
    check_reference,
    compare_finished_runs,
)
from hsf_finetune.evaluation.finished_runs import Side, read_run
from hsf_finetune.experiment.child_runs import make_run
from hsf_finetune.experiment.presets import (
    PRESETS,
    find_comparison_folder,
    other_finished_presets,
    settings_by_preset,
)
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.report.save_report import save_comparison_report
from hsf_finetune.system import console
from hsf_finetune.system.errors import SeveralErrors, UserError
from hsf_finetune.system.run_folder import has_ended


def compare_presets(
    overrides: Sequence[str],
    *,
    presets: Sequence[str] = PRESETS,
    config_dir: Path | None = None,
    output: Path | None = None,
    reference: str | None = None,
    side: Side | None = None,
) -> Comparison:
    """Fine-tunes with each preset and compares the results.

    Each run is what `finetune.py OVERRIDES finetuning=PRESET lightning.max_epochs=N` does,
    where N is the same for all: that of the overrides, else the length of the default
    preset's schedule. Runs of the same settings that ended before are not made again,
    and interrupted ones are resumed. One that fails does not keep the others from being made.
    Presets that were compared in the same folder before stay in the table.

    Args:
        overrides: as for finetune.py, but for the choice of `finetuning`.
        presets: options of the `finetuning` group.
        config_dir: folder with the user's own groups.
        output: folder of the comparison; None is the latest one of the same settings
            below `datasets.output_path`, or a new one.
        reference: preset that differences refer to; None is `full`, or the best.
        side: of the split to compare on; None is `test` where there is one.

    Raises:
        UserError: the settings do not fit together, or a run failed; the latter is raised
            after the others have been compared.
    """
    wanted = settings_by_preset(overrides, presets, config_dir)
    check_reference(reference, presets)
    folder = find_comparison_folder(wanted, output)
    failed: list[UserError] = []
    for number, (preset, settings) in enumerate(wanted.items(), start=1):
        console.say(f"\n{preset} ({number} of {len(wanted)} presets)")
        try:
            make_run(settings, folder / preset, run_experiment)
        except UserError as error:
            console.say(f"{preset} failed: {error}")
            failed.append(UserError(f"finetuning={preset}: {error}"))
        except (KeyboardInterrupt, SystemExit):
            console.say("the same command resumes the comparison")
            raise
    finished = [preset for preset in wanted if has_ended(folder / preset)]
    if not finished:
        raise SeveralErrors("no run has ended:", failed)
    finished += other_finished_presets(folder, wanted)
    runs = [read_run(folder / preset, preset) for preset in finished]
    reference = reference if reference in finished else None
    compared = compare_finished_runs(runs, reference, side).save(folder)
    show_comparison(compared)
    if failed:
        raise SeveralErrors(f"{len(failed)} of {len(wanted)} runs failed:", failed)
    return compared


def show_comparison(compared: Comparison) -> None:
    """Prints the tables of a comparison, writes its report, and says where."""
    console.console.print(*compared.tables(), sep="\n")
    for line in compared.remarks:
        console.say(line)
    console.say(f"compare.csv, compare.json and compare.png are in {compared.folder}")
    save_comparison_report(compared)
    if compared.side == "validation":
        console.say(
            "where validation cases chose the epoch that a run keeps, its figures are a little high"
        )
