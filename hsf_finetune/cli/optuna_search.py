"""Optuna's search with runs of folds: one that begins badly ends after its first fold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra_plugins.hydra_optuna_sweeper import _impl
from optuna.trial import Trial, TrialState

_BELOW = "datasets.prune_below"
_TRIALS_BEFORE = 5
"""Trials that end before one is pruned, as for Optuna's MedianPruner."""


def prune_searches() -> None:
    """Makes `hydra/sweeper=optuna` a search that prunes.

    Hydra's plugin tells the study that every trial is complete, and offers no way to tell it
    otherwise (github.com/facebookresearch/hydra/issues/1954); its sweeper makes an object of the
    class that is replaced here.
    """
    _impl.OptunaSweeperImpl = PruningSearch


class PruningSearch(_impl.OptunaSweeperImpl):  # type: ignore[misc]
    """Gives each run the mean Dice below which its first fold ends it, and the study its state.

    The bound is the median of the first folds of the trials that were completed before (the
    median stopping rule, Golovin et al., KDD 2017, doi 10.1145/3097983.3098043, as Optuna's
    MedianPruner has it). It is a setting of the run, which needs no access to the study.
    """

    def setup(self, **given: Any) -> None:
        """Makes the launcher, and reads what its runs return."""
        super().setup(**given)
        self.reports = _Reports(self.launcher)
        self.launcher: Launcher = self.reports

    def sweep(self, arguments: list[str]) -> None:
        """Searches. What a run raised is told by who launched it, also where none was complete."""
        try:
            super().sweep(arguments)
        except ValueError:
            trials = [trial.study.trials for trial in self.reports.trials[:1]]
            if not trials or any(one.state == TrialState.COMPLETE for one in trials[0]):
                raise

    def _configure_trials(
        self, trials: list[Trial], distributions: Mapping[str, Any], fixed: Mapping[str, Any]
    ) -> Sequence[Sequence[str]]:
        jobs: Sequence[Sequence[str]] = super()._configure_trials(trials, distributions, fixed)
        study = trials[0].study
        self.reports.begin(trials)
        study.tell = self.reports.tell
        bound = _bound_of(study)
        if bound is None or any(name.lstrip("+") == _BELOW for name in fixed):
            return jobs
        return [(*job, f"++{_BELOW}={bound}") for job in jobs]


class _Reports(Launcher):
    """A launcher that tells the study what the runs' first folds were.

    Args:
        launcher: what launches the runs.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.trials: Sequence[Trial] = ()
        self.pruned: set[int] = set()

    def setup(self, **given: Any) -> None:
        """The launcher is set up already."""

    def begin(self, trials: Sequence[Trial]) -> None:
        """Notes which trials the next runs are."""
        self.trials = trials

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Launches runs, and reports their first folds."""
        returned = self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        for trial, job in zip(self.trials, returned, strict=True):
            result = job.return_value if job.status == JobStatus.COMPLETED else None
            first_fold = getattr(result, "first_fold", None)
            if first_fold is not None:
                trial.report(first_fold, step=0)
            if getattr(result, "pruned", False):
                self.pruned.add(trial.number)
        return returned

    def tell(self, trial: Trial, values: Any = None, state: Any = TrialState.COMPLETE) -> None:
        """Ends a trial, as `Study.tell` does; one that was pruned has its last report's value."""
        if trial.number in self.pruned and state == TrialState.COMPLETE:
            values, state = None, TrialState.PRUNED
        optuna.study.Study.tell(trial.study, trial, values, state)


def _bound_of(study: optuna.Study) -> float | None:
    """The median of the first folds of a study's complete trials; None for too few."""
    firsts = [
        trial.intermediate_values[0]
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE and 0 in trial.intermediate_values
    ]
    return statistics.median(firsts) if len(firsts) >= _TRIALS_BEFORE else None
