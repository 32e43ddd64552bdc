"""Runs that are made one after the other, each in a folder of its own below a common one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hsf_finetune.config.settings import Settings
from hsf_finetune.system import console
from hsf_finetune.system.run_folder import has_ended

RunExperiment = Callable[[Settings], object]
"""Makes one run, as `hsf_finetune.experiment.run.run_experiment` does."""


def make_run(
    settings: Settings, folder: Path, run_experiment: RunExperiment, longer: bool = False
) -> None:
    """Makes a run, resumes it, or leaves it as it is, if it has ended.

    It writes no report of its own: that of the whole has everything.

    Args:
        settings: of the run.
        folder: of the run.
        run_experiment: what makes it.
        longer: resume it even if it has ended, since it is to have more epochs.

    Raises:
        UserError: anything the user can mend.
    """
    begun = (folder / "config.yaml").exists()
    if has_ended(folder) and not (longer or "epoch" in settings.reset):
        console.say(f"this run has ended already: {folder}")
        return
    where = {"run_dir": str(folder), "resume": str(folder) if begun else None, "report": "off"}
    reset: dict[str, list[str]] = {} if begun else {"reset": []}
    run_experiment(settings.model_copy(update={**where, **reset}))
