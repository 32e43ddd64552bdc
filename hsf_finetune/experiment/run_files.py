"""Whether the files of a run that is to be resumed are all there, and can be read."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import torch

from hsf_finetune.config.settings import Settings
from hsf_finetune.system.atomic_files import atomic_write, first_free
from hsf_finetune.system.console import count_of, say
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import BEST, LAST, PREVIOUS, SPLITS, RunFolder
from hsf_finetune.training.metrics_file import read_metrics


def check_files(run: RunFolder, settings: Settings) -> None:
    """Falls back to the checkpoint before the newest where that is damaged, and warns of gaps.

    Raises:
        ConfigError: no checkpoint can be read, or that of the best epoch is gone.
    """
    last, previous = run.checkpoints / LAST, run.checkpoints / PREVIOUS
    checkpoint = _read(last)
    if checkpoint is None and previous.exists():
        checkpoint = _read(previous)
        if checkpoint is not None:
            say(f"{LAST} is {'damaged' if last.exists() else 'missing'}: resuming from {PREVIOUS}")
            with atomic_write(last) as temporary:
                shutil.copyfile(previous, temporary)
    if checkpoint is None:
        if last.exists() or previous.exists():
            raise ConfigError(
                "no checkpoint of the run can be read",
                file=last,
                fix="put back a copy of it, or start a new run",
            )
        return
    best = run.checkpoints / BEST
    ended = int(checkpoint["epoch"]) + 1
    if settings.finetuning.budget != "fixed" and _has_best(checkpoint) and _read(best) is None:
        raise ConfigError(
            f"the checkpoint of the run's best epoch is {'damaged' if best.exists() else 'missing'}",
            file=best,
            fix=f"put it back, or start a new run from the newest: finetuning.pretrained={last}",
        )
    missing = ended - len(_read_epochs(run.file("metrics.csv")) & {*range(ended)})
    if missing:
        say(f"warning: metrics.csv lacks {count_of(missing, 'epoch')} of {ended}")
    if not run.file(SPLITS).exists():
        say(f"warning: {SPLITS} is missing: the cases are split anew, as the settings say")
    if settings.weights.pretrained != "none" and not run.file("pretrained_scores.csv").exists():
        say(
            "warning: pretrained_scores.csv is missing: the trained model will not be compared "
            "with the pretrained one"
        )


def _read_epochs(metrics: Path) -> set[int]:
    """The epochs in metrics.csv; a damaged file is renamed, so that a new one can be begun."""
    try:
        return {int(row["epoch"]) for row in read_metrics(metrics)}
    except FileNotFoundError:
        return set()
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        renamed = metrics.rename(first_free(metrics.with_name("damaged_metrics.csv")))
        say(f"warning: metrics.csv cannot be read; it is now {renamed.name}")
        return set()


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint; None where there is none, or it is damaged."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever a damaged file makes of the reader
        return None
    return content if isinstance(content, dict) and "epoch" in content else None


def _has_best(checkpoint: dict[str, Any]) -> bool:
    """Whether an epoch had been the best one when the checkpoint was saved."""
    states = checkpoint.get("callbacks", {}).values()
    return any(isinstance(s, dict) and s.get("best_model_path", "").endswith(BEST) for s in states)
