"""Self-training: a teacher labels scans without labels, and a student learns from these as well."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.settings import SelftrainSettings, Settings, WeightsSettings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.ledger import write_ledger
from hsf_finetune.data.loading.epoch_sampler import choose_draw_weights
from hsf_finetune.data.splits import SOURCE_TRAINED, Split, split_cases
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.evaluation.finished_runs import FINAL, read_scores_if_any, write_result
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    comparison_table,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.experiment.child_runs import RunExperiment, make_run
from hsf_finetune.experiment.pseudo_labels import PseudoLabels, label_scans, pseudo_values
from hsf_finetune.experiment.resume import lock_run, open_folder
from hsf_finetune.experiment.run_length import TEACHER, has_become_longer
from hsf_finetune.experiment.run_result import RunResult, write_report_of
from hsf_finetune.inference.ensemble import load_models
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.planning.budget import with_budget
from hsf_finetune.planning.setup import prepare
from hsf_finetune.planning.unlabelled import UnlabelledScan, UnlabelledScans, find_unlabelled
from hsf_finetune.report.trained_cases import also_trained
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.errors import ConfigError, UserError
from hsf_finetune.system.read_json import read_json, read_json_list
from hsf_finetune.system.run_folder import (
    LEDGER,
    RESULT,
    SPLITS,
    RunFolder,
    gather_in_split,
    named_when_interrupted,
    read_split,
)
from hsf_finetune.training.trainer import one_device

_SCANS = "unlabelled.json"
_BEFORE = "pretrained_scores.csv"
_AFTER = ("validation_scores.csv", "test_scores.csv", "pretrained_test_scores.csv")


def run_selftrain(
    settings: Settings, cohort: Cohort, resumed: RunFolder | None, run_experiment: RunExperiment
) -> RunResult:
    """Trains a teacher, labels the scans of `datasets.unlabelled`, and trains a student on both.

    Pseudo-labelling: Lee (ICML workshop 2013); noisy students: Xie et al. (CVPR 2020). The
    teacher and each student are runs of their own in the run's folder, which are resumed where
    they stopped. What the labels say is set once they are written.

    Args:
        settings: of the run.
        cohort: the labelled cases.
        resumed: the run to resume, from `find_run`.
        run_experiment: makes one run.

    Returns:
        The validation scores of the model that it starts from, and of the last student.

    Raises:
        UserError: anything the user can mend; nothing is left behind where the first run
            cannot start.
    """
    plan = _plan(settings, cohort, resumed)
    if plan.tuning.teacher and resumed is None:
        # What the student's run would refuse is refused before scans are labelled for it.
        prepare(plan.supervised(None, {}), cohort, preview=True)
        _load_teachers(plan, plan.tuning.teacher)
    run = open_folder(settings, resumed)
    with lock_run(run), named_when_interrupted(run):
        if not run.file(_SCANS).exists():
            write_json(run.file(_SCANS), [_to_dict(scan) for scan in plan.scans.scans])
            write_json(run.file(SPLITS), plan.split.to_dict())
            write_ledger(run.file(LEDGER), plan.scans.add_to(cohort), plan.split)
        console.say(f"{'resuming' if run.resumed else 'new'} run of self-training: {run.path}")
        for line in plan.scans.lines():
            console.say(line)
        teachers = _train_teacher(plan, run, run_experiment)
        for number in range(1, plan.tuning.rounds + 1):
            teachers = [_train_student(plan, run, number, teachers, run_experiment)]
        return _conclude(plan, run)


@dataclass(frozen=True)
class _SelftrainPlan:
    """What is decided before anything is trained.

    Args:
        settings: of the run, its budget decided.
        cohort: the labelled cases.
        split: of them.
        scans: without labels.
    """

    settings: Settings
    cohort: Cohort
    split: Split
    scans: UnlabelledScans

    @property
    def tuning(self) -> SelftrainSettings:
        """The settings of self-training."""
        assert self.settings.finetuning.selftrain is not None
        return self.settings.finetuning.selftrain

    def of_teacher(self, run: RunFolder) -> Settings:
        """The settings of the run that trains the teacher, which tests nothing."""
        file = run.file("teacher_split.json")
        write_json(file, {**self.split.to_dict(), "test": []})
        settings = self.supervised(file, {"retention": {}})
        return settings.model_copy(update={"quality": "off"})

    def of_student(self, labels: PseudoLabels, start: Sequence[str], last: bool) -> Settings:
        """The settings of the run that trains a student.

        Args:
            labels: of the scans.
            start: its teachers; the first one's weights may be what it starts from.
            last: whether it is tested, and what it forgot measured.
        """
        data, models = self.settings.datasets, self.settings.models
        weights = self._draw_weights(labels.count)
        labelled = {
            name: one.model_copy(update={"weight": weights[name]})
            for name, one in data.datasets.items()
        }
        taught = {
            name: one.model_copy(update={"weight": weights[""]})
            for name, one in labels.datasets(data.datasets).items()
        }
        file = labels.folder / SPLITS
        more: dict[str, object] = {} if last else {"retention": {}}
        settings = self.supervised(file, {"datasets": labelled | taught, **more})
        names = models.labels_names or [*self.cohort.classes.foreground]
        sets = {"labels_names": names, "use_forgiving_loss": True}
        settings = settings.model_copy(update={"models": models.model_copy(update=sets)})
        found = discover(settings.datasets, settings.models).cases
        split = self.split.to_dict() | ({} if last else {"test": []})
        split["train"] += [case.name for case in found if case.dataset in taught]
        write_json(file, split)
        update: dict[str, object] = {} if last else {"quality": "off"}
        if self.tuning.start == "teacher":
            update["weights"] = WeightsSettings(pretrained=start[0])
        if self.tuning.max_epochs is not None:
            longer = {"max_epochs": self.tuning.max_epochs}
            update["lightning"] = settings.lightning.model_copy(update=longer)
        return settings.model_copy(update=update)

    def supervised(self, split_file: Path | None, changed: Mapping[str, object]) -> Settings:
        """The settings of one of the runs, to which all labels are alike.

        Args:
            split_file: of the run; None is the split of the settings.
            changed: settings of `datasets`.
        """
        given = {"train_val_test_idx": None, "train_on_all": False, "fold": None}
        split = {} if split_file is None else {**given, "split_file": str(split_file)}
        data = self.settings.datasets.model_copy(update={"unlabelled": [], **split, **changed})
        tuning = self.settings.finetuning.model_copy(update={"selftrain": None})
        return self.settings.model_copy(update={"datasets": data, "finetuning": tuning})

    def _draw_weights(self, unlabelled: int) -> dict[str, float]:
        """How often cases of each dataset are drawn; "" is those that the teacher labelled."""
        train = self.split.train
        weights = choose_draw_weights(train, self.settings.datasets.datasets).by_dataset
        total, share = sum(weights[case.dataset] for case in train), self.tuning.labelled_share
        most = total * (1 - share) / share / unlabelled
        return {**weights, "": min(most, total / len(train))}


# -------------------------------------------------------------------- internals
def _plan(settings: Settings, cohort: Cohort, resumed: RunFolder | None) -> _SelftrainPlan:
    """Which cases and scans there are; a run that is resumed keeps those that it wrote down."""
    settings = with_budget(settings, cohort.cases)
    engine = one_device(settings.lightning, "teacher and student train", "leave out self-training")
    settings = settings.model_copy(update={"lightning": engine})
    data = settings.datasets
    if resumed is not None and resumed.file(SPLITS).exists():
        data = data.model_copy(update={"split_file": str(resumed.file(SPLITS))})
    split = split_cases(cohort.cases, data, settings.seed)
    if resumed is not None and resumed.file(_SCANS).exists():
        scans = UnlabelledScans(_read_scans(resumed.file(_SCANS)), {})
    else:
        scans = find_unlabelled(data, cohort, split)
    return _SelftrainPlan(settings, cohort, split, scans)


def _to_dict(scan: UnlabelledScan) -> dict[str, object]:
    return vars(scan) | {"channels": [ref.to_dict() for ref in scan.channels]}


def _read_scans(file: Path) -> tuple[UnlabelledScan, ...]:
    shape = {"name": str, "subject": str, "channels": [{"path": str}], "dataset": str}
    return tuple(
        UnlabelledScan(**scan | {"channels": tuple(map(VolumeRef.from_dict, scan["channels"]))})
        for scan in read_json_list(file, shape)
    )


def _train_teacher(
    plan: _SelftrainPlan, run: RunFolder, run_experiment: RunExperiment
) -> list[str]:
    """The models that label the scans: those that are given, or one that is trained here."""
    if plan.tuning.teacher:
        return [*plan.tuning.teacher]
    console.say(f"\nteacher (1 of {plan.tuning.rounds + 1} runs)")
    folder = run.file(TEACHER)
    try:
        make_run(plan.of_teacher(run), folder, run_experiment)
    except UserError:
        if not run.resumed and not folder.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    return [str(folder)]


def _load_teachers(plan: _SelftrainPlan, teachers: Sequence[str]) -> ScanModel:
    """The mean of some models, each seeing a scan from several sides."""
    model = load_models(teachers, device=_device(plan.settings), say=console.say)
    if model.card.classes != plan.cohort.classes.names:
        raise ConfigError(
            "the teacher has other classes than the labelled cases",
            file=teachers[0],
            found=", ".join(model.card.classes),
            expected=", ".join(plan.cohort.classes.names),
            fix="give models of these classes, or none: finetuning.selftrain.teacher=[]",
        )
    return model.with_views(plan.tuning.views)


def _device(settings: Settings) -> str:
    return "cpu" if settings.lightning.accelerator == "cpu" else "auto"


def _train_student(
    plan: _SelftrainPlan,
    run: RunFolder,
    number: int,
    teachers: Sequence[str],
    run_experiment: RunExperiment,
) -> str:
    """Labels the scans and trains a student; returns its folder."""
    rounds, own = plan.tuning.rounds, not plan.tuning.teacher
    values = pseudo_values(plan.cohort.classes.names, plan.cohort.label_values)
    folder = run.file(f"labels_{number}")
    with console.progress("labelling scans") as tick:
        labels = label_scans(
            folder,
            plan.scans.scans,
            lambda: _load_teachers(plan, teachers),
            values,
            plan.tuning.plausible,
            tick,
        )
    console.say(f"\n{labels.line()}")
    console.say(f"student ({number + own} of {rounds + own} runs)")
    last = number == rounds
    student = run.file(FINAL if last else f"student_{number}")
    settings = plan.of_student(labels, teachers, last)
    longer = last and has_become_longer(student, settings)
    make_run(settings, student, run_experiment, longer=longer)
    return str(student)


def _conclude(plan: _SelftrainPlan, run: RunFolder) -> RunResult:
    """Brings the scores of teacher and student together, writes them down and shows them."""
    final, teacher = run.file(FINAL), run.file(TEACHER)
    first = teacher if teacher.exists() else final
    for folder, name in ((first, _BEFORE), *((final, name) for name in _AFTER)):
        if (folder / name).exists():
            write_scores(run.file(name), read_scores_if_any(folder / name))
    before, after = (read_scores_if_any(run.file(name)) for name in (_BEFORE, _AFTER[0]))
    taught = read_scores_if_any(teacher / _AFTER[0])
    gather_in_split(run.path, [final], SOURCE_TRAINED)
    result = read_json(final / RESULT, {})
    more = {"retention": result["retention"]} if "retention" in result else {}
    if taught:
        more["teacher"] = summarise(taught)
    budget = plan.settings.finetuning.budget
    write_result(run.path, before, after, budget, final=FINAL, **more)
    _show(plan, run, taught, after)
    write_report_of(run.path, plan.settings)
    return RunResult(run.path, before, after)


def _show(
    plan: _SelftrainPlan,
    run: RunFolder,
    taught: Sequence[ScoreRow],
    after: Sequence[ScoreRow],
) -> None:
    console.say("")
    if taught:
        console.console.print(comparison_table(taught, after, ("teacher", "student")))
    trained = also_trained(read_split(run.path), "validation")
    title = f"Student on validation cases{trained}"
    console.console.print(summary_table(summarise(after), title=title))
    if not plan.split.held_out:
        console.say("validation cases trained too: these scores are no measure of new scans")
    console.say(f"\neverything is in {run.path}")
    console.say(f"segment new scans: hsf-finetune predict {run.path} SCANS -o SEGMENTATIONS")
