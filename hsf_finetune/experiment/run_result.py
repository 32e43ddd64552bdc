"""The result of a run, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hsf_finetune.config.settings import Settings
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    comparison_table,
    summarise,
    summary_table,
)
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system.caller_state import kept_caller_state
from hsf_finetune.system.console import html_of, say
from hsf_finetune.system.errors import UserError


@dataclass(frozen=True)
class RunResult:
    """The result of a run. It shows its scores in a notebook.

    Args:
        folder: everything it wrote.
        before: validation scores of the model it started from; empty for random weights.
        after: validation scores of the epoch that is kept.
        first_fold: mean Dice of the first fold, if the run has folds.
        pruned: whether it ended after that one (`datasets.prune_below`), whose scores it then has.
    """

    folder: Path
    before: tuple[ScoreRow, ...]
    after: tuple[ScoreRow, ...]
    first_fold: float | None = None
    pruned: bool = False

    @property
    def dice(self) -> float:
        """Mean validation Dice after training, over cases and classes."""
        return mean_dice(self.after)

    def __float__(self) -> float:
        """What a search maximises."""
        return self.dice

    @cached_property
    @kept_caller_state()
    def model(self) -> Predictor:
        """The trained model, which segments scans.

        Raises:
            WeightsError: its checkpoint is damaged.
        """
        return Predictor.load(self.folder)

    def _repr_html_(self) -> str:
        if not self.before:
            return html_of(summary_table(summarise(self.after), title="Scores after training"))
        return html_of(comparison_table(self.before, self.after))


def mean_dice(rows: Sequence[ScoreRow]) -> float:
    """Mean Dice over cases and classes; NaN where none has one."""
    return float(np.nanmean([row.score.dice for row in rows] or [np.nan]))


def write_report_of(folder: Path, settings: Settings) -> None:
    """Writes report.html of a run that has ended; that it cannot be made is said, and no error.

    Args:
        folder: of the run.
        settings: of the run.
    """
    if settings.report == "off":
        return
    # Imported late, so that training starts sooner: its pictures need Matplotlib.
    from hsf_finetune.report.save_report import save_report

    try:
        save_report(folder)
    except UserError as error:
        say(f"warning: there is no report: {error}")
