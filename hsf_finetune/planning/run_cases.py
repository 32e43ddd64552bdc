"""The cases of a finished run, which tell whether a scan is new to its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.run_folder import SPLITS
from hsf_finetune.weights.sources.read_source import find_checkpoint


@dataclass(frozen=True)
class RunCases:
    """The cases of a run.

    Args:
        datasets: its settings, with the split that it used.
        cohort: its cases.
        split: which of them train, validate and test.
    """

    datasets: DatasetsSettings
    cohort: Cohort
    split: Split


def read_run_cases(run: Path) -> RunCases:
    """The cases of a run, from its folder.

    Raises:
        UserError: it is no folder of a run, or its cases are not where they were.
    """
    settings = read_settings_of(run)
    data = settings.datasets.model_copy(
        update={"split_file": str(run / SPLITS), "train_val_test_idx": None, "fold": None}
    )
    cohort = discover(data, settings.models)
    return RunCases(data, cohort, split_cases(cohort.cases, data, settings.seed))


def find_run(model: str | Path) -> Path | None:
    """The folder of the run that a model is of; None where it is not known."""
    try:
        run = find_checkpoint(model).absolute().parent.parent
    except WeightsError:
        return None  # weights by others, or those of a name or an address
    return run if all((run / name).exists() for name in ("config.yaml", SPLITS)) else None
