"""Finished runs on the same cases, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.splits import OF_SOURCE, note_trained
from hsf_finetune.evaluation.classes_alike import explain_alike, read_alike
from hsf_finetune.evaluation.comparison_plots import draw_figures
from hsf_finetune.evaluation.finished_runs import FinishedRun, Side, read_run
from hsf_finetune.evaluation.model_comparison import (
    ComparedModel,
    ModelFigures,
    classes_table,
    compare_models,
    judge_models,
    models_table,
    write_figures_csv,
)
from hsf_finetune.evaluation.score_tables import MEAN, ScoreRow, summarise
from hsf_finetune.system.atomic_files import atomic_write, write_json
from hsf_finetune.system.console import count_of, html_of, text_of
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import SPLITS

PRETRAINED = "pretrained"
"""Name of the model that runs start from."""
FROM_SCRATCH = "from_scratch"
"""Name of a run that starts from random weights."""
_NOT_HELD_OUT = "The cases trained these models, so that this is no measure of new scans."
_DEFAULT_REFERENCE = "full"
_ROUNDING = 1e-5
"""Share of a label's volume by which float32 headers may change it."""
_SAME_MODEL = 0.002
"""Difference in mean Dice that one model may show on two kinds of device."""


@dataclass(frozen=True)
class Comparison:
    """Models on the same cases. It shows itself in a notebook.

    Args:
        side: of the split that was scored.
        reference: name of the model that differences refer to.
        figures: of every model, the pretrained ones first.
        folder: where compare.csv, compare.json and compare.png are; None if not saved.
        held_out: False where the cases trained the models.
        source_trained: how many of the cases trained a model that one of them started from.
        remarks: what figures of the pretrained models do not measure, a sentence each.
    """

    side: Side
    reference: str
    figures: tuple[ModelFigures, ...]
    folder: Path | None = None
    held_out: bool = True
    source_trained: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The cases, in words."""
        dice = self.figures[0].dice
        cases = f"{count_of(dice.n, f'{self.side} case')} of {count_of(dice.subjects, 'subject')}"
        if not self.held_out:
            return cases + note_trained(dice.n, dice.n)
        return cases + note_trained(self.source_trained, dice.n, OF_SOURCE)

    @property
    def sentence(self) -> str:
        """Which model is better, and how sure that is."""
        judged = judge_models(self.figures, self.reference)
        return judged if self.held_out else f"{judged} {_NOT_HELD_OUT}"

    def tables(self) -> list[Table]:
        """Dice, differences and costs of each model, and Dice of each class if several."""
        tables = [models_table(self.figures, self.reference, self.title, self.sentence)]
        if len(self.figures[0].classes) > 2:
            tables.append(classes_table(self.figures))
        return tables

    def save(self, folder: Path) -> Comparison:
        """Writes compare.csv, compare.json and compare.png.

        Raises:
            OutputError: a file cannot be written.
        """
        write_figures_csv(folder / "compare.csv", self.figures, self.reference)
        runs = [one.to_dict(self.reference) for one in self.figures]
        content = {
            "side": self.side,
            "held_out": self.held_out,
            "source_trained": self.source_trained,
            "remarks": self.remarks,
            "reference": self.reference,
            "result": self.sentence,
            "runs": runs,
        }
        write_json(folder / "compare.json", content)
        with atomic_write(folder / "compare.png") as temporary:
            draw_figures(self.figures, self.reference, self.title).savefig(temporary)
        return replace(self, folder=folder)

    def __str__(self) -> str:
        """The tables as text."""
        return text_of(*self.tables(), *map(Text, self.remarks))

    def _repr_html_(self) -> str:
        return html_of(*self.tables(), *map(Text, self.remarks))


def compare_runs(
    folders: Sequence[Path],
    *,
    output: Path | None = None,
    reference: str | None = None,
    side: Side | None = None,
) -> Comparison:
    """Compares runs that have ended, such as those of a sweep.

    Args:
        folders: of the runs.
        output: folder to write compare.csv, compare.json and compare.png into; None writes
            nothing.
        reference: name of the run that differences refer to, as the table shows it;
            None is `full` where there is one, else the best.
        side: of the split to compare on; None is `test` where all have one.

    Raises:
        ConfigError: one is no finished run, or they differ in split, in whether its cases trained
            them, in classes, or in the cases' labels.
    """
    distinct = list(dict.fromkeys(folder.expanduser().resolve() for folder in folders))
    names = _name_runs(distinct)
    check_reference(reference, names)
    runs = [read_run(folder, name) for folder, name in zip(distinct, names, strict=True)]
    compared = compare_finished_runs(runs, reference, side)
    return compared.save(output) if output is not None else compared


def compare_finished_runs(
    runs: Sequence[FinishedRun], reference: str | None = None, side: Side | None = None
) -> Comparison:
    """Compares runs, and the pretrained models they started from.

    Args:
        runs: with different names.
        reference: name of one of them, as in `compare_runs`.
        side: as in `compare_runs`.

    Raises:
        ConfigError: they differ in split, in whether its cases trained them, in classes, or in
            the cases' labels, or have no scores of that side.
    """
    side = _common_side(runs, side)
    _check_comparable(runs, side)
    models = [ComparedModel(run.name, run.after[side], run.cost, run.folder) for run in runs]
    if reference is None:
        means = {one.name: summarise(one.scores)[-1].dice.mean for one in models}
        best = max(means, key=means.__getitem__)
        reference = _DEFAULT_REFERENCE if _DEFAULT_REFERENCE in means else best
    models = [*_pretrained_models(runs, side), *models]
    figures = compare_models(models, reference)
    known = {case for run in runs for case in run.source_trained & run.split[side]}
    started = [run for run in runs if run.before[side]]
    remarks = (line for run in started for line in explain_alike(read_alike(run.folder)))
    return Comparison(
        side,
        reference,
        figures,
        held_out=runs[0].held_out,
        source_trained=len(known),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def check_reference(reference: str | None, names: Sequence[str]) -> None:
    """Refuses a reference that is none of the names.

    Raises:
        ConfigError: so.
    """
    if reference is not None and reference not in names:
        raise ConfigError(
            f"there is no run '{reference}' to compare with", expected=", ".join(names)
        )


def _name_runs(folders: Sequence[Path]) -> list[str]:
    """A short name for each run: its strategy where all differ in it, else its folder's name."""
    strategies = [strategy_name(read_settings_of(folder)) for folder in folders]
    for names in (strategies, [folder.name for folder in folders]):
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def strategy_name(settings: Settings) -> str:
    """The option of the `finetuning` group that a run's strategy comes from."""
    if settings.weights.pretrained == "none":
        return FROM_SCRATCH
    return settings.finetuning.chosen_strategy


def _check_comparable(runs: Sequence[FinishedRun], side: Side) -> None:
    """Refuses runs whose scores are not of the same cases, classes and labels, held out alike."""
    first = runs[0]
    for run in runs[1:]:
        if run.held_out != first.held_out:
            taught, other = (run, first) if first.held_out else (first, run)
            raise ConfigError(
                "a run that trained on the cases it is scored on cannot be compared with one that "
                "did not",
                file=taught.folder / SPLITS,
                found=f"{taught.name} trained on its {side} cases, {other.name} did not",
                expected="in every run cases that did not train it",
                fix="leave it out: the folds of a run measure what its final model is worth, and "
                "datasets.train_on_all=false keeps cases out of training",
            )
        apart = [
            f"{case} is among the {part} cases of {holder.name}, and not of {other.name}"
            for part in first.split
            for holder, other in ((first, run), (run, first))
            for case in sorted(holder.split[part] - other.split[part])[:2]
        ]
        if apart:
            raise ConfigError(
                "runs with different splits cannot be compared",
                file=f"{first.folder} and {run.folder}",
                found="\n".join(apart),
                expected="the same train, validation and test cases in every run",
                fix="make the runs with the same datasets and seed, or with "
                f"datasets.split_file={first.folder / 'splits.json'}",
            )
        if run.classes(side) != first.classes(side):
            raise ConfigError(
                "runs with different classes cannot be compared",
                file=f"{first.folder} and {run.folder}",
                found="\n".join(f"{r.name}: {', '.join(r.classes(side))}" for r in (first, run)),
                expected="the same labels_names in every run",
            )
    _check_labels(runs, side)


def _check_labels(runs: Sequence[FinishedRun], side: Side) -> None:
    """Refuses scores of cases of the same name whose labels were others: their volumes differ."""
    known: dict[tuple[str, str], tuple[float, Path]] = {}
    for run in runs:
        for file, rows in run.tables(side):
            apart: dict[str, str] = {}
            other = file
            for row in rows:
                volume, title = row.score.volume_truth_mm3, row.score.class_name
                first, earlier = known.setdefault((row.case, title), (volume, file))
                if abs(volume - first) > _ROUNDING * max(volume, first) and row.case not in apart:
                    apart[row.case] = f"{title} {first:.6g} mm3 and {volume:.6g} mm3"
                    other = earlier
            if apart:
                shown = [f"{case}: {volumes}" for case, volumes in apart.items()][:3]
                raise ConfigError(
                    "scores of other scans or labels under the same names cannot be compared",
                    file=f"{other} and {file}",
                    found="\n".join([*shown, f"in {count_of(len(apart), 'case')}"]),
                    expected="the same volume of each class in the label of each case "
                    "(volume_truth_mm3)",
                    fix="make the run again whose labels were changed since; or score both models "
                    "on the labels of now: hsf-finetune evaluate RUN",
                )


def _common_side(runs: Sequence[FinishedRun], wanted: Side | None) -> Side:
    """The side to compare on: `test` where every run has scores of it, unless one is wanted."""
    if wanted is None:
        return "test" if all(run.after["test"] for run in runs) else "validation"
    for run in runs:
        if not run.after[wanted]:
            raise ConfigError(
                f"the run has no {wanted} scores",
                file=run.folder,
                fix="--on validation, or runs with test cases (datasets.split_file, "
                "datasets.train_val_test_idx)",
            )
    return wanted


def _pretrained_models(runs: Sequence[FinishedRun], side: Side) -> list[ComparedModel]:
    """The models that runs started from, each once."""
    found: list[ComparedModel] = []
    for run in runs:
        rows = run.before[side]
        if rows and not any(_is_same_model(rows, model.scores) for model in found):
            name = f"{PRETRAINED} of {run.name}" if found else PRETRAINED
            found.append(ComparedModel(name, rows))
    return found


def _is_same_model(a: Sequence[ScoreRow], b: Sequence[ScoreRow]) -> bool:
    one, other = ({s.class_name: s.dice.mean for s in summarise(rows)} for rows in (a, b))
    return one.keys() == other.keys() and abs(one[MEAN] - other[MEAN]) < _SAME_MODEL
