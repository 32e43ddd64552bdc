"""A run while it takes place: its data read, its folder open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from hsf_finetune.data.census import Census, check_census, classes_without_labels, write_census
from hsf_finetune.data.ledger import write_ledger
from hsf_finetune.data.loading.datamodule import CasesDataModule
from hsf_finetune.evaluation.finished_runs import read_scores_if_any, write_result
from hsf_finetune.evaluation.score_model import Keep, score_cases
from hsf_finetune.evaluation.score_tables import ScoreRow, summarise, write_scores
from hsf_finetune.experiment import summary
from hsf_finetune.experiment.quality_lessons import learn_quality
from hsf_finetune.experiment.resume import lock_run, open_folder, publish_run_dir
from hsf_finetune.experiment.retention import score_source_after, score_source_before
from hsf_finetune.experiment.run_result import RunResult, write_report_of
from hsf_finetune.experiment.validation_lessons import ValidationLessons, lessons_to_dict
from hsf_finetune.inference.model_card import NO_POSTPROCESSING
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.forecast_run import write_forecast
from hsf_finetune.planning.old_classes import outline_warnings
from hsf_finetune.planning.plan_run import show_plan
from hsf_finetune.planning.setup import Setup
from hsf_finetune.planning.source_model import check_new_head, few_cases
from hsf_finetune.report.trained_cases import explain_no_lessons
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.cache import sweep
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.processes import is_main_process
from hsf_finetune.system.run_folder import (
    LEDGER,
    SPLITS,
    RunFolder,
    fold_folders,
    named_when_interrupted,
)
from hsf_finetune.training.train import fit_model

Scores = tuple[ScoreRow, ...]


@dataclass(frozen=True)
class ActiveRun:
    """A run between the reading of its data and its end.

    Args:
        setup: everything that was decided before.
        data: loaders, whose cases are read.
        census: side of the split -> what supervises each class.
        folder: where it writes.
        kept_in: where the cases are cached.
    """

    setup: Setup
    data: CasesDataModule
    census: dict[str, Census]
    folder: RunFolder
    kept_in: str

    def begin(self) -> Scores:
        """Writes down and prints what is going to happen, and scores the model it starts from.

        Returns:
            Validation scores of that model; empty for random weights, and in all processes
            but the main one.
        """
        if not is_main_process():
            return ()
        setup = self.setup
        summary.announce_run(self.folder, setup, self.kept_in)
        is_new = not self.folder.resumed or self.folder.longer is not None
        if is_new:
            summary.show_labels(self.census["train"], self.data.flips, self.data.draws)
        self._write_down()
        if is_new:
            show_plan(setup)
        write_forecast(setup, self.folder, self.data)
        if setup.transfer:
            self._check_transfer()
        before = self._score_before()
        if setup.source_task and setup.transfer:
            score_source_before(setup, self.folder)
        publish_run_dir(self.folder, setup.settings)
        return before

    def conclude(self, before: Scores) -> RunResult:
        """Scores the trained model, shows it beside the one before, and writes result.json."""
        if not is_main_process():
            return RunResult(self.folder.path, (), ())
        # Imported late, so that training starts sooner: Matplotlib takes a second.
        from hsf_finetune.schedule.display.schedule_picture import save_picture

        setup = self.setup
        save_picture(setup.schedule, self.folder.file("schedule.png"))
        predictor = Predictor.load(self.folder.path, "best", str(setup.device))
        after, predictor = self._score_after(predictor)
        if setup.split.test:
            self._score(predictor, "scoring the test cases", "test_scores.csv", "test")
        summary.show_scores(self.folder, setup, before, after)
        retained = score_source_after(setup, self.folder) if setup.source_task else None
        more = lessons_to_dict(predictor.card) | ({"retention": retained} if retained else {})
        write_result(self.folder.path, before, after, setup.settings.finetuning.budget, **more)
        write_report_of(self.folder.path, setup.settings)
        sweep()
        return RunResult(self.folder.path, before, after)

    def _write_down(self) -> None:
        setup, file = self.setup, self.folder.file
        if not file(SPLITS).exists():
            write_json(file(SPLITS), setup.split.to_dict())
        write_ledger(file(LEDGER), setup.cohort, setup.split)
        write_census(file("census.csv"), self.census)
        write_json(file("schedule.json"), setup.schedule.to_dict())
        if setup.report:
            write_json(file("check.json"), setup.report.to_dict())

    def _check_transfer(self) -> None:
        """Proves on one case that the new head predicts what the old one did; keeps the receipt."""
        setup = self.setup
        assert setup.transfer is not None
        first, *others = few_cases(setup.split.validation)
        checked = check_new_head(setup, first)
        for line in checked.lines() if checked else ():
            console.say(line)
        # The new head is proven by one case, what the source may teach is not.
        is_taught = setup.settings.finetuning.keep_old == "everywhere"
        more = (check_new_head(setup, case) for case in others if is_taught)
        try:
            for line in outline_warnings(setup.settings, [c for c in (checked, *more) if c]):
                console.say(f"warning: {line}")
        except ConfigError:
            if setup.resumed is None:
                shutil.rmtree(self.folder.path, ignore_errors=True)  # nothing is trained in it
            raise
        receipt = setup.transfer.receipt.to_dict()
        write_json(self.folder.file("transfer.json"), {**receipt, "head_check": checked})

    def _score_before(self) -> Scores:
        """Scores of the model that the run starts from, which a resumed run reads back."""
        setup, name = self.setup, "pretrained_scores.csv"
        if setup.transfer is None:
            return read_scores_if_any(self.folder.file(name))
        predictor = Predictor(setup.anatomy, setup.card, setup.device)
        if setup.split.test:
            what = "scoring the pretrained model on test cases"
            self._score(predictor, what, "pretrained_test_scores.csv", "test")
        return self._score(predictor, "scoring the pretrained model", name)

    def _score_after(self, predictor: Predictor) -> tuple[Scores, Predictor]:
        """Validation scores of the trained model, and the model with what they teach about it."""
        what, name = "scoring the model", "validation_scores.csv"
        if not self.setup.split.held_out:
            # The final model of folds gets what they have learnt.
            if not fold_folders(self.folder.path.parent):
                for line in explain_no_lessons(self.setup.settings, predictor.card):
                    console.say(line)
            return self._score(predictor, what, name), predictor
        lessons = ValidationLessons(self.setup.settings, len(self.setup.split.validation))
        plain = replace(predictor.card, calibration=None, postprocessing=NO_POSTPROCESSING)
        after = self._score(predictor.with_card(plain), what, name, keep=lessons.take)
        learned = predictor.with_card(lessons.learn(self.folder, predictor.card))
        if learned.card.postprocessing:
            after = self._score(learned, "scoring it with post-processing", name)
        setup = self.setup
        cases = setup.split.validation
        return after, learn_quality(setup.settings, self.folder, learned, cases)

    def _score(
        self,
        predictor: Predictor,
        what: str,
        name: str,
        side: str = "validation",
        keep: Keep | None = None,
    ) -> Scores:
        with console.progress(what) as tick:
            rows = score_cases(predictor, self.setup.split.side(side), None, tick, keep)
        write_scores(self.folder.file(name), rows)
        return tuple(rows)


@contextmanager
def open_run(setup: Setup) -> Iterator[ActiveRun]:
    """Reads the cases of a run and opens its folder.

    Raises:
        DataError: a case cannot be used, or nothing supervises a class.
        ConfigError: the folder that `run_dir` names is in use.
        OutputError: it cannot be made.
    """
    data = make_data(setup)
    with console.progress("reading cases") as tick:
        kept_in = data.read(tick)
    setup = setup.with_sides(data.flips)
    census = data.take_censuses()
    check_census(census["train"], classes_without_labels(setup.settings, setup.cohort))
    folder = open_folder(setup.requested, setup.resumed)
    if not is_main_process():
        yield ActiveRun(setup, data, census, folder, kept_in)
        return
    with lock_run(folder), named_when_interrupted(folder):
        yield ActiveRun(setup, data, census, folder, kept_in)


def make_data(setup: Setup) -> CasesDataModule:
    """The loaders of a run; its cases are not read yet."""
    settings, divisor = setup.settings, setup.anatomy.divisor
    how = (settings.augmentation, setup.card.preprocessing)
    return CasesDataModule(setup.split, settings.datasets, divisor, settings.seed, *how)


def fit(run: ActiveRun, before: Scores) -> None:
    """Trains the network of a run, in place."""
    baseline = summarise(before)[-1].dice.mean if before else None
    fit_model(run.setup.job, run.folder, run.data, baseline)
