"""A run from start to end: discover, prepare, fit, compare."""

from __future__ import annotations

import torch

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.phantom.write_phantoms import make_phantom_cohort
from hsf_finetune.data.splits import fold_count
from hsf_finetune.experiment.active_run import fit, open_run
from hsf_finetune.experiment.child_runs import make_run
from hsf_finetune.experiment.folds import run_folds
from hsf_finetune.experiment.resume import find_run, keep_cases, withdraw_run_dir_afterwards
from hsf_finetune.experiment.run_result import RunResult
from hsf_finetune.experiment.selftrain import run_selftrain
from hsf_finetune.planning.auto_precision import with_precision
from hsf_finetune.planning.auto_sizes import with_sizes
from hsf_finetune.planning.phantom_source import (
    phantom_source_folder,
    phantom_source_settings,
    starts_from_phantom_source,
)
from hsf_finetune.planning.setup import prepare
from hsf_finetune.planning.unlabelled import require_unlabelled
from hsf_finetune.system import console
from hsf_finetune.system.interruption import heed_interrupts
from hsf_finetune.system.run_folder import RunFolder, has_ended
from hsf_finetune.system.slurm_job import queue_again_when_preempted


def run_experiment(settings: Settings) -> RunResult:
    """Trains, or fine-tunes, as the settings say, and scores the model before and after.

    Nothing is written before the data, the weights and the schedule are known to fit.

    Raises:
        UserError: anything the user can mend.
    """
    if settings.finetuning.selftrain is not None:
        require_unlabelled(settings.datasets)
    requeue = settings.lightning.requeue
    with (
        heed_interrupts(),
        withdraw_run_dir_afterwards(settings),
        queue_again_when_preempted(requeue),
    ):
        resumed = find_run(settings)
        cohort = keep_cases(find_inputs(settings, resumed), resumed)
        folds = fold_count(cohort.cases, settings.datasets)
        if folds is not None:
            return run_folds(settings, cohort, folds, resumed, run_experiment)
        if settings.finetuning.selftrain is not None:
            return run_selftrain(settings, cohort, resumed, run_experiment)
        setup = with_precision(with_sizes(prepare(settings, cohort, resumed)))
        with open_run(setup) as run:
            before = run.begin()
            fit(run, before)
            return run.conclude(before)


def find_inputs(settings: Settings, resumed: RunFolder | None = None) -> Cohort:
    """The cases of a run, after what the embedded default consists of was made.

    Args:
        settings: of the run.
        resumed: the run to resume, which has weights of its own once an epoch has ended.

    Raises:
        UserError: the files do not fit their description.
    """
    if settings.lightning.threads:
        torch.set_num_threads(settings.lightning.threads)
    make_phantom_cohort(settings.datasets)
    cohort = discover(settings.datasets, settings.models)
    if starts_from_phantom_source(settings) and not (resumed and resumed.last):
        _train_phantom_source(settings, cohort, resumed)
    return cohort


# -------------------------------------------------------------------- internals
def _train_phantom_source(settings: Settings, cohort: Cohort, resumed: RunFolder | None) -> None:
    """Trains the phantom source model, once; it is kept in the user's cache."""
    folder = phantom_source_folder(settings)
    if not has_ended(folder):
        # What the run would refuse is refused before a model is trained for it.
        data = settings.datasets.model_copy(update={"retention": {}})
        prepare(settings.model_copy(update={"datasets": data}), cohort, resumed, preview=True)
        console.say(f"training the phantom source model once (kept in {folder})")
        make_run(phantom_source_settings(settings), folder, run_experiment)
        console.say("the phantom source model is ready\n")
