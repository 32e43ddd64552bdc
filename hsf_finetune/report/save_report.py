"""The report of a run or of a comparison, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hsf_finetune.evaluation.compare_runs import Comparison, compare_runs
from hsf_finetune.evaluation.evaluate import Evaluation
from hsf_finetune.inference.scan_jobs import JobResult
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.report.comparison_report import report_comparison
from hsf_finetune.report.page import Page
from hsf_finetune.report.prediction_report import report_predictions
from hsf_finetune.report.run_report import report_run
from hsf_finetune.report.score_sections import report_scores
from hsf_finetune.system.console import say
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import REPORT

_COMPARISON = "compare.json"


def save_report(
    folder: Path, output: Path | None = None, cases: int = 4, device: str = "auto"
) -> Path:
    """Writes the report of a run, of its folds or of a comparison.

    Args:
        folder: of the run or the comparison.
        output: file to write; None is report.html in the folder, which is replaced.
        cases: how many of a run's worst cases are shown.
        device: as for `Predictor.load`.

    Returns:
        The file.

    Raises:
        UserError: the folder is neither, the run has not ended, or the file cannot be written.
    """
    if (folder / _COMPARISON).exists():
        return _save(report_comparison(_read_comparison(folder)), output or folder / REPORT)
    return _save(report_run(folder, cases, device), output or folder / REPORT)


def save_comparison_report(compared: Comparison) -> None:
    """Writes the report of a comparison that has been saved, into its folder."""
    assert compared.folder is not None
    _save(report_comparison(compared), compared.folder / REPORT)


def save_scores_report(evaluation: Evaluation, path: Path) -> None:
    """Writes the report of segmentations that were compared with labels."""
    _save(report_scores(evaluation), path)


def save_predictions_report(
    results: Sequence[JobResult], model: ScanModel, path: Path, cases: int = 4
) -> None:
    """Writes the report of scans that were segmented."""
    _save(report_predictions(results, model, cases), path)


def _save(page: Page, path: Path) -> Path:
    page.save(path)
    say(f"report: {path}")
    return path


def _read_comparison(folder: Path) -> Comparison:
    shape = {"side": str, "reference": str, "runs": [{"folder": object}]}
    written = read_json(folder / _COMPARISON, shape)
    runs = [Path(one["folder"]) for one in written["runs"] if one["folder"]]
    return compare_runs(runs, reference=written["reference"], side=written["side"])
