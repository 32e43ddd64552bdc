"""A run with a report, made once."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.experiment.run import run_experiment
from tests.conftest import CONF, FAST


def finetune(data: Path, outputs: Path, source: Path, *more: str) -> Path:
    """The folder of a short run on the tiny cohort, or of its folds."""
    overrides = (
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        f"finetuning.pretrained={source}",
        "lightning.max_epochs=2",
        *FAST,
        "report=on",
        *more,
    )
    return run_experiment(compose("finetune", overrides, CONF)).folder


@pytest.fixture(scope="session")
def run(data: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; read only."""
    return finetune(data, tmp_path_factory.mktemp("outputs"), source_run)


def text_of(file: Path) -> str:
    html = file.read_text(encoding="utf-8")
    markup = re.sub(r"<(script|style|svg).*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", markup)))


def reported(run: Path) -> Path:
    """The report of a run, without pictures of its cases, made by the command."""
    with pytest.raises(SystemExit) as stop:
        main(["report", str(run), "--cases", "0"])
    assert stop.value.code == 0
    return run / "report.html"
