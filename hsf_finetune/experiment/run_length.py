"""How long a run is, and how long it is to be: of a run of several, by the runs that it consists of."""

from __future__ import annotations

from pathlib import Path

from hsf_finetune.config.settings import Settings
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import epochs_done, has_ended, planned_epochs, runs_in

TEACHER = "teacher"
"""Folder, in that of a run of self-training, of the model that labels the scans."""


def has_become_longer(folder: Path, settings: Settings) -> bool:
    """Whether a run that has ended was shorter than it is to be."""
    before, (_, wanted) = _planned(folder, settings), length_of(settings)
    return has_ended(folder) and wanted is not None and 0 < before < wanted


def length_of(settings: Settings) -> tuple[str, int | None]:
    """The one setting by which a run may become longer than it was, and its value."""
    selftrain = settings.finetuning.selftrain
    if selftrain and selftrain.max_epochs is not None:
        return "finetuning.selftrain.max_epochs", selftrain.max_epochs
    return "lightning.max_epochs", settings.lightning.max_epochs


def epochs_behind(folder: Path, settings: Settings) -> int:
    """Epochs that a run has behind it.

    Of a run of several that has ended they are those planned, since such as stopped early are
    resumed for more than these alone.
    """
    runs = _runs_of_length(folder, settings)
    done = max(map(epochs_done, runs))
    return max(done, _planned(folder, settings)) if has_ended(folder) and len(runs) > 1 else done


def epochs_before_and_now(folder: Path, settings: Settings) -> tuple[int, int]:
    """Epochs of a run as it was planned, and now, which are more than it has trained for.

    Raises:
        ConfigError: they are not.
    """
    before, done = _planned(folder, settings), epochs_behind(folder, settings)
    length, now = length_of(settings)
    if now is None or (now <= done and "epoch" not in settings.reset):
        raise ConfigError(
            f"{length}={'null' if now is None else now} is no more than the "
            f"{count_of(done, 'epoch')} that the run has behind it",
            file=folder,
            expected=f"more than {done}, or as it was: {before}",
        )
    return before, now


# -------------------------------------------------------------------- internals
def _runs_of_length(folder: Path, settings: Settings) -> list[Path]:
    """The runs in a run whose length that setting decides."""
    return runs_in(folder, TEACHER if "selftrain" in length_of(settings)[0] else None)


def _planned(folder: Path, settings: Settings) -> int:
    return max(map(planned_epochs, _runs_of_length(folder, settings)))
