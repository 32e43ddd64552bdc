"""What can be done with a model that is there: predict and evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.evaluation.finished_runs import fold_folders
from hsf_finetune.evaluation.score_files import parse_names, score_files
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import (
    ScoreRow,
    protocol_table,
    summarise,
    summary_table,
    write_scores,
)
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.segment_files import plan_jobs, run_jobs
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError, OutputError


def predict(
    model: str,
    scans: Sequence[str],
    output: Path,
    *,
    checkpoint: Literal["best", "last"],
    key: str | None,
    device: str,
    overwrite: bool,
) -> int:
    """Segments scans and says what became of each; returns 1 if any failed.

    Raises:
        UserError: nothing can be segmented at all.
    """
    jobs = plan_jobs(scans, output, key)
    predictor = Predictor.load(model, checkpoint, device)
    with console.progress("segmenting") as tick:
        outcomes = run_jobs(predictor, jobs, overwrite, tick)
    fates = [outcome.fate for outcome in outcomes]
    for outcome in outcomes:
        if outcome.error is not None:
            console.say(f"failed: {outcome.error}")
        for remark in outcome.remarks:
            console.say(f"segmented, but look at it: {remark.error()}")
    skipped = fates.count("skipped")
    console.say(
        f"{fates.count('written')} written to {output}, {fates.count('failed')} failed, "
        f"{skipped} skipped" + (" because they exist (--overwrite redoes them)" if skipped else "")
    )
    return 1 if "failed" in fates else 0


def evaluate_run(
    run: Path,
    side: Literal["train", "validation", "test"],
    tolerance_mm: float,
    output: Path | None,
    device: str,
) -> None:
    """Scores a run's best model on one side of its split.

    Of a run of several folds, every case is scored by the fold that did not train on it.

    Raises:
        UserError: the folder is no run, that side has no case, or the output exists.
    """
    _check_free(output)
    config = run / "config.yaml"
    if not config.exists():
        raise ConfigError(
            "not the folder of a run",
            file=run,
            expected="a folder with config.yaml, splits.json and checkpoints",
            fix="to compare files: hsf-finetune evaluate PREDICTION LABEL",
        )
    folds = fold_folders(run)
    if folds and side != "validation":
        raise ConfigError(
            f"a run of {len(folds)} folds has no {side} side of its own",
            file=run,
            fix=f"--split validation, or one of its folds: hsf-finetune evaluate {folds[0]}",
        )
    rows = [row for part in folds or [run] for row in _scores(part, side, tolerance_mm, device)]
    cases = len({row.case for row in rows})
    _report(rows, output, f"{run.name} on {cases} {side} cases")


def _scores(
    run: Path, side: Literal["train", "validation", "test"], tolerance_mm: float, device: str
) -> list[ScoreRow]:
    settings = Settings.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    datasets = settings.datasets.model_copy(update={"split_file": str(run / "splits.json")})
    split = split_cases(discover(datasets, settings.models).cases, datasets, settings.seed)
    cases = split.side(side)
    if not cases:
        raise ConfigError(f"the run's split has no {side} cases", file=run / "splits.json")
    predictor = Predictor.load(run, "best", device)
    with console.progress(f"scoring {side} cases") as tick:
        return score_cases(predictor, cases, tolerance_mm, tick)


def evaluate_files(
    prediction: Path, label: Path, names: str, tolerance_mm: float, output: Path | None
) -> None:
    """Scores segmentations on disk against their labels.

    Raises:
        UserError: they do not pair, cannot be read, or the output exists.
    """
    _check_free(output)
    rows = score_files(prediction, label, parse_names(names), tolerance_mm)
    _report(rows, output, f"{prediction} against {label}")


def _report(rows: Sequence[ScoreRow], output: Path | None, title: str) -> None:
    console.console.print(summary_table(summarise(rows), title=title))
    by_protocol = protocol_table(rows)
    if by_protocol is not None:
        console.console.print(by_protocol)
    if output is not None:
        write_scores(output, rows)
        console.say(f"every case: {output}")


def _check_free(output: Path | None) -> None:
    """Refuses to overwrite scores, before any work is done."""
    if output is not None and output.exists():
        raise OutputError("the file exists", file=output, fix="give another -o")
