"""Rates that follow validation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.training.metrics_file import read_metrics
from tests.conftest import CONF, FAST


def test_rates_on_a_plateau_are_those_of_pytorch(data: Path, outputs: Path) -> None:
    overrides = (
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={outputs}",
        "datasets.k_sample=1",
        "finetuning=full",
        "finetuning.pretrained=none",
        "finetuning.warmup=0",
        "finetuning.lr_schedule=plateau",
        "finetuning.lr_drop_epochs=2",
        "finetuning.lr_drop_factor=0.5",
        "finetuning.final_lr_factor=0.2",
        "finetuning.ema_decay=null",
        "calibration=off",
        "lightning.max_epochs=16",
        "models.lr=3e-2",
        *FAST,
    )
    metrics = read_metrics(
        run_experiment(compose("finetune", overrides, CONF)).folder / "metrics.csv"
    )
    rates = [float(row["schedule/lr/head"]) for row in metrics]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rates[0])
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.5, patience=1, threshold=0, min_lr=0.2 * rates[0], eps=0
    )
    for row, rate in zip(metrics, rates, strict=True):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        reference.step(float(row["val/dice"]))
    assert len(set(rates)) > 2, "rates fell less than twice"
