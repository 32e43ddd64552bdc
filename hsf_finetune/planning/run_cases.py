"""The cases of a finished run, which tell whether a scan is new to its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.splits import Split, split_cases
from hsf_finetune.system.run_folder import SPLITS


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
