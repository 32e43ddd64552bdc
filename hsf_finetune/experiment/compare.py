"""Fine-tuning regimes on the same split, seed and number of epochs, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.evaluation.comparison_plots import save_figures
from hsf_finetune.evaluation.finished_runs import (
    FinishedRun,
    Side,
    arms_of,
    check_comparable,
    common_side,
    names_of,
    read_run,
)
from hsf_finetune.evaluation.model_comparison import (
    ArmFigures,
    arms_table,
    classes_table,
    compare_arms,
    write_figures_csv,
    write_figures_json,
)
from hsf_finetune.experiment.child_runs import make_run
from hsf_finetune.experiment.presets import (
    DEFAULT,
    PRESETS,
    beside,
    folder_of,
    new_folder,
    settings_by_preset,
)
from hsf_finetune.experiment.run import execute
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError, SeveralErrors, UserError
from hsf_finetune.system.run_folder import has_ended


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Args:
        folder: where compare.csv, compare.json and compare.png are.
        side: of the split that was scored.
        reference: name that differences refer to.
        figures: of every model, the untouched ones first.
    """

    folder: Path
    side: Side
    reference: str
    figures: tuple[ArmFigures, ...]


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
    and interrupted ones go on. One that fails does not keep the others from being made.
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
    _check_reference(reference, presets)
    folder = folder_of(wanted, output)
    failed: list[UserError] = []
    for number, (preset, settings) in enumerate(wanted.items(), start=1):
        console.say(f"\n{preset} ({number} of {len(wanted)} presets)")
        try:
            make_run(settings, folder / preset, execute)
        except UserError as error:
            console.say(f"{preset} failed: {error}")
            failed.append(UserError(f"finetuning={preset}: {error}"))
        except (KeyboardInterrupt, SystemExit):
            console.say("the same command goes on from here")
            raise
    finished = [preset for preset in wanted if has_ended(folder / preset)]
    if not finished:
        raise SeveralErrors("no run came to its end:", failed)
    finished += beside(folder, wanted)
    runs = [read_run(folder / preset, preset) for preset in finished]
    compared = _compare(runs, folder, reference if reference in finished else None, side)
    if failed:
        raise SeveralErrors(f"{len(failed)} of {len(wanted)} runs failed:", failed)
    return compared


def compare_runs(
    folders: Sequence[Path],
    *,
    output: Path | None = None,
    reference: str | None = None,
    side: Side | None = None,
) -> Comparison:
    """Compares runs that are there, such as those of a sweep.

    Args:
        folders: of the runs.
        output: folder to write into; None is a new one beside the first run.
        reference: name of the run that differences refer to, as the table shows it;
            None is `full` where there is one, else the best.
        side: of the split to compare on; None is `test` where all have one.

    Raises:
        ConfigError: one is no finished run, or they differ in split or classes.
    """
    distinct = list(dict.fromkeys(folder.expanduser().resolve() for folder in folders))
    names = names_of(distinct)
    _check_reference(reference, names)
    runs = [read_run(folder, name) for folder, name in zip(distinct, names, strict=True)]
    return _compare(runs, output or new_folder(distinct[0].parent, "runs"), reference, side)


# ------------------------------------------------------------------- comparing
def _compare(
    runs: Sequence[FinishedRun], folder: Path, reference: str | None, side: Side | None
) -> Comparison:
    """Shows and writes the comparison."""
    side = common_side(runs, side)
    check_comparable(runs, side)
    arms = arms_of(runs, side)
    if reference is None:
        reference = _default_or_best(runs, side)
    figures = compare_arms(arms, reference)
    dice = figures[0].dice
    title = f"{dice.n} {side} cases of {dice.subjects} subjects"
    write_figures_csv(folder / "compare.csv", figures, reference)
    write_figures_json(folder / "compare.json", figures, reference, {"side": side})
    save_figures(folder / "compare.png", figures, reference, title)
    console.console.print(arms_table(figures, reference, title))
    if len(figures[0].classes) > 2:
        console.console.print(classes_table(figures))
    console.say(f"compare.csv, compare.json and compare.png are in {folder}")
    if side == "validation":
        console.say(
            "validation cases chose each run's best epoch, so all figures are a little high"
        )
    return Comparison(folder, side, reference, tuple(figures))


def _default_or_best(runs: Sequence[FinishedRun], side: Side) -> str:
    names = [run.name for run in runs]
    if DEFAULT in names:
        return DEFAULT
    figures = compare_arms([arm for arm in arms_of(runs, side) if arm.name in names], names[0])
    return max(figures, key=lambda one: one.dice.mean).arm.name


def _check_reference(reference: str | None, names: Sequence[str]) -> None:
    if reference is not None and reference not in names:
        raise ConfigError(
            f"there is no run '{reference}' to compare with", expected=", ".join(names)
        )
